//! The publisher's private table of who holds which frame.
//!
//! Only the publisher counts, in its own memory. A subscriber names frame ids; what it says is checked
//! against its own row and can touch nothing else.
//!
//! Invariants, each of them property-tested in `tests/ledger.rs`:
//!
//! 1. The claims of a frame are the publisher's own (between [`Ledger::publish`] and [`Ledger::settle`])
//!    plus one per row that holds it or waits for it.
//! 2. A frame with no claim is not in the table: its resource has been handed back, exactly once.
//! 3. A frame id is issued once and never again.
//! 4. A row accepts the return of a frame only if that row holds it.
//! 5. A row that was reclaimed claims nothing.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::time::Instant;

/// The number of one frame, unique per publisher and never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameId(pub u64);

/// The number of one subscriber, unique per publisher and never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriberId(pub u64);

/// A subscriber named a frame that it does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("frame {} is not held by subscriber {}", frame.0, subscriber.0)]
pub struct NotHeld {
    /// Who said it.
    pub subscriber: SubscriberId,
    /// What it named.
    pub frame: FrameId,
}

/// One frame in a row's hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The frame.
    pub frame: FrameId,
    /// Since when the subscriber has it.
    pub since: Instant,
}

#[derive(Debug)]
struct Entry<T> {
    resource: T,
    /// The publisher's own claim, counted in `claims`; said apart so that it can end only once.
    own: bool,
    claims: u32,
}

/// Frames are held in the order of delivery; frames that wait are only counted, the mailbox orders them.
#[derive(Debug, Default)]
struct Row {
    held: Vec<Held>,
    waiting: Vec<FrameId>,
}

impl Row {
    fn has(&self, frame: FrameId) -> bool {
        self.waiting.contains(&frame) || self.held.iter().any(|held| held.frame == frame)
    }
}

/// Which subscriber holds which frame; `T` is what a frame keeps alive and is handed back with its last claim.
#[derive(Debug)]
pub struct Ledger<T> {
    frames: HashMap<FrameId, Entry<T>>,
    rows: HashMap<SubscriberId, Row>,
    last_frame: u64,
}

impl<T> Default for Ledger<T> {
    fn default() -> Self {
        Self { frames: HashMap::new(), rows: HashMap::new(), last_frame: 0 }
    }
}

impl<T> Ledger<T> {
    /// Opens an empty row.
    pub fn open(&mut self, subscriber: SubscriberId) {
        self.rows.entry(subscriber).or_default();
    }

    /// Enters a new frame with the publisher's own claim on it.
    pub fn publish(&mut self, resource: T) -> FrameId {
        self.last_frame += 1;
        let frame = FrameId(self.last_frame);
        self.frames.insert(frame, Entry { resource, own: true, claims: 1 });
        frame
    }

    /// Ends the publisher's own claim, once; must be called after each [`Ledger::publish`].
    #[must_use = "the resource is to be given back"]
    pub fn settle(&mut self, frame: FrameId) -> Option<T> {
        let own = std::mem::take(&mut self.frames.get_mut(&frame)?.own);
        if own { self.unclaim(frame) } else { None }
    }

    /// The frame waits in the subscriber's mailbox. Ignored if the row or frame is unknown, or the row has
    /// the frame already.
    pub fn wait(&mut self, subscriber: SubscriberId, frame: FrameId) {
        if let (Some(row), Some(entry)) = (self.rows.get_mut(&subscriber), self.frames.get_mut(&frame))
            && !row.has(frame)
        {
            entry.claims += 1;
            row.waiting.push(frame);
        }
    }

    /// A waiting frame leaves the mailbox unseen.
    #[must_use = "the resource is to be given back"]
    pub fn abandon(&mut self, subscriber: SubscriberId, frame: FrameId) -> Option<T> {
        self.take_waiting(subscriber, frame)?;
        self.unclaim(frame)
    }

    /// A waiting frame is now in the subscriber's hands. Returns its resource, for the message.
    pub fn deliver(&mut self, subscriber: SubscriberId, frame: FrameId, now: Instant) -> Option<&T> {
        self.take_waiting(subscriber, frame)?;
        let row = self.rows.get_mut(&subscriber)?;
        row.held.push(Held { frame, since: now });
        self.frames.get(&frame).map(|entry| &entry.resource)
    }

    /// A delivered frame never left this process (its message could not be sent): it waits again.
    pub fn recall(&mut self, subscriber: SubscriberId, frame: FrameId) {
        if let Some(row) = self.rows.get_mut(&subscriber)
            && let Some(at) = row.held.iter().position(|held| held.frame == frame)
        {
            row.held.remove(at);
            row.waiting.push(frame);
        }
    }

    /// The subscriber returns a frame.
    ///
    /// # Errors
    /// [`NotHeld`] if its row does not hold that frame: the peer is at fault, the table is unchanged.
    #[must_use = "the resource is to be given back"]
    pub fn give_back(&mut self, subscriber: SubscriberId, frame: FrameId) -> Result<Option<T>, NotHeld> {
        let fault = NotHeld { subscriber, frame };
        let row = self.rows.get_mut(&subscriber).ok_or(fault)?;
        let at = row.held.iter().position(|held| held.frame == frame).ok_or(fault)?;
        row.held.remove(at);
        Ok(self.unclaim(frame))
    }

    /// Closes a row and takes back everything it held or waited for.
    #[must_use = "the resources are to be given back"]
    pub fn reclaim(&mut self, subscriber: SubscriberId) -> Vec<T> {
        let row = self.rows.remove(&subscriber).unwrap_or_default();
        let held = row.held.into_iter().map(|held| held.frame);
        held.chain(row.waiting).filter_map(|frame| self.unclaim(frame)).collect()
    }

    /// What the subscriber holds, oldest delivery first.
    pub fn held(&self, subscriber: SubscriberId) -> &[Held] {
        self.rows.get(&subscriber).map_or(&[], |row| &row.held)
    }

    /// How many frames wait for the subscriber's credit.
    pub fn waiting(&self, subscriber: SubscriberId) -> usize {
        self.rows.get(&subscriber).map_or(0, |row| row.waiting.len())
    }

    /// The resource of a frame that somebody still claims.
    pub fn resource(&self, frame: FrameId) -> Option<&T> {
        self.frames.get(&frame).map(|entry| &entry.resource)
    }

    /// How many frames are claimed by anybody.
    pub fn frames(&self) -> usize {
        self.frames.len()
    }

    /// The claims on one frame; 0 if it is unknown.
    pub fn claims(&self, frame: FrameId) -> u32 {
        self.frames.get(&frame).map_or(0, |entry| entry.claims)
    }

    /// The number of the newest frame; 0 before the first.
    pub fn newest(&self) -> FrameId {
        FrameId(self.last_frame)
    }

    fn take_waiting(&mut self, subscriber: SubscriberId, frame: FrameId) -> Option<()> {
        let row = self.rows.get_mut(&subscriber)?;
        let at = row.waiting.iter().position(|waiting| *waiting == frame)?;
        row.waiting.remove(at);
        Some(())
    }

    fn unclaim(&mut self, frame: FrameId) -> Option<T> {
        let entry = self.frames.get_mut(&frame)?;
        entry.claims -= 1;
        if entry.claims > 0 {
            return None;
        }
        self.frames.remove(&frame).map(|entry| entry.resource)
    }
}
