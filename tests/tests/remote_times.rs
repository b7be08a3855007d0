//! Times between hosts, as far as one host can show them: a process in a time namespace has another
//! `CLOCK_MONOTONIC`. What a link's figures say is compared with what a proxy counted.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pagecast::clock::monotonic_ns;
use pagecast::publisher::SubscriberInfo;
use pagecast::{Clock, Description, Frame, Pool, PoolOptions, Publisher, PublisherOptions};
use pagecast_tests::peers::Peer;
use pagecast_tests::{Place, eventually, skip, stamped};

const PEER: &str = env!("CARGO_BIN_EXE_pagecast-peer");
const ANY: &str = "tcp://127.0.0.1:0";
const SECOND: u64 = 1_000_000_000;
/// The other host was started so much earlier.
const SKEW: u64 = 1_000_000;
const PATIENCE: Option<Duration> = Some(Duration::from_secs(30));

fn publisher(uri: &str) -> (Publisher, Pool) {
    let options = PublisherOptions { live: false, block_deadline: None, ..PublisherOptions::default() };
    let pool = Pool::new(PoolOptions::default());
    let publisher = Publisher::open(uri, options).expect("a publisher");
    publisher.set_pool(&pool);
    (publisher, pool)
}

fn address(publisher: &Publisher, scheme: &str) -> String {
    let uri = publisher.info().uri;
    uri.split_whitespace().find(|uri| uri.starts_with(scheme)).expect("such an address").to_owned()
}

/// A process whose clock is [`SKEW`] seconds ahead; `None` where that cannot be had.
fn elsewhere(uri: &str) -> Option<Peer> {
    let skew = SKEW.to_string();
    let peer = Peer::start("unshare", &["--time", "--monotonic", &skew, PEER, "times", uri]);
    let Ok(now) = peer.try_expect("now") else {
        skip("no time namespace can be made");
        return None;
    };
    let ahead = now.parse::<u64>().expect("a time").saturating_sub(monotonic_ns());
    if ahead < (SKEW - 60) * SECOND {
        skip("processes do not start in a new time namespace");
        return None;
    }
    peer.expect("connected");
    Some(peer)
}

/// Numbers on one line.
fn numbers(line: &str) -> Vec<Option<u64>> {
    line.split_whitespace().map(|word| word.parse().ok()).collect()
}

/// A frame that was captured a second ago.
fn captured(pool: &Pool, number: u64) -> (Frame, u64) {
    let captured = monotonic_ns() - SECOND;
    let mut description = Description { offset: Some(number), ..Description::default() };
    description.times.captured = Some(captured);
    let lease = pool.acquire(100).expect("a buffer");
    (Frame::builder().describe(description).lease(lease, 100).build().expect("a frame"), captured)
}

fn figures(peer: &mut Peer) -> serde_json::Value {
    peer.say("figures");
    serde_json::from_str(&peer.expect("figures")).expect("JSON")
}

#[test]
fn times_of_another_hosts_clock_are_brought_here_as_well_as_is_said() {
    let (publisher, pool) = publisher(ANY);
    publisher.set_clock(Clock {
        monotonic: monotonic_ns(),
        running: None,
        latency_min: 0,
        latency_max: None,
    });
    let Some(mut peer) = elsewhere(&address(&publisher, "tcp")) else { return };
    let there = |here: u64| here + SKEW * SECOND;
    for number in 0..50 {
        let (frame, captured) = captured(&pool, number);
        let before = monotonic_ns();
        publisher.publish(&frame).expect("published");
        let after = monotonic_ns();
        let line = numbers(&peer.expect(&format!("frame {number} ")));
        let [Some(published), Some(came_from), Some(uncertainty)] = line[..] else {
            panic!("frame {number}: {line:?}");
        };
        assert!(uncertainty < SECOND, "{uncertainty}");
        let within = |time: u64, least: u64, most: u64| {
            time + uncertainty >= there(least) && time <= there(most) + uncertainty
        };
        assert!(within(published, before, after), "{published} {before} {after} {uncertainty}");
        assert!(within(came_from, captured, captured), "{came_from} {captured} {uncertainty}");
        std::thread::sleep(Duration::from_millis(10));
    }
    let clock = numbers(&peer.expect("clock"));
    let ahead = i128::from(clock[0].expect("a time")) - i128::from(there(monotonic_ns()));
    assert!(ahead.unsigned_abs() < 60 * u128::from(SECOND), "{clock:?}");
    let figures = figures(&mut peer);
    assert!(figures["latency_us"]["max"].as_f64().is_some_and(|max| max < 30e6), "{figures}");
    assert!(figures["uncertainty_us"].as_f64().is_some_and(|known| known > 0.0 && known < 1e6), "{figures}");
}

/// The control: a link that takes the other clock for its own.
#[test]
fn a_link_that_knows_one_clock_only_is_wrong_by_the_whole_skew() {
    let place = Place::new();
    let (publisher, pool) = publisher(&place.uri("a"));
    let Some(mut peer) = elsewhere(&address(&publisher, "unix")) else { return };
    publisher.publish(&stamped(&pool, 0, 100)).expect("published");
    peer.expect("frame 0 ");
    let figures = figures(&mut peer);
    assert!(figures["latency_us"]["p50"].as_f64().is_some_and(|p50| p50 > 59e6), "{figures}");
    assert_eq!(figures["uncertainty_us"], 0.0, "{figures}");
}

/// Passes everything on, and counts what goes from the publisher to the subscriber.
fn proxy(to: String) -> (String, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let uri = format!("tcp://{}", listener.local_addr().expect("its address"));
    let counted = Arc::new(AtomicU64::new(0));
    let counts = counted.clone();
    std::thread::spawn(move || {
        let (near, _) = listener.accept().expect("a subscriber");
        let far = TcpStream::connect(to).expect("the publisher");
        let (up_from, up_to) = (near.try_clone().expect("a clone"), far.try_clone().expect("a clone"));
        std::thread::spawn(move || pump(up_from, up_to, &AtomicU64::new(0)));
        pump(far, near, &counts);
    });
    (uri, counted)
}

fn pump(mut from: TcpStream, mut to: TcpStream, counted: &AtomicU64) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        counted.fetch_add(count as u64, Ordering::SeqCst);
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

fn remote(publisher: &Publisher) -> SubscriberInfo {
    let info = publisher.info();
    info.subscribers.into_iter().find(|s| s.transport == "tcp").expect("a remote subscriber")
}

#[test]
fn both_ends_tell_what_a_link_costs() {
    const SIZE: usize = 100_000;
    const FRAMES: u64 = 40;
    let (publisher, pool) = publisher(ANY);
    let (uri, counted) = proxy(address(&publisher, "tcp").trim_start_matches("tcp://").to_owned());
    let mut peer = Peer::start(PEER, &["times", &uri]);
    assert!(publisher.wait_for_subscribers(1, PATIENCE));
    for number in 0..FRAMES {
        publisher.publish(&stamped(&pool, number, SIZE)).expect("published");
    }
    peer.try_follow(FRAMES).expect("followed");
    eventually("all came back", || remote(&publisher).held == 0);
    let least = FRAMES * SIZE as u64;
    eventually("the publisher's end counts what the proxy counted", || {
        let before = counted.load(Ordering::SeqCst);
        let told = remote(&publisher).wire_bytes;
        // Heartbeats go on, and are counted after they have passed.
        let after = counted.load(Ordering::SeqCst);
        told.is_some_and(|told| (before..=after + 64).contains(&told) && told > least)
    });
    let told = remote(&publisher);
    assert_eq!((told.credits, told.frames), (8, FRAMES), "{told:?}");
    let per_frame = told.wire_bytes.expect("counted") as f64 / FRAMES as f64 - SIZE as f64;
    assert!(per_frame > 100.0 && per_frame < 400.0, "{per_frame} bytes beside each frame's own");
    eventually("the publisher knows the round trip", || {
        remote(&publisher).rtt_us.is_some_and(|rtt| rtt.least > 0.0 && rtt.last >= rtt.least)
    });
    let figures = figures(&mut peer);
    let link = &figures["remote"];
    assert_eq!(
        (figures["transport"].as_str(), figures["credits"].as_u64()),
        (Some("tcp"), Some(8)),
        "{figures}"
    );
    assert!(link["wire_bytes"].as_u64().is_some_and(|bytes| bytes > least), "{figures}");
    assert!(link["rtt_us"]["least"].as_f64().is_some_and(|rtt| rtt > 0.0), "{figures}");
    assert!(link["peer"].as_str().is_some_and(|peer| uri.ends_with(peer)), "{figures} {uri}");
}
