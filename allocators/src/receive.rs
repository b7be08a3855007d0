//! What a subscriber does with a face that it received: check, then map.
//!
//! A publisher may be false. A descriptor passes only if reading it can neither fail nor kill the
//! reader with SIGBUS, and if it has the bytes that were announced. On refusal the descriptor is
//! closed.

use std::os::fd::{AsFd, OwnedFd};

use nix::sys::stat::fstat;

use crate::buffer::{OwnedFace, Parts};
use crate::mapping::Mapping;
use crate::{AccessMode, BackingKind, Buffer, FaceAbsent, ImportError, PageSize, dma_buf as dmabuf, inspect};

/// Checks a received memory face of `size` announced bytes, and maps it for reading, once.
///
/// Asked of it: readable (not O_PATH), a memfd (of ordinary or huge pages), sealed against
/// shrinking, at least as long as announced; huge pages also sealed against writing. The access
/// mode is `enforced` if it is sealed against writing.
pub fn memory(fd: OwnedFd, size: u64) -> Result<Buffer, ImportError> {
    let facts = inspect::memfd(fd.as_fd())?;
    let len = announced(size, facts.size)?;
    let mapping = Mapping::read_only(fd.as_fd(), len, facts.page_size).map_err(ImportError::io("mmap"))?;
    // Reading makes pages of what the sender never filled: not at the expense of who receives.
    if facts.filled >= size {
        mapping.populate_for_reading();
    }
    Ok(Buffer::new(Parts {
        size: len,
        page_size: facts.page_size,
        backing: facts.backing,
        identity: facts.identity,
        memory: Some(OwnedFace { fd, access: facts.access }),
        dma_buf: Err(FaceAbsent::NotWanted),
        mapping: Some(mapping),
    }))
}

/// Checks a received dma-buf face of `size` announced bytes. It is mapped (for reading) only when
/// [`Buffer::map`] is called: many importers never do.
pub fn dma_buf(fd: OwnedFd, size: u64) -> Result<Buffer, ImportError> {
    let actual = check_dma_buf(&fd)?;
    let len = announced(size, actual)?;
    dma_buf_of(fd, len)
}

/// Readable, really a dma-buf; returns its size.
pub(crate) fn check_dma_buf(fd: &OwnedFd) -> Result<u64, ImportError> {
    inspect::check_readable(fd.as_fd())?;
    if !dmabuf::is_dma_buf(fd.as_fd()) {
        return Err(ImportError::NotDmaBuf);
    }
    dmabuf::size(fd.as_fd())
}

/// A buffer of a checked dma-buf.
pub(crate) fn dma_buf_of(fd: OwnedFd, size: usize) -> Result<Buffer, ImportError> {
    let stat = fstat(&fd).map_err(ImportError::system("fstat"))?;
    Ok(Buffer::new(Parts {
        size,
        page_size: PageSize::of_machine().bytes(),
        backing: BackingKind::Imported,
        identity: inspect::identity_of(&stat),
        memory: None,
        dma_buf: Ok(OwnedFace { fd, access: AccessMode::Cooperative }),
        mapping: None,
    }))
}

fn announced(size: u64, actual: u64) -> Result<usize, ImportError> {
    let len = inspect::check_size(size)?;
    if actual < size {
        return Err(ImportError::Short { announced: size, actual });
    }
    Ok(len)
}
