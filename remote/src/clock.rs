//! How far another host's `CLOCK_MONOTONIC` is from ours, and how well that is known.
//!
//! Each message that goes there and back says that the other clock, at the moment when the other end looked at it, was
//! between our departure and our arrival. Such an interval widens with the time since, because clocks drift, and is
//! cut down by the next one. The truth is in it as long as no two clocks drift apart faster than [`DRIFT_PPM`] and
//! the peer does not lie, which would harm the times of its own frames only.
#![forbid(unsafe_code)]

use std::time::Duration;

/// How fast two clocks may drift apart, in parts per million: each crystal by half of it.
pub const DRIFT_PPM: i128 = 200;

/// Four looks at two clocks, in nanoseconds of the clock that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// When our message left.
    pub left: u64,
    /// When it arrived there.
    pub arrived_there: u64,
    /// When theirs left.
    pub left_there: u64,
    /// When theirs arrived here.
    pub arrived: u64,
}

impl Exchange {
    /// How long the two messages were under way together; `None` if it cannot have been so.
    pub fn round_trip(&self) -> Option<Duration> {
        let away = self.arrived.checked_sub(self.left)?;
        let there = self.left_there.checked_sub(self.arrived_there)?;
        away.checked_sub(there).map(Duration::from_nanos)
    }
}

/// Where the other clock is, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Estimate {
    /// Theirs less ours, in nanoseconds.
    pub offset: i128,
    /// By how much that may be wrong, either way.
    pub uncertainty: Duration,
}

impl Estimate {
    /// A time of theirs on our clock; `None` if it is none of ours.
    pub fn to_ours(&self, theirs: u64) -> Option<u64> {
        u64::try_from(i128::from(theirs) - self.offset).ok()
    }
}

/// Follows another clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct Estimator {
    known: Option<Known>,
}

/// The least and the most that their clock is ahead of ours.
#[derive(Clone, Copy, Debug)]
struct Known {
    least: i128,
    most: i128,
    at: u64,
}

impl Known {
    fn widened(self, now: u64) -> Self {
        let drift = drift(now.saturating_sub(self.at));
        Self { least: self.least - drift, most: self.most + drift, at: self.at.max(now) }
    }
}

/// How far two clocks may drift apart in so many nanoseconds.
fn drift(passed: u64) -> i128 {
    (i128::from(passed) * DRIFT_PPM + 999_999) / 1_000_000
}

impl Estimator {
    /// Takes note of an exchange that ended now. What cannot have been so is not believed.
    pub fn add(&mut self, exchange: &Exchange) {
        if exchange.round_trip().is_none() {
            return;
        }
        let ahead = |theirs: u64, ours: u64| i128::from(theirs) - i128::from(ours);
        let least = ahead(exchange.left_there, exchange.arrived);
        // That was when ours left, and clocks have drifted since.
        let most = ahead(exchange.arrived_there, exchange.left) + drift(exchange.arrived - exchange.left);
        let new = Known { least, most, at: exchange.arrived };
        let both = self.known.map(|known| known.widened(new.at)).map(|known| Known {
            least: known.least.max(new.least),
            most: known.most.min(new.most),
            at: known.at,
        });
        // Where the two contradict each other a clock was set, as when a host slept: the past is worth nothing.
        self.known = Some(both.filter(|both| both.least <= both.most).unwrap_or(new));
    }

    /// What is known at `now`, nanoseconds of our clock; `None` before the first exchange.
    pub fn estimate(&self, now: u64) -> Option<Estimate> {
        let known = self.known?.widened(now);
        let half = (known.most - known.least + 1) / 2;
        let uncertainty = Duration::from_nanos(u64::try_from(half).unwrap_or(u64::MAX));
        Some(Estimate { offset: known.least + (known.most - known.least) / 2, uncertainty })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(left: u64, there: u64, kept: u64, arrived: u64) -> Exchange {
        Exchange { left, arrived_there: there, left_there: there + kept, arrived }
    }

    #[test]
    fn a_way_as_long_there_as_back_gives_the_offset() {
        let mut estimator = Estimator::default();
        assert_eq!(estimator.estimate(0), None);
        estimator.add(&exchange(1000, 501_100, 50, 1250));
        let estimate = estimator.estimate(1250).unwrap();
        assert_eq!((estimate.offset, estimate.uncertainty), (500_000, Duration::from_nanos(101)));
        assert_eq!(estimate.to_ours(500_007), Some(7));
        assert_eq!(estimate.to_ours(499_999), None, "before our clock began");
    }

    #[test]
    fn the_uncertainty_grows_with_time_and_a_better_exchange_cuts_it_down() {
        let mut estimator = Estimator::default();
        estimator.add(&exchange(0, 1000, 0, 2000));
        let second = 1_000_000_000;
        let grown = estimator.estimate(2000 + second).unwrap().uncertainty;
        assert_eq!(grown, Duration::from_nanos(1001 + 200_000));
        estimator.add(&exchange(second, second + 10, 0, second + 20));
        assert_eq!(estimator.estimate(second + 20).unwrap().uncertainty, Duration::from_nanos(11));
        estimator.add(&exchange(second + 20, second + 500_000, 0, second + 1_000_020));
        assert!(estimator.estimate(second + 1_000_020).unwrap().uncertainty < Duration::from_nanos(300));
    }

    #[test]
    fn a_clock_that_was_set_is_followed() {
        let mut estimator = Estimator::default();
        estimator.add(&exchange(0, 1_000_000, 0, 20));
        estimator.add(&exchange(100, 110, 0, 120));
        assert_eq!(estimator.estimate(120).unwrap().offset, 0);
    }

    #[test]
    fn what_cannot_be_is_not_believed() {
        let mut estimator = Estimator::default();
        estimator.add(&Exchange { left: 10, arrived_there: 5, left_there: 5, arrived: 9 });
        estimator.add(&Exchange { left: 10, arrived_there: 5, left_there: 4, arrived: 11 });
        estimator.add(&Exchange { left: 10, arrived_there: 5, left_there: 50, arrived: 11 });
        assert_eq!(estimator.estimate(100), None);
        estimator.add(&Exchange { left: 0, arrived_there: u64::MAX, left_there: u64::MAX, arrived: 2 });
        let extreme = estimator.estimate(u64::MAX).unwrap();
        assert_eq!(extreme.to_ours(0), None);
    }
}
