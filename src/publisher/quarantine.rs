//! Frames whose pages are not written again yet, because their holder was cut off alive.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::core::Published;

#[derive(Debug)]
struct Kept {
    process: OwnedFd,
    frames: VecDeque<Arc<Published>>,
}

/// What the evicted held, oldest first, for as long as they live.
#[derive(Debug, Default)]
pub(super) struct Quarantine(VecDeque<Kept>);

impl Quarantine {
    /// Keeps these frames until the process (a pidfd) has ended.
    pub(super) fn keep(&mut self, process: OwnedFd, frames: Vec<Arc<Published>>) {
        if !frames.is_empty() {
            self.0.push_back(Kept { process, frames: frames.into() });
        }
    }

    /// How many frames are kept.
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|kept| kept.frames.len()).sum()
    }

    /// Lets go of what the dead held, and of the oldest frames beyond `limit`.
    #[must_use = "dropping them is what gives the pages back"]
    pub(super) fn release(&mut self, limit: usize) -> Vec<Arc<Published>> {
        let mut released = Vec::new();
        for kept in self.0.iter_mut().filter(|kept| has_ended(&kept.process)) {
            released.extend(kept.frames.drain(..));
        }
        let mut over = self.len().saturating_sub(limit);
        for kept in &mut self.0 {
            let some = kept.frames.len().min(over);
            released.extend(kept.frames.drain(..some));
            over -= some;
        }
        self.0.retain(|kept| !kept.frames.is_empty());
        released
    }
}

fn has_ended(process: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}
