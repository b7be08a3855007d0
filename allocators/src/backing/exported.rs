//! How a dma-buf that a driver allocated becomes a buffer of ours.
//!
//! It has one face, the dma-buf, and whoever gets that may write: the kernel knows no seals for it.

use std::os::fd::{AsFd, OwnedFd};

use nix::sys::stat::fstat;

use super::{BackingKind, Wants};
use crate::buffer::{OwnedFace, Parts};
use crate::dma_buf::{self, CpuAccess, Direction};
use crate::error::errno_of;
use crate::mapping::Mapping;
use crate::{AccessMode, AllocError, Buffer, FaceAbsent, PageSize, inspect};

/// Refuses what no dma-buf can give.
pub(super) fn check_wants(backing: BackingKind, wants: &Wants) -> Result<(), AllocError> {
    if wants.read_only {
        return Err(AllocError::Conflict {
            backing,
            want: "pages that nobody else can write",
            why: "a dma-buf cannot be made read-only; use the memfd or the hugetlb backing".to_owned(),
        });
    }
    Ok(())
}

/// A buffer of a new dma-buf of `size` bytes or more, mapped and zero.
pub(super) fn build(backing: BackingKind, fd: OwnedFd, size: usize) -> Result<Buffer, AllocError> {
    let failed = |call| move |errno| AllocError::from_errno(call, errno, size);
    let stat = fstat(&fd).map_err(failed("fstat"))?;
    let actual = dma_buf::size(fd.as_fd()).unwrap_or(0);
    if actual < size as u64 {
        let why = format!("the driver made a dma-buf of {actual} bytes");
        return Err(AllocError::Conflict { backing, want: "buffers of the size asked for", why });
    }
    // Its size is fixed, so the mapping can be touched for as long as it is there.
    let mapping = Mapping::writable(fd.as_fd(), size)
        .map_err(|error| AllocError::from_errno("mmap of the dma-buf", errno_of(&error), size))?;
    let page_size = PageSize::of_machine().bytes();
    let access = CpuAccess::begin(fd.as_fd(), Direction::Write).map_err(failed("DMA_BUF_IOCTL_SYNC"))?;
    // Drivers map their pages at once or at the first touch; neither can be asked for beforehand.
    mapping
        .populate_by_touching(page_size, || Ok(()))
        .map_err(|error| AllocError::from_errno("touching the dma-buf", errno_of(&error), size))?;
    access.end().map_err(failed("DMA_BUF_IOCTL_SYNC"))?;
    let face: Result<OwnedFace, FaceAbsent> = Ok(OwnedFace { fd, access: AccessMode::Cooperative });
    Ok(Buffer::new(Parts {
        size,
        page_size,
        backing,
        identity: inspect::identity_of(&stat),
        memory: None,
        dma_buf: face,
        mapping: Some(mapping),
    }))
}
