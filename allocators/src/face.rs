//! Faces: the ways to reach a buffer's pages.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::str::FromStr;

use crate::UnknownName;

/// A way to reach a buffer's pages.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaceKind {
    /// A memfd, to be mapped by the CPU.
    Memory,
    /// A dma-buf, to be imported by a device or another API.
    DmaBuf,
    /// A registration for RDMA.
    Mr,
}

impl FaceKind {
    /// The name used in output and settings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::DmaBuf => "dma-buf",
            Self::Mr => "mr",
        }
    }
}

impl fmt::Display for FaceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for FaceKind {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        [Self::Memory, Self::DmaBuf, Self::Mr]
            .into_iter()
            .find(|kind| kind.as_str() == name)
            .ok_or_else(|| UnknownName { what: "face", name: name.into(), known: "memory, dma-buf, mr" })
    }
}

/// What keeps those who hold a face from writing.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AccessMode {
    /// The kernel forbids others to write.
    Enforced,
    /// Others could write, and are trusted not to.
    Cooperative,
}

impl AccessMode {
    /// The name used in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enforced => "enforced",
            Self::Cooperative => "cooperative",
        }
    }
}

impl fmt::Display for AccessMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One face of a buffer, as it is handed to a peer.
#[derive(Clone, Copy, Debug)]
pub struct Face<'a> {
    /// Which way.
    pub kind: FaceKind,
    /// The descriptor to pass on.
    pub fd: BorrowedFd<'a>,
    /// What keeps the peer from writing through it.
    pub access: AccessMode,
}
