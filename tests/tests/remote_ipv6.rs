//! Remote links over IPv6. The test gives the testbed's two interfaces such addresses; elsewhere it is skipped.

use std::io::Write;
use std::net::{IpAddr, Ipv6Addr};
use std::process::{Command, Stdio};
use std::time::Duration;

use pagecast::remote::AllowList;
use pagecast::verbs::Verbs;
use pagecast::{BackingChoice, Pool, PoolOptions, Publisher, PublisherOptions, RemoteOptions};
use pagecast_tests::peers::Peer;
use pagecast_tests::testbed::testbed;
use pagecast_tests::{eventually, stamped};

const PEER: &str = env!("CARGO_BIN_EXE_pagecast-peer");
const OWN: &str = "fd77::1";
const OTHER: &str = "fd77::2";
const PATIENCE: Option<Duration> = Some(Duration::from_secs(60));
const SIZE: usize = 1_000_000;

/// What goes from one address to the other takes the cable, although both are this machine's.
const ADDRESSES: &str = "addr add fd77::1/64 dev vm0 nodad
addr add fd77::2/64 dev vm1 nodad
rule add pref 10 iif vm0 lookup local
rule add pref 11 iif vm1 lookup local
rule add pref 20 from fd77::1 to fd77::2 lookup 101
rule add pref 21 from fd77::2 to fd77::1 lookup 102
rule add pref 30 lookup local
rule del pref 0
route add fd77::2 dev vm0 src fd77::1 table 101
route add fd77::1 dev vm1 src fd77::2 table 102
";

fn give_addresses(verbs: &Verbs) {
    let mut ip = Command::new("ip").args(["-6", "-b", "-"]).stdin(Stdio::piped()).spawn().expect("ip");
    ip.stdin.take().expect("its input").write_all(ADDRESSES.as_bytes()).expect("addresses");
    assert!(ip.wait().expect("ip").success());
    for address in [OWN, OTHER] {
        let address = IpAddr::V6(address.parse::<Ipv6Addr>().expect("an address"));
        eventually("the device takes the address", || verbs.device_for(address).is_ok());
    }
}

#[test]
fn frames_go_over_ipv6_by_tcp_and_by_rdma() {
    const FRAMES: u64 = 20;
    // Only the testbed's network may be changed.
    let Some(testbed) = testbed() else { return };
    give_addresses(&testbed.verbs);
    let networks = AllowList::parse("fd77::/64").expect("a network");
    let remote = RemoteOptions { networks, insecure: true, ..RemoteOptions::default() };
    let options =
        PublisherOptions { live: false, block_deadline: None, remote, ..PublisherOptions::default() };
    let pool = Pool::new(PoolOptions { backing: BackingChoice::Memfd, ..PoolOptions::default() });
    let listen = format!("tcp://[{OWN}]:0 rdma://[{OWN}]:0");
    let publisher = Publisher::open(&listen, options).expect("a publisher");
    publisher.set_pool(&pool);
    let uri = publisher.info().uri;
    let peers: Vec<Peer> = uri
        .split_whitespace()
        .map(|uri| {
            let peer = Peer::start(PEER, &["subscriber", &format!("{uri}?from={OTHER}"), "insecure=true"]);
            peer.expect("connected");
            peer
        })
        .collect();
    assert!(publisher.wait_for_subscribers(2, PATIENCE));
    for number in 0..FRAMES {
        publisher.publish(&stamped(&pool, number, SIZE)).expect("published");
    }
    for peer in &peers {
        peer.try_follow(FRAMES).unwrap_or_else(|error| panic!("{error}; {:?}", publisher.info()));
    }
    let info = publisher.info();
    let mut transports: Vec<_> = info.subscribers.iter().map(|s| s.transport.as_str()).collect();
    transports.sort_unstable();
    assert_eq!(transports, ["rdma", "tcp"], "{info:?}");
    let has_address = |peer: &String| peer.starts_with(&format!("[{OTHER}]:"));
    assert!(info.subscribers.iter().all(|s| s.peer.as_ref().is_some_and(has_address)), "{info:?}");
}
