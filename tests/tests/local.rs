//! One publisher and subscribers over Unix links, in one process.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pagecast::{
    Message, Policy, Pool, PoolOptions, PublishError, Publisher, PublisherOptions, RecvError, Subscriber,
    SubscriberOptions,
};
use pagecast_tests::{Place, check, eventually, stamped};

const SIZE: usize = 100_000;
const LIMIT: Option<Duration> = Some(Duration::from_secs(30));

/// Nobody loses anything, however slow the machine is: the producer waits.
fn patient() -> PublisherOptions {
    PublisherOptions { live: false, block_deadline: None, ..PublisherOptions::default() }
}

fn publisher(uri: &str, options: PublisherOptions) -> (Publisher, Pool) {
    let pool = Pool::new(PoolOptions { limit: options.limit, ..PoolOptions::default() });
    let publisher = Publisher::open(uri, options).expect("a publisher");
    publisher.set_pool(&pool);
    (publisher, pool)
}

fn subscriber(uri: &str, options: SubscriberOptions) -> Subscriber {
    let subscriber = Subscriber::open(uri, options).expect("a subscriber");
    match subscriber.recv(LIMIT) {
        Ok(Message::Connected(_)) => subscriber,
        other => panic!("not connected: {other:?}"),
    }
}

#[test]
fn every_frame_arrives_whole_and_pages_are_reused() {
    let place = Place::new();
    let uri = place.uri("a");
    let (publisher, pool) = publisher(&uri, patient());
    publisher.set_caps("application/x-test").expect("caps");
    let receivers: Vec<_> = (0..3)
        .map(|_| {
            let subscriber = subscriber(&uri, SubscriberOptions::default());
            std::thread::spawn(move || {
                (0..500).map(|_| check(&subscriber.next_frame(LIMIT).expect("frame"))).collect::<Vec<_>>()
            })
        })
        .collect();
    assert!(publisher.wait_for_subscribers(3, LIMIT));
    for number in 0..500 {
        publisher.publish(&stamped(&pool, number, SIZE)).expect("published");
    }
    for receiver in receivers {
        let numbers: Result<Vec<u64>, String> = receiver.join().expect("receiver").into_iter().collect();
        assert_eq!(numbers, Ok((0..500).collect()));
    }
    assert!(pool.figures().buffers < 40, "{:?}", pool.figures());
}

#[test]
fn a_subscriber_that_holds_everything_costs_others_nothing() {
    let place = Place::new();
    let uri = place.uri("a");
    let options = PublisherOptions { policy: Policy::DropOldest, ..PublisherOptions::default() };
    let (publisher, pool) = publisher(&uri, options);
    let hoarder = subscriber(&uri, SubscriberOptions::default());
    let healthy = subscriber(&uri, SubscriberOptions::default());
    let mut hoard = Vec::new();
    for number in 0..400 {
        publisher.publish(&stamped(&pool, number, SIZE)).expect("published");
        let frame = healthy.next_frame(LIMIT).expect("frame");
        assert_eq!(check(&frame), Ok(number));
        while let Ok(frame) = hoarder.next_frame(Some(Duration::ZERO)) {
            hoard.push(frame);
        }
    }
    assert_eq!(hoard.len(), 8, "its credits and no more");
    assert!(pool.figures().buffers <= 8 + 8 + 4, "{:?}", pool.figures());
    for (number, frame) in hoard.iter().enumerate() {
        assert_eq!(check(frame), Ok(number as u64), "what it holds is not overwritten");
    }
    let info = publisher.info();
    assert!(info.subscribers[0].dropped > 300, "{info:?}");
    assert_eq!(info.subscribers[1].dropped, 0, "{info:?}");
    drop(hoard);
    drop(hoarder);
    eventually("the hoarder's row is reclaimed", || publisher.subscribers() == 1);
}

#[test]
fn late_joiners_get_caps_and_a_new_life_is_seen() {
    let place = Place::new();
    let uri = place.uri("a");
    let (first, pool) = publisher(&uri, PublisherOptions::default());
    first.set_caps("application/x-first").expect("caps");
    let late = subscriber(&uri, SubscriberOptions::default());
    match late.recv(LIMIT) {
        Ok(Message::Sticky(sticky)) => assert_eq!(sticky.data, b"application/x-first"),
        other => panic!("no caps: {other:?}"),
    }
    first.publish(&stamped(&pool, 1, SIZE)).expect("published");
    let kept = late.next_frame(LIMIT).expect("frame");
    drop(first);
    match late.recv(LIMIT) {
        Ok(Message::Disconnected(_)) => {}
        other => panic!("still there: {other:?}"),
    }
    let (second, pool) = publisher(&uri, PublisherOptions::default());
    match late.recv(LIMIT) {
        Ok(Message::Connected(_)) => {}
        other => panic!("not again: {other:?}"),
    }
    for number in 2..40 {
        second.publish(&stamped(&pool, number, SIZE)).expect("published");
        assert_eq!(check(&late.next_frame(LIMIT).expect("frame")), Ok(number));
    }
    assert_eq!(check(&kept), Ok(1), "a frame of the old life stays valid");
}

#[test]
fn a_second_publisher_does_not_take_a_living_path() {
    let place = Place::new();
    let uri = place.uri("a");
    let (_first, _pool) = publisher(&uri, PublisherOptions::default());
    let error = Publisher::open(&uri, PublisherOptions::default()).expect_err("taken");
    assert!(error.to_string().contains("process"), "{error}");
}

#[test]
fn nobody_there_is_said_at_once_without_reconnect() {
    let place = Place::new();
    let options = SubscriberOptions { reconnect: false, ..SubscriberOptions::default() };
    let subscriber = Subscriber::open(&place.uri("none"), options).expect("a subscriber");
    assert!(matches!(subscriber.recv(LIMIT), Err(RecvError::Connect { .. })));
}

#[test]
fn small_frames_in_great_number_arrive_in_order_with_their_events() {
    let place = Place::new();
    let uri = place.uri("a");
    let (publisher, pool) = publisher(&uri, patient());
    let subscriber = subscriber(&uri, SubscriberOptions::default());
    let receiver = std::thread::spawn(move || {
        let (mut next, mut events) = (0, 0);
        while next < 20_000 || events < 200 {
            match subscriber.recv(LIMIT).expect("message") {
                Message::Frame(frame) => {
                    assert_eq!(check(&frame), Ok(next));
                    next += 1;
                }
                Message::Event(event) => {
                    assert_eq!(event.data, next.to_le_bytes(), "an event keeps its place");
                    events += 1;
                }
                _ => {}
            }
        }
    });
    for number in 0..20_000_u64 {
        if number % 100 == 0 {
            publisher.publish_event("mark", &number.to_le_bytes()).expect("event");
        }
        publisher.publish(&stamped(&pool, number, 1000)).expect("published");
    }
    receiver.join().expect("receiver");
}

#[test]
fn latest_gets_the_newest_and_a_rate_limit_is_kept() {
    let place = Place::new();
    let uri = place.uri("a");
    let (publisher, pool) = publisher(&uri, PublisherOptions::default());
    let options =
        SubscriberOptions { policy: Some(Policy::Latest), credits: Some(1), ..SubscriberOptions::default() };
    let latest = subscriber(&uri, options);
    let rate = pagecast::Rate { frames: 10, seconds: 1 };
    let limited =
        subscriber(&uri, SubscriberOptions { max_rate: Some(rate), ..SubscriberOptions::default() });
    let mut limited_frames = 0;
    for number in 0..120 {
        let mut frame = stamped(&pool, number, SIZE);
        frame = pagecast::Frame::builder()
            .describe(pagecast::Description {
                times: pagecast::Times { pts: Some(number * 1_000_000_000 / 60), ..Default::default() },
                ..frame.description().clone()
            })
            .segment(frame.segments()[0].buffer.clone(), 0, SIZE)
            .owner(frame)
            .build()
            .expect("frame");
        publisher.publish(&frame).expect("published");
        limited_frames += u32::from(limited.next_frame(Some(Duration::ZERO)).is_ok());
    }
    assert_eq!(limited_frames, 20, "two seconds at ten a second");
    assert_eq!(check(&latest.next_frame(LIMIT).expect("frame")), Ok(0));
    assert_eq!(check(&latest.next_frame(LIMIT).expect("frame")), Ok(119));
}

#[test]
fn a_request_reaches_the_publisher_while_nothing_is_published() {
    let place = Place::new();
    let uri = place.uri("a");
    let (tell, told) = std::sync::mpsc::channel();
    let hooks = pagecast::Hooks {
        request: Some(Box::new(move |event| drop(tell.send(event.name)))),
        ..pagecast::Hooks::default()
    };
    let _publisher = Publisher::open_with(&uri, PublisherOptions::default(), hooks).expect("publisher");
    let subscriber = subscriber(&uri, SubscriberOptions::default());
    subscriber.request("force-key-unit", &[]);
    assert_eq!(told.recv_timeout(Duration::from_secs(30)).as_deref(), Ok("force-key-unit"));
}

#[test]
fn an_observer_is_answered_and_takes_no_share() {
    let place = Place::new();
    let uri = place.uri("a");
    let (publisher, _pool) =
        publisher(&uri, PublisherOptions { max_subscribers: 1, ..PublisherOptions::default() });
    let _subscriber = subscriber(&uri, SubscriberOptions::default());
    let observer = subscriber(&uri, SubscriberOptions { observe: true, ..SubscriberOptions::default() });
    for _ in 0..3 {
        observer.query();
        match observer.recv(LIMIT) {
            Ok(Message::Info(json)) => {
                assert!(String::from_utf8_lossy(&json).contains("\"subscribers\":[{\"id\":1"))
            }
            other => panic!("no answer: {other:?}"),
        }
    }
    assert_eq!(publisher.subscribers(), 1);
    let refused = Subscriber::open(&uri, SubscriberOptions::default()).expect("a subscriber").recv(LIMIT);
    assert!(
        matches!(&refused, Err(RecvError::Refused { text, .. }) if text.contains("max-clients")),
        "{refused:?}"
    );
}

#[test]
fn a_blocked_producer_waits_once_and_is_not_held_for_ever() {
    let place = Place::new();
    let uri = place.uri("a");
    let options = PublisherOptions {
        policy: Policy::Block,
        block_deadline: Some(Duration::from_millis(200)),
        ..PublisherOptions::default()
    };
    let (publisher, pool) = publisher(&uri, options);
    let _stopped = subscriber(&uri, SubscriberOptions::default());
    for number in 0..200 {
        publisher.publish(&stamped(&pool, number, SIZE)).expect("published");
    }
    let info = publisher.info();
    assert_eq!(info.subscribers[0].stalls, 1, "{info:?}");
    assert_eq!(info.subscribers[0].dropped, 200 - 16, "{info:?}");
}

/// Whoever takes in what a subscriber returned takes the waking of a producer that waits for it along.
#[test]
fn a_blocked_producer_is_woken_whoever_takes_in_the_returns() {
    const FRAMES: u64 = 2000;
    let place = Place::new();
    let uri = place.uri("a");
    let options =
        PublisherOptions { policy: Policy::Block, block_deadline: None, ..PublisherOptions::default() };
    let (publisher, pool) = publisher(&uri, options);
    let subscriber = subscriber(&uri, SubscriberOptions::default());
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        for first in 0..2 {
            let (publisher, pool) = (&publisher, &pool);
            threads.spawn(move || {
                for number in (first..FRAMES).step_by(2) {
                    match publisher.publish(&stamped(pool, number, SIZE)) {
                        Err(PublishError::Flushing) => return,
                        published => published.expect("published"),
                    }
                }
            });
        }
        let (pool, done) = (&pool, &done);
        threads.spawn(move || {
            while !done.load(Ordering::SeqCst) {
                pool.reclaim();
            }
        });
        let received = (0..FRAMES).take_while(|_| subscriber.next_frame(LIMIT).is_ok()).count() as u64;
        // Nobody waits for ever, whatever came of it.
        publisher.set_flushing(true);
        done.store(true, Ordering::SeqCst);
        assert_eq!(received, FRAMES);
    });
    assert_eq!(publisher.info().subscribers[0].dropped, 0);
}

#[test]
fn a_flush_makes_room_for_a_blocked_producer() {
    let place = Place::new();
    let uri = place.uri("a");
    let options =
        PublisherOptions { policy: Policy::Block, block_deadline: None, ..PublisherOptions::default() };
    let (publisher, pool) = publisher(&uri, options);
    let _stopped = subscriber(&uri, SubscriberOptions::default());
    std::thread::scope(|threads| {
        let producer = threads.spawn(|| {
            (0..17).try_for_each(|number| publisher.publish(&stamped(&pool, number, SIZE))).is_ok()
        });
        eventually("it waits", || publisher.info().subscribers[0].stalls == 1);
        publisher.flush();
        let deadline = Instant::now() + Duration::from_secs(30);
        while !producer.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        publisher.set_flushing(true);
        assert_eq!(producer.join().ok(), Some(true));
    });
}

#[test]
fn who_holds_too_long_is_evicted_and_told_by_its_guard() {
    let place = Place::new();
    let uri = place.uri("a");
    let options = PublisherOptions {
        hold_timeout: Some(Duration::from_secs(1)),
        policy: Policy::DropOldest,
        ..PublisherOptions::default()
    };
    let (publisher, pool) = publisher(&uri, options);
    // It must not be back before it is counted.
    let hoarder = subscriber(&uri, SubscriberOptions { reconnect: false, ..SubscriberOptions::default() });
    // It never has more than what it keeps, however long this thread is away.
    let keeper = subscriber(&uri, SubscriberOptions { credits: Some(1), ..SubscriberOptions::default() });
    let mut kept = None;
    let mut hoard = Vec::new();
    let mut number = 0;
    eventually("the hoarder is evicted", || {
        publisher.publish(&stamped(&pool, number, SIZE)).expect("published");
        number += 1;
        if let Ok(frame) = keeper.next_frame(Some(Duration::ZERO)) {
            kept.get_or_insert(frame);
        }
        while let Ok(frame) = hoarder.next_frame(Some(Duration::ZERO)) {
            hoard.push(frame);
        }
        publisher.info().publisher.evicted == 1
    });
    assert_eq!(check(&kept.expect("a frame")), Ok(0), "one frame may be kept for ever");
    assert!(hoard[0].to_vec().is_err(), "what was taken back is not valid");
    assert_eq!(publisher.info().subscribers.len(), 1);
}

#[test]
fn a_frame_held_when_the_publisher_ends_stays_valid_though_nobody_receives() {
    let place = Place::new();
    let uri = place.uri("a");
    let (publisher, pool) = publisher(&uri, PublisherOptions::default());
    let subscriber = subscriber(&uri, SubscriberOptions::default());
    publisher.publish(&stamped(&pool, 7, SIZE)).expect("published");
    publisher.publish(&stamped(&pool, 8, SIZE)).expect("published");
    let held = subscriber.next_frame(LIMIT).expect("frame");
    drop(publisher);
    for number in 9..40 {
        drop(stamped(&pool, number, SIZE)); // the pool goes on writing
    }
    assert_eq!(check(&held), Ok(7));
    assert_eq!(check(&subscriber.next_frame(LIMIT).expect("frame")), Ok(8), "what was sent is not lost");
}

#[test]
fn frames_are_awaited_on_a_runtime() {
    let place = Place::new();
    let uri = place.uri("a");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let receiver = {
        let uri = uri.clone();
        std::thread::spawn(move || {
            runtime.block_on(async {
                let options = SubscriberOptions::default();
                let mut subscriber = pagecast::AsyncSubscriber::open(&uri, options).expect("a subscriber");
                for number in 0..300 {
                    let frame = subscriber.next_frame().await.expect("frame");
                    assert_eq!(check(&frame), Ok(number));
                }
            });
        })
    };
    let (publisher, pool) = publisher(&uri, patient());
    assert!(publisher.wait_for_subscribers(1, LIMIT), "it finds a publisher that comes later");
    for number in 0..300 {
        publisher.publish(&stamped(&pool, number, SIZE)).expect("published");
    }
    receiver.join().expect("receiver");
}
