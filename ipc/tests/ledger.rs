//! The ledger against a naive model of sets, and the five invariants it states.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use common::{Drops, FakeClock, Token, config, ms, unless_miri};
use pagecast_ipc::ledger::{FrameId, Held, Ledger, NotHeld, SubscriberId};
use proptest::prelude::*;

/// Subscribers that operations name; the last one is never opened.
const NAMED: u64 = 5;

/// Frames are named by their distance from the newest; -1 is one that was never published.
type Back = i64;

#[derive(Clone, Copy, Debug)]
enum Op {
    Open(u64),
    Publish,
    Settle(Back),
    Wait(u64, Back),
    Abandon(u64, Back),
    Deliver(u64, Back),
    Recall(u64, Back),
    GiveBack(u64, Back),
    Reclaim(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let named = || (0..NAMED, -1..7i64);
    prop_oneof![
        2 => (0..NAMED - 1).prop_map(Op::Open),
        6 => Just(Op::Publish),
        6 => (-1..7i64).prop_map(Op::Settle),
        12 => named().prop_map(|(s, f)| Op::Wait(s, f)),
        4 => named().prop_map(|(s, f)| Op::Abandon(s, f)),
        12 => named().prop_map(|(s, f)| Op::Deliver(s, f)),
        3 => named().prop_map(|(s, f)| Op::Recall(s, f)),
        10 => named().prop_map(|(s, f)| Op::GiveBack(s, f)),
        1 => (0..NAMED).prop_map(Op::Reclaim),
    ]
}

#[derive(Debug, Default)]
struct ModelRow {
    held: Vec<(FrameId, Instant)>,
    waiting: BTreeSet<FrameId>,
}

impl ModelRow {
    fn holds(&self, frame: FrameId) -> bool {
        self.held.iter().any(|(held, _)| *held == frame)
    }

    fn let_go(&mut self, frame: FrameId) -> bool {
        let before = self.held.len();
        self.held.retain(|(held, _)| *held != frame);
        before != self.held.len()
    }
}

/// What must be true, said as simply as possible: sets, and claims counted afresh each time.
#[derive(Debug, Default)]
struct Model {
    published: u64,
    own: BTreeSet<FrameId>,
    alive: BTreeSet<FrameId>,
    rows: BTreeMap<SubscriberId, ModelRow>,
}

impl Model {
    fn claims(&self, frame: FrameId) -> u32 {
        let rows = self.rows.values().filter(|row| row.holds(frame) || row.waiting.contains(&frame));
        u32::from(self.own.contains(&frame)) + rows.count() as u32
    }

    /// The frames whose last claim is gone since the last time.
    fn ended(&mut self) -> BTreeSet<FrameId> {
        let ended: BTreeSet<_> = self.alive.iter().copied().filter(|f| self.claims(*f) == 0).collect();
        self.alive.retain(|frame| !ended.contains(frame));
        ended
    }
}

struct Pair {
    ledger: Ledger<Token>,
    model: Model,
    drops: Drops,
    handed: Vec<Token>,
    clock: FakeClock,
}

impl Pair {
    fn new() -> Self {
        let (drops, clock) = (Drops::default(), FakeClock::start());
        Self { ledger: Ledger::default(), model: Model::default(), drops, handed: Vec::new(), clock }
    }

    fn frame(&self, back: Back) -> FrameId {
        FrameId((self.model.published as i64 - back).max(0) as u64)
    }

    fn apply(&mut self, op: Op) -> Result<(), TestCaseError> {
        let now = self.clock.advance(ms(1));
        let handed = self.step(op, now)?;
        let numbers: BTreeSet<_> = handed.iter().map(|token| FrameId(token.number)).collect();
        prop_assert_eq!(numbers.len(), handed.len(), "a resource was handed back twice at once");
        prop_assert_eq!(numbers, self.model.ended(), "{:?} handed back the wrong resources", op);
        self.handed.extend(handed);
        self.check()
    }

    /// Does the operation to both; returns what the ledger handed back.
    fn step(&mut self, op: Op, now: Instant) -> Result<Vec<Token>, TestCaseError> {
        let (ledger, model) = (&mut self.ledger, &mut self.model);
        let frame = |back: Back| FrameId((model.published as i64 - back).max(0) as u64);
        let handed = match op {
            Op::Open(s) => {
                ledger.open(SubscriberId(s));
                model.rows.entry(SubscriberId(s)).or_default();
                None
            }
            Op::Publish => {
                let id = ledger.publish(self.drops.token());
                prop_assert_eq!(id, FrameId(model.published + 1), "a frame id was issued again or left out");
                model.published += 1;
                model.own.insert(id);
                model.alive.insert(id);
                None
            }
            Op::Settle(f) => {
                let f = frame(f);
                model.own.remove(&f);
                ledger.settle(f)
            }
            Op::Wait(s, f) => {
                let (s, f) = (SubscriberId(s), frame(f));
                ledger.wait(s, f);
                if let Some(row) = model.rows.get_mut(&s).filter(|row| !row.holds(f))
                    && model.alive.contains(&f)
                {
                    row.waiting.insert(f);
                }
                None
            }
            Op::Abandon(s, f) => {
                let (s, f) = (SubscriberId(s), frame(f));
                if let Some(row) = model.rows.get_mut(&s) {
                    row.waiting.remove(&f);
                }
                ledger.abandon(s, f)
            }
            Op::Deliver(s, f) => {
                let (s, f) = (SubscriberId(s), frame(f));
                let due = model.rows.get_mut(&s).is_some_and(|row| row.waiting.remove(&f));
                if due && let Some(row) = model.rows.get_mut(&s) {
                    row.held.push((f, now));
                }
                let got = ledger.deliver(s, f, now).map(|token| FrameId(token.number));
                prop_assert_eq!(got, due.then_some(f), "the message would carry the wrong resource");
                None
            }
            Op::Recall(s, f) => {
                let (s, f) = (SubscriberId(s), frame(f));
                ledger.recall(s, f);
                if let Some(row) = model.rows.get_mut(&s)
                    && row.let_go(f)
                {
                    row.waiting.insert(f);
                }
                None
            }
            Op::GiveBack(s, f) => {
                let (s, f) = (SubscriberId(s), frame(f));
                let held = model.rows.get_mut(&s).is_some_and(|row| row.let_go(f));
                let answer = ledger.give_back(s, f);
                let fault = NotHeld { subscriber: s, frame: f };
                prop_assert_eq!(answer.as_ref().err(), (!held).then_some(&fault));
                answer.ok().flatten()
            }
            Op::Reclaim(s) => {
                model.rows.remove(&SubscriberId(s));
                return Ok(ledger.reclaim(SubscriberId(s)));
            }
        };
        Ok(handed.into_iter().collect())
    }

    /// Every observable of the ledger says what the model says.
    fn check(&self) -> Result<(), TestCaseError> {
        let (ledger, model) = (&self.ledger, &self.model);
        prop_assert_eq!(ledger.newest(), FrameId(model.published));
        prop_assert_eq!(ledger.frames(), model.alive.len());
        for number in 0..=model.published + 1 {
            let frame = FrameId(number);
            prop_assert_eq!(ledger.claims(frame), model.claims(frame), "claims of {:?}", frame);
            let resource = ledger.resource(frame).map(|token| token.number);
            prop_assert_eq!(resource, model.alive.contains(&frame).then_some(number));
        }
        let nobody = ModelRow::default();
        for subscriber in (0..NAMED).map(SubscriberId) {
            let row = model.rows.get(&subscriber).unwrap_or(&nobody);
            let held: Vec<_> =
                row.held.iter().map(|(frame, since)| Held { frame: *frame, since: *since }).collect();
            prop_assert_eq!(ledger.held(subscriber), &held, "held by {:?}", subscriber);
            prop_assert_eq!(ledger.waiting(subscriber), row.waiting.len(), "waiting for {:?}", subscriber);
        }
        Ok(())
    }

    /// Everybody leaves: nothing is left, and each resource came out exactly once.
    fn wind_up(mut self) -> Result<(), TestCaseError> {
        for number in 1..=self.model.published {
            self.apply(Op::Settle(self.model.published as i64 - number as i64))?;
        }
        for subscriber in 0..NAMED {
            self.apply(Op::Reclaim(subscriber))?;
        }
        prop_assert_eq!(self.ledger.frames(), 0, "a frame outlived its last claim");
        prop_assert_eq!(self.handed.len() as u64, self.model.published);
        prop_assert!(self.drops.counts().iter().all(|count| *count == 0), "the ledger dropped a resource");
        drop(self.handed);
        prop_assert!(self.drops.counts().iter().all(|count| *count == 1));
        Ok(())
    }
}

proptest! {
    #![proptest_config(config())]

    /// Invariants 1 to 5, whatever is said in whatever order, hostile returns included.
    #[test]
    fn follows_the_model(ops in proptest::collection::vec(op(), 0..unless_miri(200, 30))) {
        let mut pair = Pair::new();
        for subscriber in 0..3 {
            pair.apply(Op::Open(subscriber))?;
        }
        for op in ops {
            pair.apply(op)?;
        }
        pair.wind_up()?;
    }

    /// The ordinary life of frames, with faults strewn in: most operations here do something.
    #[test]
    fn lives_of_frames(rounds in proptest::collection::vec(proptest::collection::vec((0..4u64, 0..5u8), 0..8), 0..unless_miri(40, 6))) {
        let mut pair = Pair::new();
        for subscriber in 0..4 {
            pair.apply(Op::Open(subscriber))?;
        }
        for round in rounds {
            pair.apply(Op::Publish)?;
            for (subscriber, fate) in &round {
                pair.apply(Op::Wait(*subscriber, 0))?;
                match fate {
                    0 => pair.apply(Op::Abandon(*subscriber, 0))?,
                    1 => pair.apply(Op::Deliver(*subscriber, 0))?,
                    2 => { pair.apply(Op::Deliver(*subscriber, 0))?; pair.apply(Op::GiveBack(*subscriber, 0))? }
                    3 => { pair.apply(Op::Deliver(*subscriber, 0))?; pair.apply(Op::Recall(*subscriber, 0))? }
                    _ => pair.apply(Op::GiveBack(*subscriber, 1))?,
                }
            }
            pair.apply(Op::Settle(0))?;
        }
        pair.wind_up()?;
    }
}

#[test]
fn a_wrong_return_names_who_and_what_and_changes_nothing() {
    let mut pair = Pair::new();
    let (thief, owner, stranger) = (SubscriberId(0), SubscriberId(1), SubscriberId(9));
    for op in [Op::Open(0), Op::Open(1), Op::Publish, Op::Wait(0, 0), Op::Wait(1, 0), Op::Deliver(1, 0)] {
        pair.apply(op).unwrap();
    }
    let frame = pair.frame(0);
    let error = pair.ledger.give_back(thief, frame).unwrap_err();
    assert_eq!(error.to_string(), "frame 1 is not held by subscriber 0", "it waits, it is not held");
    assert!(pair.ledger.give_back(stranger, frame).is_err());
    assert!(pair.ledger.give_back(owner, FrameId(2)).is_err());
    pair.check().unwrap();
    pair.apply(Op::GiveBack(1, 0)).unwrap();
    pair.apply(Op::GiveBack(1, 0)).unwrap();
    pair.wind_up().unwrap();
}

#[test]
fn the_publishers_own_claim_ends_once() {
    let mut ledger = Ledger::default();
    ledger.open(SubscriberId(1));
    let frame = ledger.publish("pages");
    ledger.wait(SubscriberId(1), frame);
    assert_eq!(ledger.settle(frame), None);
    assert_eq!(ledger.settle(frame), None, "a second settle must not take the subscriber's claim");
    assert_eq!(ledger.claims(frame), 1);
    assert_eq!(ledger.reclaim(SubscriberId(1)), ["pages"]);
}
