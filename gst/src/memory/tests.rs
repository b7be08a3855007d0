use std::os::unix::fs::MetadataExt;

use gst::prelude::*;
use gst_allocators::{FdMemory, FdMemoryRef};
use pagecast::{BackingChoice, Frame, Pool, PoolOptions};

use super::*;

fn pool(limit: u64) -> Pool {
    gst::init().unwrap();
    Pool::new(PoolOptions { backing: BackingChoice::Memfd, limit, ..PoolOptions::default() })
}

fn fd(memory: &gst::MemoryRef) -> i32 {
    let memory: &FdMemoryRef = memory.downcast_memory_ref::<FdMemory>().expect("fd memory");
    memory.fd()
}

fn inode(fd: i32) -> u64 {
    std::fs::metadata(format!("/proc/self/fd/{fd}")).unwrap().ino()
}

#[test]
fn a_memory_is_the_page_and_comes_back_as_itself() {
    let pool = pool(1 << 20);
    let lease = pool.acquire(5000).unwrap();
    let (identity, start) = (lease.buffer().identity().unwrap(), lease.buffer().mapping().unwrap().as_ptr());
    let mut memory = from_lease(lease, 8, 5000).unwrap();
    assert_eq!((memory.offset(), memory.size()), (8, 5000));
    assert_eq!(inode(fd(&memory)), identity.1);
    {
        let mut map = memory.get_mut().unwrap().map_writable().unwrap();
        assert_eq!(map.as_ptr(), start.wrapping_add(8));
        map[0] = 9;
    }
    memory.get_mut().unwrap().resize(100..200);
    let first = memory.as_ptr();
    assert_eq!(pool.figures().free, 0);
    drop(memory);
    assert_eq!(pool.figures().free, pool.figures().total);
    let memory = from_lease(pool.acquire(5000).unwrap(), 0, 5000).unwrap();
    assert_eq!(memory.as_ptr(), first, "the wrapper is used again");
    assert_eq!((memory.offset(), memory.size()), (0, 5000));
    assert_eq!(pool.figures().allocated, 1);
}

#[test]
fn a_page_is_held_until_the_last_part_is_gone() {
    let pool = pool(1 << 20);
    let memory = from_lease(pool.acquire(4096).unwrap(), 0, 4096).unwrap();
    let mut buffer = gst::Buffer::new();
    buffer.get_mut().unwrap().append_memory(memory);
    let region = buffer.copy_region(gst::BufferCopyFlags::MEMORY, 100..300).unwrap();
    let part = region.peek_memory(0).share(10..50);
    drop(buffer);
    drop(region);
    assert_eq!(pool.figures().free, 0, "a part is still used");
    let page = find(&part).unwrap();
    assert_eq!((page.offset, page.length, page.foreign), (110, 40, false));
    drop((part, page));
    assert_eq!(pool.figures().free, 4096);
}

#[test]
fn memories_end_with_their_buffers() {
    let pool = pool(1 << 20);
    let memory = from_lease(pool.acquire(4096).unwrap(), 0, 4096).unwrap();
    let (gone, told) = std::sync::mpsc::channel();
    notice(&memory, gone);
    drop(memory);
    assert!(told.try_recv().is_err(), "idle, not gone");
    pool.trim();
    told.try_recv().expect("the memory went with its buffer");
    let last = from_lease(pool.acquire(4096).unwrap(), 0, 4096).unwrap();
    drop(pool);
    drop(last); // The pool ends here, by its last page.
}

/// Tells when a memory is really freed, by a mini object's qdata.
fn notice(memory: &gst::MemoryRef, tell: std::sync::mpsc::Sender<()>) {
    use gst::glib::translate::IntoGlib;
    type Tell = std::sync::mpsc::Sender<()>;
    unsafe extern "C" fn tell_it(data: gst::glib::ffi::gpointer) {
        // SAFETY: the pointer comes from the box below, freed once.
        let tell = unsafe { Box::from_raw(data.cast::<Tell>()) };
        let _ = tell.send(());
    }
    let quark = gst::glib::Quark::from_str("pagecast-test-notice").into_glib();
    let data = Box::into_raw(Box::new(tell)).cast();
    // SAFETY: the memory is valid, the box is freed by `tell_it` once.
    unsafe {
        let object = memory.as_ptr().cast_mut().cast();
        gst::ffi::gst_mini_object_set_qdata(object, quark, data, Some(tell_it));
    }
}

#[test]
fn received_memory_cannot_be_written_and_gives_its_frame_back() {
    let pool = pool(1 << 20);
    let mut lease = pool.acquire(4096).unwrap();
    lease.write(0, b"page").unwrap();
    let buffer = lease.buffer().clone();
    let frame = Frame::builder().segment(buffer.clone(), 0, 4).segment(buffer, 1, 3).owner(lease).build();
    let frame = frame.unwrap();
    let first = ReceivedMemory::wrap(&frame, 0, pagecast::FaceKind::Memory).unwrap();
    let second = ReceivedMemory::wrap(&frame, 1, pagecast::FaceKind::Memory).unwrap();
    assert_ne!(first.as_ptr(), second.as_ptr());
    assert!(ReceivedMemory::wrap(&frame, 2, pagecast::FaceKind::Memory).is_none());
    assert_eq!(second.map_readable().unwrap().as_slice(), b"age");
    let mut buffer = gst::Buffer::new();
    buffer.get_mut().unwrap().append_memory(first);
    {
        // GStreamer copies what it may not write, and lets go of the page.
        let mut map = buffer.get_mut().unwrap().map_writable().unwrap();
        map[0] = b'r';
        assert_eq!(map.as_slice(), b"rage");
    }
    assert!(buffer.peek_memory(0).downcast_memory_ref::<FdMemory>().is_none());
    assert_eq!(frame.to_vec().unwrap(), b"pageage");
    drop(frame);
    assert_eq!(pool.figures().free, 0);
    drop(second);
    assert_eq!(pool.figures().free, 4096);
}

#[test]
fn the_allocator_serves_pages_and_leaves_the_reserve() {
    let pool = pool(4 * 4096);
    let allocator = PoolAllocator::new(&pool, 2);
    let params = gst::AllocationParams::new(gst::MemoryFlags::ZERO_PADDED, 15, 16, 32);
    let memory = allocator.alloc(1000, Some(&params)).unwrap();
    assert_eq!((memory.offset(), memory.size()), (16, 1000));
    let page = find(&memory).expect("a page");
    let second = allocator.alloc(4096, None).unwrap();
    assert!(find(&second).is_some());
    allocator.set_flushing(true); // nobody waits
    let third = allocator.alloc(4096, None).unwrap();
    assert!(find(&third).is_none(), "ordinary memory: two pages are reserved");
    assert_eq!(allocator.refused(), 1);
    assert!(pool.acquire(4096).is_ok(), "the reserve is there");
    drop((page, memory));
    assert!(find(&allocator.alloc(4096, None).unwrap()).is_some());
}

#[test]
fn the_allocator_outlives_nothing() {
    let pool = pool(1 << 20);
    let allocator = PoolAllocator::new(&pool, 0);
    let memory = allocator.alloc(100, None).unwrap();
    let weak = allocator.downgrade();
    drop(allocator);
    assert!(weak.upgrade().is_none(), "memories do not lead back to the pool's allocator");
    drop(memory);
    assert_eq!(pool.figures().free, 4096);
}

#[test]
fn sealed_memory_of_others_is_passed_and_looked_at_once() {
    use std::os::fd::{AsRawFd, IntoRawFd};
    gst::init().unwrap();
    let new = |seals: &[&str]| {
        use nix::fcntl::{FcntlArg, SealFlag, fcntl};
        use nix::sys::memfd::{MFdFlags, memfd_create};
        let fd = memfd_create("foreign", MFdFlags::MFD_ALLOW_SEALING | MFdFlags::MFD_CLOEXEC).unwrap();
        nix::unistd::ftruncate(&fd, 8192).unwrap();
        let seals = seals.iter().map(|name| SealFlag::from_name(name).unwrap()).collect();
        fcntl(&fd, FcntlArg::F_ADD_SEALS(seals)).unwrap();
        let inode = inode(fd.as_raw_fd());
        let allocator = gst_allocators::FdAllocator::new();
        // SAFETY: the descriptor is given to the memory.
        let memory = unsafe {
            use gst_allocators::prelude::*;
            let flags = gst_allocators::FdMemoryFlags::empty();
            allocator.alloc_fd(fd.into_raw_fd(), 8192, flags).unwrap()
        };
        (memory, inode)
    };
    let (sealed, inode) = new(&["F_SEAL_SHRINK", "F_SEAL_GROW"]);
    let page = find(&sealed).expect("a page");
    assert!(page.foreign);
    assert_eq!(page.buffer.identity().unwrap().1, inode);
    let part = find(&sealed.share(4096..5000)).unwrap();
    assert_eq!((part.offset, part.length), (4096, 904));
    assert_eq!(part.buffer.id(), page.buffer.id(), "one buffer for one memory");
    drop((part, sealed));
    assert_eq!(std::sync::Arc::strong_count(&page.buffer), 1, "the cache went with the memory");
    let (unsealed, _) = new(&[]);
    assert!(find(&unsealed).is_none());
    assert!(find(&gst::Memory::with_size(10)).is_none());
}

#[test]
fn a_copy_of_a_page_is_a_page() {
    let pool = pool(8 * 4096);
    let mut memory = from_lease(pool.acquire(4096).unwrap(), 0, 4096).unwrap();
    memory.get_mut().unwrap().map_writable().unwrap().fill(3);
    let mut copy = memory.copy_range(96..1096);
    let page = find(&copy).expect("a page");
    assert_eq!((copy.size(), page.length), (1000, 1000));
    assert_ne!(page.buffer.id(), find(&memory).unwrap().buffer.id());
    assert_eq!(copy.map_readable().unwrap().as_slice(), [3; 1000]);
    copy.get_mut().unwrap().map_writable().unwrap().fill(4);
    assert_eq!(memory.map_readable().unwrap()[96], 3);
    // While somebody writes, GStreamer copies a buffer's memory instead of sharing it.
    let mut buffer = gst::Buffer::new();
    buffer.make_mut().append_memory(memory);
    let held: Vec<_> = (0..8).map(|_| pool.acquire(4096)).take_while(Result::is_ok).collect();
    let ordinary = buffer.peek_memory(0).copy();
    assert!(find(&ordinary).is_none(), "none to spare");
    assert_eq!(ordinary.map_readable().unwrap().as_slice(), [3; 4096]);
    drop(held);
    // A received page is copied to ordinary memory.
    let lease = pool.acquire(4096).unwrap();
    let frame = Frame::builder().lease(lease, 4096).build().unwrap();
    let received = ReceivedMemory::wrap(&frame, 0, pagecast::FaceKind::Memory).unwrap();
    assert!(find(&received.copy()).is_none());
}
