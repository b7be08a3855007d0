//! Proof that the suite can fail, and what is particular to one backing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pagecast_allocators::{
    AllocError, Backing, BackingChoice, BackingKind, Buffer, FaceAbsent, FaceKind, HugetlbBacking,
    MemfdBacking, PageSize, Wants, WithFallback, open, receive,
};

use crate::cases;
use crate::support::{Subject, alone, dup, fill, huge_pages, memory_face, root, skip, subject};

/// A fault is caught if the case that guards against it fails.
#[track_caller]
fn assert_caught(subject: &Subject, case: fn(&Subject)) {
    let outcome = catch_unwind(AssertUnwindSafe(|| case(subject)));
    assert!(outcome.is_err(), "{} passes a case that it must fail", subject.name);
}

#[test]
fn a_forgotten_write_seal_is_caught() {
    let _alone = alone();
    let subject = subject("broken-write-seal");
    assert_caught(&subject, cases::subscribers_cannot_write);
    assert_caught(&subject, cases::face_descriptor_is_safe_to_hand_out);
    assert_caught(&subject, cases::owner_writes_are_seen);
    // What does not depend on the seal still holds: the fault is what was caught.
    cases::pages_are_zero_and_there(&subject);
    cases::sizes(&subject);
}

#[test]
fn a_forgotten_write_seal_of_huge_pages_is_caught() {
    let _alone = alone();
    if huge_pages() {
        let subject = subject("broken-huge-write-seal");
        assert_caught(&subject, cases::subscribers_cannot_write);
        assert_caught(&subject, cases::received_faces_are_checked);
        cases::sizes(&subject);
    }
}

#[test]
fn forgotten_size_seals_are_caught() {
    let _alone = alone();
    let subject = subject("broken-size-seals");
    assert_caught(&subject, cases::subscribers_cannot_write);
    assert_caught(&subject, cases::received_faces_are_checked);
    cases::sizes(&subject);
}

#[test]
fn a_forgotten_chmod_is_caught() {
    let _alone = alone();
    let subject = subject("broken-chmod");
    assert_caught(&subject, cases::face_descriptor_is_safe_to_hand_out);
    cases::subscribers_cannot_write(&subject);
    if root() {
        assert_caught(&subject, cases::other_users_cannot_even_open_it);
    }
}

#[test]
fn the_wrong_order_is_caught() {
    let _alone = alone();
    let right = cases::allocate(&subject("memfd"), 4096);
    if right.face(FaceKind::DmaBuf).is_none() {
        skip("no dma-buf face: the order of sealing does not show");
        return;
    }
    let wrong = cases::allocate(&subject("broken-order"), 4096);
    let absent = wrong.absent(FaceKind::DmaBuf);
    assert!(matches!(absent, Some(FaceAbsent::Refused(nix::errno::Errno::EINVAL))), "{absent:?}");
}

#[test]
fn an_old_kernel_is_no_obstacle() {
    let _alone = alone();
    let subject = subject("old-kernel");
    cases::sizes(&subject);
    cases::pages_are_zero_and_there(&subject);
    cases::owner_writes_are_seen(&subject);
    cases::face_descriptor_is_safe_to_hand_out(&subject);
    cases::subscribers_cannot_write(&subject);
}

#[test]
fn without_proc_the_face_is_a_writable_opening_that_cannot_write() {
    let _alone = alone();
    let subject = subject("without-proc");
    assert_caught(&subject, cases::face_descriptor_is_safe_to_hand_out);
    cases::owner_writes_are_seen(&subject);
    cases::subscribers_cannot_write(&subject);
    cases::received_faces_are_checked(&subject);
}

#[test]
fn a_dma_buf_face_over_the_limit_is_absent_and_says_why() {
    let _alone = alone();
    let small = MemfdBacking::new().allocate(1, &Wants::default()).unwrap();
    if small.face(FaceKind::DmaBuf).is_none() {
        skip("no dma-buf face");
        return;
    }
    let limit = 64 << 20;
    let largest = MemfdBacking::new().allocate(limit, &Wants::default()).unwrap();
    assert!(largest.face(FaceKind::DmaBuf).is_some());
    drop(largest);
    let over = MemfdBacking::new().allocate(limit + 1, &Wants::default()).unwrap();
    assert!(matches!(over.absent(FaceKind::DmaBuf), Some(FaceAbsent::TooLarge { .. })));
    drop(over);
    let wants = Wants { importable: true, ..Wants::default() };
    let refused = MemfdBacking::new().allocate(limit + 1, &wants).unwrap_err();
    assert!(refused.to_string().contains("size_limit_mb"), "{refused}");
}

#[test]
fn huge_pages_run_out_with_an_error_and_come_back() {
    let _alone = alone();
    if !huge_pages() {
        return;
    }
    let backing = HugetlbBacking::new();
    let free = HugetlbBacking::pages_available();
    let ask = || backing.allocate(3 << 20, &Wants::default());
    let mut buffers = Vec::new();
    let refused = loop {
        match ask() {
            Ok(buffer) => buffers.push(buffer),
            Err(error) => break error,
        }
        assert!(buffers.len() as u64 <= free, "more pages than there are");
    };
    assert!(matches!(refused, AllocError::NoHugepages { needed: 2, .. }), "{refused:?}");
    assert!(refused.to_string().contains("vm.nr_hugepages"));
    assert_eq!(buffers.len() as u64, free / 2);
    // Not one of them can end in SIGBUS, in its owner or in a reader.
    for buffer in &buffers {
        fill(buffer, 1);
        receive::memory(dup(memory_face(buffer).fd), buffer.size() as u64).unwrap();
    }
    let fallback = open(BackingChoice::Hugetlb);
    let ordinary = fallback.allocate(3 << 20, &Wants::default()).unwrap();
    assert_eq!(ordinary.backing(), BackingKind::Memfd);
    let named = fallback.fallbacks();
    assert_eq!(named.len(), 1);
    assert_eq!((named[0].from, named[0].to), (BackingKind::Hugetlb, BackingKind::Memfd));
    assert!(named[0].reason.contains("vm.nr_hugepages"), "{}", named[0].reason);
    drop(buffers);
    assert_eq!(HugetlbBacking::pages_available(), free);
    assert_eq!(ask().unwrap().backing(), BackingKind::Hugetlb);
}

#[test]
fn auto_prefers_huge_pages_and_names_what_it_does_instead() {
    let _alone = alone();
    let auto = open(BackingChoice::Auto);
    let reserved = HugetlbBacking::pages_available() >= 2;
    for _ in 0..3 {
        let buffer = auto.allocate(3 << 20, &Wants::default()).unwrap();
        let expected = if reserved { BackingKind::Hugetlb } else { BackingKind::Memfd };
        assert_eq!(buffer.backing(), expected);
    }
    let counts: Vec<_> = auto.fallbacks().iter().map(|fallback| fallback.count).collect();
    assert_eq!(counts, if reserved { vec![] } else { vec![3] });

    let small = auto.allocate(5000, &Wants::default()).unwrap();
    let pages = PageSize::of_machine().round_up(5000).unwrap();
    assert_eq!((small.backing(), small.size()), (BackingKind::Memfd, pages));
    let last = auto.fallbacks().pop().unwrap();
    assert!(last.reason.contains("unused"), "{}", last.reason);
    if !reserved {
        skip("no huge pages reserved: auto was seen with ordinary pages only");
    }
}

/// Fails as it is told.
#[derive(Debug)]
struct Refuses(fn() -> AllocError);

impl Backing for Refuses {
    fn kind(&self) -> BackingKind {
        BackingKind::DmaHeap
    }

    fn granularity(&self) -> usize {
        1
    }

    fn allocate(&self, _: usize, _: &Wants) -> Result<Buffer, AllocError> {
        Err(self.0())
    }
}

fn refusing(error: fn() -> AllocError, rest: Vec<Box<dyn Backing>>) -> WithFallback {
    WithFallback::new(Box::new(Refuses(error)), rest)
}

#[test]
fn what_is_wrong_with_the_request_or_the_process_is_no_reason_to_fall_back() {
    let _alone = alone();
    let memfd = || -> Vec<Box<dyn Backing>> { vec![Box::new(MemfdBacking::new())] };
    for error in [|| AllocError::ZeroSize, || AllocError::TooManyFiles] {
        let backing = refusing(error, memfd());
        assert_eq!(backing.allocate(1, &Wants::default()).unwrap_err().to_string(), error().to_string());
        assert!(backing.fallbacks().is_empty());
    }
    let huge_pages_out: fn() -> AllocError = || AllocError::NoHugepages { needed: 2, free: 1 };
    let backing = refusing(huge_pages_out, memfd());
    assert_eq!(backing.allocate(1, &Wants::default()).unwrap().backing(), BackingKind::Memfd);
    let named = backing.fallbacks();
    assert_eq!((named[0].from, named[0].to), (BackingKind::DmaHeap, BackingKind::Memfd));
    assert_eq!(named[0].reason, huge_pages_out().to_string());

    // When nothing is left, the last one's reason counts.
    let last = Refuses(|| AllocError::OutOfMemory { size: 1 });
    let backing = refusing(huge_pages_out, vec![Box::new(last)]);
    let refused = backing.allocate(1, &Wants::default()).unwrap_err();
    assert!(matches!(refused, AllocError::OutOfMemory { .. }), "{refused}");
}

/// Notes when it is dropped, and looks whether its buffer's pages are still mapped.
struct Derived {
    page: usize,
    dropped_mapped: Arc<AtomicUsize>,
}

impl Drop for Derived {
    fn drop(&mut self) {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        if maps.contains(&format!("{:x}-", self.page)) {
            self.dropped_mapped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[test]
fn attached_objects_are_a_stack_and_go_before_the_mapping() {
    let _alone = alone();
    let buffer = MemfdBacking::new().allocate(4096, &Wants::default()).unwrap();
    let dropped_mapped = Arc::new(AtomicUsize::new(0));
    let page = buffer.mapping().unwrap().as_ptr().addr();
    buffer.attach(1_u32);
    buffer.attach("between");
    buffer.attach(2_u32);
    buffer.attach(Derived { page, dropped_mapped: Arc::clone(&dropped_mapped) });
    assert_eq!(buffer.detach::<u32>(), Some(2));
    assert_eq!(buffer.detach::<u32>(), Some(1));
    assert_eq!(buffer.detach::<u32>(), None);
    assert_eq!(buffer.detach::<&str>(), Some("between"));
    drop(buffer);
    assert_eq!(dropped_mapped.load(Ordering::Relaxed), 1);
}

#[test]
fn names_are_read_as_they_are_written() {
    for choice in [BackingChoice::Auto, BackingChoice::Memfd, BackingChoice::Hugetlb] {
        assert_eq!(choice.to_string().parse(), Ok(choice));
    }
    for face in [FaceKind::Memory, FaceKind::DmaBuf, FaceKind::Mr] {
        assert_eq!(face.to_string().parse(), Ok(face));
    }
    let kinds = [
        BackingKind::Memfd,
        BackingKind::Hugetlb,
        BackingKind::DmaHeap,
        BackingKind::DrmDumb,
        BackingKind::Imported,
    ];
    for kind in kinds {
        assert_eq!(kind.to_string().parse(), Ok(kind));
    }
    let error = "hugetblfs".parse::<BackingChoice>().unwrap_err();
    assert_eq!(
        error.to_string(),
        "unknown backing `hugetblfs`; one of: auto, memfd, hugetlb, dma-heap[:NAME], drm-dumb[:DEVICE]"
    );
}
