//! Frames per second, lately.

use std::time::{Duration, Instant};

/// Counts over windows of one second.
#[derive(Debug, Default)]
pub struct RateMeter {
    since: Option<Instant>,
    count: u32,
    last: f64,
}

impl RateMeter {
    const WINDOW: Duration = Duration::from_secs(1);

    /// One more, now.
    pub fn tick(&mut self, now: Instant) {
        let since = *self.since.get_or_insert(now);
        let elapsed = now.saturating_duration_since(since);
        if elapsed >= Self::WINDOW {
            self.last = f64::from(self.count) / elapsed.as_secs_f64();
            self.count = 0;
            self.since = Some(now);
        }
        self.count += 1;
    }

    /// Per second, over the last full window; 0 when nothing came for two windows.
    pub fn per_second(&self, now: Instant) -> f64 {
        match self.since {
            Some(since) if now.saturating_duration_since(since) < 2 * Self::WINDOW => self.last,
            _ => 0.0,
        }
    }
}
