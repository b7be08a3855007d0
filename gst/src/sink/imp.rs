//! The element: its state, and what GStreamer asks of it.

use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::prelude::*;
use gst_base::subclass::prelude::*;
use gst_video::VideoInfo;
use pagecast::publisher::{Departure, SubscriberInfo};
use pagecast::{Event, FaceKind, Hooks, Pool, Publisher};

use super::running::{NotPublished, Running};
use super::settings::{self, Settings};
use super::{stats, upstream};
use crate::convert::{pixels, request};
use crate::pool::PagePool;

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("pagecastsink", gst::DebugColorFlags::empty(), Some("Pagecast sink"))
});

/// Frames that one client holds and has waiting when its share is automatic; the library's default.
const SHARE: u64 = 8;

#[derive(Default)]
pub struct PagecastSink {
    settings: Mutex<Settings>,
    running: Mutex<Option<Arc<Running>>>,
}

#[glib::object_subclass]
impl ObjectSubclass for PagecastSink {
    const NAME: &'static str = "PagecastSink";
    type Type = super::PagecastSink;
    type ParentType = gst_base::BaseSink;
}

impl ObjectImpl for PagecastSink {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(settings::properties);
        &PROPERTIES
    }

    fn signals() -> &'static [glib::subclass::Signal] {
        static SIGNALS: LazyLock<Vec<glib::subclass::Signal>> = LazyLock::new(|| {
            ["client-connected", "client-disconnected"]
                .map(|name| glib::subclass::Signal::builder(name).param_types([i32::static_type()]).build())
                .into()
        });
        &SIGNALS
    }

    fn constructed(&self) {
        self.parent_constructed();
        let sink = self.obj();
        // The last sample would keep a page, and publishing takes no time worth planning for.
        sink.set_enable_last_sample(false);
        sink.set_processing_deadline(gst::ClockTime::ZERO);
    }

    fn set_property(&self, _id: usize, value: &glib::Value, spec: &glib::ParamSpec) {
        self.settings().set(spec.name(), value);
    }

    fn property(&self, _id: usize, spec: &glib::ParamSpec) -> glib::Value {
        match spec.name() {
            "num-clients" => {
                self.running().map_or(0, |running| running.publisher().subscribers() as u32).to_value()
            }
            "stats" => {
                let base = self.obj().upcast_ref::<gst_base::BaseSink>().stats();
                match self.running() {
                    Some(running) => stats::extend(base, &running).to_value(),
                    None => base.to_value(),
                }
            }
            name => self.settings().get(name),
        }
    }
}

impl GstObjectImpl for PagecastSink {}

impl ElementImpl for PagecastSink {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Pagecast sink",
                "Sink/Generic",
                "Publishes frames to other processes, which read the same pages",
                "The Pagecast developers",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let caps = gst::Caps::new_any();
            let template =
                gst::PadTemplate::new("sink", gst::PadDirection::Sink, gst::PadPresence::Always, &caps);
            vec![template.expect("a name and any caps")]
        });
        &TEMPLATES
    }

    fn query(&self, query: &mut gst::QueryRef) -> bool {
        let answered = ElementImplExt::parent_query(self, query);
        if answered
            && query.type_() == gst::QueryType::Latency
            && let Some(running) = self.running()
            // The base class answers for itself; what counts here is whether upstream is live.
            && let Some((live, min, max)) = self.upstream_latency()
        {
            running.set_latency(live, min, max);
        }
        answered
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        if transition == gst::StateChange::PausedToPlaying
            && let Some(running) = self.running()
        {
            running.clocks.forget();
        }
        self.parent_change_state(transition)
    }
}

impl BaseSinkImpl for PagecastSink {
    fn start(&self) -> Result<(), gst::ErrorMessage> {
        let settings = self.settings().clone();
        let wrong = |error: String| gst::error_msg!(gst::ResourceError::Settings, ("{}", error));
        let (address, remote) = (settings.address().map_err(wrong)?, settings.remote().map_err(wrong)?);
        let pool = Pool::new(settings.pool().map_err(wrong)?);
        pool.check().map_err(|error| wrong(error.to_string()))?;
        let live = self.upstream_latency().is_some_and(|(live, _, _)| live);
        let publisher = Publisher::open_with(&address, settings.publisher(live, remote), self.hooks())
            .map_err(|error| gst::error_msg!(gst::ResourceError::OpenWrite, ("{}: {}", address, error)))?;
        gst::info!(CAT, imp = self, "serving {address}");
        *self.running_slot() = Some(Arc::new(Running::new(publisher, pool, settings)));
        Ok(())
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        let running = self.running_slot().take();
        if let Some(running) = running {
            running.close();
        }
        Ok(())
    }

    fn unlock(&self) -> Result<(), gst::ErrorMessage> {
        if let Some(running) = self.running() {
            running.set_flushing(true);
        }
        Ok(())
    }

    fn unlock_stop(&self) -> Result<(), gst::ErrorMessage> {
        if let Some(running) = self.running() {
            running.set_flushing(false);
        }
        Ok(())
    }

    fn event(&self, event: gst::Event) -> bool {
        if let Some(running) = self.running()
            && let Err(error) = running.event(&event)
        {
            gst::element_imp_error!(self, gst::CoreError::Event, ("{}", error));
            return false;
        }
        self.parent_event(event)
    }

    fn set_caps(&self, caps: &gst::Caps) -> Result<(), gst::LoggableError> {
        if let Some(running) = self.running()
            && let Some((live, min, max)) = self.upstream_latency()
        {
            running.set_latency(live, min, max);
        }
        self.parent_set_caps(caps)
    }

    fn propose_allocation(&self, query: &mut gst::query::Allocation) -> Result<(), gst::LoggableError> {
        if let Some(running) = self.running() {
            self.offer(&running, query);
        }
        Ok(())
    }

    fn render(&self, buffer: &gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        let running = self.running().ok_or(gst::FlowError::Flushing)?;
        self.wait_for_clients(&running)?;
        let sink = self.obj();
        running.clocks.refresh(&sink, running.publisher());
        let frame = self.unless_flushing(|| running.frame(&sink, buffer))?;
        self.unless_flushing(|| running.publish(&frame))?;
        Ok(gst::FlowSuccess::Ok)
    }
}

impl PagecastSink {
    fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running_slot(&self) -> MutexGuard<'_, Option<Arc<Running>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> Option<Arc<Running>> {
        self.running_slot().clone()
    }

    /// Does something that may be interrupted, again and again, with the pauses that the pipeline wants.
    fn unless_flushing<T>(
        &self,
        mut what: impl FnMut() -> Result<T, NotPublished>,
    ) -> Result<T, gst::FlowError> {
        loop {
            match what() {
                Ok(done) => return Ok(done),
                Err(NotPublished::Flushing) => drop(self.obj().wait_preroll()?),
                Err(NotPublished::Failed(error)) => {
                    gst::element_imp_error!(self, gst::ResourceError::Write, ("{}", error));
                    return Err(gst::FlowError::Error);
                }
            }
        }
    }

    fn wait_for_clients(&self, running: &Running) -> Result<(), gst::FlowError> {
        self.unless_flushing(|| {
            let (connection, clients) = {
                let settings = self.settings();
                (settings.waits_for_connection(), settings.wanted_clients())
            };
            match running.wait_for_clients(connection, clients) {
                true => Ok(()),
                false => Err(NotPublished::Flushing),
            }
        })
    }

    /// Whether upstream is live, and its least and most latency.
    fn upstream_latency(&self) -> Option<(bool, gst::ClockTime, Option<gst::ClockTime>)> {
        let mut query = gst::query::Latency::new();
        let sink = self.obj();
        sink.sink_pad().peer_query(&mut query).then(|| query.result())
    }

    /// Offers our pages to upstream, for raw media only: who parses or muxes wants memory of its own.
    fn offer(&self, running: &Running, query: &mut gst::query::Allocation) {
        let (Some(caps), need_pool) = query.get_owned() else { return };
        let Some(structure) = caps.structure(0) else { return };
        if caps.features(0).is_some_and(|features| features.contains(pixels::DMA_BUF)) {
            // Who makes dma-bufs has memory of its own; how it lies there is told on.
            return query.add_allocation_meta::<gst_video::VideoMeta>(None);
        }
        let plain = caps.features(0).is_none_or(|features| {
            features.is_equal(gst::CapsFeatures::new([gst::CAPS_FEATURE_MEMORY_SYSTEM_MEMORY]).as_ref())
        });
        if !plain || !structure.name().ends_with("/x-raw") {
            return;
        }
        running.note_offer();
        let allocator = running.allocator();
        let importing = upstream::imports(self.obj().sink_pad());
        allocator.set_importing(importing);
        query.add_allocation_param(Some(allocator), gst::AllocationParams::default());
        let Ok(info) = VideoInfo::from_caps(&caps) else { return };
        let Ok(size) = u32::try_from(info.size()) else { return };
        if importing {
            self.check_importable(running, info.size());
        }
        query.add_allocation_meta::<gst_video::VideoMeta>(None);
        let pool = need_pool.then(|| PagePool::new(allocator));
        query.add_allocation_pool(pool.as_ref(), size, self.least_buffers(running, info.size()), 0);
    }

    /// Says what to do if our pages cannot be had as dma-bufs.
    fn check_importable(&self, running: &Running, size: usize) {
        let absent = running.allocator().lease(size, false).ok();
        if let Some(absent) = absent.and_then(|lease| lease.buffer().absent(FaceKind::DmaBuf)) {
            gst::element_imp_warning!(
                self,
                gst::ResourceError::Settings,
                (
                    "upstream wants to import dma-bufs, but our pages are none: {}; or set io-mode=dmabuf there",
                    absent
                )
            );
        }
    }

    /// What one client may hold and have waiting, as far as the pool goes.
    fn least_buffers(&self, running: &Running, size: usize) -> u32 {
        let credits = running.settings().credits;
        let half = running.pool().options().limit / 2 / running.pool().footprint(size.max(1)) as u64;
        let credits = if credits == 0 { SHARE } else { u64::from(credits) };
        (credits + SHARE).min(half).max(2) as u32
    }

    fn hooks(&self) -> Hooks {
        let with = |weak: glib::WeakRef<super::PagecastSink>, call: &dyn Fn(&super::PagecastSink)| {
            if let Some(sink) = weak.upgrade() {
                call(&sink);
            }
        };
        let (connected, disconnected, asked) = (self.weak(), self.weak(), self.weak());
        Hooks {
            connected: Some(Box::new(move |client: &SubscriberInfo| {
                with(connected.clone(), &|sink| sink.imp().client_came(client));
            })),
            disconnected: Some(Box::new(move |id, why: &Departure| {
                with(disconnected.clone(), &|sink| sink.imp().client_left(id, why));
            })),
            request: Some(Box::new(move |event: Event| {
                with(asked.clone(), &|sink| sink.imp().asked(&event));
            })),
        }
    }

    fn weak(&self) -> glib::WeakRef<super::PagecastSink> {
        self.obj().downgrade()
    }

    fn client_came(&self, client: &SubscriberInfo) {
        gst::info!(CAT, imp = self, "client {} came: process {}, {}", client.id, client.pid, client.policy);
        if self.running().is_some_and(|running| !running.is_raw()) {
            // It can begin only with a key unit.
            self.push_upstream(gst_video::UpstreamForceKeyUnitEvent::builder().all_headers(true).build());
        }
        self.obj().emit_by_name::<()>("client-connected", &[&(client.id as i32)]);
        self.obj().notify("num-clients");
    }

    fn client_left(&self, id: u64, why: &Departure) {
        gst::info!(CAT, imp = self, "client {id} is gone: {why:?}");
        self.obj().emit_by_name::<()>("client-disconnected", &[&(id as i32)]);
        self.obj().notify("num-clients");
    }

    fn asked(&self, event: &Event) {
        match request::incoming(&event.name, &event.data) {
            Some(event) => self.push_upstream(event),
            None => gst::debug!(CAT, imp = self, "a client asks for {}, which is not for it", event.name),
        }
    }

    fn push_upstream(&self, event: gst::Event) {
        if !self.obj().sink_pad().push_event(event) {
            gst::debug!(CAT, imp = self, "upstream has no use for a request");
        }
    }
}
