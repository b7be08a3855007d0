//! The buffer behind a memory that upstream gives us.

use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use gst::glib::translate::IntoGlib;
use gst::{ffi, glib};
use gst_allocators::{FdMemory, FdMemoryRef};
use pagecast::{Buffer, allocators::foreign};

use super::{allocator, slot};

/// A part of a buffer.
#[derive(Clone, Debug)]
pub struct Page {
    /// The buffer.
    pub buffer: Arc<Buffer>,
    /// Where the part begins.
    pub offset: usize,
    /// Its length.
    pub length: usize,
    /// Whether the buffer is upstream's own, not one of our memories.
    pub foreign: bool,
}

/// The page behind a memory: a page of ours, or a dma-buf or sealed memfd of upstream's. `None` if its bytes
/// must be copied.
pub fn find(memory: &gst::MemoryRef) -> Option<Page> {
    let root = slot::root(memory.as_ptr().cast_mut());
    // SAFETY: the root of a valid memory is valid as long as that.
    let root = unsafe { gst::MemoryRef::from_ptr(root) };
    let allocator = root.allocator()?;
    let ours = allocator::is_ours(allocator);
    let buffer = if ours {
        // SAFETY: a root memory of our allocators, borrowed.
        unsafe { slot::slot(root.as_ptr().cast_mut()) }?.share_buffer()?
    } else {
        imported(root.downcast_memory_ref::<FdMemory>()?)?
    };
    let (offset, length) = (memory.offset(), memory.size());
    let end = offset.checked_add(length)?;
    (end <= buffer.size()).then_some(Page { buffer, offset, length, foreign: !ours })
}

/// What became of looking at a foreign memory; kept with it, so that it is looked at once.
type Looked = Option<Arc<Buffer>>;

fn imported(memory: &FdMemoryRef) -> Looked {
    static QUARK: OnceLock<glib::Quark> = OnceLock::new();
    static LOOKING: Mutex<()> = Mutex::new(());
    let quark = QUARK.get_or_init(|| glib::Quark::from_str("pagecast-import")).into_glib();
    let object = memory.as_ptr().cast_mut().cast::<ffi::GstMiniObject>();
    // SAFETY: the memory is valid; what is under our quark is a boxed `Looked` that lives, unchanged, until
    // the memory ends.
    let known = || unsafe { ffi::gst_mini_object_get_qdata(object, quark).cast::<Looked>().as_ref() };
    if let Some(known) = known() {
        return known.clone();
    }
    let _one_at_a_time = LOOKING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = known() {
        return known.clone();
    }
    let fd = memory.fd();
    if fd < 0 {
        return None;
    }
    // SAFETY: the memory keeps its descriptor open while it is borrowed.
    let looked: Looked = foreign::import(unsafe { BorrowedFd::borrow_raw(fd) }).ok().map(Arc::new);
    let data = Box::into_raw(Box::new(looked.clone())).cast();
    // SAFETY: the box is freed with the memory, not before: only one thread puts one there, once.
    unsafe { ffi::gst_mini_object_set_qdata(object, quark, data, Some(forget)) };
    looked
}

unsafe extern "C" fn forget(looked: glib::ffi::gpointer) {
    // SAFETY: the pointer comes from `Box::into_raw` in `imported`, and qdata is freed once.
    drop(unsafe { Box::from_raw(looked.cast::<Looked>()) });
}
