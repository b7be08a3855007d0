//! Subscribers on other hosts, as far as one host can show them: over the loopback.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pagecast::{
    Description, Frame, Hooks, Info, Message, Meta, Policy, Pool, PoolOptions, Publisher, PublisherOptions,
    RecvError, Relay, RelayOptions, Subscriber, SubscriberOptions,
};
use pagecast_tests::peers::Peer;
use pagecast_tests::{Place, check, eventually, proc, stamped};

const PEER: &str = env!("CARGO_BIN_EXE_pagecast-peer");
const ANY: &str = "tcp://127.0.0.1:0";
const SIZE: usize = 300_000;
const PATIENCE: Option<Duration> = Some(Duration::from_secs(30));

fn publisher(uri: &str, options: PublisherOptions) -> (Publisher, Pool) {
    let pool = Pool::new(PoolOptions { limit: options.limit, ..PoolOptions::default() });
    let publisher = Publisher::open(uri, options).expect("a publisher");
    publisher.set_pool(&pool);
    (publisher, pool)
}

/// The address that a publisher listens on, of the one scheme.
fn address(publisher: &Publisher, scheme: &str) -> String {
    let uri = publisher.info().uri;
    uri.split_whitespace().find(|uri| uri.starts_with(scheme)).expect("such an address").to_owned()
}

fn subscriber(uri: &str, options: SubscriberOptions) -> Subscriber {
    let subscriber = Subscriber::open(uri, options).expect("a subscriber");
    match subscriber.recv(PATIENCE) {
        Ok(Message::Connected(_)) => subscriber,
        other => panic!("not connected: {other:?}"),
    }
}

/// Nobody loses anything: the producer waits.
fn patient() -> PublisherOptions {
    PublisherOptions { live: false, block_deadline: None, ..PublisherOptions::default() }
}

#[test]
fn local_and_remote_subscribers_get_every_frame_whole() {
    let place = Place::new();
    let (publisher, pool) = publisher(&format!("{} {ANY}", place.uri("a")), patient());
    publisher.set_caps("application/x-test").expect("caps");
    let start = |scheme: &&str| Peer::start(PEER, &["subscriber", &address(&publisher, scheme)]);
    let peers: Vec<Peer> = ["unix", "unix", "tcp", "tcp"].iter().map(start).collect();
    assert!(publisher.wait_for_subscribers(4, PATIENCE));
    for number in 0..500 {
        publisher.publish(&stamped(&pool, number, SIZE + number as usize * 7)).expect("published");
    }
    for peer in &peers {
        peer.try_follow(500).unwrap_or_else(|error| panic!("{error}"));
    }
    let info = publisher.info();
    let remote: Vec<_> = info.subscribers.iter().filter(|s| s.transport == "tcp").collect();
    assert_eq!(remote.len(), 2, "{info:?}");
    let has_address = |peer: &String| peer.starts_with("127.0.0.1:");
    assert!(remote.iter().all(|s| s.pid == 0 && s.peer.as_ref().is_some_and(has_address)), "{info:?}");
    assert!(info.subscribers.iter().all(|s| s.frames == 500 && s.dropped == 0), "{info:?}");
    assert!(pool.figures().buffers < 60, "{:?}", pool.figures());
}

/// The window of who does not ask for another, and each buffer mapped by the bridge and by the subscriber.
const READY: usize = 2 * 8;

#[test]
fn a_subscriber_has_all_pages_before_it_needs_them() {
    let (publisher, pool) = publisher(ANY, patient());
    let peer = Peer::start(PEER, &["subscriber", &address(&publisher, "tcp"), "slow=20"]);
    assert!(publisher.wait_for_subscribers(1, PATIENCE));
    let mut number = 0;
    let mut publish = || {
        publisher.publish(&stamped(&pool, number, SIZE)).expect("published");
        number += 1;
        number
    };
    // One at a time, so that one or two buffers would do.
    eventually("buffers for all frames that it may hold", || {
        peer.try_follow(publish()).unwrap_or_else(|error| panic!("{error}"));
        proc::memfd_mappings(peer.pid()) >= READY
    });
    (0..3).for_each(|_| peer.try_follow(publish()).unwrap_or_else(|error| panic!("{error}")));
    let before = proc::memfd_mappings(peer.pid());
    assert_eq!(proc::memfd_bytes_missing(peer.pid()), 0);
    // Now it falls behind, and has as many as it may.
    let last = (0..40).map(|_| publish()).last().unwrap_or(0);
    peer.try_follow(last).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(proc::memfd_mappings(peer.pid()), before);
    assert_eq!(proc::memfd_bytes_missing(peer.pid()), 0);
}

#[test]
fn buffers_are_made_ahead_for_even_streams_only() {
    let (publisher, pool) = publisher(ANY, patient());
    let peer = Peer::start(PEER, &["subscriber", &address(&publisher, "tcp")]);
    assert!(publisher.wait_for_subscribers(1, PATIENCE));
    for number in 0..20 {
        publisher.publish(&stamped(&pool, number, SIZE - number as usize)).expect("published");
        peer.try_follow(number + 1).unwrap_or_else(|error| panic!("{error}"));
    }
    let mappings = proc::memfd_mappings(peer.pid());
    assert!(mappings < READY, "{mappings}");
}

#[test]
fn a_frame_arrives_with_all_that_is_said_of_it() {
    let (publisher, pool) = publisher(ANY, patient());
    let subscriber = subscriber(&address(&publisher, "tcp"), SubscriberOptions::default());
    assert!(publisher.wait_for_subscribers(1, PATIENCE));
    let mut description = Description { offset: Some(3), offset_end: Some(4), ..Description::default() };
    description.times.pts = Some(5);
    description.metas.push(Meta { name: "a".to_owned(), data: vec![7; 60_000] });
    let parts: [&[u8]; 3] = [b"one", b"", b"three"];
    let mut builder = Frame::builder().describe(description.clone());
    for (at, part) in parts.iter().enumerate() {
        let mut lease = pool.acquire(5000).expect("a buffer");
        lease.write(at * 11, part).expect("it fits");
        builder = builder.segment(lease.buffer().clone(), at * 11, part.len()).owner(lease);
    }
    publisher.publish(&builder.build().expect("a frame")).expect("published");
    publisher.publish(&Frame::builder().build().expect("an empty frame")).expect("published");
    let frame = subscriber.next_frame(PATIENCE).expect("frame");
    assert_eq!(frame.to_vec().expect("readable"), b"onethree");
    assert_eq!(frame.segments().iter().map(|s| s.length).collect::<Vec<_>>(), [3, 0, 5]);
    let mut got = frame.description().clone();
    assert!(got.times.published.take().is_some());
    assert_eq!(got, description);
    let empty = subscriber.next_frame(PATIENCE).expect("frame");
    assert_eq!((empty.size(), empty.id()), (0, frame.id() + 1));
}

#[test]
fn stickies_events_and_requests_pass_in_order() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let hears = asked.clone();
    let request = Box::new(move |event: pagecast::Event| hears.lock().expect("unpoisoned").push(event.name));
    let hooks = Hooks { request: Some(request), ..Hooks::default() };
    let pool = Pool::new(PoolOptions::default());
    let publisher = Publisher::open_with(ANY, patient(), hooks).expect("a publisher");
    publisher.set_caps("application/x-first").expect("caps");
    publisher.set_sticky("tag", b"before anybody came").expect("sticky");
    let late = subscriber(&address(&publisher, "tcp"), SubscriberOptions::default());
    assert!(publisher.wait_for_subscribers(1, PATIENCE));
    publisher.publish(&stamped(&pool, 1, SIZE)).expect("published");
    publisher.publish_event("gap", &[1; 60_000]).expect("an event");
    publisher.set_caps("application/x-second").expect("caps");
    publisher.publish(&stamped(&pool, 2, SIZE)).expect("published");
    publisher.publish_event("eos", &[]).expect("an event");
    let mut seen = Vec::new();
    while seen.last().is_none_or(|last| last != "eos") {
        match late.recv(PATIENCE).expect("a message") {
            Message::Sticky(sticky) => seen.push(String::from_utf8_lossy(&sticky.data).into_owned()),
            Message::Frame(frame) => {
                seen.push(format!("{} {:?}", check(&frame).expect("whole"), frame.caps()))
            }
            Message::Event(event) => seen.push(event.name),
            other => panic!("{other:?}"),
        }
    }
    let first = r#"1 Some("application/x-first")"#;
    let second = r#"2 Some("application/x-second")"#;
    let told =
        ["application/x-first", "before anybody came", first, "gap", "application/x-second", second, "eos"];
    assert_eq!(seen, told);
    late.request("force-key-unit", b"");
    eventually("the request is heard", || {
        asked.lock().expect("unpoisoned").contains(&"force-key-unit".into())
    });
}

#[test]
fn an_observer_may_ask_from_another_host() {
    let (publisher, _pool) = publisher(ANY, PublisherOptions::default());
    let options = SubscriberOptions { observe: true, ..SubscriberOptions::default() };
    let observer = subscriber(&address(&publisher, "tcp"), options);
    for _ in 0..3 {
        observer.query();
        match observer.recv(PATIENCE) {
            Ok(Message::Info(json)) => {
                let info: Info = serde_json::from_slice(&json).expect("figures");
                assert_eq!(info.uri, address(&publisher, "tcp"));
            }
            other => panic!("no figures: {other:?}"),
        }
    }
    assert_eq!(publisher.subscribers(), 0, "it takes no share");
}

#[test]
fn a_subscriber_that_holds_everything_gets_its_window_and_no_more() {
    let options = PublisherOptions { policy: Policy::DropOldest, ..PublisherOptions::default() };
    let (publisher, pool) = publisher(ANY, options);
    let uri = address(&publisher, "tcp");
    let asked = SubscriberOptions { credits: Some(5), ..SubscriberOptions::default() };
    let hoarder = subscriber(&uri, asked);
    assert_eq!(hoarder.welcome().map(|welcome| welcome.credits), Some(5));
    let healthy = subscriber(&uri, SubscriberOptions::default());
    assert!(publisher.wait_for_subscribers(2, PATIENCE));
    let mut hoard = Vec::new();
    for number in 0..300 {
        publisher.publish(&stamped(&pool, number, SIZE)).expect("published");
        assert_eq!(check(&healthy.next_frame(PATIENCE).expect("frame")), Ok(number));
        while let Ok(frame) = hoarder.next_frame(Some(Duration::ZERO)) {
            hoard.push(frame);
        }
    }
    eventually("it holds its window", || {
        hoard.extend(hoarder.next_frame(Some(Duration::from_millis(10))));
        hoard.len() >= 5
    });
    assert!(hoarder.next_frame(Some(Duration::from_millis(100))).is_err(), "no more than its window");
    let numbers: HashSet<u64> = hoard.iter().map(|frame| check(frame).expect("whole")).collect();
    assert_eq!(numbers.len(), 5, "what it holds is not overwritten");
    assert!(pool.figures().buffers < 40, "{:?}", pool.figures());
    hoard.clear();
    publisher.publish(&stamped(&pool, 1000, SIZE)).expect("published");
    eventually("it is served again", || {
        let frame = hoarder.next_frame(Some(Duration::from_millis(100)));
        frame.is_ok_and(|frame| check(&frame) == Ok(1000))
    });
}

#[test]
fn frames_outlive_the_link_and_another_life_is_seen() {
    let (first, pool) = publisher(ANY, PublisherOptions::default());
    let uri = address(&first, "tcp");
    let subscriber = subscriber(&uri, SubscriberOptions::default());
    assert!(first.wait_for_subscribers(1, PATIENCE));
    first.publish(&stamped(&pool, 1, SIZE)).expect("published");
    let kept = subscriber.next_frame(PATIENCE).expect("frame");
    let epoch = subscriber.figures().epoch;
    drop((first, pool));
    match subscriber.recv(PATIENCE) {
        Ok(Message::Disconnected(_)) => {}
        other => panic!("still there: {other:?}"),
    }
    let (second, pool) = publisher(&uri, PublisherOptions::default());
    match subscriber.recv(PATIENCE) {
        Ok(Message::Connected(_)) => {}
        other => panic!("not again: {other:?}"),
    }
    assert_ne!(subscriber.figures().epoch, epoch);
    assert!(second.wait_for_subscribers(1, PATIENCE));
    for number in 2..40 {
        second.publish(&stamped(&pool, number, SIZE)).expect("published");
        assert_eq!(check(&subscriber.next_frame(PATIENCE).expect("frame")), Ok(number));
    }
    assert_eq!(check(&kept), Ok(1), "a frame of the old life stays valid");
    drop(subscriber);
    assert_eq!(check(&kept), Ok(1), "and outlives its subscriber");
    eventually("its going is noticed", || second.subscribers() == 0);
}

#[test]
fn what_was_published_before_the_end_arrives() {
    let (publisher, pool) = publisher(ANY, patient());
    let subscriber = subscriber(&address(&publisher, "tcp"), SubscriberOptions::default());
    assert!(publisher.wait_for_subscribers(1, PATIENCE));
    for number in 0..6 {
        publisher.publish(&stamped(&pool, number, 4_000_000)).expect("published");
    }
    publisher.publish_event("eos", &[]).expect("an event");
    publisher.close(Duration::from_secs(30));
    drop(publisher);
    for number in 0..6 {
        assert_eq!(check(&subscriber.next_frame(PATIENCE).expect("frame")), Ok(number));
    }
    assert!(matches!(subscriber.next_frame(PATIENCE), Err(RecvError::Closed)));
}

#[test]
fn the_subscriber_may_be_the_one_that_listens() {
    let place = Place::new();
    // The one that is free now is free a moment later, as far as one can know.
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
    let ends = format!("{} tcp://127.0.0.1:{port}?mode=connect", place.uri("a"));
    let (publisher, pool) = publisher(&ends, patient());
    for _ in 0..2 {
        let listening = format!("tcp://127.0.0.1:{port}?mode=listen");
        let subscriber = Subscriber::open(&listening, SubscriberOptions::default()).expect("a subscriber");
        assert!(matches!(subscriber.recv(PATIENCE), Ok(Message::Connected(_))));
        assert!(publisher.wait_for_subscribers(1, PATIENCE));
        for number in 0..20 {
            publisher.publish(&stamped(&pool, number, SIZE)).expect("published");
            assert_eq!(check(&subscriber.next_frame(PATIENCE).expect("frame")), Ok(number));
        }
        drop(subscriber);
        eventually("its going is noticed", || publisher.subscribers() == 0);
    }
}

#[test]
fn a_frame_that_does_not_fit_the_subscribers_pool_is_said() {
    let (publisher, pool) = publisher(ANY, PublisherOptions::default());
    let small = PoolOptions { limit: 1 << 20, ..PoolOptions::default() };
    let options = SubscriberOptions { pool: small, ..SubscriberOptions::default() };
    let subscriber = subscriber(&address(&publisher, "tcp"), options);
    assert!(publisher.wait_for_subscribers(1, PATIENCE));
    publisher.publish(&stamped(&pool, 1, 1 << 20)).expect("published");
    assert_eq!(check(&subscriber.next_frame(PATIENCE).expect("frame")), Ok(1));
    publisher.publish(&stamped(&pool, 2, (1 << 20) + 1)).expect("published");
    match subscriber.recv(PATIENCE) {
        Ok(Message::Disconnected(why)) => assert!(why.contains("pool-limit"), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn other_hosts_need_to_be_allowed() {
    for uri in ["tcp://0.0.0.0:0", "tcp://[::]:0"] {
        let error = Publisher::open(uri, PublisherOptions::default()).expect_err("clear text");
        assert!(error.to_string().contains("insecure"), "{error}");
    }
    // An address of documentation, where nobody is: it is not even tried.
    let subscriber = Subscriber::open("tcp://192.0.2.1", SubscriberOptions::default()).expect("a subscriber");
    match subscriber.recv(PATIENCE) {
        Err(RecvError::Remote { reason, .. }) => assert!(reason.contains("insecure"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_not_there_is_said() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = format!("tcp://{}", listener.local_addr().expect("its address"));
    let error = Publisher::open(&taken, PublisherOptions::default()).expect_err("taken");
    assert!(error.to_string().contains("cannot listen"), "{error}");
    drop(listener);
    let options = SubscriberOptions { reconnect: false, ..SubscriberOptions::default() };
    match Subscriber::open(&taken, options).expect("a subscriber").recv(PATIENCE) {
        Err(RecvError::Remote { reason, .. }) => assert!(reason.contains("refused"), "{reason}"),
        other => panic!("{other:?}"),
    }
    let error = Publisher::open("tcp://127.0.0.1:0?from=127.0.0.1", PublisherOptions::default());
    assert!(error.expect_err("it does not connect").to_string().contains("from=ADDRESS"));
}

#[test]
fn a_connection_leaves_from_where_it_is_told_to() {
    let (publisher, _pool) = publisher(ANY, PublisherOptions::default());
    let uri = format!("{}?from=127.0.0.9", address(&publisher, "tcp"));
    let _subscriber = subscriber(&uri, SubscriberOptions::default());
    assert!(publisher.wait_for_subscribers(1, PATIENCE));
    let peer = publisher.info().subscribers[0].peer.clone().expect("an address");
    assert!(peer.starts_with("127.0.0.9:"), "{peer}");
}

#[test]
fn a_remote_link_without_rdma_is_tcp_and_both_ends_say_so() {
    // No RDMA device has the address of the loopback.
    let (publisher, pool) = publisher("remote://127.0.0.1:0", patient());
    let uri = address(&publisher, "remote");
    let either = subscriber(&uri, SubscriberOptions::default());
    let tcp = subscriber(&uri.replace("remote", "tcp"), SubscriberOptions::default());
    assert!(publisher.wait_for_subscribers(2, PATIENCE));
    for number in 0..20 {
        publisher.publish(&stamped(&pool, number, SIZE)).expect("published");
        assert_eq!(check(&either.next_frame(PATIENCE).expect("frame")), Ok(number));
        assert_eq!(check(&tcp.next_frame(PATIENCE).expect("frame")), Ok(number));
    }
    let figures = either.figures().remote.expect("figures of the link");
    assert_eq!(figures.transport, "tcp");
    assert!(figures.fallback.is_some_and(|why| why.contains("tcp instead of rdma")));
    assert_eq!(tcp.figures().remote.expect("figures of the link").fallback, None);
    let info = publisher.info();
    assert!(info.subscribers.iter().all(|s| s.transport == "tcp"), "{info:?}");
    assert_eq!(info.publisher.fallbacks.iter().filter(|f| f.contains("tcp instead of rdma")).count(), 1);
}

#[test]
fn without_an_rdma_device_that_is_said_and_nothing_else_is_tried() {
    // No RDMA device has the address of the loopback.
    let error = Publisher::open("rdma://127.0.0.1:0", PublisherOptions::default()).expect_err("no device");
    let says_what_to_do = |text: &str| {
        let remedies = ["`rdma link`", "install "];
        text.contains("rdma://") && text.contains("tcp://") && remedies.iter().any(|word| text.contains(word))
    };
    assert!(says_what_to_do(&error.to_string()), "{error}");
    let (publisher, _pool) = publisher(ANY, PublisherOptions::default());
    let uri = address(&publisher, "tcp").replace("tcp", "rdma");
    let opened = Subscriber::open(&uri, SubscriberOptions::default());
    let error = opened.and_then(|subscriber| subscriber.recv(PATIENCE).map(drop)).expect_err("no device");
    assert!(says_what_to_do(&error.to_string()), "{error}");
    assert_eq!(publisher.info().subscribers.len(), 0);
}

#[test]
fn a_relay_crosses_once_and_serves_both_kinds() {
    let place = Place::new();
    let (publisher, pool) = publisher(ANY, patient());
    let ends = format!("{} {ANY}", place.uri("leaves"));
    let mut options = RelayOptions::default();
    options.publisher.block_deadline = None;
    let relay = Arc::new(Relay::open(&address(&publisher, "tcp"), &ends, options).expect("a relay"));
    let uris = relay.publisher().info().uri;
    let runs = relay.clone();
    let thread = std::thread::spawn(move || runs.run());
    assert!(publisher.wait_for_subscribers(1, PATIENCE));
    eventually("it knows that upstream waits", || relay.subscriber().welcome().is_some());
    let leaves: Vec<Peer> = uris.split(' ').map(|uri| Peer::start(PEER, &["subscriber", uri])).collect();
    assert!(relay.publisher().wait_for_subscribers(2, PATIENCE));
    for number in 0..200 {
        publisher.publish(&stamped(&pool, number, SIZE)).expect("published");
    }
    for leaf in &leaves {
        leaf.try_follow(200).unwrap_or_else(|error| panic!("{error}"));
    }
    assert_eq!(publisher.info().subscribers.len(), 1, "what leaves the host leaves it once");
    relay.stop();
    thread.join().expect("the relay's thread").expect("no error");
}

#[test]
fn who_reads_late_still_gets_all_that_came_before_the_end() {
    let (publisher, pool) = publisher(ANY, patient());
    let options = SubscriberOptions { credits: Some(64), ..SubscriberOptions::default() };
    let subscriber = subscriber(&address(&publisher, "tcp"), options);
    assert!(publisher.wait_for_subscribers(1, PATIENCE));
    for number in 0..30 {
        publisher.publish(&stamped(&pool, number, 20_000)).expect("published");
    }
    publisher.publish_event("eos", b"").expect("an event");
    let closing = std::thread::spawn(move || publisher.close(Duration::from_secs(8)));
    std::thread::sleep(Duration::from_millis(300));
    // More buffers than may be under way unseen are held all the time.
    let mut held = Vec::new();
    loop {
        match subscriber.recv(PATIENCE).expect("a message") {
            Message::Frame(frame) => {
                assert_eq!(check(&frame), Ok(held.len() as u64));
                held.push(frame);
            }
            Message::Event(event) => {
                assert_eq!((event.name.as_str(), held.len()), ("eos", 30));
                break;
            }
            _ => {}
        }
    }
    closing.join().expect("closed");
}

#[test]
fn a_burst_of_small_frames_waits_for_nobody() {
    let (publisher, pool) = publisher(ANY, patient());
    let options = SubscriberOptions { credits: Some(64), ..SubscriberOptions::default() };
    let subscriber = subscriber(&address(&publisher, "tcp"), options);
    assert!(publisher.wait_for_subscribers(1, PATIENCE));
    let begun = std::time::Instant::now();
    let sending = std::thread::spawn(move || {
        (0..200).for_each(|number| publisher.publish(&stamped(&pool, number, 2000)).expect("published"));
        publisher
    });
    // Nothing is returned meanwhile, so nothing from here wakes the other end.
    let held: Vec<_> = (0..200).map(|_| subscriber.next_frame(PATIENCE).expect("a frame")).collect();
    assert!(held.iter().enumerate().all(|(number, frame)| check(frame) == Ok(number as u64)));
    // With a heartbeat for every two frames it would be a minute and more.
    assert!(begun.elapsed() < Duration::from_secs(45), "{:?}", begun.elapsed());
    drop(sending.join().expect("published"));
}
