//! The two types of our memories: with the memory face, and with the dma-buf face of a buffer.

use std::ptr::null_mut;
use std::sync::OnceLock;

use gst::glib::translate::IntoGlibPtr;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst::{ffi, glib};
use gst_allocators::subclass::prelude::*;
use pagecast::allocators::dma_buf::{CpuAccess, Direction, end_access};

use super::slot;

/// Pages that copies made by elements leave in the pool.
const COPY_RESERVE: u32 = 2;

glib::wrapper! {
    /// The allocator of memories whose descriptor is the memory face of a buffer. It makes none by itself.
    pub struct PageAllocator(ObjectSubclass<imp::PageAllocator>)
        @extends gst_allocators::FdAllocator, gst::Allocator, gst::Object;
}

glib::wrapper! {
    /// The allocator of memories whose descriptor is the dma-buf face of a buffer. It makes none by itself.
    pub struct DmaBufPageAllocator(ObjectSubclass<imp::DmaBufPageAllocator>)
        @extends gst_allocators::DmaBufAllocator, gst_allocators::FdAllocator, gst::Allocator, gst::Object;
}

// SAFETY: the types have no state, and GStreamer's allocators may be used from any thread.
unsafe impl Send for PageAllocator {}
// SAFETY: as above.
unsafe impl Sync for PageAllocator {}
// SAFETY: as above.
unsafe impl Send for DmaBufPageAllocator {}
// SAFETY: as above.
unsafe impl Sync for DmaBufPageAllocator {}

/// The allocator of this process for memory faces. Memories hold a reference to their allocator, so it must
/// not lead back to a pool.
pub(super) fn pages() -> &'static gst::Allocator {
    static ONE: OnceLock<gst::Allocator> = OnceLock::new();
    ONE.get_or_init(|| for_ever(glib::Object::new::<PageAllocator>().upcast()))
}

/// The allocator of this process for dma-buf faces.
pub(super) fn dma_bufs() -> &'static gst::Allocator {
    static ONE: OnceLock<gst::Allocator> = OnceLock::new();
    ONE.get_or_init(|| for_ever(glib::Object::new::<DmaBufPageAllocator>().upcast()))
}

fn for_ever(allocator: gst::Allocator) -> gst::Allocator {
    allocator.set_object_flags(gst::ObjectFlags::MAY_BE_LEAKED);
    allocator
}

/// Whether memories of this allocator are ours.
pub(super) fn is_ours(allocator: &gst::Allocator) -> bool {
    allocator.is::<PageAllocator>() || allocator.is::<DmaBufPageAllocator>()
}

mod imp {
    use super::*;

    #[derive(Default)]
    pub struct PageAllocator;

    #[glib::object_subclass]
    impl ObjectSubclass for PageAllocator {
        const NAME: &'static str = "PagecastAllocator";
        type Type = super::PageAllocator;
        type ParentType = gst_allocators::FdAllocator;

        fn instance_init(this: &glib::subclass::InitializingObject<Self>) {
            take_over_mapping(this.as_ptr().cast());
        }
    }

    impl ObjectImpl for PageAllocator {}
    impl GstObjectImpl for PageAllocator {}
    // SAFETY: `alloc` makes nothing, `free` is the parent's, which made the memory.
    unsafe impl AllocatorImpl for PageAllocator {
        unsafe fn alloc(&self, _: usize, _: &gst::AllocationParams) -> *mut ffi::GstMemory {
            null_mut()
        }
    }
    impl FdAllocatorImpl for PageAllocator {}

    #[derive(Default)]
    pub struct DmaBufPageAllocator;

    #[glib::object_subclass]
    impl ObjectSubclass for DmaBufPageAllocator {
        const NAME: &'static str = "PagecastDmaBufAllocator";
        type Type = super::DmaBufPageAllocator;
        type ParentType = gst_allocators::DmaBufAllocator;

        fn instance_init(this: &glib::subclass::InitializingObject<Self>) {
            take_over_mapping(this.as_ptr().cast());
        }
    }

    impl ObjectImpl for DmaBufPageAllocator {}
    impl GstObjectImpl for DmaBufPageAllocator {}
    // SAFETY: `alloc` makes nothing, `free` is the parent's, which made the memory.
    unsafe impl AllocatorImpl for DmaBufPageAllocator {
        unsafe fn alloc(&self, _: usize, _: &gst::AllocationParams) -> *mut ffi::GstMemory {
            null_mut()
        }
    }
    impl FdAllocatorImpl for DmaBufPageAllocator {}
    impl DmaBufAllocatorImpl for DmaBufPageAllocator {}
}

fn take_over_mapping(allocator: *mut ffi::GstAllocator) {
    // SAFETY: instance init runs before anybody else has the object; the functions are those the fields are
    // for. The full forms are looked at first.
    unsafe {
        (*allocator).mem_map_full = Some(map);
        (*allocator).mem_unmap_full = Some(unmap);
        (*allocator).mem_copy = Some(copy);
    }
}

fn direction(flags: ffi::GstMapFlags) -> Direction {
    match (flags & ffi::GST_MAP_READ != 0, flags & ffi::GST_MAP_WRITE != 0) {
        (true, true) => Direction::ReadWrite,
        (_, true) => Direction::Write,
        _ => Direction::Read,
    }
}

/// The start of the buffer's one mapping; GStreamer adds the memory's offset. Null, and so a copy by
/// GStreamer, if somebody wants to write what is not theirs.
unsafe extern "C" fn map(
    memory: *mut ffi::GstMemory,
    info: *mut ffi::GstMapInfo,
    _maxsize: usize,
) -> glib::ffi::gpointer {
    // SAFETY: GStreamer gives a valid memory of this allocator and its map info.
    let (slot, flags) = unsafe { (slot::slot(slot::root(memory)), (*info).flags) };
    let Some(slot) = slot else { return null_mut() };
    let wants = direction(flags);
    if wants != Direction::Read && !slot.may_write() {
        return null_mut();
    }
    let buffer = slot.buffer();
    let Ok(mapping) = buffer.map() else { return null_mut() };
    if wants != Direction::Read && !mapping.is_writable() {
        return null_mut();
    }
    // SAFETY: as above.
    if let Some(fd) = unsafe { slot::dma_buf(memory) } {
        match CpuAccess::begin(fd, wants) {
            Ok(access) => access.keep_open(),
            Err(_) => return null_mut(),
        }
    }
    mapping.as_ptr().cast_mut().cast()
}

/// Copies a page into another page of its pool, so that what elements copy (decoders do it with frames they
/// still refer to) need not be copied again; where there is none to spare, and with received pages, into
/// ordinary memory.
unsafe extern "C" fn copy(memory: *mut ffi::GstMemory, offset: isize, size: isize) -> *mut ffi::GstMemory {
    // SAFETY: GStreamer gives a valid memory of this allocator, which stays so for the call.
    let (slot, source) = unsafe { (slot::slot(slot::root(memory)), gst::MemoryRef::from_ptr(memory)) };
    let Ok(offset) = usize::try_from(offset) else { return null_mut() };
    let size = usize::try_from(size).unwrap_or_else(|_| source.size().saturating_sub(offset));
    let Ok(map) = source.map_readable() else { return null_mut() };
    let Some(bytes) = offset.checked_add(size).and_then(|end| map.get(offset..end)) else {
        return null_mut();
    };
    let copied = slot.and_then(slot::Slot::pool).and_then(|pool| copy_to_page(&pool, bytes));
    copied.unwrap_or_else(|| gst::Memory::from_mut_slice(bytes.to_vec())).into_glib_ptr()
}

fn copy_to_page(pool: &pagecast::Pool, bytes: &[u8]) -> Option<gst::Memory> {
    if !super::has_room(pool, bytes.len(), COPY_RESERVE) {
        return None;
    }
    let mut lease = pool.acquire(bytes.len()).ok()?;
    lease.as_mut_slice().get_mut(..bytes.len())?.copy_from_slice(bytes);
    super::from_lease(lease, 0, bytes.len())
}

unsafe extern "C" fn unmap(memory: *mut ffi::GstMemory, info: *mut ffi::GstMapInfo) {
    // SAFETY: as in `map`; a mapped memory is in use.
    let (fd, flags) = unsafe { (slot::dma_buf(memory), (*info).flags) };
    if let Some(fd) = fd {
        // Nobody is left to tell; the kernel fails here only if the exporter does.
        let _ = end_access(fd, direction(flags));
    }
}
