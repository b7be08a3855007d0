//! `rdma://`: subscribers whose frames come by RDMA, beside all others. It needs the testbed's two RDMA devices; elsewhere
//! each test is skipped.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use pagecast::ipc::wire::RefusalCode;
use pagecast::remote::{AllowList, Identity};
use pagecast::verbs::{Verbs, counters};
use pagecast::{
    BackingChoice, Pool, PoolOptions, Publisher, PublisherOptions, RecvError, Relay, RelayOptions,
    RemoteOptions, Subscriber, SubscriberOptions,
};
use pagecast_tests::ids::Ids;
use pagecast_tests::peers::Peer;
use pagecast_tests::testbed::{OTHER, OWN, Trouble, run, testbed};
use pagecast_tests::{Place, eventually, proc, spoilt, stamped};

const PEER: &str = env!("CARGO_BIN_EXE_pagecast-peer");
const PATIENCE: Option<Duration> = Some(Duration::from_secs(60));
/// A frame with many blocks, and a bit.
const SIZE: usize = (4 << 20) + 1000;
const BUFFERS: usize = 16;

/// Nobody loses anything, and other hosts may come.
fn options() -> PublisherOptions {
    let networks = AllowList::parse("10.77.0.0/24").expect("a network");
    let remote = RemoteOptions { networks, insecure: true, ..RemoteOptions::default() };
    PublisherOptions { live: false, block_deadline: None, remote, ..PublisherOptions::default() }
}

/// A publisher with a pool that does not grow.
fn publisher(uri: &str) -> (Publisher, Pool) {
    // Of huge pages there may be too few for all.
    let memory = PoolOptions { backing: BackingChoice::Memfd, ..PoolOptions::default() };
    let class = Pool::new(memory.clone()).footprint(SIZE);
    let options = PublisherOptions { limit: (BUFFERS * class) as u64, ..options() };
    let pool = Pool::new(PoolOptions { limit: options.limit, ..memory });
    pool.populate(SIZE, BUFFERS).expect("buffers");
    let publisher = Publisher::open(uri, options).expect("a publisher");
    publisher.set_pool(&pool);
    (publisher, pool)
}

/// A subscriber's process; what comes to it over the network comes through the other interface.
fn subscriber(uri: &str) -> Peer {
    let from = if uri.starts_with("unix:") { String::new() } else { format!("?from={OTHER}") };
    let peer = Peer::start(PEER, &["subscriber", &format!("{uri}{from}"), "insecure=true"]);
    peer.expect("connected");
    peer
}

fn addresses(publisher: &Publisher) -> Vec<String> {
    publisher.info().uri.split_whitespace().map(str::to_owned).collect()
}

/// The registrations that the kernel knows of, in its own words: those of one device.
fn registrations(device: &str) -> Vec<String> {
    let mut lines: Vec<String> = run("rdma resource show mr")
        .lines()
        .filter(|line| line.contains(&format!("dev {device} ")))
        .map(str::to_owned)
        .collect();
    lines.sort_unstable();
    lines
}

/// Bytes that this process has sent on connections it accepted at an address, as the kernel counts them.
fn sent_at(uri: &str) -> u64 {
    proc::tcp_bytes_sent(
        uri.rsplit_once("//").and_then(|(_, address)| address.parse().ok()).expect("an address"),
    )
}

/// What has gone over a device, in packets.
#[derive(Clone, Copy, Debug)]
struct Moved {
    sent: u64,
    received: u64,
}

fn moved() -> Moved {
    let count = |device, name: &str| counters::read(device, 1).expect("counters")[name];
    Moved { sent: count("rxe0", "sent_pkts"), received: count("rxe1", "rcvd_pkts") }
}

/// Whether so many bytes can have gone from one device to the other since.
fn carried(verbs: &Verbs, before: Moved, bytes: u64) -> Result<(), String> {
    let (device, gid) = verbs.device_for(IpAddr::V4(OWN)).expect("a device");
    let packets = bytes / u64::from(device.port(gid.port).expect("a port").mtu.bytes());
    let now = moved();
    let (sent, received) = (now.sent - before.sent, now.received - before.received);
    if sent >= packets && received >= packets {
        return Ok(());
    }
    Err(format!("{sent} packets sent and {received} received, {packets} are needed"))
}

#[test]
fn local_rdma_and_tcp_processes_get_every_frame_at_once() {
    const FRAMES: u64 = 24;
    let Some(testbed) = testbed() else { return };
    let place = Place::new();
    let (publisher, pool) = publisher(&format!("{} rdma://{OWN}:0 tcp://{OWN}:0", place.uri("a")));
    let [local, rdma, tcp] = &addresses(&publisher)[..] else { panic!("three addresses") };
    let before = moved();
    let peers: Vec<Peer> = [local, rdma, tcp, rdma, local].iter().map(|uri| subscriber(uri)).collect();
    assert!(publisher.wait_for_subscribers(5, PATIENCE));
    let at_first = registrations("rxe0");
    assert_eq!(at_first.len(), BUFFERS, "the pool, before its first frame: {at_first:?}");
    let length = format!("mrlen {} ", pool.footprint(SIZE));
    assert!(at_first.iter().all(|line| line.contains(&length)), "{length}: {at_first:?}");
    for number in 0..FRAMES {
        publisher.publish(&stamped(&pool, number, SIZE)).expect("published");
        if number % 8 == 7 {
            assert_eq!(registrations("rxe0"), at_first, "registrations while frames flow");
        }
    }
    for peer in &peers {
        peer.try_follow(FRAMES).unwrap_or_else(|error| panic!("{error}; {:?}", publisher.info()));
    }
    let info = publisher.info();
    let by = |transport: &str| info.subscribers.iter().filter(|s| s.transport == transport).count();
    assert_eq!((by("unix"), by("rdma"), by("tcp")), (2, 2, 1), "{info:?}");
    assert!(info.subscribers.iter().all(|s| s.frames == FRAMES && s.dropped == 0), "{info:?}");
    assert_eq!(info.publisher.registrations, BUFFERS as u64);
    let bytes = FRAMES * SIZE as u64;
    carried(&testbed.verbs, before, 2 * bytes).unwrap_or_else(|error| panic!("{error}"));
    let (control, all) = (sent_at(rdma), sent_at(tcp));
    assert!(control > 0 && control < 1 << 20, "{control} bytes beside {bytes} that went by RDMA");
    assert!(all > bytes, "{all} bytes on a connection that carries the frames themselves");
    drop(peers);
    eventually("their going is noticed", || publisher.subscribers() == 0);
    assert!(registrations("rxe1").is_empty(), "{:?}", registrations("rxe1"));
}

#[test]
fn what_must_be_found_out_is_found_out() {
    let Some(testbed) = testbed() else { return };
    let (publisher, pool) = publisher(&format!("rdma://{OWN}:0 tcp://{OWN}:0"));
    let [rdma, tcp] = &addresses(&publisher)[..] else { panic!("two addresses") };
    let before = moved();
    let by_tcp = subscriber(tcp);
    publisher.publish(&stamped(&pool, 0, SIZE)).expect("published");
    by_tcp.try_follow(1).expect("it came");
    carried(&testbed.verbs, before, SIZE as u64).expect_err("it came by TCP");
    drop(by_tcp);
    eventually("its going is noticed", || publisher.subscribers() == 0);
    let by_rdma = subscriber(rdma);
    publisher.publish(&stamped(&pool, 1, SIZE)).expect("published");
    publisher.publish(&spoilt(&pool, 2, SIZE, 700)).expect("published");
    let complaint = by_rdma.expect("bad");
    assert!(complaint.contains("page 700"), "{complaint}");
}

#[test]
fn the_subscriber_may_be_the_one_that_listens() {
    let Some(_testbed) = testbed() else { return };
    let port = std::net::TcpListener::bind((OTHER, 0)).and_then(|l| l.local_addr()).expect("a port").port();
    let (publisher, pool) = publisher(&format!("rdma://{OTHER}:{port}?mode=connect&from={OWN}"));
    for _ in 0..2 {
        let listening = format!("rdma://{OTHER}:{port}?mode=listen");
        let arguments = ["subscriber", &listening, "insecure=true", "networks=10.77.0.1"];
        let peer = Peer::start(PEER, &arguments);
        peer.expect("connected");
        assert!(publisher.wait_for_subscribers(1, PATIENCE));
        for number in 0..5 {
            publisher.publish(&stamped(&pool, number, 100_000)).expect("published");
        }
        peer.try_follow(5).unwrap_or_else(|error| panic!("{error}"));
        drop(peer);
        eventually("its going is noticed", || publisher.subscribers() == 0);
    }
}

#[test]
fn a_remote_link_goes_by_rdma_where_it_can() {
    let Some(testbed) = testbed() else { return };
    let (publisher, pool) = publisher(&format!("remote://{OWN}:0"));
    let [either] = &addresses(&publisher)[..] else { panic!("one address") };
    let before = moved();
    let peers = ["remote", "tcp", "rdma"].map(|scheme| subscriber(&either.replace("remote", scheme)));
    for number in 0..4 {
        publisher.publish(&stamped(&pool, number, SIZE)).expect("published");
    }
    for peer in &peers {
        peer.try_follow(4).unwrap_or_else(|error| panic!("{error}"));
    }
    let mut by: Vec<_> = publisher.info().subscribers.into_iter().map(|s| s.transport).collect();
    by.sort_unstable();
    assert_eq!(by, ["rdma", "rdma", "tcp"]);
    carried(&testbed.verbs, before, 2 * 4 * SIZE as u64).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn between_ends_that_know_each_other_frames_go_by_rdma_and_nobody_else_is_let_in() {
    const FRAMES: u64 = 12;
    let (place, Some(testbed)) = (Place::new(), testbed()) else { return };
    let ids = Ids::new(&place, &["p", "s", "stranger", "thief"], &["p", "s"]);
    ids.trust("stranger", "p");
    let publisher = |name: &str| {
        let mut options = options();
        let folder = place.path().join(name);
        options.remote.identity = Some(Identity::open(&folder).expect("an identity"));
        options.remote.insecure = false;
        Publisher::open(&format!("rdma://{OWN}:0 remote://{OWN}:0"), options).expect("a publisher")
    };
    let (honest, pool) = (publisher("p"), Pool::new(PoolOptions::default()));
    honest.set_pool(&pool);
    let uris = addresses(&honest);
    let join = |uri: &str, how: &str| Peer::start(PEER, &["subscriber", &format!("{uri}?from={OTHER}"), how]);
    let before = moved();
    let good: Vec<Peer> = uris.iter().map(|uri| join(uri, &ids.of("s"))).collect();
    good.iter().for_each(|peer| drop(peer.expect("connected")));
    assert!(honest.wait_for_subscribers(2, PATIENCE));
    for uri in &uris {
        let unknown = join(uri, &ids.of("stranger")).expect("failed");
        assert!(unknown.contains("does not trust the certificate of this end"), "{uri}: {unknown}");
        let clear = join(uri, "insecure=true").expect("failed");
        assert!(clear.contains("it speaks TLS"), "{uri}: {clear}");
    }
    // Somebody else, who listens where the publisher is expected.
    for uri in addresses(&publisher("thief")) {
        let not_it = join(&uri, &ids.of("s")).expect("failed");
        assert!(not_it.contains("is not trusted here"), "{uri}: {not_it}");
    }
    for number in 0..FRAMES {
        honest.publish(&stamped(&pool, number, SIZE)).expect("published");
    }
    for peer in &good {
        peer.try_follow(FRAMES).unwrap_or_else(|error| panic!("{error}; {:?}", honest.info()));
    }
    let info = honest.info();
    assert!(info.subscribers.iter().all(|s| s.transport == "rdma" && s.frames == FRAMES), "{info:?}");
    carried(&testbed.verbs, before, 2 * FRAMES * SIZE as u64).unwrap_or_else(|error| panic!("{error}"));
}

/// A frame for a subscriber by `remote://`; what carries its link, and why not RDMA.
fn sent_by_either(publisher: &Publisher, pool: &Pool, number: u64) -> (String, Option<String>) {
    let peer = subscriber(&addresses(publisher)[0]);
    assert!(publisher.wait_for_subscribers(1, PATIENCE));
    publisher.publish(&stamped(pool, number, SIZE)).expect("published");
    peer.try_follow(1).unwrap_or_else(|error| panic!("{error}"));
    let [subscriber] = &publisher.info().subscribers[..] else { panic!("one subscriber") };
    let by = (subscriber.transport.clone(), subscriber.fallback.clone());
    drop(peer);
    eventually("its going is noticed", || publisher.subscribers() == 0);
    by
}

#[test]
fn a_remote_link_goes_by_tcp_where_rdma_does_not_arrive() {
    let Some(testbed) = testbed() else { return };
    let (publisher, pool) = publisher(&format!("remote://{OWN}:0"));
    let before = moved();
    let filtered = Trouble::begin(
        &["ip rule add pref 1 iif vm1 ipproto udp dport 4791 blackhole"],
        &["ip rule del pref 1 iif vm1 ipproto udp dport 4791 blackhole"],
    );
    let (transport, fallback) = sent_by_either(&publisher, &pool, 0);
    assert_eq!(transport, "tcp");
    assert!(fallback.as_ref().is_some_and(|why| why.contains("UDP port 4791")), "{fallback:?}");
    drop(filtered);
    let gone = Trouble::begin(&["rdma link delete rxe1"], &["rdma link add rxe1 type rxe netdev vm1"]);
    let (transport, fallback) = sent_by_either(&publisher, &pool, 1);
    assert_eq!(transport, "tcp");
    assert!(fallback.as_ref().is_some_and(|why| why.contains("subscriber's host")), "{fallback:?}");
    drop(gone);
    assert_eq!(sent_by_either(&publisher, &pool, 2), ("rdma".to_owned(), None));
    // The counters of a new device begin anew.
    let before = Moved { received: 0, ..before };
    carried(&testbed.verbs, before, SIZE as u64).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn a_relay_passes_on_by_rdma_what_came_by_rdma() {
    const FRAMES: u64 = 10;
    let Some(testbed) = testbed() else { return };
    let place = Place::new();
    let (publisher, pool) = publisher(&format!("rdma://{OWN}:0"));
    let mut options = RelayOptions::default();
    options.publisher.block_deadline = None;
    options.publisher.remote = self::options().remote;
    options.subscriber.remote = options.publisher.remote.clone();
    let upstream = format!("{}?from={OTHER}", addresses(&publisher)[0]);
    let ends = format!("{} rdma://{OWN}:0", place.uri("leaves"));
    let relay = Arc::new(Relay::open(&upstream, &ends, options).expect("a relay"));
    let runs = relay.clone();
    let thread = std::thread::spawn(move || runs.run());
    assert!(publisher.wait_for_subscribers(1, PATIENCE));
    let before = moved();
    let leaves: Vec<Peer> = addresses(relay.publisher()).iter().map(|uri| subscriber(uri)).collect();
    for number in 0..FRAMES {
        publisher.publish(&stamped(&pool, number, SIZE)).expect("published");
    }
    for leaf in &leaves {
        leaf.try_follow(FRAMES).unwrap_or_else(|error| panic!("{error}"));
    }
    carried(&testbed.verbs, before, 2 * FRAMES * SIZE as u64).unwrap_or_else(|error| panic!("{error}"));
    drop(leaves);
    relay.stop();
    thread.join().expect("the relay's thread").expect("no error");
}

#[test]
fn who_may_not_come_is_told_why() {
    let Some(_testbed) = testbed() else { return };
    let networks = AllowList::parse("10.78.0.0/24").expect("another network");
    let remote = RemoteOptions { networks, ..options().remote };
    let strict = PublisherOptions { remote, ..options() };
    let publisher = Publisher::open(&format!("rdma://{OWN}:0"), strict).expect("a publisher");
    let uri = format!("{}?from={OTHER}", addresses(&publisher)[0]);
    let remote = options().remote;
    let options = SubscriberOptions { reconnect: false, remote, ..SubscriberOptions::default() };
    let refused = Subscriber::open(&uri, options).expect("a subscriber").recv(PATIENCE);
    let Err(RecvError::Refused { code: RefusalCode::Access, text }) = &refused else { panic!("{refused:?}") };
    assert!(text.contains("10.77.0.2") && text.contains("--network"), "{text}");
}
