//! Everything a subscriber could try in order to change pages that it may only read.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr::NonNull;

use memmap2::{MmapOptions, UncheckedAdvice};
use nix::fcntl::{FallocateFlags, FcntlArg, OFlag, SealFlag, fallocate, fcntl, open};
use nix::sys::mman::{ProtFlags, mprotect};
use nix::sys::stat::{Mode, fstat};
use nix::sys::uio::pwrite;
use nix::unistd::ftruncate;

type Attack = fn(BorrowedFd<'_>, usize) -> bool;

/// Each returns whether it succeeded. Destructive ones come last.
const ATTACKS: [(&str, Attack); 10] = [
    ("mmap(PROT_WRITE)", map_writable),
    ("mprotect(PROT_WRITE)", protect_writable),
    ("pwrite", |fd, _| pwrite(fd, b"evil", 0).is_ok()),
    ("fallocate(ZERO_RANGE or 0)", preallocate),
    ("madvise(MADV_REMOVE)", remove),
    ("fallocate(PUNCH_HOLE)", punch),
    ("ftruncate(longer)", |fd, size| ftruncate(fd, size_of_file(size * 2)).is_ok()),
    ("ftruncate(shorter)", |fd, size| ftruncate(fd, size_of_file(size / 2)).is_ok()),
    ("ftruncate(0)", |fd, _| ftruncate(fd, 0).is_ok()),
    ("fcntl(F_ADD_SEALS)", |fd, _| fcntl(fd, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SEAL)).is_ok()),
];

/// The names of the attacks that succeeded through this descriptor.
pub(crate) fn through(fd: BorrowedFd<'_>) -> Vec<&'static str> {
    let size = usize::try_from(fstat(fd).unwrap().st_size).unwrap();
    ATTACKS.iter().filter(|(_, attack)| attack(fd, size)).map(|(name, _)| *name).collect()
}

/// The names of the attacks that succeeded through this path below /proc, opened again.
pub(crate) fn through_path(path: &str) -> Vec<&'static str> {
    let mut succeeded = Vec::new();
    for mode in [OFlag::O_RDWR, OFlag::O_WRONLY, OFlag::O_RDONLY] {
        if let Ok(fd) = open(path, mode | OFlag::O_CLOEXEC, Mode::empty()) {
            succeeded.extend(through(fd.as_fd()));
        }
    }
    let truncated = open(path, OFlag::O_RDWR | OFlag::O_TRUNC, Mode::empty());
    if truncated.is_ok_and(|fd| fstat(fd).unwrap().st_size == 0) {
        succeeded.push("open(O_TRUNC)");
    }
    succeeded
}

fn size_of_file(size: usize) -> i64 {
    i64::try_from(size).unwrap()
}

fn map_writable(fd: BorrowedFd<'_>, size: usize) -> bool {
    MmapOptions::new().len(size).map_raw(fd.as_raw_fd()).is_ok()
}

fn protect_writable(fd: BorrowedFd<'_>, size: usize) -> bool {
    let Ok(map) = MmapOptions::new().len(size).map_raw_read_only(fd.as_raw_fd()) else {
        return false;
    };
    let start = NonNull::new(map.as_mut_ptr().cast()).unwrap();
    // SAFETY: the range is a mapping of our own, to which no reference exists.
    unsafe { mprotect(start, size, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE) }.is_ok()
}

fn remove(fd: BorrowedFd<'_>, size: usize) -> bool {
    let map = MmapOptions::new().len(size).map_raw(fd.as_raw_fd());
    let map = map.or_else(|_| MmapOptions::new().len(size).map_raw_read_only(fd.as_raw_fd()));
    // SAFETY: the mapping is our own, and no reference into it exists.
    map.is_ok_and(|map| unsafe { map.unchecked_advise(UncheckedAdvice::Remove) }.is_ok())
}

fn punch(fd: BorrowedFd<'_>, size: usize) -> bool {
    let mode = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    fallocate(fd, mode, 0, size_of_file(size)).is_ok()
}

fn preallocate(fd: BorrowedFd<'_>, size: usize) -> bool {
    fallocate(fd, FallocateFlags::FALLOC_FL_ZERO_RANGE, 0, size_of_file(size)).is_ok()
        || fallocate(fd, FallocateFlags::empty(), 0, size_of_file(size * 2)).is_ok()
}

#[test]
fn every_attack_succeeds_on_an_unsealed_memfd() {
    let _alone = crate::support::alone();
    for (name, attack) in ATTACKS {
        let fd = crate::support::plain_memfd(8192, nix::sys::memfd::MFdFlags::empty());
        assert!(attack(fd.as_fd(), 8192), "{name} proves nothing");
    }
}
