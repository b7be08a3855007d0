//! The buffer pool that a sink offers to upstream.
//!
//! It keeps no buffers: each one it gives is new, around a page that was used before, and each one that comes
//! back ends there. Pages are what is pooled, and they come back when their last user is gone, which a buffer
//! cannot tell: elements repeat buffers, and keep memory without its buffer.

use gst::glib;
use gst::subclass::prelude::*;

use crate::memory::PoolAllocator;

glib::wrapper! {
    /// Buffers whose memory is one page of a [`PoolAllocator`].
    pub struct PagePool(ObjectSubclass<imp::PagePool>) @extends gst::BufferPool, gst::Object;
}

// SAFETY: its state is behind atomics and locks.
unsafe impl Send for PagePool {}
// SAFETY: as above.
unsafe impl Sync for PagePool {}

impl PagePool {
    /// A pool of this allocator's pages, to be configured by whoever uses it.
    pub fn new(allocator: &PoolAllocator) -> Self {
        let pool: Self = glib::Object::new();
        let _ = pool.imp().allocator.set(allocator.clone());
        pool
    }
}

mod imp {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

    use gst::prelude::*;
    use gst_video::prelude::*;

    use super::*;

    /// Pages made before the first frame, at most; the rest is made when it is needed.
    const PREPARED: usize = 4;

    #[derive(Default)]
    pub(super) struct Config {
        size: usize,
        min: usize,
        params: gst::AllocationParams,
        video: Option<gst_video::VideoInfo>,
    }

    pub struct PagePool {
        pub(super) allocator: OnceLock<PoolAllocator>,
        config: Mutex<Config>,
        flushing: AtomicBool,
    }

    impl Default for PagePool {
        fn default() -> Self {
            let allocator = OnceLock::new();
            Self { allocator, config: Mutex::default(), flushing: AtomicBool::new(true) }
        }
    }

    #[glib::object_subclass]
    impl ObjectSubclass for PagePool {
        const NAME: &'static str = "PagecastPool";
        type Type = super::PagePool;
        type ParentType = gst::BufferPool;
    }

    impl ObjectImpl for PagePool {}
    impl GstObjectImpl for PagePool {}

    impl BufferPoolImpl for PagePool {
        fn options() -> &'static [&'static str] {
            static OPTIONS: OnceLock<[&str; 2]> = OnceLock::new();
            OPTIONS.get_or_init(|| {
                [
                    gst_video::BUFFER_POOL_OPTION_VIDEO_META.as_str(),
                    gst_video::BUFFER_POOL_OPTION_VIDEO_ALIGNMENT.as_str(),
                ]
            })
        }

        fn set_config(&self, config: &mut gst::BufferPoolConfigRef) -> bool {
            let Some(Some((caps, size, min, max))) = Some(config.params()) else { return false };
            let mut read = Config { size: size as usize, min: min as usize, ..Config::default() };
            if let Some((_, params)) = config.allocator() {
                read.params = params;
            }
            let wants_meta = config.has_option(gst_video::BUFFER_POOL_OPTION_VIDEO_META);
            let info = caps.as_ref().and_then(|caps| gst_video::VideoInfo::from_caps(caps).ok());
            if let Some(mut info) = info.filter(|_| wants_meta) {
                if config.has_option(gst_video::BUFFER_POOL_OPTION_VIDEO_ALIGNMENT)
                    && let Some(mut alignment) = config.video_alignment()
                {
                    if info.align(&mut alignment).is_err() {
                        return false;
                    }
                    config.set_video_alignment(&alignment);
                }
                read.size = read.size.max(info.size());
                read.video = Some(info);
            }
            let Ok(size) = u32::try_from(read.size) else { return false };
            config.set_params(caps.as_ref(), size, min, max);
            let allocator = self.allocator.get().map(|allocator| allocator.upcast_ref::<gst::Allocator>());
            config.set_allocator(allocator, Some(&read.params));
            *self.config() = read;
            self.parent_set_config(config)
        }

        fn start(&self) -> bool {
            let (size, count) = {
                let config = self.config();
                (config.size + config.params.prefix() + config.params.padding(), config.min.min(PREPARED))
            };
            let Some(allocator) = self.allocator.get() else { return false };
            match allocator.pool().populate(size, count) {
                Ok(_) => true,
                Err(error) => {
                    gst::error!(gst::CAT_RUST, imp = self, "no page of {size} bytes: {error}");
                    false
                }
            }
        }

        fn stop(&self) -> bool {
            true
        }

        fn flush_start(&self) {
            self.flushing.store(true, Ordering::SeqCst);
        }

        fn flush_stop(&self) {
            self.flushing.store(false, Ordering::SeqCst);
        }

        fn acquire_buffer(
            &self,
            _params: Option<&gst::BufferPoolAcquireParams>,
        ) -> Result<gst::Buffer, gst::FlowError> {
            if self.flushing.load(Ordering::SeqCst) {
                return Err(gst::FlowError::Flushing);
            }
            let (size, params, video) = {
                let config = self.config();
                (config.size, config.params, config.video.clone())
            };
            let allocator = self.allocator.get().ok_or(gst::FlowError::Error)?;
            let memory = allocator.alloc(size, Some(&params)).map_err(|_| gst::FlowError::Error)?;
            let mut buffer = gst::Buffer::new();
            let filled = buffer.make_mut();
            filled.append_memory(memory);
            if let Some(info) = video {
                let (width, height) = (info.width(), info.height());
                let flags = gst_video::VideoFrameFlags::empty();
                let planes = (info.offset(), info.stride());
                gst_video::VideoMeta::add_full(
                    filled,
                    flags,
                    info.format(),
                    width,
                    height,
                    planes.0,
                    planes.1,
                )
                .map_err(|_| gst::FlowError::Error)?;
            }
            Ok(buffer)
        }

        fn release_buffer(&self, buffer: gst::Buffer) {
            drop(buffer); // Its page goes back by itself, once nobody uses it.
        }
    }

    impl PagePool {
        fn config(&self) -> MutexGuard<'_, Config> {
            self.config.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }
}
