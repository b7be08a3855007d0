//! What the tests of this crate share.
#![allow(dead_code, reason = "each test binary uses its own part")]

pub(crate) mod messages;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use proptest::test_runner::Config;

/// As many cases as `PROPTEST_CASES` says, or 256; a handful under Miri, which also cannot keep a file of
/// failures.
pub(crate) fn config() -> Config {
    let default = Config::default();
    if cfg!(miri) { Config { cases: 2, failure_persistence: None, ..default } } else { default }
}

/// A shorter `full` for Miri.
pub(crate) fn unless_miri(full: usize, miri: usize) -> usize {
    if cfg!(miri) { miri } else { full }
}

/// Counts how often each token was dropped, by its number.
#[derive(Clone, Debug, Default)]
pub(crate) struct Drops(Rc<RefCell<Vec<u32>>>);

impl Drops {
    /// The next token; numbers start at 1, as frame ids do.
    pub(crate) fn token(&self) -> Token {
        let mut counts = self.0.borrow_mut();
        counts.push(0);
        Token { number: counts.len() as u64, drops: self.clone() }
    }

    /// How often each token was dropped so far.
    pub(crate) fn counts(&self) -> Vec<u32> {
        self.0.borrow().clone()
    }
}

/// Stands for the pages of a frame.
#[derive(Debug)]
pub(crate) struct Token {
    pub(crate) number: u64,
    drops: Drops,
}

impl Drop for Token {
    fn drop(&mut self) {
        self.drops.0.borrow_mut()[self.number as usize - 1] += 1;
    }
}

/// A clock that moves only when told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FakeClock {
    pub(crate) now: Instant,
}

impl FakeClock {
    pub(crate) fn start() -> Self {
        Self { now: Instant::now() }
    }

    pub(crate) fn advance(&mut self, time: Duration) -> Instant {
        self.now += time;
        self.now
    }
}

pub(crate) const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}
