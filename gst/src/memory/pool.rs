//! The allocator that a sink offers to upstream: its memories are pages of the sink's pool.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gst::glib::translate::IntoGlibPtr;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst::{ffi, glib};
use gst_allocators::subclass::prelude::*;
use pagecast::{Lease, Pool, PoolError};

/// How long upstream waits for a page before it gets ordinary memory, whose content is copied later. Shares of
/// subscribers leave room in the pool, so only an upstream that hoards buffers waits so long.
const PATIENCE: Duration = Duration::from_millis(500);

glib::wrapper! {
    /// Allocates pages of a pool. Every element that takes the allocator from the ALLOCATION query is served,
    /// whether it uses our buffer pool or its own.
    pub struct PoolAllocator(ObjectSubclass<imp::PoolAllocator>)
        @extends gst_allocators::FdAllocator, gst::Allocator, gst::Object;
}

// SAFETY: its state is behind atomics and locks.
unsafe impl Send for PoolAllocator {}
// SAFETY: as above.
unsafe impl Sync for PoolAllocator {}

impl PoolAllocator {
    /// An allocator of this pool's pages that leaves room for `reserve` more of the size asked for.
    pub fn new(pool: &Pool, reserve: u32) -> Self {
        let allocator: Self = glib::Object::new();
        // Elements may ask it themselves; the parent says that only its own functions may.
        allocator.unset_object_flags_custom_alloc();
        let state = imp::State {
            pool: pool.clone(),
            reserve,
            flushing: AtomicBool::new(false),
            importing: AtomicBool::new(false),
            refused: AtomicU64::new(0),
        };
        let _ = allocator.imp().state.set(state);
        allocator
    }

    /// The pool.
    pub fn pool(&self) -> &Pool {
        &self.state().pool
    }

    /// While set, nobody waits for a page.
    pub fn set_flushing(&self, flushing: bool) {
        self.state().flushing.store(flushing, Ordering::SeqCst);
    }

    /// While set, pages are handed out by their dma-buf faces, for a driver that imports them.
    pub fn set_importing(&self, importing: bool) {
        self.state().importing.store(importing, Ordering::SeqCst);
    }

    /// How often upstream got ordinary memory because there was no page.
    pub fn refused(&self) -> u64 {
        self.state().refused.load(Ordering::Relaxed)
    }

    /// A page for upstream; waits for one if `wait`.
    ///
    /// # Errors
    /// As [`Pool::acquire`].
    pub fn lease(&self, size: usize, wait: bool) -> Result<Lease, PoolError> {
        let state = self.state();
        let until = Instant::now() + if wait { PATIENCE } else { Duration::ZERO };
        loop {
            let result = if state.has_room(size) {
                state.pool.acquire(size)
            } else {
                // Returned pages may be waiting to be looked at.
                state.pool.reclaim();
                if state.has_room(size) { state.pool.acquire(size) } else { state.exhausted(size) }
            };
            let over = state.flushing.load(Ordering::SeqCst) || Instant::now() >= until;
            match result {
                Err(PoolError::Exhausted { .. }) if !over => std::thread::sleep(Duration::from_millis(1)),
                result => return result,
            }
        }
    }

    fn state(&self) -> &imp::State {
        self.imp().state.get().expect("set when the allocator is made")
    }

    fn unset_object_flags_custom_alloc(&self) {
        let object: *mut ffi::GstObject = self.as_ptr().cast();
        // SAFETY: the object is new and ours alone; its flags are a plain field.
        unsafe { (*object).flags &= !(ffi::GST_ALLOCATOR_FLAG_CUSTOM_ALLOC) };
    }
}

mod imp {
    use super::*;

    pub(super) struct State {
        pub(super) pool: Pool,
        pub(super) reserve: u32,
        pub(super) flushing: AtomicBool,
        pub(super) importing: AtomicBool,
        pub(super) refused: AtomicU64,
    }

    impl State {
        /// Whether the pool has room for this page and the reserve, which copies of other memory need.
        pub(super) fn has_room(&self, size: usize) -> bool {
            super::super::has_room(&self.pool, size, self.reserve)
        }

        pub(super) fn exhausted(&self, size: usize) -> Result<Lease, PoolError> {
            Err(PoolError::Exhausted { size, limit: self.pool.options().limit })
        }
    }

    #[derive(Default)]
    pub struct PoolAllocator {
        pub(super) state: OnceLock<State>,
    }

    #[glib::object_subclass]
    impl ObjectSubclass for PoolAllocator {
        const NAME: &'static str = "PagecastPoolAllocator";
        type Type = super::PoolAllocator;
        type ParentType = gst_allocators::FdAllocator;
    }

    impl ObjectImpl for PoolAllocator {}
    impl GstObjectImpl for PoolAllocator {}
    impl FdAllocatorImpl for PoolAllocator {}

    // SAFETY: memories are those of the page allocator or of the system, and each is freed by the allocator
    // that it names.
    unsafe impl AllocatorImpl for PoolAllocator {
        unsafe fn alloc(&self, size: usize, params: &gst::AllocationParams) -> *mut ffi::GstMemory {
            self.page(size, params).unwrap_or_else(|| self.ordinary(size, params)).into_glib_ptr()
        }
    }

    impl PoolAllocator {
        fn page(&self, size: usize, params: &gst::AllocationParams) -> Option<gst::Memory> {
            let whole = size.checked_add(params.prefix())?.checked_add(params.padding())?;
            let lease = self.obj().lease(whole, true).ok()?;
            if params.align() >= lease.buffer().page_size() {
                return None;
            }
            let mut lease = lease;
            let zero = |lease: &mut Lease, range: std::ops::Range<usize>| {
                lease.as_mut_slice().get_mut(range).map(|bytes| bytes.fill(0))
            };
            if params.flags().contains(gst::MemoryFlags::ZERO_PREFIXED) {
                zero(&mut lease, 0..params.prefix())?;
            }
            if params.flags().contains(gst::MemoryFlags::ZERO_PADDED) {
                zero(&mut lease, params.prefix() + size..whole)?;
            }
            let importing = self.state.get().is_some_and(|state| state.importing.load(Ordering::SeqCst));
            let wrap = if importing { super::super::dma_buf_from_lease } else { super::super::from_lease };
            wrap(lease, params.prefix(), size)
        }

        fn ordinary(&self, size: usize, params: &gst::AllocationParams) -> gst::Memory {
            if let Some(state) = self.state.get() {
                state.refused.fetch_add(1, Ordering::Relaxed);
            }
            gst::Memory::with_size_and_params(size, params)
        }
    }
}
