//! Hold timeout, mailboxes and changing shares, one case at a time.

mod common;

use std::time::Duration;

use common::{FakeClock, ms};
use pagecast_ipc::budget::{NoRoom, Share};
use pagecast_ipc::fanout::{Ask, Delivery, Fanout, Rules};
use pagecast_ipc::ledger::{FrameId, SubscriberId};
use pagecast_ipc::mailbox::{Item, MAX_WAITING_EVENTS, Mailbox, Offer};
use pagecast_ipc::policy::Policy;

type Books = Fanout<(), usize>;

const NS: Duration = Duration::from_nanos(1);
const TIMEOUT: Duration = ms(1000);

fn ask(credits: u32, mailbox: u32, keep: u32) -> Ask {
    Ask { share: Share { credits, mailbox }, policy: Policy::DropOldest, keep, rate: None }
}

fn books(timeout: Option<Duration>, ask: Ask) -> (Books, SubscriberId, FakeClock) {
    let mut books = Books::new(Rules { hold_timeout: timeout, ..Rules::default() }, 64);
    let id = books.admit(ask).unwrap().0;
    (books, id, FakeClock::start())
}

/// Publishes every 100 ms for `time`; returns whether the subscriber was ever overdue.
fn run(books: &mut Books, clock: &mut FakeClock, time: Duration) -> bool {
    let end = clock.now + time;
    let mut overdue = false;
    while clock.now < end {
        books.publish((), clock.advance(ms(100)), Duration::ZERO);
        overdue |= !books.overdue(clock.now).is_empty();
    }
    overdue
}

/// The subscriber takes `n` frames, each new, and keeps them.
fn take(books: &mut Books, id: SubscriberId, clock: &mut FakeClock, n: usize) {
    for _ in 0..n {
        books.publish((), clock.advance(ms(100)), Duration::ZERO);
        assert!(matches!(books.next(id, clock.now), Some(Delivery::Frame(..))));
    }
}

#[test]
fn who_holds_too_much_too_long_while_newer_frames_appear_is_overdue() {
    let (mut books, id, mut clock) = books(Some(TIMEOUT), ask(4, 1, 1));
    take(&mut books, id, &mut clock, 2);
    let second = clock.now;
    assert!(!run(&mut books, &mut clock, ms(900)), "the second frame is not past the time");
    books.publish((), second + TIMEOUT - NS, Duration::ZERO);
    assert!(books.overdue(second + TIMEOUT - NS).is_empty());
    assert!(books.overdue(second + TIMEOUT).is_empty(), "no newer frame was published past the time");
    books.publish((), second + TIMEOUT, Duration::ZERO);
    assert_eq!(books.overdue(second + TIMEOUT), [id]);
    books.give_back(id, FrameId(1)).unwrap();
    assert!(books.overdue(second + TIMEOUT).is_empty(), "within its allowance again");
}

#[test]
fn who_keeps_its_allowance_is_never_overdue() {
    for keep in [1, 3] {
        let (mut books, id, mut clock) = books(Some(TIMEOUT), ask(4, 1, keep));
        take(&mut books, id, &mut clock, keep as usize);
        assert!(!run(&mut books, &mut clock, 20 * TIMEOUT), "keep {keep}");
        take(&mut books, id, &mut clock, 1);
        assert!(run(&mut books, &mut clock, 2 * TIMEOUT), "keep {keep}, and one more");
    }
}

#[test]
fn who_returns_in_time_is_never_overdue() {
    let (mut books, id, mut clock) = books(Some(TIMEOUT), ask(4, 1, 1));
    take(&mut books, id, &mut clock, 3);
    for _ in 0..50 {
        let oldest = books.ledger().held(id)[0].frame;
        books.give_back(id, oldest).unwrap();
        take(&mut books, id, &mut clock, 1);
        assert!(books.overdue(clock.now).is_empty());
        assert_eq!(books.held(id), 3);
    }
}

#[test]
fn a_pause_counts_for_nobody() {
    let (mut books, id, mut clock) = books(Some(TIMEOUT), ask(4, 1, 1));
    take(&mut books, id, &mut clock, 3);
    assert!(books.overdue(clock.now + 100 * TIMEOUT).is_empty(), "idle: nothing newer");
    clock.advance(100 * TIMEOUT);
    books.publish((), clock.now, Duration::ZERO);
    assert!(books.overdue(clock.now).is_empty(), "it had no chance yet to move on");
    assert!(!run(&mut books, &mut clock, ms(900)));
    assert!(run(&mut books, &mut clock, ms(100)), "now it had");
    let last = clock.now;
    assert_eq!(books.overdue(last + TIMEOUT - NS), [id]);
    assert!(books.overdue(last + TIMEOUT).is_empty(), "idle again");
    // The shortest pause that counts.
    clock.advance(TIMEOUT);
    books.publish((), clock.now, Duration::ZERO);
    assert!(books.overdue(clock.now).is_empty());
    clock.advance(TIMEOUT - NS);
    books.publish((), clock.now, Duration::ZERO);
    books.publish((), clock.advance(NS), Duration::ZERO);
    assert_eq!(books.overdue(clock.now), [id], "a gap below the time is no pause");
}

#[test]
fn without_a_timeout_nobody_is_overdue() {
    let (mut books, id, mut clock) = books(None, ask(4, 1, 1));
    take(&mut books, id, &mut clock, 4);
    assert!(!run(&mut books, &mut clock, 100 * TIMEOUT));
}

#[test]
fn as_many_subscribers_as_the_rules_allow() {
    let mut books = Books::new(Rules { max_subscribers: 2, ..Rules::default() }, 64);
    let first = books.admit(ask(2, 2, 1)).unwrap().0;
    books.admit(ask(2, 2, 1)).unwrap();
    assert_eq!(books.admit(ask(2, 2, 1)), Err(NoRoom::Members { limit: 2 }));
    assert_eq!(books.leave(first), 0);
    let third = books.admit(ask(2, 2, 1)).unwrap().0;
    assert_eq!(books.subscribers().collect::<Vec<_>>(), [SubscriberId(2), third]);
    assert_eq!(Rules::default().max_subscribers, 64);
    assert_eq!(Rules::default().block_deadline, Some(Duration::from_secs(2)));
}

#[test]
fn a_new_capacity_drops_only_what_no_longer_fits() {
    let (mut books, id, clock) = books(None, ask(4, 4, 1));
    for _ in 0..8 {
        books.publish((), clock.now, Duration::ZERO);
    }
    books.set_capacity(65);
    assert_eq!(books.waiting(id), 8, "all credits are free");
    books.set_capacity(6);
    assert_eq!((books.share(id).frames(), books.waiting(id)), (6, 6));
    assert_eq!(books.counters(id).unwrap().dropped, 2);
    assert_eq!(books.next(id, clock.now), Some(Delivery::Frame(FrameId(3), ())), "the oldest went");
}

#[test]
fn who_asks_for_less_loses_what_no_longer_fits() {
    let (mut books, id, clock) = books(None, ask(4, 4, 1));
    for _ in 0..8 {
        books.publish((), clock.now, Duration::ZERO);
    }
    books.ask(SubscriberId(99), Share { credits: 1, mailbox: 1 });
    books.ask(id, Share { credits: 4, mailbox: 4 });
    assert_eq!((books.share(id).frames(), books.waiting(id)), (8, 8));
    books.ask(id, Share { credits: 2, mailbox: 1 });
    assert_eq!((books.share(id), books.waiting(id)), (Share { credits: 2, mailbox: 1 }, 3));
    assert_eq!(books.next(id, clock.now), Some(Delivery::Frame(FrameId(6), ())));
}

#[test]
fn a_smaller_share_is_kept_to_also_by_a_send_that_failed() {
    let (mut books, id, clock) = books(None, ask(2, 2, 1));
    for _ in 0..4 {
        books.publish((), clock.now, Duration::ZERO);
    }
    let sending = books.next(id, clock.now).unwrap();
    books.set_capacity(3);
    books.undo(id, sending);
    assert_eq!((books.waiting(id), books.held(id)), (books.share(id).frames() as usize, 0));
    assert_eq!(books.counters(id).unwrap().frames, 0);
}

#[test]
fn events_are_limited_and_the_oldest_goes() {
    let (mut books, id, clock) = books(None, ask(4, 4, 1));
    for event in 0..=MAX_WAITING_EVENTS {
        books.publish((), clock.now, Duration::ZERO);
        assert_eq!(books.counters(id).unwrap().events_dropped, 0);
        books.push_event(&event);
    }
    assert_eq!(books.counters(id).unwrap().events_dropped, 1);
    let mut events = Vec::new();
    while let Some(delivery) = books.next(id, clock.now) {
        match delivery {
            Delivery::Event(event) => events.push(event),
            Delivery::Frame(frame, ()) => books.give_back(id, frame).unwrap(),
        }
    }
    assert_eq!(events, (1..=MAX_WAITING_EVENTS).collect::<Vec<_>>());
}

#[test]
fn an_event_needs_no_credit_but_waits_behind_frames() {
    let (mut books, id, clock) = books(None, ask(1, 4, 1));
    let stranger = SubscriberId(99);
    books.push_event_to(stranger, 1);
    books.push_event_to(id, 2);
    assert!(books.has_mail(id) && !books.has_mail(stranger));
    books.publish((), clock.now, Duration::ZERO);
    books.publish((), clock.now, Duration::ZERO);
    books.push_event(&3);
    let failed = books.next(id, clock.now).unwrap();
    assert_eq!(failed, Delivery::Event(2));
    books.undo(id, failed);
    assert_eq!(books.next(id, clock.now), Some(Delivery::Event(2)));
    assert_eq!(books.next(id, clock.now), Some(Delivery::Frame(FrameId(1), ())));
    assert_eq!(books.next(id, clock.now), None, "no credit, and the event is behind the frame");
    books.give_back(id, FrameId(1)).unwrap();
    assert_eq!(books.next(id, clock.now), Some(Delivery::Frame(FrameId(2), ())));
    assert_eq!(books.next(id, clock.now), Some(Delivery::Event(3)));
}

#[test]
fn a_mailbox_without_places_takes_nothing() {
    for policy in Policy::ALL {
        let mut mailbox = Mailbox::<()>::default();
        assert!(mailbox.is_empty());
        assert_eq!(mailbox.offer(FrameId(1), 0, policy), Offer::Refused, "{policy}");
        assert_eq!(mailbox.offer(FrameId(2), 1, policy), Offer::Taken, "{policy}");
        assert_eq!((mailbox.frames(), mailbox.is_empty()), (1, false));
        mailbox.push_front(Item::Frame(FrameId(1)));
        assert_eq!(mailbox.frames(), 2);
        mailbox.push_event(());
        assert_eq!(mailbox.clear(), [FrameId(1), FrameId(2)]);
        assert_eq!((mailbox.frames(), mailbox.is_empty()), (0, true));
    }
}
