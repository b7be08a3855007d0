//! The end of a stream: who is slow gets all of it, and who gives back nothing, or hardly anything, holds no end for long.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use pagecast::publisher::LONGEST_END;
use pagecast::{
    Policy, Pool, PoolOptions, Publisher, PublisherOptions, RecvError, Subscriber, SubscriberOptions,
};
use pagecast_tests::peers::Peer;
use pagecast_tests::{Place, eventually, stamped};

const PEER: &str = env!("CARGO_BIN_EXE_pagecast-peer");

/// A publisher that loses nothing, and a subscriber who is so slow.
struct Scene {
    publisher: Publisher,
    pool: Pool,
    subscriber: Peer,
    _place: Place,
}

impl Scene {
    fn new(options: &[&str]) -> Self {
        let place = Place::new();
        let options_of_publisher =
            PublisherOptions { policy: Policy::Block, block_deadline: None, ..PublisherOptions::default() };
        let publisher = Publisher::open(&place.uri("a"), options_of_publisher).expect("a publisher");
        let pool = Pool::new(PoolOptions::default());
        publisher.set_pool(&pool);
        let subscriber = Peer::start(PEER, &[&["subscriber", &place.uri("a")], options].concat());
        subscriber.expect("connected");
        Self { publisher, pool, subscriber, _place: place }
    }

    fn publish(&self, frames: u64) {
        for number in 0..frames {
            self.publisher.publish(&stamped(&self.pool, number, 20_000)).expect("published");
        }
    }

    /// Ends the stream; how long that took.
    fn end(&self, patience: Duration) -> Duration {
        let begun = Instant::now();
        self.publisher.close(patience);
        begun.elapsed()
    }
}

#[test]
fn who_is_slow_gets_all_of_a_stream_that_ends() {
    let scene = Scene::new(&["slow=225"]);
    // As many as it holds, and as many as wait for it; it begins when all are there.
    scene.subscriber.stop();
    scene.publish(16);
    let (begun, patience) = (Instant::now(), Duration::from_secs(3));
    scene.subscriber.signal(Signal::SIGCONT);
    scene.end(patience);
    let took = begun.elapsed();
    scene.subscriber.expect("disconnected");
    assert_eq!(scene.subscriber.acknowledged(), 16, "after {took:?}");
    assert!(took > patience, "the control: {took:?} is no longer than one frame may take");
}

#[test]
fn what_is_dropped_after_the_end_goes_back_at_once() {
    let place = Place::new();
    let publisher = Publisher::open(&place.uri("a"), PublisherOptions::default()).expect("a publisher");
    let pool = Pool::new(PoolOptions::default());
    let subscriber = Subscriber::open(&place.uri("a"), SubscriberOptions::default()).expect("a subscriber");
    let reader = std::thread::spawn(move || {
        let last = subscriber.next_frame(None).expect("a frame");
        let end = subscriber.next_frame(None);
        assert!(matches!(end, Err(RecvError::Closed)), "{end:?}");
        (last, subscriber)
    });
    assert!(publisher.wait_for_subscribers(1, Some(Duration::from_secs(30))));
    publisher.publish(&stamped(&pool, 0, 20_000)).expect("published");
    publisher.publish_event(pagecast::EOS, b"").expect("published");
    // It receives no more, yet it is there.
    let (last, _subscriber) = reader.join().expect("the reader");
    let held = || publisher.info().subscribers.iter().map(|subscriber| subscriber.held).sum::<usize>();
    assert_eq!(held(), 1, "the control: it holds the last one");
    drop(last);
    eventually("it came back", || held() == 0);
}

#[test]
fn who_gives_back_hardly_anything_holds_no_end_for_long() {
    let scene = Scene::new(&["slow=400", "credits=64"]);
    scene.publish(100);
    let took = scene.end(Duration::from_secs(2));
    // All of it would take 40 seconds.
    assert!(took < LONGEST_END + Duration::from_secs(10), "{took:?}");
    assert!(scene.subscriber.acknowledged() < 100, "the control: it cannot have had all");
}

#[test]
fn who_gives_back_nothing_holds_no_end() {
    let scene = Scene::new(&[]);
    scene.subscriber.stop();
    scene.publish(8);
    let took = scene.end(Duration::from_secs(1));
    assert!(took < LONGEST_END, "{took:?}");
}
