//! The element's virtual functions.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use gst::glib;
use gst::subclass::prelude::*;
use gst_base::prelude::*;
use gst_base::subclass::base_src::CreateSuccess;
use gst_base::subclass::prelude::*;

use super::figures::Figures;
use super::flow::Flow;
use super::link::Link;
use super::offers;
use super::settings::{self, AskedFace, Settings};
use crate::convert::request;

pub(super) static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("pagecastsrc", gst::DebugColorFlags::empty(), Some("Pagecast source"))
});

/// The element.
#[derive(Default)]
pub struct PagecastSrc {
    pub(super) settings: Mutex<Settings>,
    pub(super) link: Link,
    /// What the streaming thread knows; it keeps the lock while it waits for frames.
    flow: Mutex<Flow>,
    pub(super) figures: Figures,
    /// Whether a stream-start event is ours and not the base class's.
    pub(super) own_start: AtomicBool,
    /// Odd while the pipeline plays.
    pub(super) plays: AtomicU32,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[glib::object_subclass]
impl ObjectSubclass for PagecastSrc {
    const NAME: &'static str = "GstPagecastSrc";
    type Type = super::PagecastSrc;
    type ParentType = gst_base::PushSrc;
}

impl ObjectImpl for PagecastSrc {
    fn properties() -> &'static [glib::ParamSpec] {
        settings::properties()
    }

    fn set_property(&self, _id: usize, value: &glib::Value, property: &glib::ParamSpec) {
        lock(&self.settings).set(property.name(), value);
    }

    fn property(&self, _id: usize, property: &glib::ParamSpec) -> glib::Value {
        match property.name() {
            "stats" => self.figures.structure(self.link.subscriber().as_deref()).to_value(),
            "is-live" => lock(&self.settings).is_live.unwrap_or_else(|| self.obj().is_live()).to_value(),
            "shm-area-name" => None::<String>.to_value(),
            name => lock(&self.settings).get(name).unwrap_or_else(|| property.default_value().clone()),
        }
    }

    fn constructed(&self) {
        self.parent_constructed();
        let obj = self.obj();
        obj.set_format(gst::Format::Time);
        // The publisher says when the stream ends; a segment's stop does not.
        obj.set_automatic_eos(false);
        self.keep_foreign_starts_out();
    }
}

impl GstObjectImpl for PagecastSrc {}

impl ElementImpl for PagecastSrc {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Pagecast source",
                "Source",
                "Receives frames that another process publishes (pagecastsink or the pagecast library) \
                 without a copy",
                "The Pagecast developers",
            )
        });
        Some(&*METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let any = gst::Caps::new_any();
            let template =
                gst::PadTemplate::new("src", gst::PadDirection::Src, gst::PadPresence::Always, &any);
            template.into_iter().collect()
        });
        TEMPLATES.as_ref()
    }

    /// The base class would flush before it finds out that it cannot seek.
    fn send_event(&self, event: gst::Event) -> bool {
        event.type_() != gst::EventType::Seek && self.parent_send_event(event)
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        match transition {
            gst::StateChange::ReadyToPaused => self.decide_live(),
            // The base time is set already, and the clock.
            gst::StateChange::PausedToPlaying => self.set_plays(true),
            gst::StateChange::PlayingToPaused => self.set_plays(false),
            _ => {}
        }
        self.parent_change_state(transition)
    }
}

impl BaseSrcImpl for PagecastSrc {
    fn start(&self) -> Result<(), gst::ErrorMessage> {
        self.figures.reset();
        let obj = self.obj();
        let settings = lock(&self.settings).clone();
        let dma_bufs = settings.face == AskedFace::Auto && offers::prefers_dma_bufs(obj.src_pad());
        *lock(&self.flow) = Flow::new(obj.does_timestamp(), dma_bufs);
        self.link.open(&settings, &obj.name(), dma_bufs)
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        self.link.close();
        *lock(&self.flow) = Flow::default();
        Ok(())
    }

    fn unlock(&self) -> Result<(), gst::ErrorMessage> {
        self.link.interrupt();
        Ok(())
    }

    fn unlock_stop(&self) -> Result<(), gst::ErrorMessage> {
        self.link.resume();
        Ok(())
    }

    fn is_seekable(&self) -> bool {
        false
    }

    fn size(&self) -> Option<u64> {
        None
    }

    /// Caps come with the stream; here only what downstream can take is asked anew.
    fn negotiate(&self) -> Result<(), gst::LoggableError> {
        self.figures.layout_unknown();
        Ok(())
    }

    /// Buffers bring their memory with them: no pool is wanted of downstream.
    fn decide_allocation(&self, _query: &mut gst::query::Allocation) -> Result<(), gst::LoggableError> {
        Ok(())
    }

    fn event(&self, event: &gst::Event) -> bool {
        match (request::outgoing(event), self.link.subscriber()) {
            (Some((name, data)), Some(subscriber)) => {
                gst::debug!(CAT, imp = self, "asking the publisher for {name}");
                subscriber.request(name, &data);
                true
            }
            _ => self.parent_event(event),
        }
    }

    fn query(&self, query: &mut gst::QueryRef) -> bool {
        match query.view_mut() {
            gst::QueryViewMut::Latency(latency) => {
                let known = self.figures.latency(self.obj().is_live());
                let max = known.max.map(gst::ClockTime::from_nseconds);
                latency.set(known.live, gst::ClockTime::from_nseconds(known.min), max);
                true
            }
            _ => BaseSrcImplExt::parent_query(self, query),
        }
    }
}

impl PushSrcImpl for PagecastSrc {
    fn create(&self, _buffer: Option<&mut gst::BufferRef>) -> Result<CreateSuccess, gst::FlowError> {
        let mut flow = lock(&self.flow);
        self.next_buffer(&mut flow).map(CreateSuccess::NewBuffer)
    }
}

impl PagecastSrc {
    /// The base class sends a stream-start of its own before there is a publisher; downstream sees only that
    /// of the stream.
    fn keep_foreign_starts_out(&self) {
        let weak = self.obj().downgrade();
        self.obj().src_pad().add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
            let start = info.event().is_some_and(|event| event.type_() == gst::EventType::StreamStart);
            let ours = || weak.upgrade().is_none_or(|obj| obj.imp().own_start.load(Ordering::SeqCst));
            if start && !ours() { gst::PadProbeReturn::Handled } else { gst::PadProbeReturn::Ok }
        });
    }

    /// Whether frames come in PLAYING only: as it was set, else as a publisher says that is there.
    fn decide_live(&self) {
        let settings = lock(&self.settings).clone();
        let live = settings.is_live.or_else(|| super::link::ask_whether_live(&settings)).unwrap_or(false);
        gst::debug!(CAT, imp = self, "{}", if live { "live" } else { "not live, or not known yet" });
        self.obj().set_live(live);
    }

    fn set_plays(&self, plays: bool) {
        let odd = |number: u32| number % 2 == 1;
        let next = |number: u32| (odd(number) != plays).then(|| number.wrapping_add(1));
        let _ = self.plays.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next);
    }
}
