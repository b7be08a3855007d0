//! The books as a whole: bounded claims, strict order, nothing lost by who keeps up, exact accounts.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{FakeClock, config, ms};
use pagecast_ipc::budget::Share;
use pagecast_ipc::fanout::{Admission, Ask, Delivery, Fanout, Rules};
use pagecast_ipc::ledger::{FrameId, SubscriberId};
use pagecast_ipc::policy::{Policy, Rate};
use proptest::prelude::*;

/// Frames and events carry their place in the stream, so that any overtaking shows.
type Place = u64;
type Books = Fanout<Place, Place>;

fn policy() -> impl Strategy<Value = Policy> {
    proptest::sample::select(&Policy::ALL[1..])
}

fn ask() -> impl Strategy<Value = Ask> {
    let rate = proptest::option::weighted(0.3, (1..60u32).prop_map(|frames| Rate { frames, seconds: 1 }));
    (policy(), 0..6u32, 0..6u32, rate).prop_map(|(policy, credits, mailbox, rate)| Ask {
        share: Share { credits, mailbox },
        policy,
        keep: 1,
        rate,
    })
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Admit(Ask),
    Leave(usize),
    Publish,
    Event,
    EventTo(usize),
    /// Takes the next delivery; it stays in flight until `Sent` or `Failed`.
    Next(usize),
    Sent(usize),
    Failed(usize),
    /// It cannot be sent at all.
    Lost(usize),
    /// Sends all that can be sent.
    Pump(usize),
    /// Returns the n-th of the held frames.
    Return(usize, usize),
    HostileReturn(usize, u64),
    Capacity(u32),
    Ask(usize, Share),
    Flush,
}

fn op(capacity: bool) -> impl Strategy<Value = Op> {
    let who = 0..5usize;
    let share = (0..6u32, 0..6u32).prop_map(|(credits, mailbox)| Share { credits, mailbox });
    let reask = (who.clone(), share).prop_map(|(who, share)| Op::Ask(who, share));
    prop_oneof![
        3 => ask().prop_map(Op::Admit),
        1 => who.clone().prop_map(Op::Leave),
        20 => Just(Op::Publish),
        3 => Just(Op::Event),
        1 => who.clone().prop_map(Op::EventTo),
        8 => who.clone().prop_map(Op::Next),
        4 => who.clone().prop_map(Op::Sent),
        4 => who.clone().prop_map(Op::Failed),
        2 => who.clone().prop_map(Op::Lost),
        8 => who.clone().prop_map(Op::Pump),
        12 => (who.clone(), 0..4usize).prop_map(|(who, at)| Op::Return(who, at)),
        1 => (who, 0..300u64).prop_map(|(who, frame)| Op::HostileReturn(who, frame)),
        2 => (0..30u32).prop_map(move |frames| if capacity { Op::Capacity(frames) } else { Op::Publish }),
        2 => reask.prop_map(move |op| if capacity { op } else { Op::Publish }),
        1 => Just(Op::Flush),
    ]
}

/// What one subscriber saw and should account for.
#[derive(Debug, Default)]
struct Seen {
    held: Vec<FrameId>,
    in_flight: Option<Delivery<Place, Place>>,
    last: Place,
    got: u64,
    offered: u64,
    flushed: u64,
}

struct Sim {
    books: Books,
    clock: FakeClock,
    seen: BTreeMap<SubscriberId, Seen>,
    place: Place,
    /// The resources published, and those that came back.
    published: BTreeSet<Place>,
    freed: BTreeSet<Place>,
    last_id: u64,
    lowered: bool,
}

impl Sim {
    fn new(capacity: u32) -> Self {
        Self {
            books: Fanout::new(Rules { max_subscribers: 5, ..Rules::default() }, capacity),
            clock: FakeClock::start(),
            seen: BTreeMap::new(),
            place: 0,
            published: BTreeSet::new(),
            freed: BTreeSet::new(),
            last_id: 0,
            lowered: false,
        }
    }

    /// The n-th subscriber, or a stranger.
    fn who(&self, at: usize) -> SubscriberId {
        self.seen.keys().nth(at).copied().unwrap_or(SubscriberId(0))
    }

    fn apply(&mut self, op: Op) -> Result<(), TestCaseError> {
        self.clock.advance(ms(5));
        match op {
            Op::Admit(ask) => {
                if let Ok((id, share)) = self.books.admit(ask) {
                    prop_assert!(id.0 > self.last_id, "a number was used again");
                    self.last_id = id.0;
                    prop_assert_eq!(self.books.share(id), share);
                    prop_assert_eq!(self.books.policy(id), Some(ask.policy));
                    self.seen.insert(id, Seen::default());
                }
            }
            Op::Leave(at) => {
                let id = self.who(at);
                let held = self.seen.remove(&id).map_or(0, |seen| seen.held.len() + in_flight(&seen));
                prop_assert_eq!(self.books.leave(id), held);
            }
            Op::Publish => self.publish()?,
            Op::Event => {
                self.place += 1;
                self.books.push_event(&self.place);
            }
            Op::EventTo(at) => {
                self.place += 1;
                self.books.push_event_to(self.who(at), self.place);
            }
            Op::Next(at) => self.next(self.who(at))?,
            Op::Sent(at) => self.sent(self.who(at)),
            Op::Failed(at) => self.failed(self.who(at)),
            Op::Lost(at) => self.lost(self.who(at)),
            Op::Pump(at) => {
                let id = self.who(at);
                self.sent(id);
                self.next(id)?;
                while self.seen.get(&id).is_some_and(|seen| seen.in_flight.is_some()) {
                    self.sent(id);
                    self.next(id)?;
                }
            }
            Op::Return(at, n) => {
                let id = self.who(at);
                if let Some(seen) = self.seen.get_mut(&id).filter(|seen| n < seen.held.len()) {
                    let frame = seen.held.remove(n);
                    prop_assert_eq!(self.books.give_back(id, frame), Ok(()));
                    prop_assert!(self.books.give_back(id, frame).is_err(), "returned twice");
                }
            }
            Op::HostileReturn(at, frame) => {
                let id = self.who(at);
                let known = self.books.ledger().held(id).iter().any(|held| held.frame.0 == frame);
                prop_assert!(known || self.books.give_back(id, FrameId(frame)).is_err());
            }
            Op::Capacity(capacity) => {
                self.lowered |= capacity < self.books.budget().capacity();
                self.books.set_capacity(capacity);
            }
            Op::Ask(at, share) => {
                // A share may give credits for places in the mailbox, and so less than is held.
                self.lowered = true;
                self.books.ask(self.who(at), share);
            }
            Op::Flush => {
                for (id, seen) in &mut self.seen {
                    seen.flushed += self.books.waiting(*id) as u64;
                }
                self.books.flush();
                prop_assert!(self.seen.keys().all(|id| !self.books.has_mail(*id)));
            }
        }
        self.check()
    }

    fn publish(&mut self) -> Result<(), TestCaseError> {
        self.place += 1;
        let before = self.books.ledger().newest();
        let frame = self.books.publish(self.place, self.clock.now, ms(self.place * 17));
        prop_assert!(frame > before, "a frame id was issued again");
        self.published.insert(self.place);
        self.seen.values_mut().for_each(|seen| seen.offered += 1);
        Ok(())
    }

    fn next(&mut self, id: SubscriberId) -> Result<(), TestCaseError> {
        let Some(seen) = self.seen.get_mut(&id).filter(|seen| seen.in_flight.is_none()) else {
            return Ok(());
        };
        let before = self.books.held(id);
        seen.in_flight = self.books.next(id, self.clock.now);
        if let Some(Delivery::Frame(frame, place)) = &seen.in_flight {
            prop_assert!(before < self.books.share(id).credits as usize, "a frame without a credit");
            prop_assert_eq!(self.books.ledger().resource(*frame), Some(place));
        }
        let place = match &seen.in_flight {
            Some(Delivery::Frame(_, place) | Delivery::Event(place)) => *place,
            None => return Ok(()),
        };
        prop_assert!(place > seen.last, "{} after {}", place, seen.last);
        Ok(())
    }

    fn sent(&mut self, id: SubscriberId) {
        let Some(seen) = self.seen.get_mut(&id) else { return };
        match seen.in_flight.take() {
            Some(Delivery::Frame(frame, place)) => {
                seen.held.push(frame);
                seen.got += 1;
                seen.last = place;
            }
            Some(Delivery::Event(place)) => seen.last = place,
            None => (),
        }
    }

    fn failed(&mut self, id: SubscriberId) {
        if let Some(delivery) = self.seen.get_mut(&id).and_then(|seen| seen.in_flight.take()) {
            self.books.undo(id, delivery);
        }
    }

    fn lost(&mut self, id: SubscriberId) {
        match self.seen.get_mut(&id).and_then(|seen| seen.in_flight.take()) {
            Some(Delivery::Frame(frame, _)) => self.books.lose(id, frame),
            Some(event) => self.books.undo(id, event),
            None => (),
        }
    }

    fn check(&mut self) -> Result<(), TestCaseError> {
        for place in self.books.take_freed() {
            prop_assert!(self.freed.insert(place), "{} came back twice", place);
        }
        let claimed = self.books.ledger().frames();
        prop_assert_eq!(
            self.published.len() - self.freed.len(),
            claimed,
            "a frame is neither claimed nor free"
        );
        // Who held more than its share when the capacity was lowered may keep that, and nothing more.
        let mut excess = 0;
        for (id, seen) in &self.seen {
            let (share, held) = (self.books.share(*id), self.books.held(*id));
            prop_assert_eq!(held, seen.held.len() + in_flight(seen));
            prop_assert!(self.lowered || held <= share.credits as usize);
            let over = held.saturating_sub(share.frames() as usize);
            prop_assert!(over == 0 || self.books.waiting(*id) == 0, "a place for who holds too much");
            excess += over;
            let figures = self.books.counters(*id).expect("a member");
            prop_assert_eq!(figures.frames, seen.got + in_flight(seen) as u64);
            let waiting = self.books.waiting(*id) as u64;
            let accounted = figures.frames + figures.dropped + figures.skipped + waiting + seen.flushed;
            prop_assert_eq!(accounted, seen.offered, "{:?} of {:?}", figures, seen);
        }
        let bound = self.books.budget().capacity() as usize + excess;
        prop_assert!(claimed <= bound, "{} frames claimed, at most {} may be", claimed, bound);
        Ok(())
    }
}

fn in_flight(seen: &Seen) -> usize {
    usize::from(matches!(seen.in_flight, Some(Delivery::Frame(..))))
}

/// Everybody leaves: every frame came back, once.
fn wind_up(mut sim: Sim) -> Result<(), TestCaseError> {
    while !sim.seen.is_empty() {
        sim.apply(Op::Leave(0))?;
    }
    prop_assert_eq!(&sim.freed, &sim.published);
    prop_assert_eq!(sim.books.subscribers().count(), 0);
    Ok(())
}

proptest! {
    #![proptest_config(config())]

    /// With a fixed capacity the producer always finds a frame, whatever the subscribers do.
    #[test]
    fn claims_stay_within_the_capacity(
        capacity in 0..30u32,
        ops in proptest::collection::vec(op(false), 0..250),
    ) {
        let mut sim = Sim::new(capacity);
        for op in ops {
            sim.apply(op)?;
        }
        wind_up(sim)?;
    }

    /// When the capacity or a share changes, only what was held before exceeds it.
    #[test]
    fn a_smaller_capacity_is_exceeded_only_by_what_was_held(
        capacity in 0..30u32,
        ops in proptest::collection::vec(op(true), 0..250),
    ) {
        let mut sim = Sim::new(capacity);
        for op in ops {
            sim.apply(op)?;
        }
        wind_up(sim)?;
    }

    /// Beside any number of stopped ones, who returns promptly gets every frame, in order, also when a send
    /// fails now and then and the capacity changes.
    #[test]
    fn who_keeps_up_loses_nothing(
        stopped in proptest::collection::vec(ask(), 0..6),
        healthy in proptest::collection::vec((policy(), 0..4u32, 0..4u32), 1..5),
        rounds in proptest::collection::vec((any::<u8>(), 0..40u32), 1..120),
    ) {
        let people = (stopped.len() + healthy.len()) as u32;
        let rules = Rules { max_subscribers: people, ..Rules::default() };
        let (mut books, mut clock) = (Books::new(rules, 8 * people), FakeClock::start());
        let mut got = BTreeMap::<SubscriberId, Vec<FrameId>>::new();
        let mut unlucky = BTreeMap::new();
        for ask in stopped {
            books.admit(ask).expect("half of what is free is kept");
        }
        for (policy, credits, mailbox) in healthy {
            let ask = Ask { share: Share { credits, mailbox }, policy, keep: 1, rate: None };
            if let Ok((id, _)) = books.admit(ask) {
                got.insert(id, Vec::new());
                // `latest` replaces what waits: there a failed send loses a frame, as it should.
                unlucky.insert(id, policy != Policy::Latest);
            }
        }
        let mut all = Vec::new();
        for (failing, extra) in rounds {
            if failing % 8 == 0 {
                books.set_capacity(2 * people + extra);
            }
            let mut at = clock.advance(ms(16));
            while let Admission::Wait { until, full } = books.admission(at, ms(16) * all.len() as u32) {
                prop_assert!(full.iter().all(|id| !got.contains_key(id)), "waits for who keeps up");
                at = until.expect("there is a deadline");
                clock.now = at;
            }
            all.push(books.publish(all.len() as Place, at, ms(16) * all.len() as u32));
            for (n, (id, got)) in got.iter_mut().enumerate() {
                // Every second round a send may fail; in the other it is made up for.
                let fails = unlucky[id] && all.len() % 2 == 0 && failing >> n & 1 == 1;
                while let Some(delivery) = books.next(*id, at) {
                    if fails {
                        books.undo(*id, delivery);
                        break;
                    }
                    let Delivery::Frame(frame, _) = delivery else { panic!("no event was sent") };
                    got.push(frame);
                    prop_assert_eq!(books.give_back(*id, frame), Ok(()));
                }
            }
        }
        for (id, got) in &mut got {
            while let Some(Delivery::Frame(frame, _)) = books.next(*id, clock.now) {
                got.push(frame);
                prop_assert_eq!(books.give_back(*id, frame), Ok(()));
            }
            prop_assert_eq!(&*got, &all);
            prop_assert_eq!(books.counters(*id).expect("a member").dropped, 0);
        }
    }
}
