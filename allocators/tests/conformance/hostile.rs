//! Descriptors that a false publisher, or an upstream that knows nothing of us, may hand over.

use std::fs::OpenOptions;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::fcntl::{FallocateFlags, FcntlArg, OFlag, SealFlag, fallocate, fcntl, open};
use nix::sys::memfd::MFdFlags;
use nix::sys::stat::Mode;
use pagecast_allocators::{AccessMode, Backing, HugetlbBacking, ImportError, Wants, foreign, receive};

use crate::support::{alone, dup, huge_pages, plain_memfd, subject};
use crate::{child, pages};

const SIZE: i64 = 8192;

fn sealed(seals: SealFlag) -> OwnedFd {
    let fd = plain_memfd(SIZE, MFdFlags::empty());
    fcntl(&fd, FcntlArg::F_ADD_SEALS(seals)).unwrap();
    fd
}

const GOOD: SealFlag = SealFlag::F_SEAL_SHRINK.union(SealFlag::F_SEAL_GROW);

fn reopened(fd: &OwnedFd, flags: OFlag) -> OwnedFd {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    open(path.as_str(), flags | OFlag::O_CLOEXEC, Mode::empty()).unwrap()
}

/// What it is, the descriptor, and what must be said about it.
type Impostor = (&'static str, OwnedFd, Expected);
type Expected = fn(&ImportError) -> bool;

fn impostors() -> Vec<Impostor> {
    let not_memfd: Expected = |error| matches!(error, ImportError::NotMemfd);
    let not_sealed: Expected = |error| matches!(error, ImportError::NotSealed);
    let unreadable: Expected = |error| matches!(error, ImportError::NotReadable(_));
    let good = sealed(GOOD);
    let pipe = nix::unistd::pipe().unwrap();
    let (socket, _) = std::os::unix::net::UnixStream::pair().unwrap();
    let shm = tempfile::tempfile_in("/dev/shm").unwrap();
    shm.set_len(SIZE.cast_unsigned()).unwrap();
    let disk = tempfile::tempfile().unwrap();
    disk.set_len(SIZE.cast_unsigned()).unwrap();
    let null = OpenOptions::new().read(true).write(true).open("/dev/zero").unwrap();
    vec![
        ("no seals", plain_memfd(SIZE, MFdFlags::empty()), not_sealed),
        ("only sealed against growing", sealed(SealFlag::F_SEAL_GROW), not_sealed),
        ("only sealed against writing", sealed(SealFlag::F_SEAL_FUTURE_WRITE), not_sealed),
        ("write-only", reopened(&good, OFlag::O_WRONLY), unreadable),
        ("O_PATH", reopened(&good, OFlag::O_PATH), unreadable),
        ("read end of a pipe", pipe.0, not_memfd),
        ("write end of a pipe", pipe.1, unreadable),
        ("a socket", socket.into(), not_memfd),
        ("a file in /dev/shm", shm.into(), not_sealed),
        ("a file that may be on disk", disk.into(), |error| {
            matches!(error, ImportError::NotMemfd | ImportError::NotSealed)
        }),
        ("a folder", std::fs::File::open("/").unwrap().into(), not_memfd),
        ("a device", null.into(), not_memfd),
    ]
}

#[test]
fn impostors_are_no_memory_face() {
    let _alone = alone();
    for (what, fd, expected) in impostors() {
        let error = receive::memory(fd, 4096).expect_err(what);
        assert!(expected(&error), "{what}: {error}");
    }
}

#[test]
fn impostors_are_no_dma_buf_face() {
    let _alone = alone();
    for (what, fd, _) in impostors() {
        let error = receive::dma_buf(fd, 4096).expect_err(what);
        let fits = matches!(error, ImportError::NotDmaBuf | ImportError::NotReadable(_));
        assert!(fits, "{what}: {error}");
    }
    let error = receive::dma_buf(sealed(GOOD), 4096).unwrap_err();
    assert!(matches!(error, ImportError::NotDmaBuf), "{error}");
}

#[test]
fn impostors_are_not_passed_on() {
    let _alone = alone();
    for (what, fd, expected) in impostors() {
        let refused = foreign::import(fd.as_fd()).expect_err(what);
        assert!(expected(refused.reason()), "{what}: {refused}");
        assert!(refused.to_string().contains(&refused.reason().to_string()));
    }
    let empty = plain_memfd(0, MFdFlags::empty());
    fcntl(&empty, FcntlArg::F_ADD_SEALS(GOOD)).unwrap();
    let refused = foreign::import(empty.as_fd()).unwrap_err();
    assert!(matches!(refused.reason(), ImportError::ZeroSize), "{refused}");
    let refused = receive::memory(empty, 1).unwrap_err();
    assert!(matches!(refused, ImportError::Short { announced: 1, actual: 0 }), "{refused}");
}

#[test]
fn access_follows_the_seals() {
    let _alone = alone();
    let none = SealFlag::empty();
    for (more, access) in [
        (none, AccessMode::Cooperative),
        (SealFlag::F_SEAL_FUTURE_WRITE, AccessMode::Enforced),
        (SealFlag::F_SEAL_WRITE, AccessMode::Enforced),
    ] {
        for base in [GOOD, SealFlag::F_SEAL_SHRINK] {
            let fd = sealed(base | more);
            let foreign = foreign::import(fd.as_fd()).unwrap();
            assert_eq!(foreign.access(), access, "{:?}", base | more);
            assert_eq!(foreign.size(), 8192);
            let received = receive::memory(fd, 8192).unwrap();
            assert_eq!(received.access(), access, "{:?}", base | more);
        }
    }
}

#[test]
fn upstream_may_write_on_and_its_descriptor_stays_its_own() {
    let _alone = alone();
    let fd = sealed(SealFlag::F_SEAL_SHRINK);
    let buffer = foreign::import(fd.as_fd()).unwrap();
    nix::sys::uio::pwrite(&fd, b"upstream", 0).unwrap();
    drop(fd);
    let mut seen = [0; 8];
    buffer.map().unwrap().copy_to(0, &mut seen).unwrap();
    assert_eq!(&seen, b"upstream");
    let ours = buffer.face(pagecast_allocators::FaceKind::Memory).unwrap().fd;
    assert!(nix::sys::uio::pwrite(ours, b"we", 0).is_err(), "we hand out a writable descriptor");
    assert!(buffer.map().unwrap().copy_from(0, b"we").is_err());
    assert!(buffer.map().unwrap().as_mut_ptr().is_none());
}

#[test]
fn huge_pages_that_can_get_holes_are_refused() {
    let _alone = alone();
    if !huge_pages() {
        return;
    }
    let flags = MFdFlags::MFD_HUGETLB | MFdFlags::MFD_HUGE_2MB;
    let fd = plain_memfd(2 << 20, flags);
    fcntl(&fd, FcntlArg::F_ADD_SEALS(GOOD)).unwrap();
    let refused = receive::memory(dup(&fd), 2 << 20).unwrap_err();
    assert!(matches!(refused, ImportError::HugetlbNotSealed), "{refused}");
    let refused = foreign::import(fd.as_fd()).unwrap_err();
    assert!(matches!(refused.reason(), ImportError::HugetlbNotSealed), "{refused}");
    fcntl(&fd, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_FUTURE_WRITE)).unwrap();
    let received = receive::memory(fd, 5000).unwrap();
    assert_eq!((received.size(), received.page_size()), (5000, 2 << 20));
}

/// Why they are refused: a hole in a mapping of huge pages kills its reader once none are left.
#[test]
fn a_hole_in_huge_pages_would_kill_the_reader() {
    let _alone = alone();
    if huge_pages() {
        child::expect_signal("hole", &subject("hugetlb"), libc::SIGBUS);
    }
}

pub(crate) fn read_a_hole() {
    let size = 2 << 20;
    let fd = plain_memfd(size, MFdFlags::MFD_HUGETLB | MFdFlags::MFD_HUGE_2MB);
    fcntl(&fd, FcntlArg::F_ADD_SEALS(GOOD)).unwrap();
    let map = pages::map_read(fd.as_fd(), 2 << 20);
    let mut byte = [0];
    pages::read(&map, 0, &mut byte);
    let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    fallocate(&fd, punch, 0, size).unwrap();
    let ask = || HugetlbBacking::new().allocate(1, &Wants::default());
    let _all_others: Vec<_> = std::iter::from_fn(|| ask().ok()).collect();
    pages::read(&map, 0, &mut byte);
}
