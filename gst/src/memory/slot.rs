//! What stands behind a memory: its buffer and why it must not be used again.
//!
//! Two facts that the `unsafe` blocks rest on:
//! **(slot)** every root memory of our allocators has a `Slot` as qdata from its making to its end, since
//! only [`make`] makes such memories; the slot's `buffer` points to the buffer for as long as the slot lives,
//! because a memory in use holds the buffer, and an idle one is attached to it and dropped before it ends.
//! **(exclusive)** a memory whose reference count is zero, or that was just detached from its buffer, has no
//! other user, so its plain fields may be written.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use gst::glib::translate::from_glib_full;
use gst::{ffi, glib};
use pagecast::{Buffer, FaceKind, Frame, Lease};

use super::allocator;

/// Why a buffer must not be used again yet.
pub(super) enum Hold {
    /// It is being filled, or was published.
    Lease(Lease),
    /// It is part of a frame that was received.
    Frame { _frame: Frame, buffer: Arc<Buffer> },
}

impl Hold {
    pub(super) fn buffer(&self) -> &Arc<Buffer> {
        match self {
            Self::Lease(lease) => lease.buffer(),
            Self::Frame { buffer, .. } => buffer,
        }
    }
}

pub(super) struct Slot {
    buffer: *const Buffer,
    hold: Mutex<Option<Hold>>,
}

impl Slot {
    /// The buffer, as long as the memory is in use.
    pub(super) fn buffer(&self) -> &Buffer {
        // SAFETY: (slot).
        unsafe { &*self.buffer }
    }

    /// The buffer, to be kept.
    pub(super) fn share_buffer(&self) -> Option<Arc<Buffer>> {
        self.hold().as_ref().map(|hold| hold.buffer().clone())
    }

    /// The pool of a page to be filled.
    pub(super) fn pool(&self) -> Option<pagecast::Pool> {
        match &*self.hold() {
            Some(Hold::Lease(lease)) => Some(lease.pool().clone()),
            _ => None,
        }
    }

    /// Whether whoever has the memory may write into the page.
    pub(super) fn may_write(&self) -> bool {
        matches!(*self.hold(), Some(Hold::Lease(_)))
    }

    fn hold(&self) -> std::sync::MutexGuard<'_, Option<Hold>> {
        self.hold.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn quark() -> u32 {
    use glib::translate::IntoGlib;
    static QUARK: OnceLock<glib::Quark> = OnceLock::new();
    QUARK.get_or_init(|| glib::Quark::from_str("pagecast-slot")).into_glib()
}

/// The memory that a memory is part of; itself, usually.
pub(super) fn root(memory: *mut ffi::GstMemory) -> *mut ffi::GstMemory {
    // SAFETY: callers give a valid memory; its parent is valid as long as it is.
    let parent = unsafe { (*memory).parent };
    if parent.is_null() { memory } else { root(parent) }
}

/// The slot of a root memory of our allocators.
///
/// # Safety
/// `root` must be a valid memory without parent of one of our allocators, and stay so for `'a`.
pub(super) unsafe fn slot<'a>(root: *mut ffi::GstMemory) -> Option<&'a Slot> {
    // SAFETY: (slot); other memories have nothing under our quark.
    unsafe { ffi::gst_mini_object_get_qdata(root.cast(), quark()).cast::<Slot>().as_ref() }
}

/// A memory that nobody uses, attached to its buffer.
struct Idle(*mut ffi::GstMemory);

/// The same, of the dma-buf face of a buffer that also has another.
struct IdleDmaBuf(Idle);

// SAFETY: mini objects are reference counted atomically and this is the only reference (exclusive).
unsafe impl Send for Idle {}
// SAFETY: a shared `Idle` gives no access to the memory at all.
unsafe impl Sync for Idle {}

impl Drop for Idle {
    fn drop(&mut self) {
        // SAFETY: the reference is ours. Nothing is held in its slot, so `dispose` lets it end.
        unsafe { ffi::gst_mini_object_unref(self.0.cast()) }
    }
}

/// A memory over a part of the held buffer, with the face of this kind if the buffer has it: the idle one if there
/// is one, else a new one.
pub(super) fn wrap(hold: Hold, kind: FaceKind, offset: usize, size: usize) -> Option<gst::Memory> {
    let buffer = hold.buffer().clone();
    if offset.checked_add(size).is_none_or(|end| end > buffer.size()) {
        return None;
    }
    let second = kind == FaceKind::DmaBuf && has_both(&buffer);
    let idle = if second { buffer.detach::<IdleDmaBuf>().map(|idle| idle.0) } else { buffer.detach() };
    let idle = idle.or_else(|| make(&buffer, second))?;
    let memory = idle.0;
    std::mem::forget(idle);
    let writable = matches!(hold, Hold::Lease(_));
    // SAFETY: (exclusive), (slot); the reference that was kept idle is handed out.
    unsafe {
        (*memory).offset = offset;
        (*memory).size = size;
        let flags = &mut (*memory).mini_object.flags;
        if writable {
            *flags &= !ffi::GST_MEMORY_FLAG_READONLY;
        } else {
            *flags |= ffi::GST_MEMORY_FLAG_READONLY;
        }
        *slot(memory)?.hold() = Some(hold);
        Some(from_glib_full(memory))
    }
}

fn has_both(buffer: &Buffer) -> bool {
    buffer.face(FaceKind::Memory).is_some() && buffer.face(FaceKind::DmaBuf).is_some()
}

fn is_dma_buf(memory: *mut ffi::GstMemory) -> bool {
    // SAFETY: callers give a valid memory, which keeps its allocator.
    let allocator = unsafe { (*memory).allocator };
    std::ptr::eq(allocator, gst::prelude::ObjectType::as_ptr(allocator::dma_bufs()))
}

/// The dma-buf that a memory of our allocators is of: the CPU must say when it touches that.
///
/// # Safety
/// As [`slot`].
pub(super) unsafe fn dma_buf<'a>(memory: *mut ffi::GstMemory) -> Option<BorrowedFd<'a>> {
    let root = root(memory);
    // SAFETY: as the caller says.
    let slot = unsafe { slot(root) }.filter(|_| is_dma_buf(root))?;
    slot.buffer().face(FaceKind::DmaBuf).map(|face| face.fd)
}

/// A memory of the buffer's first face, or of its dma-buf face.
fn make(buffer: &Arc<Buffer>, dma_buf: bool) -> Option<Idle> {
    let (allocator, face) = match buffer.face(FaceKind::Memory).filter(|_| !dma_buf) {
        Some(face) => (allocator::pages(), face),
        None => (allocator::dma_bufs(), buffer.face(FaceKind::DmaBuf)?),
    };
    let slot = Box::new(Slot { buffer: Arc::as_ptr(buffer), hold: Mutex::new(None) });
    // SAFETY: the descriptor stays open as long as the buffer, which outlives the memory (slot), and
    // DONT_CLOSE leaves it to the buffer. The memory is new and ours alone, so its fields may be set; the
    // slot is freed with it.
    unsafe {
        let flags = gst_allocators::ffi::GST_FD_MEMORY_FLAG_DONT_CLOSE;
        let memory = gst_allocators::ffi::gst_fd_allocator_alloc(
            gst::prelude::ObjectType::as_ptr(allocator).cast(),
            face.fd.as_raw_fd(),
            buffer.size(),
            flags,
        );
        if memory.is_null() {
            return None;
        }
        let data = Box::into_raw(slot).cast();
        ffi::gst_mini_object_set_qdata(memory.cast(), quark(), data, Some(free_slot));
        (*memory).mini_object.dispose = Some(dispose);
        Some(Idle(memory))
    }
}

unsafe extern "C" fn free_slot(slot: glib::ffi::gpointer) {
    // SAFETY: the pointer comes from `Box::into_raw` in `make`, and qdata is freed once.
    drop(unsafe { Box::from_raw(slot.cast::<Slot>()) });
}

/// Called when the last user of a root memory and of all its parts is gone.
unsafe extern "C" fn dispose(object: *mut ffi::GstMiniObject) -> glib::ffi::gboolean {
    let memory = object.cast::<ffi::GstMemory>();
    // SAFETY: only memories made by `make` have this function.
    let Some(slot) = (unsafe { slot(memory) }) else { return glib::ffi::GTRUE };
    let Some(hold) = slot.hold().take() else { return glib::ffi::GTRUE };
    let buffer = hold.buffer().clone();
    // SAFETY: (exclusive). The new reference resurrects the memory, as GStreamer allows here.
    unsafe {
        (*memory).offset = 0;
        (*memory).size = buffer.size();
        ffi::gst_mini_object_ref(object);
    }
    let second = is_dma_buf(memory) && has_both(&buffer);
    // From here on the memory is not touched: whoever gets the buffer next may use it.
    match Idle(memory) {
        idle if second => buffer.attach(IdleDmaBuf(idle)),
        idle => buffer.attach(idle),
    }
    drop(hold);
    glib::ffi::GFALSE
}
