//! Subscribers on other hosts, as far as one host can show them: over the loopback, in processes of their own.

use std::time::Duration;

use pagecast::{Pool, PoolOptions, Publisher, PublisherOptions};
use pagecast_tests::peers::Peer;
use pagecast_tests::{Place, stamped};

const PEER: &str = env!("CARGO_BIN_EXE_pagecast-peer");
const ANY: &str = "tcp://127.0.0.1:0";
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

fn not_live() -> PublisherOptions {
    PublisherOptions { live: false, block_deadline: None, ..PublisherOptions::default() }
}

#[test]
fn local_and_remote_subscribers_get_every_frame_whole() {
    let place = Place::new();
    let (publisher, pool) = publisher(&format!("{} {ANY}", place.uri("a")), not_live());
    publisher.set_caps("application/x-test").expect("caps");
    let peers: Vec<Peer> = ["unix", "unix", "tcp", "tcp"]
        .iter()
        .map(|scheme| Peer::start(PEER, &["subscriber", &address(&publisher, scheme)]))
        .collect();
    assert!(publisher.wait_for_subscribers(4, PATIENCE));
    for number in 0..500 {
        publisher.publish(&stamped(&pool, number, 300_000 + number as usize * 7)).expect("published");
    }
    for peer in &peers {
        peer.try_follow(500).unwrap_or_else(|error| panic!("{error}"));
    }
    let info = publisher.info();
    let transports: Vec<&str> = info.subscribers.iter().map(|s| s.transport.as_str()).collect();
    assert_eq!(transports.iter().filter(|transport| **transport == "tcp").count(), 2, "{info:?}");
    assert!(info.subscribers.iter().all(|s| s.frames == 500 && s.dropped == 0), "{info:?}");
    assert!(pool.figures().buffers < 60, "{:?}", pool.figures());
}
