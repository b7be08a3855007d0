//! What was seen of the scene.

use std::collections::BTreeSet;

use serde::Serialize;

use super::publish::PublisherReport;
use super::relay::RelayReport;
use super::subscribe::{SubscriberReport, Task};

/// What was seen.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Scene {
    pub(super) fps: u32,
    pub(super) publisher: PublisherReport,
    pub(super) verifier: SubscriberReport,
    pub(super) scaler: SubscriberReport,
    pub(super) recorder: SubscriberReport,
    /// The relay and those behind it.
    pub(super) behind: Option<Behind>,
    /// Missing at the verifier since the warm-up.
    pub(super) verifier_lost: u64,
    /// Of these, frames for which it was too slow itself.
    pub(super) verifier_slow: u64,
    pub(super) stop: Stop,
    pub(super) kill: Kill,
    pub(super) pool_limit: u64,
    /// The most bytes that the publisher's memory files had.
    pub(super) memory_peak: u64,
    pub(super) pages: Pages,
    /// Workers that ended by themselves.
    pub(super) deaths: Vec<String>,
}

/// While some were stopped; of the recorder and the publisher's other subscribers.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Stop {
    pub(super) seconds: f64,
    /// Frames published meanwhile.
    pub(super) frames: u64,
    /// Missing at the others.
    pub(super) others_lost: u64,
    /// Frames that the other that got fewest received, in all and in the last second.
    pub(super) others_received: u64,
    pub(super) others_received_last_second: u64,
    /// By how much the publisher's memory grew, bytes.
    pub(super) memory_growth: i64,
    /// What it held and what waited for it: its share, no more.
    pub(super) held: usize,
    pub(super) credits: u32,
    pub(super) mailbox: usize,
    /// What it did not get.
    pub(super) dropped: u64,
    /// Frames it received after it went on.
    pub(super) received_after: u64,
}

/// When the scaler was killed.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Kill {
    /// Frames it held at that moment.
    pub(super) held: usize,
    pub(super) others_lost: u64,
    /// From the signal until its process had ended.
    pub(super) gone_ms: Option<f64>,
    /// From the signal until the publisher had its frames back.
    pub(super) reclaimed_ms: Option<f64>,
    /// Frames taken back.
    pub(super) reclaimed: u64,
    /// Subscribers left.
    pub(super) left: usize,
    /// Frames the verifier received in the second after.
    pub(super) received_after: u64,
}

/// Which pages somebody reads.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Pages {
    /// Memory files that are mapped.
    pub(super) mapped: usize,
    /// Of these, files that the publisher has not.
    pub(super) foreign: usize,
    /// Mappings that could be written.
    pub(super) writable: usize,
}

/// The relay, and the two that receive from it over TCP.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Behind {
    pub(super) relay: RelayReport,
    pub(super) remote: SubscriberReport,
    pub(super) viewer: SubscriberReport,
    /// Missing at the remote one since the warm-up.
    pub(super) lost: u64,
    /// Of these, frames for which it or the relay was too slow, as the links told.
    pub(super) slow: u64,
    /// What the relay has mapped.
    pub(super) pages: Pages,
    /// While the viewer was stopped: frames that the remote one received.
    pub(super) received: u64,
    /// Frames that the relay received.
    pub(super) relayed: u64,
    /// Frames that the relay did not keep for the viewer.
    pub(super) dropped: u64,
    /// Frames that the viewer received after it went on.
    pub(super) received_after: u64,
}

impl Scene {
    /// What this one reports.
    pub(super) fn report_of(&mut self, task: Task) -> &mut SubscriberReport {
        match task {
            Task::Verify => &mut self.verifier,
            Task::Scale => &mut self.scaler,
            Task::Record => &mut self.recorder,
            Task::Remote => &mut self.behind_mut().remote,
            Task::View => &mut self.behind_mut().viewer,
        }
    }

    pub(super) fn behind_mut(&mut self) -> &mut Behind {
        self.behind.get_or_insert_default()
    }

    /// Frames for which any subscriber was too slow that must get them all.
    pub(super) fn slow(&self) -> u64 {
        let behind = self.behind.as_ref().map_or(0, Behind::dropped);
        self.verifier.dropped + self.scaler.dropped + self.recorder.dropped + behind
    }

    /// Frames that those who check lost because they, or the relay, were too slow.
    pub(super) fn too_slow(&self) -> u64 {
        self.verifier_slow + self.behind.as_ref().map_or(0, |behind| behind.slow)
    }

    /// Frames missing at the others of the publisher's own subscribers.
    pub(super) fn lost_beside(&self, victim: Task) -> u64 {
        let other = if victim == Task::Record { &self.scaler } else { &self.recorder };
        // Those two work on what they get. Where this machine is too slow for that, their links say so.
        self.verifier.lost + other.lost.saturating_sub(other.dropped)
    }

    /// Counts from a moment on what must not be missing.
    pub(super) fn count_since(&mut self, then: &Scene) {
        self.verifier_lost = self.verifier.lost - then.verifier.lost;
        self.verifier_slow = self.verifier.dropped - then.verifier.dropped;
        if let (Some(behind), Some(then)) = (&mut self.behind, &then.behind) {
            behind.lost = behind.remote.lost - then.remote.lost;
            behind.slow = behind.dropped() - then.dropped();
        }
    }

    /// Takes note of what happened behind the relay between the viewer's stop and its going on.
    pub(super) fn note_stop_behind(&mut self, before: &Scene, after: &Scene) {
        let (Some(behind), Some(before), Some(after)) = (&mut self.behind, &before.behind, &after.behind)
        else {
            return;
        };
        let dropped = |behind: &Behind| behind.relay.info.publisher.dropped;
        behind.received = after.remote.frames - before.remote.frames;
        behind.relayed = after.relay.frames - before.relay.frames;
        behind.dropped = dropped(after) - dropped(before);
        behind.received_after = behind.viewer.frames - after.viewer.frames;
    }
}

impl Behind {
    /// Frames that somebody on the way to the remote one was too slow for.
    fn dropped(&self) -> u64 {
        self.remote.dropped + self.relay.lost
    }
}

impl Stop {
    /// What was received between two moments, and in the last second of it.
    pub(super) fn between(before: &Scene, late: &Scene, after: &Scene) -> Self {
        let received = |from: &Scene| {
            let verifier = after.verifier.frames - from.verifier.frames;
            verifier.min(after.scaler.frames - from.scaler.frames)
        };
        Self {
            frames: after.publisher.frames - before.publisher.frames,
            others_received: received(before),
            others_received_last_second: received(late),
            ..Self::default()
        }
    }
}

impl Pages {
    /// What a process has mapped of memory files; `ours` are the publisher's.
    pub(super) fn mapped_by(pid: i32, ours: &BTreeSet<u64>) -> Self {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        let mut mapped = BTreeSet::new();
        let mut pages = Self::default();
        for line in maps.lines().filter(|line| line.contains(" /memfd:")) {
            let mut fields = line.split_ascii_whitespace();
            pages.writable += usize::from(fields.nth(1).is_some_and(|rights| rights.contains('w')));
            mapped.extend(fields.nth(2).and_then(|inode| inode.parse::<u64>().ok()));
        }
        pages.mapped = mapped.len();
        pages.foreign = mapped.difference(ours).count();
        pages
    }
}
