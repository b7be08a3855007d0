//! What a process has used of the machine.

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde::{Deserialize, Serialize};

/// Since the process began, or between two moments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// In user mode and in the kernel.
    pub(crate) cpu_seconds: f64,
    /// Minor page faults.
    pub(crate) minor_faults: i64,
    /// Of the clock on the wall.
    pub(crate) wall_seconds: f64,
}

impl Usage {
    /// Of this process, until now.
    pub(crate) fn now() -> Self {
        Self::of(UsageWho::RUSAGE_SELF)
    }

    /// Of all its children that have ended and were waited for.
    pub(crate) fn of_children() -> Self {
        Self::of(UsageWho::RUSAGE_CHILDREN)
    }

    fn of(who: UsageWho) -> Self {
        let wall_seconds = pagecast::clock::monotonic_ns() as f64 / 1e9;
        let Ok(usage) = getrusage(who) else {
            return Self { wall_seconds, ..Self::default() };
        };
        let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
        let minor_faults = usage.minor_page_faults();
        Self { cpu_seconds: micros as f64 / 1e6, minor_faults, wall_seconds }
    }

    /// From an earlier moment to this.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self {
            cpu_seconds: self.cpu_seconds - earlier.cpu_seconds,
            minor_faults: self.minor_faults - earlier.minor_faults,
            wall_seconds: self.wall_seconds - earlier.wall_seconds,
        }
    }
}
