//! One publisher, many subscribers: ledger, budget, mailboxes and policies together, without I/O.
//!
//! The owner calls [`Fanout::publish`], sends what [`Fanout::next`] gives for each subscriber, and reports
//! what came back. Frames nobody claims any more are collected until [`Fanout::take_freed`], so that their
//! owners' code never runs while the books are open.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::budget::{Budget, NoRoom, Share};
use crate::ledger::{FrameId, Held, Ledger, NotHeld, SubscriberId};
use crate::mailbox::{Item, Mailbox, Offer};
use crate::policy::{Policy, Rate};

/// What a publisher decides for all its subscribers.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Subscribers at a time.
    pub max_subscribers: u32,
    /// How long a full mailbox with policy `block` may hold the producer, per stall; `None` is for ever.
    pub block_deadline: Option<Duration>,
    /// Whether a subscriber that outlasts `block_deadline` is disconnected instead of losing frames.
    pub disconnect_at_deadline: bool,
    /// How long more than the keep allowance may be held while newer frames appear; `None` is for ever.
    pub hold_timeout: Option<Duration>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            max_subscribers: 64,
            block_deadline: Some(Duration::from_secs(2)),
            disconnect_at_deadline: false,
            hold_timeout: None,
        }
    }
}

/// What a subscriber asks for, after the publisher's caps.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// Credits and mailbox.
    pub share: Share,
    /// Resolved: never [`Policy::Auto`].
    pub policy: Policy,
    /// Frames it may keep for ever, see [`Rules::hold_timeout`].
    pub keep: u32,
    /// The most frames per second it wants.
    pub rate: Option<Rate>,
}

/// Figures of one subscriber.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames delivered.
    pub frames: u64,
    /// Frames it should have had and did not get, because it was behind.
    pub dropped: u64,
    /// Frames its own rate limit left out.
    pub skipped: u64,
    /// Times its mailbox was full under policy `block`.
    pub stalls: u64,
    /// Events lost.
    pub events_dropped: u64,
}

/// What is to be sent to one subscriber next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery<T, E> {
    /// This frame, now in the subscriber's row.
    Frame(FrameId, T),
    /// This event.
    Event(E),
}

/// Whether the producer may publish now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Yes.
    Now,
    /// These subscribers' mailboxes are full; look again when one of them returns a frame, or at the time
    /// given.
    Wait {
        /// Whom to wait for.
        full: Vec<SubscriberId>,
        /// Until when; `None` is for ever.
        until: Option<Instant>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stall {
    None,
    Since(Instant),
    GivenUp,
}

#[derive(Debug)]
struct Member<E> {
    ask: Ask,
    mailbox: Mailbox<E>,
    counters: Counters,
    stall: Stall,
    due: Option<Duration>,
}

/// The publisher's books.
#[derive(Debug)]
pub struct Fanout<T, E> {
    rules: Rules,
    budget: Budget,
    ledger: Ledger<T>,
    members: BTreeMap<SubscriberId, Member<E>>,
    freed: Vec<T>,
    last_subscriber: u64,
    last_publish: Option<Instant>,
    /// When publishing began again after a pause of the hold timeout or more.
    resumed: Option<Instant>,
}

impl<T: Clone, E: Clone> Fanout<T, E> {
    /// No subscribers yet; `capacity` is the number of frames that may be granted in all.
    pub fn new(rules: Rules, capacity: u32) -> Self {
        Self {
            budget: Budget::new(capacity, rules.max_subscribers),
            rules,
            ledger: Ledger::default(),
            members: BTreeMap::new(),
            freed: Vec::new(),
            last_subscriber: 0,
            last_publish: None,
            resumed: None,
        }
    }

    /// Admits a subscriber.
    ///
    /// # Errors
    /// [`NoRoom`] if the budget cannot carry it.
    pub fn admit(&mut self, ask: Ask) -> Result<(SubscriberId, Share), NoRoom> {
        let id = SubscriberId(self.last_subscriber + 1);
        let share = self.budget.admit(id, ask.share)?;
        self.last_subscriber += 1;
        self.ledger.open(id);
        let member = Member {
            ask,
            mailbox: Mailbox::default(),
            counters: Counters::default(),
            stall: Stall::None,
            due: None,
        };
        self.members.insert(id, member);
        Ok((id, share))
    }

    /// The subscriber is gone: everything it held or waited for is taken back. Returns how many it held.
    pub fn leave(&mut self, id: SubscriberId) -> usize {
        let held = self.ledger.held(id).len();
        self.members.remove(&id);
        self.budget.leave(id);
        self.freed.extend(self.ledger.reclaim(id));
        held
    }

    /// Frames that may be granted in all; mailboxes that became too large lose their oldest frames.
    pub fn set_capacity(&mut self, capacity: u32) {
        if capacity != self.budget.capacity() {
            self.budget.set_capacity(capacity);
            self.fit_mailboxes();
        }
    }

    /// Changes what a subscriber asks for.
    pub fn ask(&mut self, id: SubscriberId, share: Share) {
        if let Some(member) = self.members.get_mut(&id)
            && member.ask.share != share
        {
            member.ask.share = share;
            self.budget.ask(id, share);
            self.fit_mailboxes();
        }
    }

    fn fit_mailboxes(&mut self) {
        for id in self.members.keys().copied().collect::<Vec<_>>() {
            self.trim(id);
        }
    }

    /// Drops the oldest of what waits until it fits.
    fn trim(&mut self, id: SubscriberId) {
        let (share, held) = (self.share(id), self.held(id));
        let Some(member) = self.members.get_mut(&id) else { return };
        let dropped = member.mailbox.shrink(places(share, held, member.ask.policy));
        member.counters.dropped += dropped.len() as u64;
        self.abandon(id, dropped);
    }

    /// Whether a frame of stream time `at` may be published now under policy `block`. Those who held the
    /// producer past the deadline no longer count; where the rules say so they are named by
    /// [`Fanout::overdue`].
    pub fn admission(&mut self, now: Instant, at: Duration) -> Admission {
        let mut full = Vec::new();
        let mut until = None;
        let deadline = self.rules.block_deadline;
        for (id, member) in &mut self.members {
            let share = self.budget.share(*id).unwrap_or(Share { credits: 0, mailbox: 0 });
            let held = self.ledger.held(*id).len();
            if member.ask.policy != Policy::Block || share.credits == 0 || !member.wants(at) {
                continue;
            }
            if member.mailbox.frames() < places(share, held, Policy::Block) {
                // A flush or a larger share made room: the next time it is full is a new stall.
                if matches!(member.stall, Stall::Since(_)) {
                    member.stall = Stall::None;
                }
                continue;
            }
            if member.stall == Stall::None {
                member.stall = Stall::Since(now);
                member.counters.stalls += 1;
            }
            let Stall::Since(since) = member.stall else { continue };
            match deadline {
                Some(deadline) if now >= since + deadline => member.stall = Stall::GivenUp,
                Some(deadline) => {
                    until = Some(until.map_or(since + deadline, |u: Instant| u.min(since + deadline)));
                    full.push(*id);
                }
                None => full.push(*id),
            }
        }
        if full.is_empty() { Admission::Now } else { Admission::Wait { full, until } }
    }

    /// Publishes a frame of stream time `at` to everybody's mailbox.
    pub fn publish(&mut self, resource: T, now: Instant, at: Duration) -> FrameId {
        let frame = self.ledger.publish(resource);
        let paused = |timeout| self.last_publish.is_none_or(|last| now >= last + timeout);
        if self.rules.hold_timeout.is_some_and(paused) {
            self.resumed = Some(now);
        }
        self.last_publish = Some(now);
        for id in self.members.keys().copied().collect::<Vec<_>>() {
            self.offer(id, frame, at);
        }
        self.freed.extend(self.ledger.settle(frame));
        frame
    }

    fn offer(&mut self, id: SubscriberId, frame: FrameId, at: Duration) {
        let share = self.share(id);
        let held = self.held(id);
        let Some(member) = self.members.get_mut(&id) else { return };
        if !member.wants(at) {
            member.counters.skipped += 1;
            return;
        }
        let capacity = places(share, held, member.ask.policy);
        match member.mailbox.offer(frame, capacity, member.ask.policy) {
            Offer::Refused => member.counters.dropped += 1,
            Offer::Taken => {
                member.took(at);
                self.ledger.wait(id, frame);
            }
            Offer::Displaced(frames) => {
                member.took(at);
                member.counters.dropped += frames.len() as u64;
                self.ledger.wait(id, frame);
                self.abandon(id, frames);
            }
        }
    }

    /// Appends an event to everybody's mailbox.
    pub fn push_event(&mut self, event: &E) {
        for member in self.members.values_mut() {
            member.mailbox.push_event(event.clone());
        }
    }

    /// Appends an event to one subscriber's mailbox.
    pub fn push_event_to(&mut self, id: SubscriberId, event: E) {
        if let Some(member) = self.members.get_mut(&id) {
            member.mailbox.push_event(event);
        }
    }

    /// Drops all that waits, as a flush does.
    pub fn flush(&mut self) {
        for id in self.members.keys().copied().collect::<Vec<_>>() {
            let Some(member) = self.members.get_mut(&id) else { continue };
            let dropped = member.mailbox.clear();
            self.abandon(id, dropped);
        }
    }

    /// What to send to this subscriber now; a frame counts as held from here on.
    pub fn next(&mut self, id: SubscriberId, now: Instant) -> Option<Delivery<T, E>> {
        let credit = (self.ledger.held(id).len() as u32) < self.share(id).credits;
        let member = self.members.get_mut(&id)?;
        match member.mailbox.pop(credit)? {
            Item::Event(event) => Some(Delivery::Event(event)),
            Item::Frame(frame) => {
                member.counters.frames += 1;
                let resource = self.ledger.deliver(id, frame, now)?.clone();
                Some(Delivery::Frame(frame, resource))
            }
        }
    }

    /// A delivery could not be sent: it is next again.
    pub fn undo(&mut self, id: SubscriberId, delivery: Delivery<T, E>) {
        let Some(member) = self.members.get_mut(&id) else { return };
        let item = match delivery {
            Delivery::Event(event) => Item::Event(event),
            Delivery::Frame(frame, _) => {
                member.counters.frames -= 1;
                self.ledger.recall(id, frame);
                Item::Frame(frame)
            }
        };
        member.mailbox.push_front(item);
        // Newer frames may have come in the meantime, or the share became smaller.
        self.trim(id);
    }

    /// A delivery cannot be sent at all: the subscriber misses that frame.
    pub fn lose(&mut self, id: SubscriberId, frame: FrameId) {
        if let Ok(freed) = self.ledger.give_back(id, frame) {
            self.freed.extend(freed);
            if let Some(member) = self.members.get_mut(&id) {
                member.counters.frames -= 1;
                member.counters.dropped += 1;
            }
        }
    }

    /// The subscriber returns a frame.
    ///
    /// # Errors
    /// [`NotHeld`] if it does not hold it: it must be cut off.
    pub fn give_back(&mut self, id: SubscriberId, frame: FrameId) -> Result<(), NotHeld> {
        let freed = self.ledger.give_back(id, frame)?;
        self.freed.extend(freed);
        if let Some(member) = self.members.get_mut(&id) {
            member.stall = Stall::None;
        }
        Ok(())
    }

    /// Who must be cut off: it held more than its allowance past the time while newer frames appeared, or
    /// it held the producer past the deadline and the rules say so. A pause of the time or more counts for
    /// nobody: neither during it nor with the first frame after it.
    pub fn overdue(&self, now: Instant) -> Vec<SubscriberId> {
        let stuck = |id: &SubscriberId, member: &Member<E>| {
            let Some(timeout) = self.rules.hold_timeout else { return false };
            let (Some(last), Some(resumed)) = (self.last_publish, self.resumed) else { return false };
            let late = |held: &&Held| last >= held.since.max(resumed) + timeout;
            let expired = self.ledger.held(*id).iter().filter(late).count();
            expired > member.ask.keep as usize && last + timeout > now
        };
        let given_up =
            |member: &Member<E>| self.rules.disconnect_at_deadline && member.stall == Stall::GivenUp;
        let overdue = self.members.iter().filter(|(id, member)| stuck(id, member) || given_up(member));
        overdue.map(|(id, _)| *id).collect()
    }

    /// Frames that nobody claims any more; drop them where their owners' code may run.
    #[must_use = "dropping them is what gives the pages back"]
    pub fn take_freed(&mut self) -> Vec<T> {
        std::mem::take(&mut self.freed)
    }

    /// The subscribers, oldest first.
    pub fn subscribers(&self) -> impl Iterator<Item = SubscriberId> {
        self.members.keys().copied()
    }

    /// The share granted to a subscriber; zero if it is unknown.
    pub fn share(&self, id: SubscriberId) -> Share {
        self.budget.share(id).unwrap_or(Share { credits: 0, mailbox: 0 })
    }

    /// Frames that wait for a subscriber's credit.
    pub fn waiting(&self, id: SubscriberId) -> usize {
        self.ledger.waiting(id)
    }

    /// Whether a frame or event waits for this subscriber.
    pub fn has_mail(&self, id: SubscriberId) -> bool {
        self.members.get(&id).is_some_and(|member| !member.mailbox.is_empty())
    }

    /// Frames a subscriber holds.
    pub fn held(&self, id: SubscriberId) -> usize {
        self.ledger.held(id).len()
    }

    /// Whether something waits for a subscriber, or it holds more than it may keep for ever.
    pub fn is_behind(&self, id: SubscriberId) -> bool {
        let keep = self.members.get(&id).map_or(0, |member| member.ask.keep as usize);
        self.has_mail(id) || self.held(id) > keep
    }

    /// A subscriber's figures.
    pub fn counters(&self, id: SubscriberId) -> Option<Counters> {
        self.members
            .get(&id)
            .map(|member| Counters { events_dropped: member.mailbox.events_dropped(), ..member.counters })
    }

    /// The policy in force for a subscriber.
    pub fn policy(&self, id: SubscriberId) -> Option<Policy> {
        self.members.get(&id).map(|member| member.ask.policy)
    }

    /// The books' ledger, to look at.
    pub fn ledger(&self) -> &Ledger<T> {
        &self.ledger
    }

    /// The budget, to look at.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    fn abandon(&mut self, id: SubscriberId, frames: Vec<FrameId>) {
        for frame in frames {
            self.freed.extend(self.ledger.abandon(id, frame));
        }
    }
}

/// Frames that may wait: the places of the mailbox and the credits not used. Who holds more than its share,
/// because that became smaller, gets no place for it.
fn places(share: Share, held: usize, policy: Policy) -> usize {
    let places = (share.frames() as usize).saturating_sub(held);
    if policy == Policy::Latest { places.min(1) } else { places }
}

impl<E> Member<E> {
    /// Whether a frame of this stream time is within its rate; an eighth of the interval is jitter.
    fn wants(&self, at: Duration) -> bool {
        let Some(interval) = self.ask.rate.and_then(Rate::interval) else { return true };
        // A due time far ahead belongs to a stream that started over.
        self.due.is_none_or(|due| at + interval / 8 >= due || due > at + 2 * interval)
    }

    fn took(&mut self, at: Duration) {
        let Some(interval) = self.ask.rate.and_then(Rate::interval) else { return };
        let due = self.due.filter(|due| at < *due + interval && *due <= at + interval).unwrap_or(at);
        self.due = Some(due + interval);
    }
}
