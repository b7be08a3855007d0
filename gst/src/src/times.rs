//! When a frame is due in this pipeline; no GStreamer here, only numbers.
//!
//! Two processes share `CLOCK_MONOTONIC` and nothing else: each has its own pipeline clock and base time.
//! The publisher says what its running time was at one moment of it, the source takes such a pair of its
//! own, both about once a second, and between two pairs each clock is followed at the rate it had lately.
//! So a clock that is adjusted, or that an audio device drives, is followed too.

use pagecast::{Clock, Times};

/// Rates further from 1 than this are no drift: the clock was set, or its pipeline paused.
const MOST_DRIFT: f64 = 0.01;
/// Pairs closer together than this say nothing about the rate, in nanoseconds.
const SHORTEST: u64 = 100_000_000;
/// Pairs further apart than this say nothing about the rate of now, in nanoseconds.
const LONGEST: u64 = 10_000_000_000;

/// The latest time there is: in GStreamer all ones mean none.
pub(super) const LATEST: u64 = u64::MAX - 1;

/// One moment on `CLOCK_MONOTONIC` and on a pipeline's running time, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pair {
    /// `CLOCK_MONOTONIC`.
    pub(super) monotonic: u64,
    /// Running time at that moment.
    pub(super) running: u64,
}

/// A running time that is followed by pairs.
#[derive(Clone, Copy, Debug)]
struct Followed {
    pair: Pair,
    /// Running time per monotonic time, less 1.
    drift: f64,
}

impl Followed {
    fn start(pair: Pair) -> Self {
        Self { pair, drift: 0.0 }
    }

    fn update(&mut self, pair: Pair) {
        let apart = pair.monotonic.saturating_sub(self.pair.monotonic);
        if apart < SHORTEST {
            return;
        }
        let advanced = difference(pair.running, self.pair.running) as f64;
        let drift = advanced / apart as f64 - 1.0;
        let trusted = apart <= LONGEST && drift.abs() <= MOST_DRIFT;
        *self = Self { pair, drift: if trusted { drift } else { 0.0 } };
    }

    fn running_at(&self, monotonic: u64) -> i128 {
        let since = difference(monotonic, self.pair.monotonic);
        i128::from(self.pair.running) + since + (since as f64 * self.drift) as i128
    }

    fn monotonic_at(&self, running: u64) -> i128 {
        let since = difference(running, self.pair.running);
        i128::from(self.pair.monotonic) + (since as f64 / (1.0 + self.drift)) as i128
    }
}

/// What a received frame's times are here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Presentation time: running time of this pipeline.
    pub(super) pts: Option<u64>,
    /// Decoding time.
    pub(super) dts: Option<u64>,
}

/// From a live publisher's times to this pipeline's running time.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    publisher: Option<Followed>,
    latency: u64,
    here: Option<Followed>,
    /// Whether `here` is the pipeline's clock; else it is counted from the first frame since the pause.
    plays: bool,
    /// Added to all times, so that they go on where those of before ended.
    lead: u64,
    /// Where the last frame ended.
    end: Option<u64>,
    /// Whether the next frame decides on the lead.
    settle: bool,
}

impl Timeline {
    /// The publisher said what its running time is.
    pub(super) fn publisher(&mut self, clock: &Clock) {
        self.latency = clock.latency_min;
        let Some(running) = clock.running else { return };
        let pair = Pair { monotonic: clock.monotonic, running };
        match &mut self.publisher {
            Some(followed) => followed.update(pair),
            None => self.publisher = Some(Followed::start(pair)),
        }
    }

    /// Another publisher, or another life of it: its clock is not known yet.
    pub(super) fn forget_publisher(&mut self) {
        self.publisher = None;
        self.latency = 0;
        self.settle = true;
    }

    /// Whether the publisher has said what its running time is.
    pub(super) fn knows_publisher(&self) -> bool {
        self.publisher.is_some()
    }

    /// Running time begins, or goes on, with this pair.
    pub(super) fn play(&mut self, pair: Pair) {
        self.here = Some(Followed::start(pair));
        self.plays = true;
        self.settle = true;
    }

    /// The pipeline does not run. Frames that still fill it are counted from the first of them on.
    pub(super) fn pause(&mut self) {
        self.here = None;
        self.plays = false;
    }

    /// Whether the pipeline's clock is followed.
    pub(super) fn plays(&self) -> bool {
        self.plays
    }

    /// A later pair of this pipeline.
    pub(super) fn follow(&mut self, pair: Pair) {
        if let Some(here) = self.here.as_mut().filter(|_| self.plays) {
            here.update(pair);
        }
    }

    /// The moment of `CLOCK_MONOTONIC` at which a frame is due: its running time at the publisher, plus the
    /// latency that the publisher's pipeline is configured for. Without a running time it is when the frame
    /// was captured, published, or, of a publisher that tells nothing, when it arrived.
    fn due(&self, times: &Times, arrived: u64) -> u64 {
        if let (Some(publisher), Some(running)) = (&self.publisher, times.running) {
            return clamp(publisher.monotonic_at(running) + i128::from(self.latency));
        }
        let captured = times.captured.map(|captured| captured.saturating_add(self.latency));
        captured.or(times.published).unwrap_or(arrived)
    }

    /// What a frame's times are here. `arrived` is `CLOCK_MONOTONIC`; `start` is the running time at which
    /// the pipeline stands while it does not play.
    pub(super) fn stamp(&mut self, times: &Times, arrived: u64, start: u64) -> Stamp {
        let due = self.due(times, arrived);
        let end = self.end.unwrap_or(0);
        let first = || Followed::start(Pair { monotonic: due, running: start.max(end) });
        let shown = self.here.get_or_insert_with(first).running_at(due);
        if std::mem::take(&mut self.settle) {
            self.lead = end.saturating_sub(clamp(shown));
        }
        let shown = shown + i128::from(self.lead);
        let before = |decoded| times.pts.map_or(0, |pts| difference(pts, decoded));
        let decoded = times.dts.map(|dts| clamp(shown - before(dts)));
        // What has only a decoding time is not given a presentation time.
        let presented = (times.pts.is_some() || times.dts.is_none()).then(|| clamp(shown));
        let ends = clamp(shown).saturating_add(times.duration.unwrap_or(1)).min(LATEST);
        self.end = Some(end.max(ends));
        Stamp { pts: presented, dts: decoded }
    }
}

fn difference(a: u64, b: u64) -> i128 {
    i128::from(a) - i128::from(b)
}

fn clamp(time: i128) -> u64 {
    u64::try_from(time.max(0)).map_or(LATEST, |time| time.min(LATEST))
}

/// Running time of a stream that is not live, over several lives of the publisher.
#[derive(Debug, Default)]
pub(super) struct Course {
    /// Where this pipeline's running time of the frames so far ends.
    end: Option<u64>,
    /// What is added to the publisher's running time in this life.
    shift: Option<i64>,
}

impl Course {
    /// A new life of the publisher: its running time has nothing to do with that of before.
    pub(super) fn restart(&mut self) {
        self.shift = None;
    }

    /// The stream was flushed and running time with it.
    pub(super) fn reset(&mut self) {
        *self = Self { end: None, shift: Some(0) };
    }

    /// What is to be added to the running time of the life that begins with a frame of running time `first`.
    /// `complete`: it is the publisher's very first, so that its times are kept as they are. Otherwise it is
    /// shown at once: at `now`, or when what came before it ends.
    pub(super) fn shift(&mut self, first: u64, complete: bool, now: u64) -> i64 {
        let (end, begun) = (self.end.unwrap_or(0), self.end.is_some());
        let begins = match begun || !complete {
            true => now.max(end),
            false => first,
        };
        let shift = || clamp_signed(difference(begins, first));
        *self.shift.get_or_insert_with(shift)
    }

    /// Whether this life's shift is known.
    pub(super) fn is_settled(&self) -> bool {
        self.shift.is_some()
    }

    /// A frame from `running` on, so long, was passed on.
    pub(super) fn passed(&mut self, running: u64, duration: u64) {
        let shifted = i128::from(running) + i128::from(self.shift.unwrap_or(0)) + i128::from(duration);
        let end = clamp(shifted);
        self.end = Some(self.end.map_or(end, |before| before.max(end)));
    }
}

fn clamp_signed(time: i128) -> i64 {
    time.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

#[cfg(test)]
#[path = "times_tests.rs"]
mod tests;
