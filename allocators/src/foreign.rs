//! What a publisher does with pages that upstream allocated: pass them on if that is safe.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::buffer::{OwnedFace, Parts};
use crate::{BackingKind, Buffer, FaceAbsent, ImportError, NotShareable, dma_buf, inspect, receive};

/// Makes a buffer of someone else's descriptor, which is duplicated.
///
/// A dma-buf passes, and so does a memfd that is sealed against shrinking; its seals are not ours
/// to change, so its access mode is `cooperative` unless it is sealed against writing too. For
/// anything else the answer says why, and the caller copies (and counts) the frame. The pages are
/// mapped only when [`Buffer::map`] is called.
pub fn import(fd: BorrowedFd<'_>) -> Result<Buffer, NotShareable> {
    // Asked before the descriptor is duplicated: usually the answer is no.
    let imported = if dma_buf::is_dma_buf(fd) { import_dma_buf(fd) } else { import_memfd(fd) };
    Ok(imported?)
}

fn import_dma_buf(fd: BorrowedFd<'_>) -> Result<Buffer, ImportError> {
    let fd = duplicate(fd)?;
    let size = inspect::check_size(receive::check_dma_buf(&fd)?)?;
    receive::dma_buf_of(fd, size)
}

fn import_memfd(fd: BorrowedFd<'_>) -> Result<Buffer, ImportError> {
    let facts = inspect::memfd(fd)?;
    let size = inspect::check_size(facts.size)?;
    // Upstream's own descriptor is usually writable; what subscribers get need not be.
    let fd = inspect::reopen_read_only(fd).or_else(|_| duplicate(fd))?;
    Ok(Buffer::new(Parts {
        size,
        page_size: facts.page_size,
        backing: BackingKind::Imported,
        identity: facts.identity,
        memory: Some(OwnedFace { fd, access: facts.access }),
        dma_buf: Err(FaceAbsent::NotWanted),
        mapping: None,
    }))
}

fn duplicate(fd: BorrowedFd<'_>) -> Result<OwnedFd, ImportError> {
    fd.as_fd().try_clone_to_owned().map_err(ImportError::io("dup"))
}
