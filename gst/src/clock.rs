//! A pipeline's clock beside `CLOCK_MONOTONIC`.

use gst::prelude::*;
use pagecast::clock::monotonic_ns;

/// Readings that are tried for a good one.
const TRIES: usize = 8;
/// A reading that took no longer than this, in nanoseconds, is good.
const GOOD: u64 = 5_000;

/// `CLOCK_MONOTONIC` and a clock's time at one moment, in nanoseconds. A thread may lose the processor between
/// two readings: of several tries the shortest counts.
pub(crate) fn read_together(clock: &gst::Clock) -> (u64, u64) {
    let mut best = (u64::MAX, 0, 0);
    for _ in 0..TRIES {
        let before = monotonic_ns();
        let time = clock.time().nseconds();
        let took = monotonic_ns().saturating_sub(before);
        if took < best.0 {
            best = (took, before + took / 2, time);
        }
        if took <= GOOD {
            break;
        }
    }
    (best.1, best.2)
}
