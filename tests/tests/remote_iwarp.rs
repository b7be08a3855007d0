//! `rdma://` between iWARP devices: queue pairs come up by RDMA-CM, and places are rung by messages. It needs the testbed's two
//! (`testbed/run --with-siw`); elsewhere each test is skipped.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pagecast::remote::AllowList;
use pagecast::verbs::{Transport, Verbs};
use pagecast::{BackingChoice, Pool, PoolOptions, Publisher, PublisherOptions, RemoteOptions};
use pagecast_tests::peers::Peer;
use pagecast_tests::testbed::{arrived, run};
use pagecast_tests::{Place, eventually, proc, skip, spoilt, stamped};

const PEER: &str = env!("CARGO_BIN_EXE_pagecast-peer");
const PATIENCE: Option<Duration> = Some(Duration::from_secs(60));
/// The address of `siw0`, on interface `vm2`.
const OWN: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);
/// The address of `siw1`, on interface `vm3`.
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 2);
const SIZE: usize = (1 << 20) + 1000;
const BUFFERS: usize = 16;

/// The two devices, for one test at a time.
fn iwarp() -> Option<MutexGuard<'static, ()>> {
    static ONE: Mutex<()> = Mutex::new(());
    let alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let found = Verbs::open().map_err(|error| error.to_string()).and_then(|verbs| {
        for address in [OWN, OTHER] {
            let (device, _) = verbs.device_for(IpAddr::V4(address)).map_err(|error| error.to_string())?;
            assert_eq!(device.transport(), Transport::Iwarp);
        }
        Ok(())
    });
    found.map_err(|why| skip(&why)).ok().map(|()| alone)
}

/// A publisher who loses nothing, with a pool that does not grow.
fn publisher(uri: &str) -> (Publisher, Pool) {
    let networks = AllowList::parse("10.78.0.0/24").expect("a network");
    let remote = RemoteOptions { networks, insecure: true, ..RemoteOptions::default() };
    let memory = PoolOptions { backing: BackingChoice::Memfd, ..PoolOptions::default() };
    let limit = (BUFFERS * Pool::new(memory.clone()).footprint(SIZE)) as u64;
    let pool = Pool::new(PoolOptions { limit, ..memory });
    pool.populate(SIZE, BUFFERS).expect("buffers");
    let options =
        PublisherOptions { live: false, block_deadline: None, limit, remote, ..PublisherOptions::default() };
    let publisher = Publisher::open(uri, options).expect("a publisher");
    publisher.set_pool(&pool);
    (publisher, pool)
}

fn subscriber(uri: &str) -> Peer {
    let from = if uri.starts_with("unix:") { String::new() } else { format!("?from={OTHER}") };
    let peer = Peer::start(PEER, &["subscriber", &format!("{uri}{from}"), "insecure=true"]);
    peer.expect("connected");
    peer
}

fn addresses(publisher: &Publisher) -> Vec<String> {
    publisher.info().uri.split_whitespace().map(str::to_owned).collect()
}

/// Bytes that this process has sent on connections it accepted at an address, as the kernel counts them.
fn sent_at(uri: &str) -> u64 {
    proc::tcp_bytes_sent(
        uri.rsplit_once("//").and_then(|(_, address)| address.parse().ok()).expect("an address"),
    )
}

fn registrations(device: &str) -> usize {
    run("rdma resource show mr").lines().filter(|line| line.contains(&format!("dev {device} "))).count()
}

#[test]
fn local_and_iwarp_processes_get_every_frame_at_once() {
    const FRAMES: u64 = 60;
    let Some(_alone) = iwarp() else { return };
    let place = Place::new();
    let (publisher, pool) = publisher(&format!("{} rdma://{OWN}:0", place.uri("a")));
    let [local, rdma] = &addresses(&publisher)[..] else { panic!("two addresses") };
    let before = arrived("vm3");
    let peers = [local, rdma].map(|uri| subscriber(uri));
    assert!(publisher.wait_for_subscribers(2, PATIENCE));
    let mut at_first = 0;
    for number in 0..FRAMES {
        publisher.publish(&stamped(&pool, number, SIZE)).expect("published");
        match number {
            8 => at_first = registrations("siw0"),
            number if number % 10 == 9 => assert_eq!(registrations("siw0"), at_first, "while frames flow"),
            _ => {}
        }
    }
    assert!(at_first >= BUFFERS, "{at_first} registrations");
    for peer in &peers {
        peer.try_follow(FRAMES).unwrap_or_else(|error| panic!("{error}; {:?}", publisher.info()));
    }
    let info = publisher.info();
    let mut by: Vec<_> = info.subscribers.iter().map(|s| s.transport.as_str()).collect();
    by.sort_unstable();
    assert_eq!(by, ["rdma", "unix"]);
    assert!(info.subscribers.iter().all(|s| s.frames == FRAMES && s.dropped == 0), "{info:?}");
    assert!(run("rdma resource show cm_id").contains("siw0"), "it came up by RDMA-CM");
    let (control, bytes) = (sent_at(rdma), FRAMES * SIZE as u64);
    assert!(control > 0 && control < 1 << 20, "{control} bytes beside {bytes} that went by RDMA");
    assert!(arrived("vm3") - before >= bytes, "through the cable");
    drop(peers);
    eventually("their going is noticed", || publisher.subscribers() == 0);
    eventually("nothing is left of it", || registrations("siw1") == 0);
}

#[test]
fn a_wrong_page_is_noticed() {
    let Some(_alone) = iwarp() else { return };
    let (publisher, pool) = publisher(&format!("rdma://{OWN}:0"));
    let peer = subscriber(&addresses(&publisher)[0]);
    publisher.publish(&stamped(&pool, 0, SIZE)).expect("published");
    publisher.publish(&spoilt(&pool, 1, SIZE, 200)).expect("published");
    let complaint = peer.expect("bad");
    assert!(complaint.contains("page 200"), "{complaint}");
}

#[test]
fn a_subscriber_that_is_killed_makes_room_for_the_next() {
    let Some(_alone) = iwarp() else { return };
    let (publisher, pool) = publisher(&format!("rdma://{OWN}:0"));
    for round in 0..3 {
        let peer = subscriber(&addresses(&publisher)[0]);
        assert!(publisher.wait_for_subscribers(1, PATIENCE));
        for number in 0..5 {
            publisher.publish(&stamped(&pool, number, SIZE)).expect("published");
        }
        if round != 1 {
            peer.try_follow(5).unwrap_or_else(|error| panic!("{error}"));
        }
        // killed, and in the second round in the middle of frames
        drop(peer);
        eventually("its going is noticed", || publisher.subscribers() == 0);
    }
}

#[test]
fn a_remote_link_goes_by_tcp_and_says_that_only_rdma_uses_iwarp() {
    let Some(_alone) = iwarp() else { return };
    let (publisher, pool) = publisher(&format!("remote://{OWN}:0"));
    let peer = subscriber(&addresses(&publisher)[0]);
    assert!(publisher.wait_for_subscribers(1, PATIENCE));
    publisher.publish(&stamped(&pool, 0, SIZE)).expect("published");
    peer.try_follow(1).unwrap_or_else(|error| panic!("{error}"));
    let [subscriber] = &publisher.info().subscribers[..] else { panic!("one subscriber") };
    assert_eq!(subscriber.transport, "tcp");
    assert!(subscriber.fallback.as_deref().is_some_and(|why| why.contains("iWARP")), "{subscriber:?}");
}
