//! The dma-buf face of a memfd's pages, by /dev/udmabuf.

use std::fs::{self, OpenOptions};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use crate::FaceAbsent;
use crate::error::errno_of;
use crate::ioctl;

/// What udmabuf allows for one buffer where its parameter cannot be read: its default, 64 MiB.
const DEFAULT_LIMIT: u64 = 64 << 20;

/// Bytes that udmabuf allows for one buffer.
fn limit() -> u64 {
    fs::read_to_string("/sys/module/udmabuf/parameters/size_limit_mb")
        .ok()
        .and_then(|text| text.trim().parse::<u64>().ok())
        .map_or(DEFAULT_LIMIT, |megabytes| megabytes << 20)
}

/// A dma-buf of the same pages. The memfd must be sealed against shrinking, and *not yet* against
/// writing: in the other order the kernel refuses.
pub(crate) fn create(memfd: BorrowedFd<'_>, size: usize) -> Result<OwnedFd, FaceAbsent> {
    let device = OpenOptions::new().read(true).write(true).open("/dev/udmabuf");
    let device = device.map_err(|error| FaceAbsent::NoDevice(errno_of(&error)))?;
    let limit = limit();
    if size as u64 > limit {
        return Err(FaceAbsent::TooLarge { size, limit });
    }
    ioctl::udmabuf_create(device.as_fd(), memfd, size).map_err(FaceAbsent::Refused)
}

impl FaceAbsent {
    /// Descriptors ran out: an error of the allocation, not a property of the machine.
    pub(crate) fn exhausted(&self) -> Option<Errno> {
        match self {
            Self::NoDevice(errno @ (Errno::EMFILE | Errno::ENFILE))
            | Self::Refused(errno @ (Errno::EMFILE | Errno::ENFILE)) => Some(*errno),
            _ => None,
        }
    }
}
