//! What each policy, the rate limit and the hold timeout do, one case at a time.

mod common;

use std::time::Duration;

use common::{FakeClock, ms};
use pagecast_ipc::budget::Share;
use pagecast_ipc::fanout::{Admission, Ask, Delivery, Fanout, Rules};
use pagecast_ipc::ledger::{FrameId, SubscriberId};
use pagecast_ipc::policy::{Policy, Rate};

type Books = Fanout<(), &'static str>;

const NS: Duration = Duration::from_nanos(1);

fn ask(policy: Policy, credits: u32, mailbox: u32) -> Ask {
    Ask { share: Share { credits, mailbox }, policy, keep: 1, rate: None }
}

/// Books whose rules are `rules`, with one subscriber.
fn with_one(rules: Rules, ask: Ask) -> (Books, SubscriberId, FakeClock) {
    let mut books = Books::new(rules, 64);
    let (id, share) = books.admit(ask).unwrap();
    assert_eq!(share, ask.share);
    (books, id, FakeClock::start())
}

fn publish(books: &mut Books, clock: &FakeClock, times: usize) {
    for _ in 0..times {
        books.publish((), clock.now, Duration::ZERO);
    }
}

/// Takes what can be sent: frames as their ids, events as 0.
fn receive(books: &mut Books, id: SubscriberId, clock: &FakeClock) -> Vec<u64> {
    std::iter::from_fn(|| books.next(id, clock.now))
        .map(|delivery| match delivery {
            Delivery::Frame(frame, ()) => frame.0,
            _ => 0,
        })
        .collect()
}

#[test]
fn a_full_mailbox_keeps_what_its_policy_says() {
    for (policy, kept, dropped) in [
        (Policy::DropOldest, vec![6, 7, 8], 5),
        (Policy::DropNewest, vec![1, 2, 3], 5),
        (Policy::Block, vec![1, 2, 3], 5),
        (Policy::Latest, vec![8], 7),
    ] {
        let (mut books, id, clock) = with_one(Rules::default(), ask(policy, 1, 2));
        publish(&mut books, &clock, 8);
        assert_eq!(books.waiting(id), kept.len(), "{policy}");
        let got: Vec<_> = kept
            .iter()
            .map(|_| {
                let got = receive(&mut books, id, &clock);
                assert_eq!(got.len(), 1, "{policy}: one credit, one frame");
                books.give_back(id, FrameId(got[0])).unwrap();
                got[0]
            })
            .collect();
        assert_eq!(got, kept, "{policy}");
        let figures = books.counters(id).unwrap();
        assert_eq!((figures.frames, figures.dropped, figures.skipped), (kept.len() as u64, dropped, 0));
    }
}

#[test]
fn latest_is_the_newest_also_after_a_send_that_failed() {
    let (mut books, id, clock) = with_one(Rules::default(), ask(Policy::Latest, 2, 2));
    publish(&mut books, &clock, 1);
    let first = books.next(id, clock.now).unwrap();
    publish(&mut books, &clock, 1);
    books.undo(id, first);
    assert_eq!(receive(&mut books, id, &clock), [2]);
    assert_eq!(books.counters(id).unwrap().dropped, 1);
}

#[test]
fn block_waits_once_per_stall_and_then_drops_until_a_return() {
    let rules = Rules { block_deadline: Some(ms(100)), ..Rules::default() };
    let (mut books, id, mut clock) = with_one(rules, ask(Policy::Block, 1, 1));
    assert_eq!(books.admission(clock.now, Duration::ZERO), Admission::Now);
    publish(&mut books, &clock, 2);
    assert_eq!(receive(&mut books, id, &clock), [1]);
    for round in 1..=2 {
        let start = clock.now;
        let wait = Admission::Wait { full: vec![id], until: Some(start + ms(100)) };
        assert_eq!(books.admission(start, Duration::ZERO), wait);
        assert_eq!(books.admission(start + ms(100) - NS, Duration::ZERO), wait, "the deadline stands");
        clock.advance(ms(100));
        for _ in 0..3 {
            assert_eq!(books.admission(clock.now, Duration::ZERO), Admission::Now, "given up");
            publish(&mut books, &clock, 1);
            clock.advance(ms(1));
        }
        assert!(books.overdue(clock.now).is_empty(), "it loses frames, it is not cut off");
        let figures = books.counters(id).unwrap();
        assert_eq!((figures.stalls, figures.dropped), (round, 3 * round));
        // A return, and the next frame fills the mailbox again: a new stall.
        let held = books.ledger().held(id)[0].frame;
        books.give_back(id, held).unwrap();
        assert_eq!(receive(&mut books, id, &clock).len(), 1);
        publish(&mut books, &clock, 1);
    }
}

#[test]
fn who_outlasts_the_deadline_is_named_where_the_rules_say_so() {
    let rules = Rules { block_deadline: Some(ms(100)), disconnect_at_deadline: true, ..Rules::default() };
    let (mut books, id, mut clock) = with_one(rules, ask(Policy::Block, 1, 1));
    publish(&mut books, &clock, 2);
    books.admission(clock.now, Duration::ZERO);
    assert!(books.overdue(clock.now).is_empty());
    clock.advance(ms(100));
    books.admission(clock.now, Duration::ZERO);
    assert_eq!(books.overdue(clock.now), [id]);
}

#[test]
fn the_first_deadline_counts_and_none_is_for_ever() {
    let rules = Rules { block_deadline: Some(ms(100)), ..Rules::default() };
    let (mut books, first, mut clock) = with_one(rules, ask(Policy::Block, 1, 1));
    let start = clock.now;
    publish(&mut books, &clock, 2);
    books.admission(start, Duration::ZERO);
    let (second, _) = books.admit(ask(Policy::Block, 1, 1)).unwrap();
    publish(&mut books, &clock, 2);
    clock.advance(ms(60));
    let both = Admission::Wait { full: vec![first, second], until: Some(start + ms(100)) };
    assert_eq!(books.admission(clock.now, Duration::ZERO), both);
    clock.advance(ms(40));
    let one = Admission::Wait { full: vec![second], until: Some(start + ms(160)) };
    assert_eq!(books.admission(clock.now, Duration::ZERO), one);

    let rules = Rules { block_deadline: None, ..Rules::default() };
    let (mut books, id, clock) = with_one(rules, ask(Policy::Block, 1, 1));
    publish(&mut books, &clock, 2);
    let for_ever = Admission::Wait { full: vec![id], until: None };
    assert_eq!(books.admission(clock.now, Duration::ZERO), for_ever);
    assert_eq!(books.admission(clock.now + ms(1 << 30), Duration::ZERO), for_ever);
}

#[test]
fn room_made_by_a_flush_ends_the_stall() {
    let rules = Rules { block_deadline: Some(ms(100)), ..Rules::default() };
    let (mut books, id, mut clock) = with_one(rules, ask(Policy::Block, 1, 1));
    publish(&mut books, &clock, 2);
    books.admission(clock.now, Duration::ZERO);
    books.flush();
    assert_eq!(books.admission(clock.now, Duration::ZERO), Admission::Now);
    publish(&mut books, &clock, 2);
    let now = clock.advance(ms(500));
    let wait = Admission::Wait { full: vec![id], until: Some(now + ms(100)) };
    assert_eq!(books.admission(now, Duration::ZERO), wait, "the old stall does not count");
}

#[test]
fn only_a_blocking_subscriber_that_wants_the_frame_is_waited_for() {
    for policy in [Policy::DropOldest, Policy::DropNewest, Policy::Latest] {
        let (mut books, _, clock) = with_one(Rules::default(), ask(policy, 1, 1));
        publish(&mut books, &clock, 5);
        assert_eq!(books.admission(clock.now, Duration::ZERO), Admission::Now, "{policy}");
    }
    let slow = Ask { rate: Some(Rate { frames: 1, seconds: 1 }), ..ask(Policy::Block, 1, 1) };
    let (mut books, _, clock) = with_one(Rules::default(), slow);
    for second in 0..2 {
        books.publish((), clock.now, Duration::from_secs(second));
    }
    assert_eq!(books.admission(clock.now, ms(1500)), Admission::Now, "it does not want that frame");
    assert_ne!(books.admission(clock.now, ms(2000)), Admission::Now);
    // A pool too small for anything but the first subscriber: the other gets nothing and holds nobody up.
    let (mut books, first, clock) = with_one(Rules::default(), ask(Policy::DropNewest, 1, 1));
    let (second, _) = books.admit(ask(Policy::Block, 1, 1)).unwrap();
    books.set_capacity(2);
    assert_eq!((books.share(first).frames(), books.share(second).frames()), (2, 0));
    publish(&mut books, &clock, 1);
    assert_eq!(books.admission(clock.now, Duration::ZERO), Admission::Now);
    assert_eq!((books.waiting(first), books.waiting(second)), (1, 0));
}

/// How many of `n` frames at `fps`, each displaced by `jitter`, pass a limit of `limit` per second.
fn passed(n: u32, fps: u32, limit: u32, jitter: impl Fn(u32) -> Duration) -> u64 {
    let slow = Ask { rate: Some(Rate { frames: limit, seconds: 1 }), ..ask(Policy::DropOldest, 1, 1) };
    let (mut books, id, clock) = with_one(Rules::default(), slow);
    for frame in 0..n {
        books.publish((), clock.now, Duration::from_secs(1) * frame / fps + jitter(frame));
        for frame in receive(&mut books, id, &clock) {
            books.give_back(id, FrameId(frame)).unwrap();
        }
    }
    let figures = books.counters(id).unwrap();
    assert_eq!((figures.frames + figures.skipped, figures.dropped), (n.into(), 0));
    figures.frames
}

#[test]
fn the_rate_limit_passes_the_right_number() {
    let seconds = 10;
    for (fps, limit) in [(60, 30), (60, 25), (30, 10), (60, 60), (25, 60), (50, 1), (240, 24)] {
        let expected = u64::from(limit.min(fps) * seconds);
        let got = passed(fps * seconds, fps, limit, |_| Duration::ZERO);
        // The last due frame may come an eighth of the interval early, just before the end.
        let early = u64::from(fps >= 8 * limit);
        assert!((expected..=expected + early).contains(&got), "{fps} to {limit}: {got}");
    }
    // A sixteenth of an interval early or late, and rounding, lose nothing at the same rate.
    let jitter = |frame: u32| ms(1) * (frame * 7 % 3);
    assert_eq!(passed(60 * seconds, 60, 60, jitter), u64::from(60 * seconds));
}

#[test]
fn an_eighth_of_the_interval_is_jitter_and_more_is_not() {
    let limit = Ask { rate: Some(Rate { frames: 10, seconds: 1 }), ..ask(Policy::DropNewest, 8, 8) };
    let taken = |times: &[Duration]| {
        let (mut books, id, clock) = with_one(Rules::default(), limit);
        for at in times {
            books.publish((), clock.now, *at);
        }
        books.waiting(id)
    };
    let early = Duration::from_micros(12_500);
    assert_eq!(taken(&[ms(0), ms(100) - early]), 2);
    assert_eq!(taken(&[ms(0), ms(100) - early - NS]), 1);
    assert_eq!(taken(&[ms(0), ms(100) - early, ms(200) - early]), 3, "the grid stays where it was");
    assert_eq!(taken(&[ms(0), ms(199), ms(200) - early]), 3, "a late frame does not move the grid");
    assert_eq!(taken(&[ms(0), ms(200), ms(250)]), 2, "a whole interval late does");
    assert_eq!(taken(&[ms(5000), ms(0), ms(50), ms(100)]), 3, "a stream that starts over");
    assert_eq!(taken(&[ms(300), ms(200)]), 1, "a step back of up to an interval is no restart");
    assert_eq!(taken(&[ms(300), ms(200) - NS]), 2);
}

#[test]
fn a_frame_that_was_not_taken_does_not_count_for_the_rate() {
    let limit = Ask { rate: Some(Rate { frames: 10, seconds: 1 }), ..ask(Policy::DropNewest, 1, 1) };
    let (mut books, id, clock) = with_one(Rules::default(), limit);
    for at in [0, 100, 200] {
        books.publish((), clock.now, ms(at));
    }
    assert_eq!(books.counters(id).unwrap().dropped, 1);
    books.flush();
    books.publish((), clock.now, ms(210));
    assert_eq!(books.waiting(id), 1, "it is still due");
}

#[test]
fn names_and_meanings() {
    for policy in Policy::ALL {
        assert_eq!(policy.to_string().parse(), Ok(policy));
    }
    assert_eq!(format!("{:>8}", Policy::Auto), "    auto");
    let unknown = "newest".parse::<Policy>().unwrap_err();
    assert_eq!(
        unknown.to_string(),
        "unknown policy \"newest\": use auto, block, drop-oldest, drop-newest or latest"
    );
    assert_eq!(Policy::default(), Policy::Auto);
    assert_eq!(
        (Policy::Auto.resolve(true), Policy::Auto.resolve(false)),
        (Policy::DropOldest, Policy::Block)
    );
    assert!(Policy::ALL[1..].iter().all(|policy| policy.resolve(true) == *policy));
    assert_eq!(Rate { frames: 4, seconds: 2 }.interval(), Some(ms(500)));
    assert_eq!(Rate { frames: 0, seconds: 1 }.interval(), None);
    assert_eq!(Rate { frames: 1, seconds: 0 }.interval(), None);
}
