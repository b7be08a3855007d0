//! What the test wants of one direction, and what both directions of a connection have in common.

use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};

use super::faults::{Close, Fault, Lasting, Once};

/// How often who waits looks whether its connection is still wanted.
const LOOK: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
struct Wanted {
    lasting: Lasting,
    once: Vec<Once>,
    /// Counts `break`s, and says how.
    broken: (u64, Option<Close>),
    /// Counts `clear`s.
    cleared: u64,
}

/// The faults of one direction.
#[derive(Debug, Default)]
pub(super) struct Line {
    wanted: Mutex<Wanted>,
    changed: Condvar,
}

impl Line {
    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, fault: &str) {
        let mut wanted = self.wanted();
        match Fault::parse(fault) {
            Fault::Lasting(set, value) => set(&mut wanted.lasting, value),
            Fault::Once(once) => wanted.once.push(once),
            Fault::Break(close) => wanted.broken = (wanted.broken.0 + 1, Some(close)),
        }
        self.changed.notify_all();
    }

    pub(super) fn clear(&self) {
        let mut wanted = self.wanted();
        (wanted.lasting, wanted.cleared) = (Lasting::default(), wanted.cleared + 1);
        wanted.once.clear();
        self.changed.notify_all();
    }

    pub(super) fn lasting(&self) -> Lasting {
        self.wanted().lasting
    }

    /// Takes the first fault that fits.
    pub(super) fn take<T>(&self, fits: impl Fn(&Once) -> Option<T>) -> Option<T> {
        let mut wanted = self.wanted();
        let (at, found) = wanted.once.iter().enumerate().find_map(|(at, once)| Some((at, fits(once)?)))?;
        wanted.once.remove(at);
        Some(found)
    }

    /// How many `break`s there were, and how the last one closes.
    pub(super) fn broken(&self) -> (u64, Option<Close>) {
        self.wanted().broken
    }

    /// Waits for something new, or a moment.
    pub(super) fn wait(&self) {
        drop(self.changed.wait_timeout(self.wanted(), LOOK));
    }

    /// How many `clear`s there were.
    pub(super) fn cleared(&self) -> u64 {
        self.wanted().cleared
    }
}

/// The two sides of one connection. The sockets close when both pumps have let go of it.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) publisher: TcpStream,
    pub(super) subscriber: TcpStream,
    closed: AtomicBool,
}

impl Link {
    pub(super) fn new(publisher: TcpStream, subscriber: TcpStream) -> std::io::Result<Self> {
        for side in [&publisher, &subscriber] {
            side.set_nodelay(true)?;
            // Nobody waits for longer without a look around.
            side.set_read_timeout(Some(LOOK))?;
            side.set_write_timeout(Some(LOOK))?;
        }
        Ok(Self { publisher, subscriber, closed: AtomicBool::new(false) })
    }

    /// Closes both sides.
    pub(super) fn close(&self, how: Close) {
        for side in [&self.publisher, &self.subscriber] {
            match how {
                Close::Fin => drop(side.shutdown(Shutdown::Write)),
                // What is not sent is thrown away, and the other end is told so.
                Close::Rst => drop(setsockopt(side, sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 })),
            }
        }
        self.closed.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }
}
