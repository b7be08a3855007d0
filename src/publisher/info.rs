//! What a publisher tells of itself; the names are those of all statistics.

use std::time::Instant;

use pagecast_allocators::{AccessMode, BackingKind, Buffer, FaceKind};
use pagecast_ipc::ledger::SubscriberId;
use serde::{Deserialize, Serialize};

use super::buffers::BufferInfo;
use super::core::Core;
use crate::remote::RoundTripFigures;

/// The user of somebody who was not vouched for by the kernel.
const UNKNOWN_USER: u32 = u32::MAX;

/// A publisher and its subscribers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Info {
    /// Its name.
    pub name: String,
    /// Where it is found.
    pub uri: String,
    /// What it publishes.
    pub caps: Option<String>,
    /// Its figures.
    pub publisher: PublisherFigures,
    /// Its subscribers, oldest first.
    pub subscribers: Vec<SubscriberInfo>,
    /// Buffers of frames that are held now; only the publisher's own user and root, on this host, are told.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub buffers: Vec<BufferInfo>,
}

/// Figures of a publisher.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PublisherFigures {
    /// Its process.
    pub pid: u32,
    /// Frames published.
    pub frames: u64,
    /// Bytes of the frames published.
    pub bytes: u64,
    /// Frames that a subscriber should have had and did not get, over all subscribers.
    pub dropped: u64,
    /// Frames that needed a copy.
    pub copied: u64,
    /// Frames per second, lately.
    pub fps: f64,
    /// Frames that a subscriber holds or that wait for one.
    pub held: usize,
    /// Bytes of all buffers of the pool.
    pub pool_total: u64,
    /// Bytes of its free buffers.
    pub pool_free: u64,
    /// The most bytes it may have.
    pub pool_limit: u64,
    /// Registrations of its buffers with RDMA devices.
    pub registrations: u64,
    /// Where the pages come from.
    pub backing: Option<String>,
    /// Faces of the buffers.
    pub faces: Vec<String>,
    /// `enforced` or `cooperative`.
    pub access: Option<String>,
    /// This life of the publisher.
    pub epoch: u32,
    /// Subscribers admitted so far.
    pub admitted: u64,
    /// Subscribers cut off because they held frames for too long.
    pub evicted: u64,
    /// Subscribers cut off because they broke the protocol.
    pub faults: u64,
    /// Frames taken back from subscribers that were gone.
    pub reclaimed: u64,
    /// Frames kept from reuse because their holder was cut off alive.
    pub quarantined: usize,
    /// Metas that could not be carried, by name.
    pub not_carried: std::collections::BTreeMap<String, u64>,
    /// What could not be had, and what is used instead.
    pub fallbacks: Vec<String>,
    /// The buffers of a camera's driver, where frames are made of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub foreign: Option<ForeignPool>,
}

/// Figures of a pool that is not ours and has only so many buffers: that of a camera's driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ForeignPool {
    /// Buffers that it has.
    pub buffers: u32,
    /// Buffers that stay with it: from here on frames are copied.
    pub reserve: u32,
    /// The fewest that it had left when it gave a frame; `None` before the first.
    pub fewest: Option<u32>,
    /// Frames that are missing in its own count.
    pub missed: u64,
    /// Frames that it gave and that were not published, because there was no room for a copy.
    pub left_out: u64,
}

/// One subscriber, as its publisher sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SubscriberInfo {
    /// Its number.
    pub id: u64,
    /// Its process; 0 for one on another host.
    pub pid: i32,
    /// Its user; all ones for one on another host.
    pub uid: u32,
    /// The address of one on another host.
    pub peer: Option<String>,
    /// What it calls itself.
    pub name: String,
    /// How it is reached.
    pub transport: String,
    /// Why one that came by `remote://` is reached by TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
    /// How long a message takes to one on another host and back.
    pub rtt_us: Option<RoundTripFigures>,
    /// Bytes on the wire to one on another host, all framing included.
    pub wire_bytes: Option<u64>,
    /// Frames that were copied for one on another host, because its link cannot read their pages.
    pub copied: u64,
    /// The policy in force.
    pub policy: String,
    /// Frames delivered.
    pub frames: u64,
    /// Frames it should have had and did not get.
    pub dropped: u64,
    /// Frames its own rate limit left out.
    pub skipped: u64,
    /// Times it held the producer.
    pub stalls: u64,
    /// Bytes delivered.
    pub bytes: u64,
    /// Frames it holds.
    pub held: usize,
    /// Frames it may hold.
    pub credits: u32,
    /// Frames that wait for its credit.
    pub mailbox: usize,
    /// The most that may wait.
    pub mailbox_limit: u32,
    /// Faces its buffers are announced with.
    pub faces: Vec<String>,
    /// Seconds since it came.
    pub connected_seconds: f64,
}

/// What the pages of the last frame are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pages {
    backing: BackingKind,
    memory: bool,
    dma_buf: bool,
    access: AccessMode,
}

impl Pages {
    pub(super) fn of(buffer: &Buffer) -> Self {
        let has = |kind| buffer.face(kind).is_some();
        Self {
            backing: buffer.backing(),
            memory: has(FaceKind::Memory),
            dma_buf: has(FaceKind::DmaBuf),
            access: buffer.access(),
        }
    }

    fn faces(self) -> Vec<String> {
        let faces = [(FaceKind::Memory, self.memory), (FaceKind::DmaBuf, self.dma_buf)];
        faces.into_iter().filter(|(_, has)| *has).map(|(kind, _)| kind.to_string()).collect()
    }
}

impl Core {
    pub(super) fn subscriber_info(&self, id: SubscriberId) -> Option<SubscriberInfo> {
        let member = self.members.get(&id)?;
        let counters = self.books.counters(id).unwrap_or_default();
        let share = self.books.share(id);
        let origin = member.origin.as_ref();
        let remote = origin.map(|origin| origin.meter.figures());
        Some(SubscriberInfo {
            id: id.0,
            pid: if origin.is_some() { 0 } else { member.peer.pid },
            uid: if origin.is_some() { UNKNOWN_USER } else { member.peer.uid },
            peer: remote.as_ref().map(|remote| remote.peer.clone()),
            name: member.name.clone(),
            transport: remote.as_ref().map_or_else(|| "unix".to_owned(), |remote| remote.transport.clone()),
            fallback: remote.as_ref().and_then(|remote| remote.fallback.clone()),
            rtt_us: remote.as_ref().and_then(|remote| remote.rtt_us),
            wire_bytes: remote.as_ref().map(|remote| remote.wire_bytes),
            copied: remote.as_ref().map_or(0, |remote| remote.copied),
            policy: self.books.policy(id).map(|policy| policy.to_string()).unwrap_or_default(),
            frames: counters.frames,
            dropped: counters.dropped,
            skipped: counters.skipped,
            stalls: counters.stalls,
            bytes: member.bytes,
            // What the bridge has is its own matter; what the other host holds is what counts.
            held: remote.as_ref().map_or_else(|| self.books.held(id), |remote| remote.held),
            credits: origin.map_or(share.credits, |origin| origin.meter.credits()),
            mailbox: self.books.waiting(id),
            mailbox_limit: share.mailbox,
            faces: member.faces.iter_names().map(|(name, _)| name.to_lowercase().replace('_', "-")).collect(),
            connected_seconds: member.connected.elapsed().as_secs_f64(),
        })
    }

    pub(super) fn publisher_figures(&self) -> PublisherFigures {
        let dropped = |id| self.books.counters(id).map_or(0, |counters| counters.dropped);
        PublisherFigures {
            pid: std::process::id(),
            frames: self.totals.frames,
            bytes: self.totals.bytes,
            dropped: self.totals.dropped + self.books.subscribers().map(dropped).sum::<u64>(),
            fps: self.rate.per_second(Instant::now()),
            held: self.books.ledger().frames(),
            pool_limit: self.options.limit,
            backing: self.last_pages.map(|pages| pages.backing.to_string()),
            faces: self.last_pages.map(Pages::faces).unwrap_or_default(),
            access: self.last_pages.map(|pages| pages.access.to_string()),
            epoch: self.epoch,
            admitted: self.totals.admitted,
            evicted: self.totals.evicted,
            faults: self.totals.faults,
            reclaimed: self.totals.reclaimed,
            quarantined: self.quarantined(),
            ..PublisherFigures::default()
        }
    }
}
