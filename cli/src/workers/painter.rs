//! A source element whose frames a closure fills, in whatever memory the elements behind it offer.

use std::sync::{Mutex, PoisonError};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::prelude::*;
use gst_base::subclass::prelude::*;

/// What the closure made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Painted {
    /// The frame with this number.
    Frame(u64),
    /// Nothing: the stream ends.
    End,
}

/// Buffers of a pool of our own. shmsink stands still for ever when those that wait in an unlimited pool
/// take up all of its area.
const MAX_BUFFERS: u32 = 16;

/// Fills the bytes of the next frame.
pub(crate) type Paint = Box<dyn FnMut(&mut [u8]) -> Painted + Send>;

glib::wrapper! {
    pub(crate) struct Painter(ObjectSubclass<imp::Painter>)
        @extends gst_base::BaseSrc, gst::Element, gst::Object;
}

impl Painter {
    /// Frames of these raw video caps, which must say a frame rate. `live` frames come at their own pace.
    pub(crate) fn new(caps: gst::Caps, live: bool, paint: Paint) -> Self {
        let painter: Self = glib::Object::new();
        painter.set_format(gst::Format::Time);
        painter.set_live(live);
        *painter.imp().state.lock().unwrap_or_else(PoisonError::into_inner) = Some((caps, paint));
        painter
    }
}

mod imp {
    use super::*;

    type State = Option<(gst::Caps, Paint)>;

    #[derive(Default)]
    pub(crate) struct Painter {
        pub(super) state: Mutex<State>,
    }

    #[glib::object_subclass]
    impl ObjectSubclass for Painter {
        const NAME: &'static str = "PagecastPainter";
        type Type = super::Painter;
        type ParentType = gst_base::BaseSrc;
    }

    impl ObjectImpl for Painter {}
    impl GstObjectImpl for Painter {}

    impl ElementImpl for Painter {
        fn pad_templates() -> &'static [gst::PadTemplate] {
            static TEMPLATES: std::sync::LazyLock<Vec<gst::PadTemplate>> = std::sync::LazyLock::new(|| {
                let caps = gst::Caps::new_empty_simple("video/x-raw");
                let (direction, presence) = (gst::PadDirection::Src, gst::PadPresence::Always);
                gst::PadTemplate::new("src", direction, presence, &caps).into_iter().collect()
            });
            &TEMPLATES
        }
    }

    impl Painter {
        fn caps_now(&self) -> Option<gst::Caps> {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.as_ref().map(|(caps, _)| caps.clone())
        }

        fn interval(&self) -> Option<gst::ClockTime> {
            let caps = self.caps_now()?;
            let info = gst_video::VideoInfo::from_caps(&caps).ok()?;
            let fps = info.fps();
            gst::ClockTime::SECOND.mul_div_floor(fps.denom().try_into().ok()?, fps.numer().try_into().ok()?)
        }
    }

    impl BaseSrcImpl for Painter {
        fn is_seekable(&self) -> bool {
            false
        }

        fn caps(&self, filter: Option<&gst::Caps>) -> Option<gst::Caps> {
            let caps = self.caps_now()?;
            Some(filter.map_or_else(|| caps.clone(), |filter| filter.intersect(&caps)))
        }

        fn decide_allocation(&self, query: &mut gst::query::Allocation) -> Result<(), gst::LoggableError> {
            let caps = query.get_owned().0;
            let caps = caps.ok_or_else(|| gst::loggable_error!(gst::CAT_RUST, "no caps"))?;
            let info = gst_video::VideoInfo::from_caps(&caps)
                .map_err(|_| gst::loggable_error!(gst::CAT_RUST, "not video"))?;
            let own_size = u32::try_from(info.size()).unwrap_or(u32::MAX);
            let offered = query.allocation_pools().next();
            let update = offered.is_some();
            let (pool, size, min, max) = offered.unwrap_or((None, own_size, 0, MAX_BUFFERS));
            let size = size.max(own_size);
            let pool = pool.unwrap_or_else(|| gst_video::VideoBufferPool::new().upcast());
            let mut config = pool.config();
            config.set_params(Some(&caps), size, min, max);
            let (allocator, params) =
                query.allocation_params().next().unwrap_or((None, gst::AllocationParams::default()));
            config.set_allocator(allocator.as_ref(), Some(&params));
            pool.set_config(config).map_err(|_| gst::loggable_error!(gst::CAT_RUST, "pool refuses"))?;
            if update {
                query.set_nth_allocation_pool(0, Some(&pool), size, min, max);
            } else {
                query.add_allocation_pool(Some(&pool), size, min, max);
            }
            self.parent_decide_allocation(query)
        }

        fn fill(
            &self,
            _offset: u64,
            _length: u32,
            buffer: &mut gst::BufferRef,
        ) -> Result<gst::FlowSuccess, gst::FlowError> {
            let interval = self.interval();
            let painted = {
                let mut map = buffer.map_writable().map_err(|_| gst::FlowError::Error)?;
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                let (_, paint) = state.as_mut().ok_or(gst::FlowError::NotNegotiated)?;
                paint(map.as_mut_slice())
            };
            let Painted::Frame(number) = painted else { return Err(gst::FlowError::Eos) };
            buffer.set_pts(interval.map(|interval| interval * number));
            buffer.set_duration(interval);
            buffer.set_offset(number);
            Ok(gst::FlowSuccess::Ok)
        }
    }
}
