//! What happens when something runs out, and what is left behind. Each half `fn …(subject)` of a
//! case runs in this process and starts the other half in a fresh one.

use std::fs;

use nix::sys::resource::{Resource, setrlimit};
use pagecast_allocators::{AllocError, BackingKind, HugetlbBacking, PageSize, Wants, foreign, receive};

use crate::cases::allocate;
use crate::child;
use crate::support::{Subject, dup, fill, memory_face, plain_memfd};

const SIZE: usize = 300_000;

pub(crate) fn nothing_leaks(subject: &Subject) {
    child::run("leaks", subject);
}

pub(crate) fn descriptors_run_out(subject: &Subject) {
    child::run("descriptors", subject);
}

pub(crate) fn address_space_runs_out(subject: &Subject) {
    child::run("address-space", subject);
}

pub(crate) fn file_size_is_limited(subject: &Subject) {
    child::run("file-size", subject);
}

/// Descriptors, mappings of shared pages, and huge pages in use.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    descriptors: usize,
    mappings: usize,
    huge_pages_free: u64,
}

fn held() -> Held {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let shared = |line: &&str| ["memfd:", "dmabuf", "hugepage"].iter().any(|s| line.contains(s));
    Held {
        descriptors: fs::read_dir("/proc/self/fd").unwrap().count(),
        mappings: maps.lines().filter(shared).count(),
        huge_pages_free: HugetlbBacking::pages_available(),
    }
}

pub(crate) fn count_leaks(subject: &Subject) {
    let before = held();
    for round in 0..20 {
        let buffer = allocate(subject, SIZE);
        fill(&buffer, round);
        let size = buffer.size() as u64;
        let face = memory_face(&buffer).fd;
        // A part of a (huge) page: whole pages must be mapped, or the unmapping fails.
        let received = receive::memory(dup(face), 5000).unwrap();
        let passed_on = foreign::import(face).unwrap();
        passed_on.map().unwrap();
        // Refusals must not keep what they refused.
        receive::memory(dup(face), size + 1).unwrap_err();
        receive::dma_buf(dup(face), size).unwrap_err();
        receive::memory(plain_memfd(4096, nix::sys::memfd::MFdFlags::empty()), 1).unwrap_err();
        subject.backing.allocate(0, &Wants::default()).unwrap_err();
        if let Some(face) = buffer.face(pagecast_allocators::FaceKind::DmaBuf) {
            let received = receive::dma_buf(dup(face.fd), size).unwrap();
            received.map().unwrap();
            receive::memory(dup(face.fd), size).unwrap_err();
        }
        assert!(held().mappings >= before.mappings + 3, "the count sees no mapping");
        // Pages outlive their owner for as long as someone reads them.
        drop(buffer);
        let mut byte = [0];
        received.mapping().unwrap().copy_to(0, &mut byte).unwrap();
        assert_eq!(byte[0], crate::support::pattern(0, round));
    }
    assert_eq!(held(), before);
}

pub(crate) fn exhaust_descriptors(subject: &Subject) {
    let before = held();
    let usual: Vec<_> = allocate(subject, SIZE).faces().collect();
    let lowest_free = std::os::fd::AsRawFd::as_raw_fd(&dup(std::io::stdin()));
    let lowest_free = u64::try_from(lowest_free).unwrap();
    let (_, hard) = nix::sys::resource::getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    // An allocation holds at most three descriptors at once: memfd, device or face, dma-buf.
    let results: Vec<_> = (0..=4)
        .map(|more| {
            setrlimit(Resource::RLIMIT_NOFILE, lowest_free + more, hard).unwrap();
            let result = subject.backing.allocate(SIZE, &Wants::default());
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
            assert_eq!(held().huge_pages_free, before.huge_pages_free - huge_pages_of(&result));
            // A face that is missing for want of a descriptor would be missing for good.
            result.map(|buffer| assert_eq!(buffer.faces().collect::<Vec<_>>(), usual))
        })
        .collect();
    assert!(matches!(results[0], Err(AllocError::TooManyFiles)), "{results:?}");
    assert!(matches!(results[1], Err(AllocError::TooManyFiles)), "{results:?}");
    assert!(results[4].is_ok(), "{results:?}");
    for result in &results {
        assert!(matches!(result, Ok(()) | Err(AllocError::TooManyFiles)), "{result:?}");
    }
    assert!(AllocError::TooManyFiles.to_string().contains("ulimit -n"));
    assert_eq!(held(), before);
}

fn huge_pages_of(result: &Result<pagecast_allocators::Buffer, AllocError>) -> u64 {
    match result {
        Ok(buffer) if buffer.backing() == BackingKind::Hugetlb => (buffer.size() / buffer.page_size()) as u64,
        _ => 0,
    }
}

pub(crate) fn exhaust_address_space(subject: &Subject) {
    let before = held();
    let status = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = status.split(' ').next().unwrap().parse().unwrap();
    let limit = pages * PageSize::of_machine().bytes() as u64 + (1 << 20);
    let (_, hard) = nix::sys::resource::getrlimit(Resource::RLIMIT_AS).unwrap();
    setrlimit(Resource::RLIMIT_AS, limit, hard).unwrap();
    let refused = subject.backing.allocate(4 << 20, &Wants::default());
    setrlimit(Resource::RLIMIT_AS, hard, hard).unwrap();
    assert!(matches!(refused, Err(AllocError::OutOfMemory { .. })), "{refused:?}");
    assert!(allocate(subject, 4 << 20).size() >= 4 << 20);
    assert_eq!(held(), before);
}

pub(crate) fn limit_file_size(subject: &Subject) {
    let before = held();
    let (_, hard) = nix::sys::resource::getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    setrlimit(Resource::RLIMIT_FSIZE, 4 << 20, hard).unwrap();
    assert!(subject.backing.allocate(4 << 20, &Wants::default()).is_ok(), "at the limit");
    let refused = subject.backing.allocate((4 << 20) + 1, &Wants::default());
    setrlimit(Resource::RLIMIT_FSIZE, hard, hard).unwrap();
    assert!(matches!(refused, Err(AllocError::FileSizeLimit { .. })), "{refused:?}");
    assert_eq!(held(), before);
}
