//! Frames on links to other hosts that are as large, as small or as much described as they may be.

use std::process::Command;
use std::time::Duration;

use pagecast::remote::AllowList;
use pagecast::verbs::{Verbs, counters};
use pagecast::{
    BackingChoice, Description, Frame, FrameError, Message, Meta, Pool, PoolOptions, Publisher,
    PublisherOptions, RemoteOptions, Subscriber, SubscriberOptions,
};
use pagecast_tests::peers::Peer;
use pagecast_tests::{PAGE, Place, check, eventually, skip, stamp, stamped};

const PEER: &str = env!("CARGO_BIN_EXE_pagecast-peer");
const ANY: &str = "tcp://127.0.0.1:0";
const PATIENCE: Option<Duration> = Some(Duration::from_secs(60));
const GIB: usize = 1 << 30;

fn publisher(uri: &str) -> Publisher {
    publisher_with(uri, RemoteOptions::default())
}

/// Nobody loses anything: the producer waits.
fn publisher_with(uri: &str, remote: RemoteOptions) -> Publisher {
    let options = PublisherOptions {
        live: false,
        block_deadline: None,
        limit: 16 << 30,
        remote,
        ..PublisherOptions::default()
    };
    Publisher::open(uri, options).expect("a publisher")
}

fn address(publisher: &Publisher) -> String {
    let uri = publisher.info().uri;
    uri.split_whitespace().find(|uri| uri.starts_with("tcp")).expect("such an address").to_owned()
}

fn subscriber(uri: &str) -> Subscriber {
    subscriber_with(uri, SubscriberOptions::default())
}

fn subscriber_with(uri: &str, options: SubscriberOptions) -> Subscriber {
    let subscriber = Subscriber::open(uri, options).expect("a subscriber");
    match subscriber.recv(PATIENCE) {
        Ok(Message::Connected(_)) => subscriber,
        other => panic!("not connected: {other:?}"),
    }
}

fn next(subscriber: &Subscriber) -> Frame {
    loop {
        match subscriber.recv(PATIENCE).expect("a message") {
            Message::Frame(frame) => return frame,
            Message::Disconnected(why) => panic!("disconnected: {why}"),
            _ => {}
        }
    }
}

/// A frame of nothing but a meta; its name counts, too.
fn described(bytes: usize) -> Result<Frame, FrameError> {
    let meta = Meta { name: "m".to_owned(), data: (0..bytes - 1).map(|at| at as u8).collect() };
    Frame::builder().describe(Description { metas: vec![meta], ..Description::default() }).build()
}

#[test]
fn metas_of_64_kib_pass_on_every_link_and_one_byte_more_is_refused_in_words() {
    let place = Place::new();
    let publisher = publisher(&format!("{} {ANY}", place.uri("a")));
    let subscribers = [subscriber(&place.uri("a")), subscriber(&address(&publisher))];
    assert!(publisher.wait_for_subscribers(2, PATIENCE));
    let largest = described(64 << 10).expect("at the limit");
    for _ in 0..3 {
        publisher.publish(&largest).expect("published");
        for subscriber in &subscribers {
            assert_eq!(next(subscriber).description().metas, largest.description().metas);
        }
    }
    let error = described((64 << 10) + 1).expect_err("over the limit").to_string();
    assert!(error.contains("meta bytes") && error.contains("65536") && error.contains("65537"), "{error}");
}

/// Bytes that can be had without pushing others out.
fn available() -> usize {
    let text = std::fs::read_to_string("/proc/meminfo").expect("meminfo");
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10
}

/// So many segments of `each` bytes, of a few buffers in turn; each buffer has stamps of its own.
fn of_segments(pool: &Pool, count: usize, each: usize) -> Frame {
    let leases: Vec<_> = (0..3)
        .map(|which| {
            let mut lease = pool.acquire(each).expect("a buffer");
            for (page, bytes) in lease.as_mut_slice()[..each].chunks_mut(PAGE).enumerate() {
                bytes[..8].copy_from_slice(&stamp(which, page as u64).to_le_bytes());
            }
            lease
        })
        .collect();
    let frame = (0..count).fold(Frame::builder(), |frame, at| {
        frame.segment(leases[at % leases.len()].buffer().clone(), 0, each)
    });
    frame.owner(leases).build().expect("a frame")
}

/// The first page that is not where it belongs.
fn wrong_page(frame: &Frame, each: usize) -> Option<usize> {
    let guard = frame.read().expect("readable");
    let wrong = (0..frame.size() / PAGE).find(|page| {
        let mut bytes = [0; 8];
        guard.copy_to(page * PAGE, &mut bytes).expect("within the frame");
        let (segment, within) = (page * PAGE / each, (page * PAGE % each) / PAGE);
        u64::from_le_bytes(bytes) != stamp(segment as u64 % 3, within as u64)
    });
    guard.finish().expect("valid");
    wrong
}

#[test]
fn a_frame_of_1_gib_in_16_segments_arrives_whole_and_a_larger_one_is_left_out() {
    if available() < 4 * GIB {
        return skip("4 GiB of free memory needed");
    }
    let publisher = publisher(ANY);
    let pool = Pool::new(PoolOptions { backing: BackingChoice::Memfd, ..PoolOptions::default() });
    publisher.set_pool(&pool);
    let subscriber = subscriber(&address(&publisher));
    assert!(publisher.wait_for_subscribers(1, PATIENCE));
    let each = GIB / 16;
    publisher.publish(&of_segments(&pool, 16, each)).expect("published");
    let frame = next(&subscriber);
    assert_eq!((frame.size(), wrong_page(&frame, each)), (GIB, None));
    assert_eq!(frame.segments().iter().map(|segment| segment.length).collect::<Vec<_>>(), [each; 16]);
    // The check would see it: in other segments these bytes are others.
    assert!(wrong_page(&frame, each / 2).is_some());
    let first = frame.id();
    drop(frame);
    pool.trim();

    // One byte more is for this host only; the link lives on.
    let large = of_segments(&pool, 16, each);
    let last = pool.acquire(each + 1).expect("a buffer");
    let mut builder = Frame::builder();
    for segment in &large.segments()[..15] {
        builder = builder.segment(segment.buffer.clone(), 0, each);
    }
    builder = builder.segment(last.buffer().clone(), 0, each + 1).owner((large, last));
    publisher.publish(&builder.build().expect("a frame")).expect("published");
    publisher.publish(&stamped(&pool, 7, 5000)).expect("published");
    let small = next(&subscriber);
    assert_eq!((check(&small), small.id()), (Ok(7), first + 2));
    eventually("what was left out is the publisher's again", || {
        publisher.info().subscribers.iter().all(|subscriber| subscriber.held <= 1)
    });
}

/// Of these the first is a publisher's, the second a subscriber's.
const RXE: [&str; 2] = ["10.77.0.1", "10.77.0.2"];

/// That such frames are split where a port's messages are smaller is shown over the fake device: here a message has 2 GiB.
#[test]
fn frames_of_64_mb_in_segments_go_by_rdma() {
    let found = Verbs::open().map_err(|error| error.to_string()).and_then(|verbs| {
        let address = RXE[0].parse().expect("an address");
        verbs.device_for(address).map(drop).map_err(|error| error.to_string())
    });
    if let Err(why) = found {
        return skip(&why);
    }
    let each = 21 << 20;
    let networks = AllowList::parse("10.77.0.0/24").expect("a network");
    let remote = RemoteOptions { networks, insecure: true, ..RemoteOptions::default() };
    let publisher = publisher_with(&format!("rdma://{}:0", RXE[0]), remote.clone());
    let pool = Pool::new(PoolOptions { backing: BackingChoice::Memfd, ..PoolOptions::default() });
    publisher.set_pool(&pool);
    let uri = publisher.info().uri;
    let options = SubscriberOptions { remote, ..SubscriberOptions::default() };
    let subscriber = subscriber_with(&format!("{uri}?from={}", RXE[1]), options);
    assert!(publisher.wait_for_subscribers(1, PATIENCE));
    let before = counters::read("rxe1", 1).expect("counters")["rcvd_pkts"];
    for _ in 0..2 {
        publisher.publish(&of_segments(&pool, 3, each)).expect("published");
        let frame = next(&subscriber);
        assert_eq!((frame.size(), wrong_page(&frame, each)), (3 * each, None));
    }
    let packets = counters::read("rxe1", 1).expect("counters")["rcvd_pkts"] - before;
    assert!(packets as usize >= 2 * 3 * each / 4096, "{packets} packets");
}

/// TCP segments with data that whoever accepted the connection at `address` has sent, as the kernel counts them.
fn segments_sent(address: &str) -> u64 {
    let local = address.trim_start_matches("tcp://");
    let output = Command::new("ss").args(["-tinH", "src", local]).output().expect("ss");
    let text = String::from_utf8(output.stdout).expect("text");
    text.split_whitespace().filter_map(|word| word.strip_prefix("data_segs_out:")?.parse::<u64>().ok()).sum()
}

#[test]
fn small_frames_travel_together_and_large_ones_do_not_wait() {
    const FRAMES: u64 = 2000;
    let sent_for = |size: usize| {
        let options = [format!("size={size}"), "live=false".to_owned(), "block_deadline=60000".to_owned()];
        let mut arguments = vec!["publisher".to_owned(), ANY.to_owned(), "policy=block".to_owned()];
        arguments.extend(options);
        let mut publisher = Peer::start(PEER, &arguments);
        let uri = publisher.expect("ready ").trim().to_owned();
        let subscriber = Peer::start(PEER, &["subscriber", &uri]);
        subscriber.expect("connected");
        let before = segments_sent(&uri);
        publisher.say(&format!("publish {FRAMES}"));
        subscriber.try_follow(FRAMES).expect("every frame, whole");
        segments_sent(&uri) - before
    };
    let small = sent_for(200);
    assert!((1..FRAMES / 4).contains(&small), "{small} segments for {FRAMES} small frames");
    // The control: of what fills a segment each has its own.
    let large = sent_for(70_000);
    assert!(large >= FRAMES, "{large} segments for {FRAMES} large frames");
}
