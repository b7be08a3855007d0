//! Latency figures.

use hdrhistogram::Histogram;

use crate::clock::monotonic_ns;

/// Longest latency that is told apart, in nanoseconds.
const LONGEST: u64 = 60_000_000_000;

/// Percentiles in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct LatencyFigures {
    /// Median.
    pub p50: f64,
    /// 99 of 100 are faster.
    pub p99: f64,
    /// 999 of 1000 are faster.
    pub p999: f64,
    /// The slowest.
    pub max: f64,
}

/// A latency between two hosts, if it is known: not if it is less than by how much it may be wrong, or nothing is
/// known of that.
pub fn known(latency_us: f64, uncertainty_us: Option<f64>) -> Option<f64> {
    uncertainty_us.filter(|uncertainty| latency_us >= *uncertainty).map(|_| latency_us)
}

/// Collects latencies.
#[derive(Debug)]
pub struct Latency(Option<Histogram<u64>>);

impl Default for Latency {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(100, LONGEST, 3).ok())
    }
}

impl Latency {
    /// Records the time from `start` (`CLOCK_MONOTONIC`, nanoseconds) until now.
    pub fn record(&mut self, start: Option<u64>) {
        if let Some(start) = start {
            self.record_ns(monotonic_ns().saturating_sub(start));
        }
    }

    /// Records one latency in nanoseconds.
    pub fn record_ns(&mut self, nanoseconds: u64) {
        if let Some(histogram) = &mut self.0 {
            histogram.saturating_record(nanoseconds);
        }
    }

    /// Whether none was recorded.
    pub fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(Histogram::is_empty)
    }

    /// The percentiles so far.
    pub fn figures(&self) -> LatencyFigures {
        let Some(histogram) = self.0.as_ref().filter(|_| !self.is_empty()) else {
            return LatencyFigures::default();
        };
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        LatencyFigures { p50: at(0.5), p99: at(0.99), p999: at(0.999), max: histogram.max() as f64 / 1000.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::known;

    #[test]
    fn a_latency_below_the_uncertainty_is_unknown() {
        assert_eq!(known(10.0, Some(0.0)), Some(10.0), "one clock");
        assert_eq!(known(10.0, Some(10.0)), Some(10.0));
        assert_eq!(known(10.0, Some(10.1)), None);
        assert_eq!(known(10.0, None), None);
    }
}
