//! What waits at the publisher for one subscriber's credit.
#![forbid(unsafe_code)]

use std::collections::VecDeque;

use crate::ledger::FrameId;
use crate::policy::Policy;

/// Events that may wait in one mailbox; beyond it the oldest is dropped and counted.
pub const MAX_WAITING_EVENTS: usize = 64;

/// Something that waits, in stream order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item<E> {
    /// A frame; it needs a credit.
    Frame(FrameId),
    /// An event; it needs none, but never overtakes a frame.
    Event(E),
}

/// What became of a frame that was offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offer {
    /// It waits.
    Taken,
    /// It waits, and these older ones do not any more.
    Displaced(Vec<FrameId>),
    /// It was not taken.
    Refused,
}

/// One subscriber's waiting frames and events.
#[derive(Debug)]
pub struct Mailbox<E> {
    items: VecDeque<Item<E>>,
    frames: usize,
    events_dropped: u64,
}

impl<E> Default for Mailbox<E> {
    fn default() -> Self {
        Self { items: VecDeque::new(), frames: 0, events_dropped: 0 }
    }
}

impl<E> Mailbox<E> {
    /// Frames that wait.
    pub fn frames(&self) -> usize {
        self.frames
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Events lost because more than [`MAX_WAITING_EVENTS`] waited.
    pub fn events_dropped(&self) -> u64 {
        self.events_dropped
    }

    /// Offers a frame to a mailbox that may hold `capacity` frames, with [`Policy::Latest`] at most one.
    /// `policy` must be resolved.
    pub fn offer(&mut self, frame: FrameId, capacity: usize, policy: Policy) -> Offer {
        if self.frames < capacity {
            self.push_back(Item::Frame(frame));
            return Offer::Taken;
        }
        match policy {
            Policy::DropOldest | Policy::Latest if capacity > 0 => {
                let displaced = self.shrink(capacity - 1);
                self.push_back(Item::Frame(frame));
                Offer::Displaced(displaced)
            }
            _ => Offer::Refused,
        }
    }

    /// Appends an event.
    pub fn push_event(&mut self, event: E) {
        let events = self.items.len() - self.frames;
        if events >= MAX_WAITING_EVENTS
            && let Some(at) = self.items.iter().position(|item| matches!(item, Item::Event(_)))
        {
            self.items.remove(at);
            self.events_dropped += 1;
        }
        self.items.push_back(Item::Event(event));
    }

    /// Drops the oldest frames until at most `frames` wait.
    pub fn shrink(&mut self, frames: usize) -> Vec<FrameId> {
        let mut excess = self.frames.saturating_sub(frames);
        let mut dropped = Vec::with_capacity(excess);
        self.items.retain(|item| match item {
            Item::Frame(frame) if excess > 0 => {
                excess -= 1;
                dropped.push(*frame);
                false
            }
            _ => true,
        });
        self.frames -= dropped.len();
        dropped
    }

    /// Drops everything, as a flush does; the frames are returned.
    pub fn clear(&mut self) -> Vec<FrameId> {
        self.frames = 0;
        self.items
            .drain(..)
            .filter_map(|item| match item {
                Item::Frame(frame) => Some(frame),
                Item::Event(_) => None,
            })
            .collect()
    }

    /// The next item, if it is an event or the subscriber has a credit.
    pub fn pop(&mut self, has_credit: bool) -> Option<Item<E>> {
        match self.items.front()? {
            Item::Frame(_) if !has_credit => None,
            _ => {
                let item = self.items.pop_front();
                self.frames -= usize::from(matches!(item, Some(Item::Frame(_))));
                item
            }
        }
    }

    /// Puts back, in front, what could not be sent.
    pub fn push_front(&mut self, item: Item<E>) {
        self.frames += usize::from(matches!(item, Item::Frame(_)));
        self.items.push_front(item);
    }

    fn push_back(&mut self, item: Item<E>) {
        self.frames += usize::from(matches!(item, Item::Frame(_)));
        self.items.push_back(item);
    }
}
