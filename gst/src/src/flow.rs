//! What arrives becomes buffers and events, in order; all of it in the streaming thread.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::prelude::*;
use pagecast::clock::monotonic_ns;
use pagecast::ipc::wire::{RefusalCode, Welcome};
use pagecast::{FaceKind, FaceSet, Frame, FrameFlags, Message, RecvError, Times};

use super::imp::{CAT, PagecastSrc, lock};
use super::layout::Layout;
use super::link::remedy;
use super::receive;
use super::settings::AskedFace;
use super::times::{Course, Pair, Timeline};
use crate::convert::{events, request};

/// How often this pipeline's clock is compared with `CLOCK_MONOTONIC`.
const COMPARE: Duration = Duration::from_secs(1);

/// What the streaming thread knows.
#[derive(Default)]
pub(super) struct Flow {
    /// The base class is to stamp frames as they arrive.
    stamped: bool,
    /// Times are those of this pipeline's clock.
    pub(super) live: bool,
    pub(super) timeline: Timeline,
    pub(super) course: Course,
    /// As last seen; odd while the pipeline plays.
    plays: u32,
    compared: Option<Instant>,
    pub(super) started: bool,
    /// The publisher's, where it has one.
    pub(super) segment: Option<gst::Segment>,
    /// The base class must be told the segment.
    pub(super) segment_due: bool,
    /// Downstream has it, or has it before the next buffer.
    pub(super) segment_sent: bool,
    pub(super) discont: bool,
    last: Option<u64>,
    frames: u64,
    pub(super) layout: Layout,
    /// Whether the publisher gives dma-bufs.
    pub(super) has_dma_bufs: bool,
    /// Whether downstream was told to expect dma-bufs.
    pub(super) dma_buf: bool,
    /// Whether the link was asked for dma-bufs first, for downstream's sake.
    pub(super) asked_for_dma_bufs: bool,
    /// The publisher's, as they came.
    pub(super) caps: Option<gst::Caps>,
}

impl Flow {
    pub(super) fn new(stamped: bool, dma_bufs: bool) -> Self {
        Self { stamped, segment_due: true, asked_for_dma_bufs: dma_bufs, ..Self::default() }
    }

    /// Whether times are made here, so that the publisher's segment says nothing of them.
    pub(super) fn own_times(&self) -> bool {
        self.live || self.stamped
    }
}

impl PagecastSrc {
    /// Waits for the next buffer, and passes on what comes before it.
    pub(super) fn next_buffer(&self, flow: &mut Flow) -> Result<gst::Buffer, gst::FlowError> {
        loop {
            let Some(subscriber) = self.link.subscriber() else { return Err(gst::FlowError::Flushing) };
            let buffer = match subscriber.recv(None) {
                Ok(message) => self.take(flow, message)?,
                Err(RecvError::Interrupted) => return Err(gst::FlowError::Flushing),
                Err(error) => self.failed(flow, &error).map(|()| None)?,
            };
            if let Some(buffer) = buffer {
                return Ok(buffer);
            }
        }
    }

    fn take(&self, flow: &mut Flow, message: Message) -> Result<Option<gst::Buffer>, gst::FlowError> {
        match message {
            Message::Frame(frame) => return self.frame(flow, &frame),
            Message::Connected(welcome) => self.connected(flow, &welcome)?,
            Message::Sticky(sticky) => match events::sticky(&sticky.name, &sticky.data) {
                Some(event) => self.sticky(flow, event)?,
                None => gst::warning!(CAT, imp = self, "{} makes no sense and is left out", sticky.name),
            },
            Message::Event(event) => match events::event(&event.data) {
                Some(event) => self.event(flow, event)?,
                // A publisher without GStreamer need not write more than this.
                None if event.name == events::EOS => return Err(self.end_of_stream(flow)),
                None => gst::warning!(CAT, imp = self, "event {} makes no sense and is left out", event.name),
            },
            Message::Clock(clock) => {
                flow.timeline.publisher(&clock);
                self.figures.publisher_latency(clock.latency_min);
            }
            Message::Disconnected(reason) => self.disconnected(&reason),
            _ => {}
        }
        Ok(None)
    }

    fn connected(&self, flow: &mut Flow, welcome: &Welcome) -> Result<(), gst::FlowError> {
        let settings = lock(&self.settings).clone();
        let dma_buf = welcome.faces.contains(FaceSet::DMA_BUF);
        if settings.face == AskedFace::DmaBuf && !dma_buf {
            let text =
                "the publisher does not let us have dma-bufs: set face=auto, or let it admit this user";
            return Err(self.element_error(gst::ResourceError::OpenRead, text.to_owned()));
        }
        flow.live = settings.is_live.unwrap_or(welcome.live);
        flow.has_dma_bufs = dma_buf;
        flow.dma_buf = dma_buf && settings.face == AskedFace::DmaBuf;
        flow.caps = None;
        flow.timeline.forget_publisher();
        flow.course.restart();
        flow.segment = None;
        flow.segment_due = true;
        flow.discont = true;
        flow.last = None;
        gst::info!(CAT, imp = self, "connected: {welcome:?}");
        let message = gst::Structure::builder("pagecast-connected")
            .field("uri", settings.address().unwrap_or_default())
            .field("publisher", &welcome.name)
            .field("pid", welcome.pid)
            .field("live", welcome.live)
            .field("policy", welcome.policy.map(|policy| policy.to_string()).unwrap_or_default())
            .field("credits", welcome.credits)
            .build();
        self.tell(message);
        if self.figures.connected(welcome, flow.live) {
            self.latency_changed();
        }
        Ok(())
    }

    fn disconnected(&self, reason: &str) {
        gst::warning!(CAT, imp = self, "the link ended: {reason}");
        self.figures.disconnected();
        self.tell_of_link("pagecast-disconnected", reason);
    }

    fn tell_of_link(&self, what: &str, reason: &str) {
        let uri = lock(&self.settings).address().unwrap_or_default();
        self.tell(gst::Structure::builder(what).field("uri", uri).field("reason", reason).build());
    }

    /// Receiving failed. Either it is tried in another way, or the stream ends.
    fn failed(&self, flow: &mut Flow, error: &RecvError) -> Result<(), gst::FlowError> {
        let refused = |wanted| matches!(error, RecvError::Refused { code, .. } if *code == wanted);
        let lost = matches!(error, RecvError::Closed | RecvError::Socket(_) | RecvError::Remote { .. });
        let gone = lost || refused(RefusalCode::Closing);
        if gone && flow.frames > 0 {
            let reason = error.to_string();
            self.disconnected(&reason);
            if !refused(RefusalCode::Closing) {
                self.tell_of_link("pagecast-lost", &reason);
            }
            return Err(self.end_of_stream(flow));
        }
        let kind = match error {
            RecvError::Connect { .. } | RecvError::Closed | RecvError::Remote { .. } => {
                gst::ResourceError::NotFound
            }
            RecvError::Refused { code: RefusalCode::Access, .. } => gst::ResourceError::NotAuthorized,
            RecvError::Refused { code: RefusalCode::NoRoom, .. } => gst::ResourceError::NoSpaceLeft,
            RecvError::Uri(_) => gst::ResourceError::Settings,
            _ => gst::ResourceError::Read,
        };
        Err(self.element_error(kind, format!("{error}: {}", remedy(error))))
    }

    /// The buffer that a frame makes; `None` if the link is asked for anew instead, or a device takes too long.
    fn frame(&self, flow: &mut Flow, frame: &Frame) -> Result<Option<gst::Buffer>, gst::FlowError> {
        self.ensure_started(flow);
        if !self.fits_caps(flow, frame)? || !self.wait_for_devices(frame)? {
            return Ok(None);
        }
        let mut buffer = self.buffer_of(flow, frame)?;
        let times = &frame.description().times;
        self.look_for_life(flow, times);
        if flow.last.is_none() && frame.description().flags.contains(FrameFlags::DELTA_UNIT) {
            self.ask_for_key_unit();
        }
        let lost = flow.last.replace(frame.id()).is_some_and(|last| frame.id() > last + 1);
        let thinned = self.thins_out();
        {
            let buffer = buffer.make_mut();
            if flow.stamped {
                buffer.set_pts(None);
                buffer.set_dts(None);
            } else if flow.live {
                self.follow_clock(flow);
                let start = self.obj().start_time().map_or(0, gst::ClockTime::nseconds);
                let stamp = flow.timeline.stamp(times, monotonic_ns(), start);
                buffer.set_pts(stamp.pts.map(gst::ClockTime::from_nseconds));
                buffer.set_dts(stamp.dts.map(gst::ClockTime::from_nseconds));
            }
            if std::mem::take(&mut flow.discont) || (lost && !thinned) {
                buffer.set_flags(gst::BufferFlags::DISCONT);
            }
        }
        let running = flow.running(times.pts).or(times.running).filter(|_| !flow.own_times());
        self.send_segment(flow, running, frame.id() == 1)?;
        if let Some(running) = running {
            flow.course.passed(running, times.duration.unwrap_or(0));
        }
        if flow.frames == 0 && !flow.stamped {
            self.keep_times_of(&buffer);
        }
        flow.frames += 1;
        flow.segment_sent = true;
        self.figures.count_frame(frame.access().as_str());
        Ok(Some(buffer))
    }

    /// A sink may find out only with its first frames that its pipeline is live, after it has greeted us.
    /// Then, and only then, its frames say when they were captured.
    fn look_for_life(&self, flow: &mut Flow, times: &Times) {
        let told = || lock(&self.settings).is_live.is_some();
        if flow.live || times.captured.is_none() || !flow.timeline.knows_publisher() || told() {
            return;
        }
        gst::info!(CAT, imp = self, "the publisher is live");
        flow.live = true;
        flow.segment_due = true;
        self.figures.found_live();
        self.latency_changed();
    }

    fn buffer_of(&self, flow: &mut Flow, frame: &Frame) -> Result<gst::Buffer, gst::FlowError> {
        let lost = |name: &str| gst::warning!(CAT, imp = self, "{name} cannot be read here");
        let wanted = if flow.dma_buf { FaceKind::DmaBuf } else { FaceKind::Memory };
        let buffer = receive::buffer(frame, wanted, flow.layout.video(), lost).map_err(|error| {
            self.element_error(gst::ResourceError::Read, format!("a frame cannot be used: {error}"))
        })?;
        match flow.layout.adapt(&buffer) {
            None => Ok(buffer),
            Some(Ok(copy)) => {
                gst::log!(gst::CAT_PERFORMANCE, imp = self, "copied: downstream takes no GstVideoMeta");
                self.figures.count_copied();
                Ok(copy)
            }
            Some(Err(error)) => {
                Err(self
                    .element_error(gst::ResourceError::Read, format!("a frame cannot be copied: {error}")))
            }
        }
    }

    /// Whether frames are left out because we asked for it.
    fn thins_out(&self) -> bool {
        let settings = lock(&self.settings);
        settings.latest || settings.rate().is_some()
    }

    /// The base class gives the first buffer a decoding time where it has none; this takes it away again.
    fn keep_times_of(&self, buffer: &gst::Buffer) {
        let (pts, dts) = (buffer.pts(), buffer.dts());
        self.obj().src_pad().add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            if let Some(buffer) = info.buffer_mut() {
                let buffer = buffer.make_mut();
                buffer.set_pts(pts);
                buffer.set_dts(dts);
            }
            gst::PadProbeReturn::Remove
        });
    }

    pub(super) fn follow_clock(&self, flow: &mut Flow) {
        let plays = self.plays.load(Ordering::SeqCst);
        let changed = std::mem::replace(&mut flow.plays, plays) != plays;
        let pair = if plays % 2 == 1 { self.pair() } else { None };
        let Some(pair) = pair else { return flow.timeline.pause() };
        if changed || !flow.timeline.plays() {
            flow.timeline.play(pair);
        } else if flow.compared.is_none_or(|at| at.elapsed() >= COMPARE) {
            flow.timeline.follow(pair);
        } else {
            return;
        }
        flow.compared = Some(Instant::now());
    }

    /// The pipeline's running time beside `CLOCK_MONOTONIC`.
    fn pair(&self) -> Option<Pair> {
        let obj = self.obj();
        let (clock, base) = (obj.clock()?, obj.base_time()?);
        let (monotonic, time) = crate::clock::read_together(&clock);
        Some(Pair { monotonic, running: time.saturating_sub(base.nseconds()) })
    }

    /// This pipeline's running time now.
    pub(super) fn running_now(&self) -> u64 {
        let plays = self.plays.load(Ordering::SeqCst) % 2 == 1;
        let playing = if plays { self.pair().map(|pair| pair.running) } else { None };
        playing.unwrap_or_else(|| self.obj().start_time().map_or(0, gst::ClockTime::nseconds))
    }

    pub(super) fn element_error(&self, kind: impl gst::MessageErrorDomain, text: String) -> gst::FlowError {
        gst::error!(CAT, imp = self, "{text}");
        self.post_error_message(gst::error_msg!(kind, ("{text}")));
        gst::FlowError::Error
    }

    pub(super) fn latency_changed(&self) {
        let _ = self.obj().post_message(gst::message::Latency::builder().src(&*self.obj()).build());
    }

    fn tell(&self, structure: gst::Structure) {
        let message = gst::message::Element::builder(structure).src(&*self.obj()).build();
        let _ = self.obj().post_message(message);
    }

    /// Asks the publisher for a frame that can be decoded by itself.
    pub(super) fn ask_for_key_unit(&self) {
        let event = gst_video::UpstreamForceKeyUnitEvent::builder().all_headers(true).build();
        if let (Some(subscriber), Some((name, data))) = (self.link.subscriber(), request::outgoing(&event)) {
            subscriber.request(name, &data);
        }
    }
}

impl Flow {
    /// The publisher's running time of a position in its segment.
    pub(super) fn running(&self, position: Option<u64>) -> Option<u64> {
        let segment = self.segment.as_ref()?.downcast_ref::<gst::ClockTime>()?;
        let position = gst::ClockTime::from_nseconds(position?);
        match segment.to_running_time_full(position)? {
            gst::Signed::Positive(time) => Some(time.nseconds()),
            gst::Signed::Negative(_) => Some(0),
        }
    }
}
