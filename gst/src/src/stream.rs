//! Stream-start, caps, segment and the other events on their way downstream.

use std::sync::atomic::Ordering;

use gst::glib::translate::IntoGlib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::prelude::*;
use pagecast::Times;
use pagecast::clock::monotonic_ns;

use super::flow::Flow;
use super::imp::{CAT, PagecastSrc};

impl PagecastSrc {
    pub(super) fn sticky(&self, flow: &mut Flow, event: gst::Event) -> Result<(), gst::FlowError> {
        match event.view() {
            gst::EventView::StreamStart(_) => self.start_stream(flow, event),
            gst::EventView::Caps(caps) => {
                flow.caps = Some(caps.caps_owned());
                let _ = self.negotiate_caps(flow)?;
            }
            gst::EventView::Segment(segment) => {
                flow.segment = Some(segment.segment().clone());
                flow.segment_due = true;
            }
            _ => {
                self.ensure_started(flow);
                self.push(event);
            }
        }
        Ok(())
    }

    fn start_stream(&self, flow: &mut Flow, event: gst::Event) {
        self.own_start.store(true, Ordering::SeqCst);
        self.push(event);
        self.own_start.store(false, Ordering::SeqCst);
        flow.started = true;
    }

    /// A publisher that names no stream has one all the same.
    pub(super) fn ensure_started(&self, flow: &mut Flow) {
        if !flow.started {
            let pad = self.obj().src_pad().clone();
            let id = pad.create_stream_id(&*self.obj(), None::<&str>);
            let event = gst::event::StreamStart::builder(&id).group_id(gst::GroupId::next()).build();
            self.start_stream(flow, event);
        }
    }

    pub(super) fn push(&self, event: gst::Event) {
        gst::debug!(CAT, imp = self, "pushing {event:?}");
        self.obj().src_pad().push_event(event);
    }

    /// Tells the base class what segment the next buffer is in. Running time begins with a frame at `running`,
    /// which is the publisher's first if `complete`.
    pub(super) fn send_segment(
        &self,
        flow: &mut Flow,
        running: Option<u64>,
        complete: bool,
    ) -> Result<(), gst::FlowError> {
        if !flow.segment_due {
            return Ok(());
        }
        let plain = || gst::FormattedSegment::<gst::ClockTime>::new().upcast();
        let mut segment = match flow.segment.clone() {
            Some(segment) if !flow.own_times() => segment,
            _ => plain(),
        };
        if !flow.own_times() {
            let now = if flow.course.is_settled() { 0 } else { self.running_now() };
            let shift = running.map_or(0, |running| flow.course.shift(running, complete, now));
            if let Some(segment) = segment.downcast_mut::<gst::ClockTime>()
                && shift != 0
                && segment.offset_running_time(shift).is_err()
            {
                gst::warning!(CAT, imp = self, "{segment:?} cannot be moved by {shift} ns");
            }
        }
        // Segment-done messages are for the publisher's application.
        let flags = segment.flags() - gst::SegmentFlags::SEGMENT;
        segment.set_flags(flags);
        if let Some(segment) = segment.downcast_mut::<gst::format::Bytes>() {
            segment.set_stop(None::<gst::format::Bytes>);
        }
        self.set_segment_format(segment.format());
        self.obj().new_segment(&segment).map_err(|error| {
            self.element_error(gst::ResourceError::Read, format!("{segment:?} cannot be used: {error}"))
        })?;
        flow.segment_due = false;
        flow.segment_sent = false;
        Ok(())
    }

    /// The base class takes no segment of another format than the one it has, and has a function to set it
    /// only before it starts.
    fn set_segment_format(&self, format: gst::Format) {
        let obj = self.obj();
        if obj.segment().format() == format {
            return;
        }
        let base: *mut gst_base::ffi::GstBaseSrc = obj.upcast_ref::<gst_base::BaseSrc>().as_ptr();
        let _guard = obj.object_lock();
        // SAFETY: the field is public, plain numbers, and guarded by the object lock, which is held.
        unsafe { gst::ffi::gst_segment_init(&raw mut (*base).segment, format.into_glib()) };
    }

    /// Downstream must know the segment before an event that the base class does not send.
    fn segment_before_event(&self, flow: &mut Flow, running: Option<u64>) -> Result<(), gst::FlowError> {
        self.ensure_started(flow);
        self.send_segment(flow, running, false)?;
        if !std::mem::replace(&mut flow.segment_sent, true) {
            let segment = self.obj().segment();
            self.push(gst::event::Segment::new(&segment));
        }
        Ok(())
    }

    pub(super) fn event(&self, flow: &mut Flow, event: gst::Event) -> Result<(), gst::FlowError> {
        match event.view() {
            gst::EventView::Eos(_) => return Err(self.end_of_stream(flow)),
            // In the stream's order there is nothing to interrupt: both go when the second comes.
            gst::EventView::FlushStart(_) => {}
            gst::EventView::FlushStop(stop) => self.flush(flow, stop.resets_time()),
            gst::EventView::Gap(gap) => {
                let (start, duration) = gap.get();
                self.gap(flow, start, duration)?;
            }
            // They concern the publisher's application.
            gst::EventView::SegmentDone(_) => {}
            _ => {
                self.segment_before_event(flow, None)?;
                self.push(event);
            }
        }
        Ok(())
    }

    pub(super) fn end_of_stream(&self, flow: &mut Flow) -> gst::FlowError {
        gst::info!(CAT, imp = self, "end of stream");
        match self.segment_before_event(flow, None) {
            Ok(()) => gst::FlowError::Eos,
            Err(error) => error,
        }
    }

    fn flush(&self, flow: &mut Flow, reset_time: bool) {
        let reset_time = reset_time && !flow.own_times();
        if reset_time {
            flow.course.reset();
        }
        self.push(gst::event::FlushStart::new());
        self.push(gst::event::FlushStop::new(reset_time));
        flow.segment_due = true;
        flow.discont = true;
    }

    fn gap(
        &self,
        flow: &mut Flow,
        start: gst::ClockTime,
        duration: Option<gst::ClockTime>,
    ) -> Result<(), gst::FlowError> {
        let running = flow.running(Some(start.nseconds()));
        self.segment_before_event(flow, running)?;
        let start = match flow.live {
            true => {
                self.follow_clock(flow);
                let pts = Some(start.nseconds());
                let duration = duration.map(gst::ClockTime::nseconds);
                let times = Times { pts, running, duration, ..Times::default() };
                let stands = self.obj().start_time().map_or(0, gst::ClockTime::nseconds);
                let stamp = flow.timeline.stamp(&times, monotonic_ns(), stands);
                gst::ClockTime::from_nseconds(stamp.pts.unwrap_or(0))
            }
            false => start,
        };
        if let (Some(running), false) = (running, flow.own_times()) {
            flow.course.passed(running, duration.map_or(0, gst::ClockTime::nseconds));
        }
        self.push(gst::event::Gap::builder(start).duration(duration).build());
        Ok(())
    }
}
