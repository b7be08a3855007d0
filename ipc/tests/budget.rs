//! The budget: what is granted never exceeds the capacity, and nobody who can be served gets nothing.

mod common;

use common::{config, unless_miri};
use pagecast_ipc::budget::{Budget, LARGEST_SHARE, NoRoom, SMALLEST_SHARE, Share};
use pagecast_ipc::ledger::SubscriberId;
use proptest::prelude::*;

const fn share(credits: u32, mailbox: u32) -> Share {
    Share { credits, mailbox }
}

const NOTHING: Share = share(0, 0);

/// What a subscriber can get at most, whatever it asked for.
fn clamped(asked: Share) -> Share {
    share(asked.credits.clamp(1, LARGEST_SHARE.credits), asked.mailbox.clamp(1, LARGEST_SHARE.mailbox))
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Admit(Share),
    /// The n-th of those present, or a stranger.
    Leave(usize),
    /// The n-th now asks for another share, or a stranger does.
    Ask(usize, Share),
    Capacity(u32),
}

fn op() -> impl Strategy<Value = Op> {
    let small = (0..12u32, 0..12u32);
    let huge = || (any::<u32>(), any::<u32>());
    prop_oneof![
        6 => small.prop_map(|(c, m)| Op::Admit(share(c, m))),
        1 => huge().prop_map(|(c, m)| Op::Admit(share(c, m))),
        4 => (0..9usize).prop_map(Op::Leave),
        3 => (0..9usize, 0..12u32, 0..12u32).prop_map(|(at, c, m)| Op::Ask(at, share(c, m))),
        1 => (0..9usize, huge()).prop_map(|(at, (c, m))| Op::Ask(at, share(c, m))),
        3 => (0..40u32).prop_map(Op::Capacity),
        1 => (0..6000u32).prop_map(Op::Capacity),
    ]
}

/// The budget with what its members asked for, in the order they came.
struct Watched {
    budget: Budget,
    max: u32,
    members: Vec<(SubscriberId, Share)>,
    next: u64,
}

impl Watched {
    fn shares(&self) -> Vec<Share> {
        self.members.iter().map(|(id, _)| self.budget.share(*id).unwrap()).collect()
    }

    fn free(&self) -> u32 {
        self.budget.capacity() - self.budget.granted()
    }

    fn apply(&mut self, op: Op) -> Result<(), TestCaseError> {
        match op {
            Op::Admit(asked) => self.admit(asked)?,
            Op::Leave(at) => {
                let before = self.shares();
                let id = self.members.get(at).map_or(SubscriberId(0), |member| member.0);
                let known = at < self.members.len();
                prop_assert_eq!(self.budget.leave(id), known);
                if known {
                    self.members.remove(at);
                }
                let kept = before.iter().enumerate().filter(|(n, _)| !known || *n != at).map(|(_, s)| *s);
                self.nobody_lost(kept)?;
                self.nothing_idles()?;
            }
            Op::Ask(at, asked) => {
                let (before, free) = (self.shares(), self.free());
                let id = self.members.get(at).map_or(SubscriberId(0), |member| member.0);
                self.budget.ask(id, asked);
                if at < self.members.len() {
                    let asked = clamped(asked);
                    self.members[at].1 = asked;
                    let (old, new) = (before[at], self.shares()[at]);
                    let kept = old.credits.min(asked.credits) + old.mailbox.min(asked.mailbox);
                    prop_assert!(new.frames() >= kept, "more than it asked to give up was taken");
                    prop_assert!(new.frames() <= old.frames() + free);
                }
                let others = before.iter().enumerate().map(|(n, s)| if n == at { NOTHING } else { *s });
                self.nobody_lost(others)?;
                self.nothing_idles()?;
            }
            Op::Capacity(capacity) => {
                let (before, grew) = (self.shares(), capacity >= self.budget.capacity());
                self.budget.set_capacity(capacity);
                prop_assert_eq!(self.budget.capacity(), capacity);
                // Who has nothing yet may get the odd frame that somebody has above the smallest share.
                if grew && !before.contains(&NOTHING) {
                    self.nobody_lost(before.into_iter())?;
                }
                self.nothing_idles()?;
            }
        }
        self.check()
    }

    fn admit(&mut self, asked: Share) -> Result<(), TestCaseError> {
        let (before, free, present) = (self.shares(), self.free(), self.members.len() as u32);
        let id = SubscriberId(self.next);
        let answer = self.budget.admit(id, asked);
        if present >= self.max {
            prop_assert_eq!(answer, Err(NoRoom::Members { limit: self.max }));
        } else if free < 2 {
            prop_assert_eq!(answer, Err(NoRoom::Frames { free, needed: 2 }));
        } else {
            let granted = answer.expect("there is room");
            let kept = (2 * u64::from(self.max - present - 1)).min(u64::from(free / 2)) as u32;
            let part = (free - kept).max(2);
            prop_assert!(granted.frames() <= part, "it left too little to those who may still come");
            prop_assert_eq!(granted.frames(), clamped(asked).frames().min(part), "less than could be had");
            self.next += 1;
            self.members.push((id, clamped(asked)));
        }
        prop_assert_eq!(&self.shares()[..before.len()], &before[..], "others were touched");
        Ok(())
    }

    fn nobody_lost(&self, before: impl Iterator<Item = Share>) -> Result<(), TestCaseError> {
        for (after, before) in self.shares().into_iter().zip(before) {
            prop_assert!(after.credits >= before.credits && after.mailbox >= before.mailbox);
        }
        Ok(())
    }

    /// After frames became free they are given to those who asked for more; what is kept for those who may
    /// still come is at most their smallest shares, and at most half.
    fn nothing_idles(&self) -> Result<(), TestCaseError> {
        let shares = self.shares();
        let hungry = shares.iter().zip(&self.members).any(|(s, (_, asked))| *s != NOTHING && s != asked);
        if hungry {
            let to_come = u64::from(self.max) - self.members.len() as u64;
            prop_assert!(u64::from(self.free()) <= 2 * to_come, "{} idle", self.free());
        }
        Ok(())
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let shares = self.shares();
        let sum: u32 = shares.iter().map(|share| share.frames()).sum();
        prop_assert_eq!(self.budget.granted(), sum);
        prop_assert!(sum <= self.budget.capacity(), "{} of {}", sum, self.budget.capacity());
        for (at, (share, (_, asked))) in shares.iter().zip(&self.members).enumerate() {
            let served = self.budget.capacity() as usize / 2 > at;
            prop_assert_eq!(*share != NOTHING, served, "member {} of {:?}", at, shares);
            prop_assert!(!served || share.credits >= 1 && share.mailbox >= 1, "{:?}", share);
            prop_assert!(share.credits <= asked.credits && share.mailbox <= asked.mailbox);
        }
        prop_assert_eq!(self.budget.share(SubscriberId(0)), None);
        Ok(())
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn never_more_than_the_capacity(
        capacity in 0..60u32,
        max in prop_oneof![0..9u32, Just(u32::MAX)],
        ops in proptest::collection::vec(op(), 0..unless_miri(60, 20)),
    ) {
        let mut watched = Watched { budget: Budget::new(capacity, max), max, members: Vec::new(), next: 1 };
        for op in ops {
            watched.apply(op)?;
        }
    }

    /// A subscriber that gets less gets it in halves, as far as it asked for both.
    #[test]
    fn a_smaller_share_is_even(credits in 1..40u32, mailbox in 1..40u32, capacity in 2..80u32) {
        let granted = Budget::new(capacity, 1).admit(SubscriberId(1), share(credits, mailbox)).unwrap();
        let total = capacity.min(credits + mailbox);
        prop_assert_eq!(granted.frames(), total);
        let half = total / 2;
        if credits > half && mailbox > half {
            prop_assert_eq!(granted, share(total - half, half), "the odd frame is a credit");
        } else {
            prop_assert!(granted.credits == credits || granted.mailbox == mailbox, "{:?}", granted);
        }
    }
}

#[test]
fn as_many_members_as_allowed_and_not_one_more() {
    let mut budget = Budget::new(100, 3);
    for id in 1..=3 {
        budget.admit(SubscriberId(id), share(2, 2)).unwrap();
    }
    let refusal = budget.admit(SubscriberId(4), share(2, 2)).unwrap_err();
    assert_eq!(refusal.to_string(), "all 3 places are taken (max-clients)");
    assert!(budget.leave(SubscriberId(2)));
    assert!(!budget.leave(SubscriberId(2)));
    assert_eq!(budget.admit(SubscriberId(5), share(2, 2)), Ok(share(2, 2)));
    assert!(Budget::new(100, 0).admit(SubscriberId(1), share(1, 1)).is_err());
}

#[test]
fn two_free_frames_are_enough_and_one_is_not() {
    assert_eq!(Budget::new(2, 64).admit(SubscriberId(1), share(9, 9)), Ok(SMALLEST_SHARE));
    let refusal = Budget::new(1, 64).admit(SubscriberId(1), share(1, 1)).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "1 frames of the pool are free and a subscriber needs 2: raise pool-limit or lower credits"
    );
}

#[test]
fn the_largest_share_is_a_limit() {
    let mut budget = Budget::new(10_000, 2);
    assert_eq!(budget.admit(SubscriberId(1), share(1024, 1024)), Ok(share(1024, 1024)));
    assert_eq!(budget.admit(SubscriberId(2), share(1025, u32::MAX)), Ok(LARGEST_SHARE));
}

#[test]
fn who_leaves_tops_up_who_got_less() {
    let mut budget = Budget::new(16, 2);
    assert_eq!(budget.admit(SubscriberId(1), share(6, 4)), Ok(share(6, 4)));
    assert_eq!(budget.admit(SubscriberId(2), share(9, 9)), Ok(share(3, 3)), "what the first left");
    budget.leave(SubscriberId(1));
    assert_eq!(budget.share(SubscriberId(2)), Some(share(7, 7)), "the smallest share stays for one more");
    assert_eq!(budget.admit(SubscriberId(3), share(9, 9)), Ok(SMALLEST_SHARE));
    assert_eq!(budget.granted(), 16);
}

#[test]
fn who_asks_for_less_tops_up_the_others() {
    let mut budget = Budget::new(16, 2);
    budget.admit(SubscriberId(1), share(6, 4)).unwrap();
    budget.admit(SubscriberId(2), share(9, 9)).unwrap();
    budget.ask(SubscriberId(1), share(2, 0));
    assert_eq!(budget.share(SubscriberId(1)), Some(share(2, 1)), "the smallest share is the least");
    assert_eq!(budget.share(SubscriberId(2)), Some(share(7, 6)));
    budget.ask(SubscriberId(2), share(4, 4));
    budget.ask(SubscriberId(1), share(5000, 1));
    assert_eq!(budget.share(SubscriberId(1)), Some(share(7, 1)));
}

#[test]
fn a_small_pool_serves_the_first_comers_and_the_next_when_one_leaves() {
    let mut budget = Budget::new(24, 3);
    for id in 1..=3 {
        budget.admit(SubscriberId(id), share(4, 4)).unwrap();
    }
    budget.set_capacity(5);
    let shares = |budget: &Budget| [1, 2, 3].map(|id| budget.share(SubscriberId(id)));
    assert_eq!(shares(&budget), [Some(share(2, 1)), Some(SMALLEST_SHARE), Some(NOTHING)]);
    budget.leave(SubscriberId(2));
    assert_eq!(shares(&budget), [Some(share(2, 1)), None, Some(SMALLEST_SHARE)]);
    budget.set_capacity(24);
    assert_eq!(shares(&budget), [Some(share(4, 4)), None, Some(share(4, 4))], "back to what they asked for");
}
