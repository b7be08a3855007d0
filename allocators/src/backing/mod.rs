//! Backings: where pages come from. One trait, one file per implementation, one conformance suite.

use std::fmt::{self, Debug};
use std::str::FromStr;

use crate::{AllocError, Buffer, MAX_BUFFER_SIZE, UnknownName};

mod auto;
mod device;
mod dma_heap;
mod drm_dumb;
mod exported;
mod headroom;
mod hugetlb;
mod memfd;
mod sealed;

pub use auto::{BackingChoice, Fallback, WithFallback, open};
pub use dma_heap::DmaHeapBacking;
pub use drm_dumb::DrmDumbBacking;
pub use hugetlb::HugetlbBacking;
pub use memfd::MemfdBacking;
#[cfg(feature = "fault-injection")]
pub use sealed::Fault;

use device::DeviceBacking;

/// Where the pages of a buffer come from.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BackingKind {
    /// A memfd of ordinary pages.
    Memfd,
    /// A memfd of reserved huge pages (2 MiB).
    Hugetlb,
    /// /dev/dma_heap.
    DmaHeap,
    /// A dumb buffer of a DRM device.
    DrmDumb,
    /// Someone else's dma-buf or sealed memfd.
    Imported,
}

impl BackingKind {
    const ALL: [Self; 5] = [Self::Memfd, Self::Hugetlb, Self::DmaHeap, Self::DrmDumb, Self::Imported];

    /// The name used in output and settings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Memfd => "memfd",
            Self::Hugetlb => "hugetlb",
            Self::DmaHeap => "dma-heap",
            Self::DrmDumb => "drm-dumb",
            Self::Imported => "imported",
        }
    }
}

impl fmt::Display for BackingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for BackingKind {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name).ok_or_else(|| UnknownName {
            what: "backing",
            name: name.into(),
            known: "memfd, hugetlb, dma-heap, drm-dumb, imported",
        })
    }
}

/// What is asked of a buffer besides its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Wants {
    /// Devices must be able to import it: a dma-buf face, or an error that names the conflict.
    pub importable: bool,
    /// Nobody else may be able to write it: a memory face that the kernel enforces, or an error
    /// that names the conflict. (A dma-buf face of the same pages stays cooperative; with this
    /// set, hand it only to those who may write.)
    pub read_only: bool,
    /// Make a dma-buf face where the machine can. Implied by `importable`.
    pub offer_dma_buf: bool,
}

impl Default for Wants {
    fn default() -> Self {
        Self { importable: false, read_only: false, offer_dma_buf: true }
    }
}

/// Makes buffers.
pub trait Backing: Send + Sync + Debug {
    /// Where its pages come from.
    fn kind(&self) -> BackingKind;

    /// Sizes are rounded up to a multiple of this.
    fn granularity(&self) -> usize;

    /// Whether it can be used at all: a device that is not open yet is opened.
    ///
    /// # Errors
    /// What is in the way, and what would help.
    fn check(&self) -> Result<(), AllocError> {
        Ok(())
    }

    /// Makes a buffer of at least `size` bytes, all zero, every page of which is there already.
    fn allocate(&self, size: usize, wants: &Wants) -> Result<Buffer, AllocError>;
}

/// A size that a buffer may have, rounded up.
fn rounded(size: usize, granule: usize) -> Result<usize, AllocError> {
    if size == 0 {
        return Err(AllocError::ZeroSize);
    }
    if size as u64 > MAX_BUFFER_SIZE {
        return Err(AllocError::TooLarge { size: size as u64, limit: MAX_BUFFER_SIZE });
    }
    Ok(size.next_multiple_of(granule))
}
