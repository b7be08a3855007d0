//! A message costs no heap allocation.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::IoSlice;
use std::os::fd::AsFd;

use pagecast_ipc::socket::Seqpacket;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is handed on to the system's allocator unchanged; the counter does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's contract is the same as ours.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is the same as ours.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

#[test]
fn sending_and_receiving_allocates_nothing() {
    let (a, b) = Seqpacket::pair().unwrap();
    let (mut buf, mut fds) = ([0; 64], Vec::new());
    let count = allocations(|| {
        for _ in 0..100 {
            a.send_vectored(&[IoSlice::new(b"head"), IoSlice::new(b"body")], &[]).unwrap();
            assert_eq!(b.receive(&mut buf, &mut fds), Ok(8));
            assert!(b.receive(&mut buf, &mut fds).is_err());
        }
    });
    assert_eq!(count, 0);
    // The counter does count.
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1);
    // Descriptors come into a list that has room.
    fds.reserve(4);
    a.send(b"fd", &[a.as_fd()]).unwrap();
    assert_eq!(allocations(|| assert_eq!(b.receive(&mut buf, &mut fds), Ok(2))), 0);
    assert_eq!(fds.len(), 1);
}
