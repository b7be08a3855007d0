//! Frames at their own pace.

use std::time::{Duration, Instant};

/// Ticks at a fixed rate; without a rate it never waits.
#[derive(Debug)]
pub(crate) struct Pacer {
    interval: Option<Duration>,
    next: Instant,
    late: u64,
}

impl Pacer {
    /// So many ticks per second.
    pub(crate) fn new(per_second: Option<u32>) -> Self {
        let interval = per_second.map(|rate| Duration::from_secs(1) / rate.max(1));
        Self { interval, next: Instant::now(), late: 0 }
    }

    /// Waits for the next tick. Who is late by more than a tick goes on from now, as a camera would.
    pub(crate) fn wait(&mut self) {
        let Some(interval) = self.interval else { return };
        let now = Instant::now();
        if now > self.next + interval {
            self.late += 1;
            self.next = now;
        }
        std::thread::sleep(self.next.saturating_duration_since(now));
        self.next += interval;
    }

    /// Ticks that were late by more than a tick.
    pub(crate) fn late(&self) -> u64 {
        self.late
    }
}
