//! What there is between start and stop: the publisher, its pages, and the stream.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gst_video::VideoInfo;
use pagecast::publisher::{LONGEST_END, PublishError};
use pagecast::{Frame, FrameBuilder, Pool, PoolError, Publisher};

use super::copies::{Foreign, Reason, Verdict};
use super::settings::Settings;
use super::times::Clocks;
use super::{PagecastSink, frame};
use crate::convert::events::{self, Outgoing};
use crate::convert::pixels;
use crate::memory::{Page, PoolAllocator};

/// Pages that upstream works with at least: one being filled, one on its way here, one to go on with.
const WORKING: u64 = 3;
/// Frames between two looks at how many pages upstream keeps.
const LOOK: u64 = 32;

/// Why a frame was not published.
#[derive(Debug)]
pub(super) enum NotPublished {
    /// Waiting was cancelled; the frame may be tried again.
    Flushing,
    /// It cannot be.
    Failed(String),
}

impl From<PublishError> for NotPublished {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Flushing => Self::Flushing,
            error => Self::Failed(error.to_string()),
        }
    }
}

/// What the caps say.
#[derive(Default)]
struct Format {
    video: Option<VideoInfo>,
    raw: bool,
    /// Upstream asked which memory to use.
    offered: bool,
    /// The user was told of copies.
    told: bool,
}

pub(super) struct Running {
    publisher: Publisher,
    pool: Pool,
    allocator: PoolAllocator,
    settings: Settings,
    pub(super) clocks: Clocks,
    format: Mutex<Format>,
    foreign: Foreign,
    flushing: AtomicBool,
    enough_clients: AtomicBool,
    ended: AtomicBool,
    frames: AtomicU64,
    /// Bytes of our pages that are in published frames.
    published: Arc<AtomicU64>,
    upstream: AtomicU64,
}

/// Our page in a published frame, by its footprint.
struct PublishedPage(Arc<AtomicU64>, u64);

impl Drop for PublishedPage {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}

impl Running {
    pub(super) fn new(publisher: Publisher, pool: Pool, settings: Settings) -> Self {
        publisher.set_pool(&pool);
        publisher.set_upstream(WORKING as u32);
        let allocator = PoolAllocator::new(&pool, settings.reserve);
        Self {
            publisher,
            pool,
            allocator,
            settings,
            clocks: Clocks::default(),
            format: Mutex::default(),
            foreign: Foreign::default(),
            flushing: AtomicBool::new(false),
            enough_clients: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            frames: AtomicU64::new(0),
            published: Arc::default(),
            upstream: AtomicU64::new(WORKING),
        }
    }

    pub(super) fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    pub(super) fn allocator(&self) -> &PoolAllocator {
        &self.allocator
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(super) fn is_raw(&self) -> bool {
        self.format().raw
    }

    pub(super) fn set_flushing(&self, flushing: bool) {
        self.flushing.store(flushing, Ordering::SeqCst);
        self.allocator.set_flushing(flushing);
        self.publisher.set_flushing(flushing);
    }

    /// Ends the links; after the end of the stream clients get time to take what is left.
    pub(super) fn close(&self) {
        let ended = self.ended.load(Ordering::SeqCst);
        // As long as a client may hold the pipeline at a time.
        let patience = self.settings.block_deadline().map_or(LONGEST_END, |stall| stall.min(LONGEST_END));
        self.publisher.close(if ended { patience } else { Duration::ZERO });
    }

    /// Whether the clients that were asked for are there; waits for them.
    pub(super) fn wait_for_clients(&self, wait_for_connection: bool, wanted: usize) -> bool {
        let needed = match self.enough_clients.load(Ordering::Relaxed) {
            false => wanted,
            true => usize::from(wait_for_connection),
        };
        let there = needed == 0 || self.publisher.wait_for_subscribers(needed, None);
        if there {
            self.enough_clients.store(true, Ordering::Relaxed);
        }
        there
    }

    /// Upstream asks which memory to use.
    pub(super) fn note_offer(&self) {
        self.format().offered = true;
    }

    /// The policy `auto` of clients that come from now on.
    pub(super) fn set_latency(&self, live: bool, min: gst::ClockTime, max: Option<gst::ClockTime>) {
        self.clocks.set_latency(live, min, max);
        self.publisher.set_live(live);
    }

    /// Sends an event on. The error is for the user.
    pub(super) fn event(&self, event: &gst::EventRef) -> Result<(), String> {
        use gst::EventView;
        match event.view() {
            EventView::FlushStart(_) => self.publisher.flush(),
            EventView::FlushStop(_) => self.ended.store(false, Ordering::SeqCst),
            EventView::StreamStart(_) => {
                self.ended.store(false, Ordering::SeqCst);
                self.publisher.clear_stickies();
            }
            EventView::Caps(caps) => self.new_format(caps.caps()),
            EventView::Eos(_) => self.ended.store(true, Ordering::SeqCst),
            _ => {}
        }
        let sent = match events::outgoing(event) {
            Outgoing::Sticky { name, data } => self.publisher.set_sticky(&name, &data),
            Outgoing::Event { name, data } => self.publisher.publish_event(&name, &data),
            Outgoing::NotCarried(name) if name == events::CAPS => {
                return Err("the caps are too large for a message: use headers in the stream instead".into());
            }
            Outgoing::NotCarried(name) => {
                self.publisher.count_not_carried(&name);
                Ok(())
            }
        };
        sent.map_err(|error| error.to_string())
    }

    fn new_format(&self, caps: &gst::CapsRef) {
        let name = caps.structure(0).map_or("", |structure| structure.name().as_str());
        self.foreign.forget();
        let mut format = self.format();
        format.video = pixels::info(caps);
        format.raw = name.ends_with("/x-raw");
    }

    /// Makes a frame of a buffer: of its pages, or of a copy.
    pub(super) fn frame(&self, sink: &PagecastSink, buffer: &gst::Buffer) -> Result<Frame, NotPublished> {
        if let Some(figures) = self.foreign.came(buffer) {
            self.publisher.set_foreign_pool(Some(figures));
        }
        let times = self.clocks.of(sink, buffer);
        let video = self.format().video.clone();
        let lost = |name: &str| self.publisher.count_not_carried(name);
        let description = frame::describe(buffer, times, video.as_ref(), lost);
        let builder = Frame::builder().describe(description);
        let too_many = buffer.n_memory() > pagecast::ipc::wire::limits::MAX_SEGMENTS;
        let built = match frame::pages(buffer) {
            Some(pages) if pages.iter().any(|page| page.foreign) => {
                self.of_foreign(sink, builder, buffer, pages)?
            }
            Some(pages) => self.of_pages(builder, buffer, pages),
            None if too_many => self.copy(sink, builder, buffer, Reason::TooManyMemories)?,
            None => {
                let asked = self.format().offered;
                let reason = if asked { Reason::NotShareable } else { Reason::NotAsked };
                self.copy(sink, builder, buffer, reason)?
            }
        };
        built.build().map_err(|error| NotPublished::Failed(error.to_string()))
    }

    fn of_pages(&self, mut builder: FrameBuilder, buffer: &gst::Buffer, pages: Vec<Page>) -> FrameBuilder {
        let mut bytes = 0;
        for page in pages {
            bytes += page.buffer.size() as u64;
            builder = builder.segment(page.buffer, page.offset, page.length);
        }
        self.published.fetch_add(bytes, Ordering::Relaxed);
        // The buffer itself is held, not only its memory: else upstream would see it as its own again.
        builder.owner((buffer.clone(), PublishedPage(self.published.clone(), bytes)))
    }

    fn of_foreign(
        &self,
        sink: &PagecastSink,
        mut builder: FrameBuilder,
        buffer: &gst::Buffer,
        pages: Vec<Page>,
    ) -> Result<FrameBuilder, NotPublished> {
        match self.foreign.ask(buffer, self.settings.reserve as usize) {
            Verdict::Pass { out, limited } => {
                if limited {
                    self.publisher.set_attentive(true);
                }
                for page in pages {
                    builder = builder.segment(page.buffer, page.offset, page.length);
                }
                Ok(builder.owner((buffer.clone(), out)))
            }
            Verdict::Copy => self.copy(sink, builder, buffer, Reason::Reserve),
        }
    }

    fn copy(
        &self,
        sink: &PagecastSink,
        builder: FrameBuilder,
        buffer: &gst::Buffer,
        reason: Reason,
    ) -> Result<FrameBuilder, NotPublished> {
        let size = buffer.size();
        let go_on = || !self.flushing.load(Ordering::SeqCst);
        let mut lease = match self.pool.acquire_by(size, None, go_on) {
            Ok(lease) => lease,
            Err(PoolError::Cancelled) => return Err(NotPublished::Flushing),
            Err(error) => return Err(NotPublished::Failed(error.to_string())),
        };
        let into = lease.as_mut_slice().get_mut(..size);
        if into.is_none_or(|into| buffer.copy_to_slice(0, into).is_err()) {
            return Err(NotPublished::Failed("upstream's memory cannot be read".to_owned()));
        }
        self.publisher.count_copied();
        gst::log!(gst::CAT_PERFORMANCE, obj = sink, "{size} bytes copied: {reason:?}");
        self.tell(sink, reason);
        let bytes = lease.buffer().size() as u64;
        self.published.fetch_add(bytes, Ordering::Relaxed);
        Ok(builder.lease(lease, size).owner(PublishedPage(self.published.clone(), bytes)))
    }

    /// Says once per stream why frames are copied, and what would help.
    fn tell(&self, sink: &PagecastSink, reason: Reason) {
        let mut format = self.format();
        let Some(advice) = reason.advice(format.raw).filter(|_| !format.told) else { return };
        format.told = true;
        drop(format);
        gst::warning!(gst::CAT_PERFORMANCE, obj = sink, "{advice}");
        gst::element_info!(sink, gst::ResourceError::Settings, ("{}", advice));
    }

    /// Publishes a frame; may wait for clients.
    pub(super) fn publish(&self, frame: &Frame) -> Result<(), NotPublished> {
        self.publisher.publish(frame)?;
        if self.frames.fetch_add(1, Ordering::Relaxed).is_multiple_of(LOOK) {
            self.look_at_upstream(frame.size());
        }
        Ok(())
    }

    /// Clients share what upstream does not keep to itself; what that is shows over time.
    fn look_at_upstream(&self, size: usize) {
        let figures = self.pool.figures();
        let used = figures.total.saturating_sub(figures.free);
        let kept = used.saturating_sub(self.published.load(Ordering::Relaxed));
        let pages = kept.div_ceil(self.pool.footprint(size.max(1)) as u64) + WORKING - 1;
        if pages > self.upstream.fetch_max(pages, Ordering::Relaxed) {
            self.publisher.set_upstream(pages.min(1 << 16) as u32);
        }
    }

    fn format(&self) -> MutexGuard<'_, Format> {
        self.format.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
