//! What a descriptor really is, asked of the kernel: nothing that a peer says is believed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::sys::stat::{FileStat, fstat};
use nix::sys::statfs::{HUGETLBFS_MAGIC, TMPFS_MAGIC, fstatfs};

use crate::{AccessMode, BackingKind, ImportError, MAX_BUFFER_SIZE, PageSize};

/// `(st_dev, st_ino)`.
pub(crate) type Identity = (u64, u64);

/// A memfd that others made, and that is fit for mapping.
pub(crate) struct MemfdFacts {
    pub(crate) size: u64,
    /// Bytes of it that have pages.
    pub(crate) filled: u64,
    pub(crate) page_size: usize,
    pub(crate) backing: BackingKind,
    pub(crate) identity: Identity,
    pub(crate) access: AccessMode,
}

#[allow(clippy::unnecessary_cast, reason = "the types differ between architectures")]
pub(crate) fn identity_of(stat: &FileStat) -> Identity {
    (stat.st_dev as u64, stat.st_ino as u64)
}

/// The descriptor can be mapped for reading: neither O_PATH nor write-only.
pub(crate) fn check_readable(fd: BorrowedFd<'_>) -> Result<(), ImportError> {
    let flags = fcntl(fd, FcntlArg::F_GETFL).map_err(ImportError::system("fcntl(F_GETFL)"))?;
    let flags = OFlag::from_bits_retain(flags);
    if flags.contains(OFlag::O_PATH) {
        return Err(ImportError::NotReadable("it was opened with O_PATH"));
    }
    match flags & OFlag::O_ACCMODE {
        OFlag::O_RDONLY | OFlag::O_RDWR => Ok(()),
        _ => Err(ImportError::NotReadable("it was opened for writing only")),
    }
}

/// A size that a buffer may have.
pub(crate) fn check_size(size: u64) -> Result<usize, ImportError> {
    match size {
        0 => Err(ImportError::ZeroSize),
        1..=MAX_BUFFER_SIZE => {
            usize::try_from(size).map_err(|_| ImportError::TooLarge { size, limit: usize::MAX as u64 })
        }
        _ => Err(ImportError::TooLarge { size, limit: MAX_BUFFER_SIZE }),
    }
}

/// Checks that this is a memfd that can be mapped without fear of SIGBUS.
///
/// The seals are read before the size: once F_SEAL_SHRINK is set the size stays true.
/// F_SEAL_GROW is not asked for: a file that grows behind a mapping of fixed length harms nobody,
/// and GStreamer's own shared memory is sealed against shrinking only.
pub(crate) fn memfd(fd: BorrowedFd<'_>) -> Result<MemfdFacts, ImportError> {
    check_readable(fd)?;
    let fs = fstatfs(fd).map_err(ImportError::system("fstatfs"))?;
    let ordinary = PageSize::of_machine().bytes();
    let (backing, page_size) = match fs.filesystem_type() {
        TMPFS_MAGIC => (BackingKind::Memfd, ordinary),
        HUGETLBFS_MAGIC => {
            let size = usize::try_from(fs.block_size()).unwrap_or(0);
            (BackingKind::Hugetlb, size.max(ordinary))
        }
        _ => return Err(ImportError::NotMemfd),
    };
    let seals = fcntl(fd, FcntlArg::F_GET_SEALS).map_err(|_| ImportError::NotMemfd)?;
    let seals = SealFlag::from_bits_truncate(seals);
    if !seals.contains(SealFlag::F_SEAL_SHRINK) {
        return Err(ImportError::NotSealed);
    }
    let enforced = seals.intersects(SealFlag::F_SEAL_FUTURE_WRITE | SealFlag::F_SEAL_WRITE);
    // The write seals also forbid holes. Refilling a hole in huge pages takes one from the
    // system's stock, and is SIGBUS when that is empty; ordinary pages are just zero again.
    if backing == BackingKind::Hugetlb && !enforced {
        return Err(ImportError::HugetlbNotSealed);
    }
    let stat = fstat(fd).map_err(ImportError::system("fstat"))?;
    Ok(MemfdFacts {
        size: u64::try_from(stat.st_size).unwrap_or(0),
        filled: u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512),
        page_size,
        backing,
        identity: identity_of(&stat),
        access: if enforced { AccessMode::Enforced } else { AccessMode::Cooperative },
    })
}

/// A second, read-only opening of the same memfd, so that what a peer gets is not even formally
/// writable. Needs /proc.
pub(crate) fn reopen_read_only(fd: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    nix::fcntl::open(path.as_str(), flags, nix::sys::stat::Mode::empty())
}
