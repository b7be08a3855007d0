//! The worker's side: what it is told, and how it reports.

use std::collections::VecDeque;
use std::io::{BufRead, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

#[derive(Debug, Default)]
struct State {
    words: VecDeque<String>,
    stopped: bool,
}

/// What the parent says, line by line.
#[derive(Debug, Default)]
pub(crate) struct Control {
    state: Mutex<State>,
    changed: Condvar,
}

impl Control {
    /// Begins to listen to the parent.
    pub(crate) fn start() -> Arc<Self> {
        let control = Arc::new(Self::default());
        let listener = control.clone();
        std::thread::spawn(move || {
            for line in std::io::stdin().lock().lines() {
                let Ok(line) = line else { break };
                let mut state = listener.state();
                match line.as_str() {
                    "stop" => state.stopped = true,
                    _ => state.words.push_back(line),
                }
                listener.changed.notify_all();
            }
            listener.state().stopped = true;
            listener.changed.notify_all();
        });
        control
    }

    /// Whether the work is to end.
    pub(crate) fn stopped(&self) -> bool {
        self.state().stopped
    }

    /// Waits for a word; `None` when the work is to end, or nothing was said in time.
    pub(crate) fn next(&self, timeout: Duration) -> Option<String> {
        let until = Instant::now() + timeout;
        let mut state = self.state();
        loop {
            if let Some(word) = state.words.pop_front() {
                return Some(word);
            }
            let left = until.saturating_duration_since(Instant::now());
            if state.stopped || left.is_zero() {
                return None;
            }
            state = match self.changed.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    /// Waits until the parent says "go"; `false` when the work is to end instead.
    pub(crate) fn wait_for_go(&self) -> bool {
        while !self.stopped() {
            if self.next(Duration::from_secs(3600)).as_deref() == Some("go") {
                return true;
            }
        }
        false
    }

    /// Waits until the work is to end.
    pub(crate) fn wait_for_stop(&self) {
        while !self.stopped() {
            let _ = self.next(Duration::from_secs(3600));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reports to the parent; if nobody listens any more, the parent's end ends us anyway.
pub(crate) fn say(event: &str, data: &impl Serialize) {
    let line = serde_json::json!({ "event": event, "data": data });
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
