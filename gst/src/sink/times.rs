//! Running times, capture times, and the clock that clients pair theirs with.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use gst::ClockTime;
use gst::prelude::*;
use gst_base::prelude::*;
use pagecast::{Publisher, Times};

use super::PagecastSink;

/// How often the pipeline's clock is compared with `CLOCK_MONOTONIC`.
const REFRESH: Duration = Duration::from_secs(1);

/// The pipeline's clock and `CLOCK_MONOTONIC` at one moment, in nanoseconds.
#[derive(Clone, Copy)]
struct Pair {
    taken: Instant,
    clock: u64,
    monotonic: u64,
}

#[derive(Default)]
pub(super) struct Clocks {
    pair: Mutex<Option<Pair>>,
    live: AtomicBool,
    /// Least and most latency of upstream; `u64::MAX` is unlimited.
    latency: (AtomicU64, AtomicU64),
}

impl Clocks {
    pub(super) fn is_live(&self) -> bool {
        self.live.load(Ordering::Relaxed)
    }

    /// What upstream says of its latency.
    pub(super) fn set_latency(&self, live: bool, min: ClockTime, max: Option<ClockTime>) {
        self.live.store(live, Ordering::Relaxed);
        self.latency.0.store(min.nseconds(), Ordering::Relaxed);
        self.latency.1.store(max.map_or(u64::MAX, ClockTime::nseconds), Ordering::Relaxed);
    }

    /// The times of a buffer that is rendered in the current segment.
    pub(super) fn of(&self, sink: &PagecastSink, buffer: &gst::BufferRef) -> Times {
        let raw = |time: Option<ClockTime>| time.map(ClockTime::nseconds);
        let segment = sink.segment();
        let start = buffer.pts().or(buffer.dts());
        let running = segment
            .downcast_ref::<ClockTime>()
            .and_then(|segment| segment.to_running_time(start?))
            .map(ClockTime::nseconds);
        Times {
            pts: raw(buffer.pts()),
            dts: raw(buffer.dts()),
            duration: raw(buffer.duration()),
            running,
            captured: running.and_then(|running| self.captured(sink, running)),
            published: None,
        }
    }

    /// A live source stamps its frames with the running time at which it captured them.
    fn captured(&self, sink: &PagecastSink, running: u64) -> Option<u64> {
        if !self.is_live() {
            return None;
        }
        let pair = (*self.pair())?;
        let clock = sink.base_time()?.nseconds().checked_add(running)?;
        let before = i64::try_from(i128::from(pair.clock) - i128::from(clock)).ok()?;
        pair.monotonic.checked_add_signed(before.checked_neg()?)
    }

    /// Compares the clocks again if that was long ago, and tells the publisher.
    pub(super) fn refresh(&self, sink: &PagecastSink, publisher: &Publisher) {
        let mut pair = self.pair();
        if pair.is_some_and(|pair| pair.taken.elapsed() < REFRESH) {
            return;
        }
        let Some(clock) = sink.clock() else { return };
        let (monotonic, time) = crate::clock::read_together(&clock);
        *pair = Some(Pair { taken: Instant::now(), clock: time, monotonic });
        drop(pair);
        let running = sink.base_time().and_then(|base| time.checked_sub(base.nseconds()));
        let (min, max) = &self.latency;
        // With sync, frames go out when the pipeline's whole latency has passed.
        let configured = if sink.is_sync() { sink.latency().nseconds() } else { 0 };
        let min = min.load(Ordering::Relaxed).max(configured);
        let max = Some(max.load(Ordering::Relaxed)).filter(|max| *max != u64::MAX).map(|max| max.max(min));
        publisher.set_clock(pagecast::Clock { monotonic, running, latency_min: min, latency_max: max });
    }

    /// Forgets the clock, which may be another one after a pause.
    pub(super) fn forget(&self) {
        *self.pair() = None;
    }

    fn pair(&self) -> std::sync::MutexGuard<'_, Option<Pair>> {
        self.pair.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
