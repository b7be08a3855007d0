//! What every backing must do.

use std::collections::HashSet;
use std::os::fd::{AsFd, AsRawFd};

use memmap2::MmapOptions;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, SealFlag, fcntl};
use nix::sys::stat::fstat;
use pagecast_allocators::dma_buf::{self, CpuAccess, Direction};
use pagecast_allocators::{
    AccessMode, AllocError, BackingKind, Buffer, FaceAbsent, FaceKind, ImportError, MAX_BUFFER_SIZE, Wants,
    foreign, receive,
};

use crate::pages::{self, map_read};
use crate::support::{Subject, assert_filled, dma_buf_face, dup, fill, memory_face, root};
use crate::{attack, child};

/// An odd 1080p-like size: two huge pages, many ordinary ones.
const SIZE: usize = 3_110_401;

pub(crate) fn allocate(subject: &Subject, size: usize) -> Buffer {
    subject.backing.allocate(size, &Wants::default()).unwrap()
}

pub(crate) fn sizes(subject: &Subject) {
    let grain = subject.backing.granularity();
    for size in [1, 2, 4095, 4096, 4097, 321 * 241 * 3 / 2, grain - 1, grain, grain + 1] {
        let buffer = allocate(subject, size);
        // `auto` takes pages as the size asks for.
        let rounded = if subject.name == "auto" { buffer.page_size() } else { grain };
        assert_eq!(buffer.size(), size.next_multiple_of(rounded), "asked for {size}");
        assert_eq!(buffer.size() % buffer.page_size(), 0, "asked for {size}");
        assert_eq!(buffer.mapping().unwrap().len(), buffer.size());
        let last = buffer.size() - 1;
        buffer.mapping().unwrap().copy_from(last, &[7]).unwrap();
        let out = buffer.mapping().unwrap().copy_from(last, &[7, 7]);
        assert!(out.is_err(), "wrote behind the end");
        assert!(buffer.mapping().unwrap().copy_to(usize::MAX, &mut [0]).is_err());
    }
    let refused = |size| subject.backing.allocate(size, &Wants::default()).unwrap_err();
    assert!(matches!(refused(0), AllocError::ZeroSize));
    let over = usize::try_from(MAX_BUFFER_SIZE + 1).unwrap();
    for size in [over, usize::MAX / 2, usize::MAX] {
        assert!(matches!(refused(size), AllocError::TooLarge { .. }), "{size}");
    }
}

pub(crate) fn wants(subject: &Subject) {
    let ask = |wants: Wants| subject.backing.allocate(SIZE, &wants);
    let plain = ask(Wants { offer_dma_buf: false, ..Wants::default() }).unwrap();
    assert_eq!(plain.faces().collect::<Vec<_>>(), [FaceKind::Memory]);
    assert_eq!(plain.absent(FaceKind::DmaBuf), Some(FaceAbsent::NotWanted));
    assert_eq!(plain.absent(FaceKind::Memory), None);
    assert!(plain.absent(FaceKind::Mr).is_some());

    let read_only = ask(Wants { read_only: true, ..Wants::default() }).unwrap();
    assert_eq!(read_only.access(), AccessMode::Enforced);

    let importable = Wants { importable: true, offer_dma_buf: false, read_only: true };
    match (read_only.face(FaceKind::DmaBuf), ask(importable)) {
        (Some(face), Ok(buffer)) => {
            assert_eq!(face.access, AccessMode::Cooperative);
            let faces: Vec<_> = buffer.faces().collect();
            assert_eq!(faces, [FaceKind::Memory, FaceKind::DmaBuf]);
        }
        (None, Err(error @ AllocError::Conflict { .. })) => {
            let words = error.to_string();
            assert!(words.contains("import") && words.contains("udmabuf"), "{words}");
        }
        (face, answer) => panic!("offered {face:?}, but when required {answer:?}"),
    }
}

pub(crate) fn ids_and_identities_are_unique(subject: &Subject) {
    let buffers: Vec<_> = (0..4).map(|_| allocate(subject, 1)).collect();
    let before: Vec<_> = buffers.iter().map(|buffer| buffer.id()).collect();
    assert!(before.is_sorted() && before[0].get() >= 1);
    let identities: HashSet<_> = buffers.iter().map(|b| b.identity().unwrap()).collect();
    assert_eq!(identities.len(), buffers.len());
    drop(buffers);
    assert!(allocate(subject, 1).id() > before[3], "an id was used twice");
}

pub(crate) fn pages_are_zero_and_there(subject: &Subject) {
    let buffer = allocate(subject, SIZE);
    let mapping = buffer.mapping().unwrap();
    assert!(pages::all_present(mapping.as_ptr(), mapping.len()), "a page would fault");
    let mut bytes = vec![1; buffer.size()];
    mapping.copy_to(0, &mut bytes).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 0));

    let fd = dup(memory_face(&buffer).fd);
    let theirs = receive::memory(fd, buffer.size() as u64).unwrap();
    let mapping = theirs.mapping().unwrap();
    assert!(pages::all_present(mapping.as_ptr(), mapping.len()), "a reader's page would fault");
}

pub(crate) fn copies_are_exact_at_any_offset(subject: &Subject) {
    let buffer = allocate(subject, 4096);
    let mapping = buffer.mapping().unwrap();
    let bytes: Vec<u8> = (1..=40).collect();
    for (offset, len) in (0..17).flat_map(|offset| (0..40).map(move |len| (offset, len))) {
        mapping.copy_from(0, &[0; 64]).unwrap();
        mapping.copy_from(offset, &bytes[..len]).unwrap();
        let mut whole = [0; 64];
        mapping.copy_to(0, &mut whole).unwrap();
        let mut expected = [0; 64];
        expected[offset..offset + len].copy_from_slice(&bytes[..len]);
        assert_eq!(whole, expected, "written {len} at {offset}");
        let mut part = vec![0; len];
        mapping.copy_to(offset, &mut part).unwrap();
        assert_eq!(part, bytes[..len], "read {len} at {offset}");
    }
}

pub(crate) fn owner_writes_are_seen(subject: &Subject) {
    let buffer = allocate(subject, SIZE);
    let second = map_read(memory_face(&buffer).fd, buffer.size());
    let fd = dup(memory_face(&buffer).fd);
    let received = receive::memory(fd, buffer.size() as u64).unwrap();
    assert_eq!(received.backing(), buffer.backing());
    assert_eq!(received.access(), AccessMode::Enforced);
    assert_eq!(received.identity(), buffer.identity());
    assert!(!received.mapping().unwrap().is_writable());
    for round in 0..3 {
        fill(&buffer, round);
        assert_filled(|at, to| pages::read(&second, at, to), buffer.size(), round);
        let mapping = received.mapping().unwrap();
        assert_filled(|at, to| mapping.copy_to(at, to).unwrap(), buffer.size(), round);
    }
}

pub(crate) fn second_mapping_has_the_same_page_frames(subject: &Subject) {
    if !root() {
        return;
    }
    let buffer = allocate(subject, SIZE);
    let fd = dup(memory_face(&buffer).fd);
    let received = receive::memory(fd, buffer.size() as u64).unwrap();
    let look = || pages::frames(buffer.mapping().unwrap().as_ptr(), buffer.size());
    // The kernel may move pages, of both mappings at once: what is compared is of one moment.
    let (ours, theirs) = loop {
        let ours = look();
        let theirs = pages::frames(received.mapping().unwrap().as_ptr(), buffer.size());
        if look() == ours {
            break (ours, theirs);
        }
    };
    assert!(ours.iter().all(|frame| *frame != 0));
    assert_eq!(ours, theirs);
    let other = allocate(subject, SIZE);
    assert_ne!(ours, pages::frames(other.mapping().unwrap().as_ptr(), other.size()));
}

pub(crate) fn face_descriptor_is_safe_to_hand_out(subject: &Subject) {
    let buffer = allocate(subject, SIZE);
    let fd = memory_face(&buffer).fd;
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL).unwrap());
    assert_eq!(flags & OFlag::O_ACCMODE, OFlag::O_RDONLY);
    for face in buffer.faces().filter_map(|kind| buffer.face(kind)) {
        let flags = FdFlag::from_bits_retain(fcntl(face.fd, FcntlArg::F_GETFD).unwrap());
        assert!(flags.contains(FdFlag::FD_CLOEXEC), "{} would leak into children", face.kind);
    }
    let seals = SealFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GET_SEALS).unwrap());
    let needed = SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_FUTURE_WRITE
        | SealFlag::F_SEAL_SEAL;
    assert!(seals.contains(needed), "{seals:?}");
    let stat = fstat(fd).unwrap();
    assert_eq!(stat.st_mode & 0o7777, 0o600);
    assert_eq!(usize::try_from(stat.st_size), Ok(buffer.size()));
    assert_eq!(buffer.identity(), Some((stat.st_dev, stat.st_ino)));
}

pub(crate) fn subscribers_cannot_write(subject: &Subject) {
    let buffer = allocate(subject, SIZE);
    fill(&buffer, 1);
    let face = memory_face(&buffer);
    assert_eq!(attack::through(face.fd), [""; 0]);
    let path = format!("/proc/self/fd/{}", face.fd.as_raw_fd());
    assert_eq!(attack::through_path(&path), [""; 0]);
    child::attack_as_subscriber(subject, dup(face.fd), face.fd.as_raw_fd());

    // Nothing that was tried left a trace, and the owner can still write.
    let mapping = buffer.mapping().unwrap();
    assert_filled(|at, to| mapping.copy_to(at, to).unwrap(), buffer.size(), 1);
    fill(&buffer, 2);
    assert_filled(|at, to| mapping.copy_to(at, to).unwrap(), buffer.size(), 2);
}

pub(crate) fn other_users_cannot_even_open_it(subject: &Subject) {
    if !root() {
        return;
    }
    let buffer = allocate(subject, SIZE);
    let fd = dup(memory_face(&buffer).fd);
    child::attack_as_nobody(subject, fd);
}

pub(crate) fn dma_buf_is_the_same_pages(subject: &Subject) {
    let buffer = allocate(subject, SIZE);
    let Some(face) = dma_buf_face(&buffer) else { return };
    assert_eq!(face.access, AccessMode::Cooperative);
    assert!(dma_buf::is_dma_buf(face.fd));
    assert_eq!(dma_buf::size(face.fd).unwrap(), buffer.size() as u64);

    let device = MmapOptions::new().len(buffer.size()).map_raw(face.fd.as_raw_fd()).unwrap();
    let reader = map_read(memory_face(&buffer).fd, buffer.size());
    fill(&buffer, 3);
    let reading = CpuAccess::begin(face.fd, Direction::Read).unwrap();
    assert_filled(|at, to| pages::read(&device, at, to), buffer.size(), 3);
    reading.end().unwrap();

    // What a device writes is seen by the owner and by those who may only read.
    let writing = CpuAccess::begin(face.fd, Direction::ReadWrite).unwrap();
    for (page, offset) in (0..buffer.size()).step_by(4096).enumerate() {
        for at in offset..offset + 4096 {
            pages::write(&device, at, crate::support::pattern(page, 4));
        }
    }
    drop(writing);
    let mapping = buffer.mapping().unwrap();
    assert_filled(|at, to| mapping.copy_to(at, to).unwrap(), buffer.size(), 4);
    assert_filled(|at, to| pages::read(&reader, at, to), buffer.size(), 4);

    let received = receive::dma_buf(dup(face.fd), buffer.size() as u64).unwrap();
    assert_eq!(received.backing(), BackingKind::Imported);
    assert!(received.mapping().is_none(), "mapped although nobody asked");
    assert_eq!(received.access(), AccessMode::Cooperative);
    let mapping = received.map().unwrap();
    assert!(std::ptr::eq(mapping, received.map().unwrap()), "two mappings");
    assert_filled(|at, to| mapping.copy_to(at, to).unwrap(), buffer.size(), 4);
}

pub(crate) fn received_faces_are_checked(subject: &Subject) {
    let buffer = allocate(subject, SIZE);
    let size = buffer.size() as u64;
    let receive = |announced| receive::memory(dup(memory_face(&buffer).fd), announced);
    assert_eq!(receive(size).unwrap().size(), buffer.size());
    assert_eq!(receive(SIZE as u64).unwrap().size(), SIZE, "a part of the pages");
    assert!(matches!(receive(size + 1), Err(ImportError::Short { .. })));
    assert!(matches!(receive(0), Err(ImportError::ZeroSize)));
    assert!(matches!(receive(MAX_BUFFER_SIZE), Err(ImportError::Short { .. })));
    assert!(matches!(receive(MAX_BUFFER_SIZE + 1), Err(ImportError::TooLarge { .. })));

    // A publisher may pass on what another publisher made: same pages, same access.
    let passed_on = foreign::import(memory_face(&buffer).fd).unwrap();
    assert_eq!(passed_on.identity(), buffer.identity());
    assert_eq!(passed_on.access(), AccessMode::Enforced);
    assert_eq!(passed_on.backing(), BackingKind::Imported);
    assert!(passed_on.mapping().is_none());
    assert_eq!(passed_on.map().unwrap().len(), buffer.size());
    assert!(receive::memory(dup(memory_face(&passed_on).fd.as_fd()), size).is_ok());

    if let Some(face) = dma_buf_face(&buffer) {
        let receive = |announced| receive::dma_buf(dup(face.fd), announced);
        assert_eq!(receive(size).unwrap().size(), buffer.size());
        assert!(matches!(receive(size + 1), Err(ImportError::Short { .. })));
        assert!(matches!(receive(0), Err(ImportError::ZeroSize)));
        let wrong = receive::memory(dup(face.fd), size);
        assert!(matches!(wrong, Err(ImportError::NotMemfd)), "{wrong:?}");
        let imported = foreign::import(face.fd).unwrap();
        assert_eq!(imported.faces().collect::<Vec<_>>(), [FaceKind::DmaBuf]);
        assert_eq!(imported.size(), buffer.size());
    }
}
