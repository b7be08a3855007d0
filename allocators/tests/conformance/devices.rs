//! What backings of devices must do: their buffers are dma-bufs, and nothing else.

use std::collections::HashSet;
use std::fs;
use std::os::fd::AsRawFd;

use memmap2::MmapOptions;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use pagecast_allocators::dma_buf::{self, CpuAccess, Direction};
use pagecast_allocators::{
    AccessMode, AllocError, Backing, BackingKind, Buffer, DmaHeapBacking, DrmDumbBacking, FaceKind,
    ImportError, Wants, foreign, receive,
};

use crate::child;
use crate::pages::{self, map_read};
use crate::support::{Subject, assert_filled, dup, fill, skip};

const SIZE: usize = 300_001;

/// A backing of a device of this machine.
pub(crate) fn subject(name: &str) -> Option<Subject> {
    match name {
        "dma_heap" => {
            let heap = DmaHeapBacking::open("system").ok()?;
            Some(Subject { name: "dma_heap", backing: Box::new(heap), huge: false })
        }
        "drm_dumb" => {
            Some(Subject { name: "drm_dumb", backing: Box::new(DrmDumbBacking::first().ok()?), huge: false })
        }
        _ => None,
    }
}

pub(crate) fn run(name: &str, case: fn(&Subject)) {
    let _alone = crate::support::alone();
    match subject(name) {
        Some(subject) => case(&subject),
        None => skip(&format!("this machine has no device for {name}")),
    }
}

fn allocate(subject: &Subject) -> Buffer {
    subject.backing.allocate(SIZE, &Wants::default()).unwrap()
}

pub(crate) fn one_face(subject: &Subject) {
    for wants in [
        Wants::default(),
        Wants { importable: true, ..Wants::default() },
        // What it is cannot be left away.
        Wants { offer_dma_buf: false, ..Wants::default() },
    ] {
        let buffer = subject.backing.allocate(SIZE, &wants).unwrap();
        assert_eq!(buffer.faces().collect::<Vec<_>>(), [FaceKind::DmaBuf]);
        assert_eq!(buffer.access(), AccessMode::Cooperative);
        assert_eq!(buffer.backing(), subject.backing.kind());
        let absent = buffer.absent(FaceKind::Memory).unwrap().to_string();
        assert!(absent.contains(subject.backing.kind().as_str()), "{absent}");
        assert!(dma_buf::is_dma_buf(buffer.mapped_dma_buf().unwrap()));
    }
    let refused = subject.backing.allocate(SIZE, &Wants { read_only: true, ..Wants::default() });
    match refused {
        Err(error @ AllocError::Conflict { .. }) => {
            assert!(error.to_string().contains("memfd"), "{error}");
            assert!(error.is_worth_a_fallback());
        }
        other => panic!("{other:?}"),
    }
}

pub(crate) fn pages_are_zero_and_seen_by_all(subject: &Subject) {
    let buffer = allocate(subject);
    let fd = buffer.face(FaceKind::DmaBuf).unwrap().fd;
    assert!(dma_buf::size(fd).unwrap() >= buffer.size() as u64);
    let mapping = buffer.mapping().unwrap();
    let mut bytes = vec![1; buffer.size()];
    mapping.copy_to(0, &mut bytes).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 0));

    let received = receive::dma_buf(dup(fd), buffer.size() as u64).unwrap();
    assert!(received.mapping().is_none(), "mapped although nobody asked");
    assert!(!received.map().unwrap().is_writable());
    let second = map_read(fd, buffer.size());
    for round in 0..3 {
        let writing = CpuAccess::begin(fd, Direction::Write).unwrap();
        fill(&buffer, round);
        writing.end().unwrap();
        let reading = CpuAccess::begin(fd, Direction::Read).unwrap();
        assert_filled(|at, to| pages::read(&second, at, to), buffer.size(), round);
        assert_filled(|at, to| received.map().unwrap().copy_to(at, to).unwrap(), buffer.size(), round);
        reading.end().unwrap();
    }
    // Cooperative means just that: who has it can write it.
    let writer = MmapOptions::new().len(buffer.size()).map_raw(fd.as_raw_fd()).unwrap();
    pages::write(&writer, 77, 7);
    let mut byte = [0];
    mapping.copy_to(77, &mut byte).unwrap();
    assert_eq!(byte, [7]);
}

pub(crate) fn what_is_received_is_checked(subject: &Subject) {
    let buffer = allocate(subject);
    let face = buffer.face(FaceKind::DmaBuf).unwrap();
    let actual = dma_buf::size(face.fd).unwrap();
    let receive = |announced| receive::dma_buf(dup(face.fd), announced);
    assert_eq!(receive(SIZE as u64).unwrap().size(), SIZE);
    assert!(matches!(receive(actual + 1), Err(ImportError::Short { .. })));
    assert!(matches!(receive(0), Err(ImportError::ZeroSize)));
    assert!(matches!(receive::memory(dup(face.fd), SIZE as u64), Err(ImportError::NotMemfd)));
    let imported = foreign::import(face.fd).unwrap();
    assert_eq!(imported.identity(), buffer.identity());
    assert_eq!(imported.backing(), BackingKind::Imported);
}

pub(crate) fn nothing_leaks(subject: &Subject) {
    child::run("device-leaks", subject);
}

pub(crate) fn descriptors_run_out(subject: &Subject) {
    child::run("device-descriptors", subject);
}

/// Descriptors and mappings, and the kernel's own count of dma-bufs of this process.
fn held() -> (usize, usize) {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let mapped = maps.lines().filter(|line| line.contains("dmabuf") || line.contains("/dev/d")).count();
    (fs::read_dir("/proc/self/fd").unwrap().count(), mapped)
}

pub(crate) fn count_leaks(subject: &Subject) {
    let before = held();
    for round in 0..20 {
        let buffer = allocate(subject);
        let fd = buffer.face(FaceKind::DmaBuf).unwrap().fd;
        fill(&buffer, round);
        let received = receive::dma_buf(dup(fd), SIZE as u64).unwrap();
        received.map().unwrap();
        assert!(held().0 >= before.0 + 2, "the count sees no descriptor");
        // Pages outlive their owner for as long as someone reads them.
        drop(buffer);
        let mut byte = [0];
        received.map().unwrap().copy_to(0, &mut byte).unwrap();
        assert_eq!(byte[0], crate::support::pattern(0, round));
        subject.backing.allocate(0, &Wants::default()).unwrap_err();
        subject.backing.allocate(SIZE, &Wants { read_only: true, ..Wants::default() }).unwrap_err();
    }
    assert_eq!(held(), before);
}

pub(crate) fn exhaust_descriptors(subject: &Subject) {
    let before = held();
    let lowest_free = u64::try_from(dup(std::io::stdin()).as_raw_fd()).unwrap();
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, lowest_free, hard).unwrap();
    let refused = subject.backing.allocate(SIZE, &Wants::default());
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    assert!(matches!(refused, Err(AllocError::TooManyFiles)), "{refused:?}");
    let identities: HashSet<_> = (0..4).map(|_| allocate(subject)).map(|b| b.id()).collect();
    assert_eq!(identities.len(), 4);
    assert_eq!(held(), before);
}

#[test]
fn a_full_heap_says_so_and_nobody_is_killed() {
    let _alone = crate::support::alone();
    let Ok(heap) = DmaHeapBacking::open("system") else { return skip("no dma-heap") };
    // More than the machine has, less than a buffer may have.
    let memory = fs::read_to_string("/proc/meminfo").unwrap();
    let total: usize = memory.split_whitespace().nth(1).unwrap().parse().unwrap();
    if total as u64 * 1024 >= pagecast_allocators::MAX_BUFFER_SIZE {
        return skip("the machine has more memory than a buffer may have");
    }
    let refused = heap.allocate(total * 1024 + 4096, &Wants::default()).unwrap_err();
    assert!(matches!(refused, AllocError::HeapFull { .. }), "{refused:?}");
    assert!(refused.to_string().contains("system"), "{refused}");
    assert!(refused.is_worth_a_fallback());
    assert!(heap.allocate(SIZE, &Wants::default()).is_ok(), "it goes on");
}

#[test]
fn wrong_names_are_refused_with_the_right_ones() {
    for name in ["", "no-such-heap", "..", "../null", "/dev/null"] {
        let error = DmaHeapBacking::open(name).unwrap_err();
        assert!(matches!(error, AllocError::NoHeap { .. }), "{name}: {error:?}");
        assert!(error.to_string().contains("/dev/dma_heap"), "{error}");
        for known in DmaHeapBacking::names() {
            assert!(error.to_string().contains(&known), "{error}");
        }
    }
    let error = DrmDumbBacking::open("/dev/dri/no-such-card".as_ref()).unwrap_err();
    assert!(error.to_string().contains("/dev/dri/no-such-card"), "{error}");
    // Something that opens, and is no DRM device.
    let null = DrmDumbBacking::open("/dev/null".as_ref()).unwrap();
    let error = null.allocate(1, &Wants::default()).unwrap_err();
    assert!(matches!(error, AllocError::NoDumbBuffers { .. }), "{error:?}");
}
