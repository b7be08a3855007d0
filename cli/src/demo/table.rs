//! The live table: a row now and then, the same on a terminal and in a pipe.

use std::time::{Duration, Instant};

use super::seen::Scene;
use crate::exit::Failure;
use crate::output;

/// Rows under one heading.
pub(super) struct Rows<'a> {
    began: Instant,
    every: Duration,
    next: Instant,
    headed: &'a mut bool,
}

impl<'a> Rows<'a> {
    pub(super) fn new(began: Instant, every: Duration, headed: &'a mut bool) -> Self {
        Self { began, every, next: Instant::now() + every, headed }
    }

    /// When the next row is due.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// A line between the rows.
    pub(super) fn say(&mut self, text: &str) -> Result<(), Failure> {
        let now = self.began.elapsed().as_secs_f64();
        Ok(output::line(format_args!("{now:5.1}s  -- {text}"))?)
    }

    pub(super) fn row(&mut self, phase: &str, scene: &Scene) -> Result<(), Failure> {
        self.next = Instant::now() + self.every;
        if !std::mem::replace(self.headed, true) {
            output::line(
                "  TIME  WHAT                 PUBLISHED    FPS  VERIFIER  LOST  BAD  SCALER  LOST  RECORDER  LOST  REMOTE  LOST  BAD  HELD  POOL MiB",
            )?;
        }
        let info = &scene.publisher.info;
        let waiting: usize = info.subscribers.iter().map(|one| one.mailbox).sum();
        let remote = scene.behind.as_ref().map(|behind| behind.remote.clone()).unwrap_or_default();
        Ok(output::line(format_args!(
            "{:5.1}s  {phase:<20} {:>9} {:>6.1} {:>9} {:>5} {:>4} {:>7} {:>5} {:>9} {:>5} {:>7} {:>5} {:>4} {:>5} {:>9.0}",
            self.began.elapsed().as_secs_f64(),
            scene.publisher.frames,
            scene.publisher.fps,
            scene.verifier.frames,
            scene.verifier.lost,
            scene.verifier.bad,
            scene.scaler.frames,
            scene.scaler.lost,
            scene.recorder.frames,
            scene.recorder.lost,
            remote.frames,
            remote.lost,
            remote.bad,
            info.publisher.held.max(waiting),
            info.publisher.pool_total as f64 / (1 << 20) as f64,
        ))?)
    }
}
