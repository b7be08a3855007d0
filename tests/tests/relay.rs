//! A relay between a publisher and subscribers: the same pages, and nobody hurt by anybody behind it.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use pagecast::{
    Frame, FrameFlags, Message, Policy, Pool, PoolOptions, Publisher, PublisherOptions, RecvError, Relay,
    RelayOptions, Subscriber, SubscriberOptions,
};
use pagecast_tests::{Place, check, eventually, stamped};

const SIZE: usize = 100_000;
const PATIENCE: Option<Duration> = Some(Duration::from_secs(30));

fn publisher(uri: &str, options: PublisherOptions) -> (Publisher, Pool) {
    let pool = Pool::new(PoolOptions { limit: options.limit, ..PoolOptions::default() });
    let publisher = Publisher::open(uri, options).expect("a publisher");
    publisher.set_pool(&pool);
    (publisher, pool)
}

/// A relay at work, until dropped.
struct Running(Arc<Relay>, Option<JoinHandle<()>>);

impl Running {
    /// With the link upstream made.
    fn new(from: &str, to: &str, options: RelayOptions) -> Self {
        let relay = Arc::new(Relay::open(from, to, options).expect("a relay"));
        let works = relay.clone();
        let thread = std::thread::spawn(move || works.run().expect("relaying"));
        eventually("the relay is connected", || relay.subscriber().welcome().is_some());
        Self(relay, Some(thread))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.stop();
        let _ = self.1.take().map(JoinHandle::join);
    }
}

fn leaf(uri: &str) -> Subscriber {
    let subscriber = Subscriber::open(uri, SubscriberOptions::default()).expect("a subscriber");
    match subscriber.recv(PATIENCE) {
        Ok(Message::Connected(_)) => subscriber,
        other => panic!("not connected: {other:?}"),
    }
}

/// Lets the relay work until an event of that name is at the leaf: the frames that came before it, and what was marked.
fn until_event(relay: &Relay, leaf: &Subscriber, name: &str) -> Vec<(u64, FrameFlags)> {
    let (mut frames, mut came) = (Vec::new(), false);
    eventually(name, || {
        relay.step(Some(Duration::from_millis(10))).expect("a step");
        while let Ok(message) = leaf.recv(Some(Duration::ZERO)) {
            match message {
                Message::Frame(frame) => {
                    frames.push((check(&frame).expect("whole"), frame.description().flags));
                }
                Message::Event(event) => came |= event.name == name,
                _ => {}
            }
        }
        came
    });
    frames
}

fn inode(frame: &Frame) -> (u64, u64) {
    let fd = frame.planes()[0].fd.as_fd().try_clone_to_owned().expect("a descriptor");
    let stat = nix::sys::stat::fstat(&fd).expect("fstat");
    (stat.st_dev, stat.st_ino)
}

#[test]
fn every_frame_comes_through_in_the_publishers_own_pages() {
    let place = Place::new();
    let (first, second) = (place.uri("first"), place.uri("second"));
    let options = PublisherOptions { live: false, block_deadline: None, ..PublisherOptions::default() };
    let (publisher, pool) = publisher(&first, options);
    publisher.set_caps("application/x-test").expect("caps");
    let mut options = RelayOptions::default();
    options.publisher.block_deadline = None;
    let relay = Running::new(&first, &second, options);
    let receivers: Vec<_> = (0..3)
        .map(|_| {
            let leaf = leaf(&second);
            std::thread::spawn(move || {
                let mut inodes = std::collections::HashSet::new();
                for number in 0..500 {
                    let frame = leaf.next_frame(PATIENCE).expect("a frame");
                    assert_eq!(check(&frame), Ok(number));
                    assert_eq!(frame.caps(), Some("application/x-test"));
                    inodes.insert(inode(&frame));
                }
                inodes
            })
        })
        .collect();
    assert!(relay.0.publisher().wait_for_subscribers(3, PATIENCE));
    let mut ours = std::collections::HashSet::new();
    for number in 0..500 {
        let frame = stamped(&pool, number, SIZE);
        ours.insert(inode(&frame));
        publisher.publish(&frame).expect("published");
    }
    for receiver in receivers {
        let theirs = receiver.join().expect("a receiver");
        assert!(theirs.is_subset(&ours), "pages that are not the publisher's: {theirs:?}, {ours:?}");
    }
    assert_eq!(relay.0.figures().downstream.publisher.copied, 0);
}

#[test]
fn behind_a_network_a_frame_comes_once_for_all_of_a_host() {
    let place = Place::new();
    let options = PublisherOptions { live: false, block_deadline: None, ..PublisherOptions::default() };
    let (publisher, pool) = publisher("tcp://127.0.0.1:0", options);
    let (first, second) = (publisher.info().uri, place.uri("second"));
    let mut options = RelayOptions::default();
    options.publisher.block_deadline = None;
    let relay = Running::new(&first, &format!("{second} tcp://127.0.0.1:0"), options);
    let served = relay.0.publisher().info().uri;
    let receivers: Vec<_> = served
        .split_whitespace()
        .chain([second.as_str()])
        .map(|uri| {
            let (leaf, local) = (leaf(uri), uri.starts_with("unix"));
            std::thread::spawn(move || {
                let mut inodes = std::collections::HashSet::new();
                for number in 0..200 {
                    let frame = leaf.next_frame(PATIENCE).expect("a frame");
                    assert_eq!(check(&frame), Ok(number));
                    inodes.insert(inode(&frame));
                }
                (local, inodes)
            })
        })
        .collect();
    assert_eq!(receivers.len(), 3);
    assert!(relay.0.publisher().wait_for_subscribers(3, PATIENCE));
    for number in 0..200 {
        publisher.publish(&stamped(&pool, number, SIZE)).expect("published");
    }
    let seen: Vec<_> = receivers.into_iter().map(|receiver| receiver.join().expect("a receiver")).collect();
    let local: Vec<_> = seen.iter().filter(|(local, _)| *local).map(|(_, inodes)| inodes).collect();
    assert_eq!(local.len(), 2);
    assert!(!local[0].is_disjoint(local[1]), "those of one host read the same pages");
    let remote = seen.iter().find(|(local, _)| !local).expect("the remote one");
    assert!(remote.1.is_disjoint(local[0]), "another host has its own");
    let info = publisher.info();
    assert_eq!(info.subscribers.len(), 1, "{info:?}");
    assert_eq!(info.subscribers[0].bytes, 200 * SIZE as u64, "each frame crossed the network once");
}

#[test]
fn who_stalls_behind_a_relay_costs_nobody_a_frame() {
    let place = Place::new();
    let (first, second) = (place.uri("first"), place.uri("second"));
    let options = PublisherOptions { policy: Policy::DropOldest, ..PublisherOptions::default() };
    let (publisher, pool) = publisher(&first, options);
    let relay = Running::new(&first, &second, RelayOptions::default());
    let beside = leaf(&first);
    let hoarders: Vec<_> = (0..6).map(|_| leaf(&second)).collect();
    let healthy = leaf(&second);
    let mut hoard = Vec::new();
    for number in 0..2000 {
        publisher.publish(&stamped(&pool, number, SIZE)).expect("published");
        assert_eq!(check(&beside.next_frame(PATIENCE).expect("a frame")), Ok(number));
        assert_eq!(check(&healthy.next_frame(PATIENCE).expect("a frame")), Ok(number));
        for hoarder in &hoarders {
            while let Ok(frame) = hoarder.next_frame(Some(Duration::ZERO)) {
                hoard.push(frame);
            }
        }
    }
    let welcome = relay.0.subscriber().welcome().expect("a link");
    assert!(hoard.len() < welcome.credits as usize, "{} held, {welcome:?}", hoard.len());
    assert!(relay.0.publisher().info().publisher.dropped > 6 * 1000, "nobody met its limit");
    assert_eq!(relay.0.subscriber().figures().dropped, 0);
    assert!(pool.figures().buffers <= 200, "{:?}", pool.figures());
}

#[test]
fn subscribers_of_a_relay_outlive_its_publisher() {
    let place = Place::new();
    let (first, second) = (place.uri("first"), place.uri("second"));
    let (old, pool) = publisher(&first, PublisherOptions::default());
    old.set_caps("application/x-old").expect("caps");
    let relay = Running::new(&first, &second, RelayOptions::default());
    let leaf = leaf(&second);
    old.publish(&stamped(&pool, 7, SIZE)).expect("published");
    let kept = leaf.next_frame(PATIENCE).expect("a frame");
    drop(old);
    eventually("the relay has noticed", || relay.0.subscriber().welcome().is_none());
    assert_eq!(check(&kept), Ok(7), "what is held stays valid");
    let (new, pool) = publisher(&first, PublisherOptions::default());
    new.set_caps("application/x-new").expect("caps");
    assert!(new.wait_for_subscribers(1, PATIENCE), "the relay comes again");
    eventually("the relay is connected", || relay.0.subscriber().welcome().is_some());
    for number in 0..3 {
        new.publish(&stamped(&pool, number, SIZE)).expect("published");
        let frame = leaf.next_frame(PATIENCE).expect("a frame");
        assert_eq!(check(&frame), Ok(number));
        assert_eq!(frame.caps(), Some("application/x-new"));
    }
    assert_eq!(relay.0.subscriber().figures().reconnects, 1);
}

#[test]
fn gaps_events_and_requests_pass_through() {
    let place = Place::new();
    let (first, second) = (place.uri("first"), place.uri("second"));
    let (asked, heard) = std::sync::mpsc::channel();
    let hooks = pagecast::Hooks {
        request: Some(Box::new(move |event| drop(asked.send(event.name)))),
        ..pagecast::Hooks::default()
    };
    let options = PublisherOptions { policy: Policy::DropNewest, ..PublisherOptions::default() };
    let publisher = Publisher::open_with(&first, options, hooks).expect("a publisher");
    let pool = Pool::new(PoolOptions::default());
    // Driven by hand, so that it can be late.
    let mut options = RelayOptions::default();
    options.subscriber.credits = Some(4);
    let relay = Relay::open(&first, &second, options).expect("a relay");
    while relay.subscriber().welcome().is_none() {
        relay.step(PATIENCE).expect("a step");
    }
    let leaf = leaf(&second);
    for number in 0..20 {
        publisher.publish(&stamped(&pool, number, SIZE)).expect("published");
    }
    publisher.publish_event("custom", b"x").expect("published");
    let frames = until_event(&relay, &leaf, "custom");
    assert!(!frames.is_empty() && frames.len() < 20, "the control: it was late, {frames:?}");
    assert!(frames.iter().all(|(_, flags)| !flags.contains(FrameFlags::DISCONT)), "{frames:?}");
    publisher.publish(&stamped(&pool, 99, SIZE)).expect("published");
    publisher.publish_event("after", b"y").expect("published");
    let [(number, flags)] = until_event(&relay, &leaf, "after")[..] else { panic!("not one frame") };
    assert_eq!(number, 99, "the frame after the gap");
    assert!(flags.contains(FrameFlags::DISCONT), "a gap upstream is told");
    leaf.request("force-key-unit", b"");
    publisher.publish(&stamped(&pool, 100, SIZE)).expect("published");
    eventually("the request arrives upstream", || {
        relay.step(Some(Duration::from_millis(10))).expect("a step");
        publisher.publish_event("tick", b"").expect("published");
        heard.try_recv().is_ok_and(|name| name == "force-key-unit")
    });
}

#[test]
fn a_relay_is_stopped_at_once_and_refuses_a_taken_name() {
    let place = Place::new();
    let (first, second) = (place.uri("first"), place.uri("second"));
    let (_publisher, _pool) = publisher(&first, PublisherOptions::default());
    let taken = Relay::open(&place.uri("nobody"), &first, RelayOptions::default());
    assert!(taken.is_err(), "a living publisher has the name");
    let relay =
        Arc::new(Relay::open(&place.uri("nobody"), &second, RelayOptions::default()).expect("a relay"));
    let works = relay.clone();
    let thread = std::thread::spawn(move || works.run());
    relay.stop();
    thread.join().expect("the relay's thread").expect("no error");
    match relay.step(None) {
        Err(pagecast::RelayError::Upstream(RecvError::Interrupted)) => {}
        other => panic!("stopped: {other:?}"),
    }
}
