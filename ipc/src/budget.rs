//! How many frames each subscriber may keep from the producer.
//!
//! A credit or a place in a mailbox is a frame that the producer may not have back at once. The sum of all
//! that is granted never exceeds the capacity, so however many subscribers stop, the producer's own share
//! (its reserve and what upstream holds, both outside the capacity) is untouched.
#![forbid(unsafe_code)]

use crate::ledger::SubscriberId;

/// The least a subscriber can work with: one frame to read and one that waits.
pub const SMALLEST_SHARE: Share = Share { credits: 1, mailbox: 1 };

/// The most credits, and the most places in a mailbox, that one subscriber can get.
pub const LARGEST_SHARE: Share = Share { credits: 1024, mailbox: 1024 };

/// A number of frames that may be held and that may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Frames in the subscriber's hands.
    pub credits: u32,
    /// Frames that wait at the publisher.
    pub mailbox: u32,
}

impl Share {
    /// Held and waiting together.
    pub fn frames(self) -> u32 {
        self.credits + self.mailbox
    }

    fn within(self, least: Share, most: Share) -> Share {
        Share {
            credits: self.credits.clamp(least.credits, most.credits),
            mailbox: self.mailbox.clamp(least.mailbox, most.mailbox),
        }
    }

    /// The largest part of this share that fits `frames`, credits first by halves.
    fn fitted(self, frames: u32) -> Share {
        if self.frames() <= frames {
            return self;
        }
        let mailbox = self.mailbox.min(frames / 2);
        let credits = self.credits.min(frames - mailbox);
        Share { credits, mailbox: self.mailbox.min(frames - credits) }
    }
}

/// The pool cannot carry another subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoRoom {
    /// All places are taken.
    #[error("all {limit} places are taken (max-clients)")]
    Members {
        /// The most subscribers at a time.
        limit: u32,
    },
    /// The pool's limit is reached.
    #[error(
        "{free} frames of the pool are free and a subscriber needs {needed}: raise pool-limit or lower credits"
    )]
    Frames {
        /// Frames not granted to anybody.
        free: u32,
        /// The smallest share.
        needed: u32,
    },
}

#[derive(Clone, Copy, Debug)]
struct Member {
    id: SubscriberId,
    asked: Share,
    granted: Share,
}

/// The frames that may be granted, and to whom they are.
#[derive(Clone, Debug)]
pub struct Budget {
    capacity: u32,
    max_members: u32,
    members: Vec<Member>,
}

impl Budget {
    /// `capacity` frames for at most `max_members` subscribers.
    pub fn new(capacity: u32, max_members: u32) -> Self {
        Self { capacity, max_members, members: Vec::new() }
    }

    /// Frames that may be granted in all.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Frames granted so far.
    pub fn granted(&self) -> u32 {
        self.members.iter().map(|member| member.granted.frames()).sum()
    }

    /// The share of one subscriber.
    pub fn share(&self, id: SubscriberId) -> Option<Share> {
        self.members.iter().find(|member| member.id == id).map(|member| member.granted)
    }

    /// Admits a subscriber with the share it asked for, or the part of it that leaves the smallest share to
    /// those who may still come.
    ///
    /// # Errors
    /// [`NoRoom`] if not even the smallest share is free.
    pub fn admit(&mut self, id: SubscriberId, asked: Share) -> Result<Share, NoRoom> {
        if self.members.len() as u32 >= self.max_members {
            return Err(NoRoom::Members { limit: self.max_members });
        }
        let free = self.capacity.saturating_sub(self.granted());
        let needed = SMALLEST_SHARE.frames();
        if free < needed {
            return Err(NoRoom::Frames { free, needed });
        }
        let asked = asked.within(SMALLEST_SHARE, LARGEST_SHARE);
        let granted = asked.fitted(self.fair_part(free));
        self.members.push(Member { id, asked, granted });
        Ok(granted)
    }

    /// Of `free` frames, what one more member may have: those who may still come keep the smallest share,
    /// but together not more than half of what is free.
    fn fair_part(&self, free: u32) -> u32 {
        let needed = SMALLEST_SHARE.frames();
        let to_come = self.max_members - self.members.len() as u32 - 1;
        let kept = to_come.saturating_mul(needed).min(free / 2);
        (free - kept).max(needed)
    }

    /// Changes what a subscriber asks for; its share follows as far as the capacity goes.
    pub fn ask(&mut self, id: SubscriberId, asked: Share) {
        let asked = asked.within(SMALLEST_SHARE, LARGEST_SHARE);
        if let Some(member) = self.members.iter_mut().find(|member| member.id == id) {
            member.asked = asked;
            member.granted.credits = member.granted.credits.min(asked.credits);
            member.granted.mailbox = member.granted.mailbox.min(asked.mailbox);
        }
        self.top_up();
    }

    /// Ends a subscriber's share; what it had tops up those who got less than they asked for.
    /// Returns whether it was a member.
    pub fn leave(&mut self, id: SubscriberId) -> bool {
        let before = self.members.len();
        self.members.retain(|member| member.id != id);
        self.top_up();
        before != self.members.len()
    }

    /// The frames became larger or smaller, or upstream keeps more: shares are cut or topped up to fit.
    /// Nobody goes below the smallest share unless the capacity cannot give even that; then the latest
    /// members get nothing until somebody leaves.
    pub fn set_capacity(&mut self, capacity: u32) {
        self.capacity = capacity;
        let mut free = capacity;
        let needed = SMALLEST_SHARE.frames();
        for at in 0..self.members.len() {
            let behind = (self.members.len() - at - 1) as u32;
            let kept = behind.saturating_mul(needed).min(free.saturating_sub(needed));
            let member = &mut self.members[at];
            let part = free - kept;
            member.granted = if part < needed {
                Share { credits: 0, mailbox: 0 }
            } else {
                member.asked.fitted(part.min(member.granted.frames().max(needed)))
            };
            free -= member.granted.frames();
        }
        self.top_up();
    }

    /// Gives out what is free: first the smallest share to those who have nothing, then more to those who
    /// asked for more.
    fn top_up(&mut self) {
        let mut free = self.capacity.saturating_sub(self.granted());
        let needed = SMALLEST_SHARE.frames();
        for member in self.members.iter_mut().filter(|member| member.granted.frames() == 0) {
            if free >= needed {
                member.granted = SMALLEST_SHARE;
                free -= needed;
            }
        }
        let to_come = self.max_members.saturating_sub(self.members.len() as u32);
        for member in self.members.iter_mut().filter(|member| member.granted.frames() > 0) {
            let kept = to_come.saturating_mul(needed).min(free / 2);
            let before = member.granted.frames();
            member.granted = member.asked.fitted(before + free - kept);
            free -= member.granted.frames() - before;
        }
    }
}
