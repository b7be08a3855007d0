//! Two hosts, network namespaces of this test's own, that know each other's certificates; and others.

use pagecast_tests::hosts::{FIRST, Hosts, SECOND};
use pagecast_tests::ids::Ids;
use pagecast_tests::peers::Peer;
use pagecast_tests::{PAGE, Place, eventually, skip, stamp};

const PEER: &str = env!("CARGO_BIN_EXE_pagecast-peer");
const SIZE: usize = 300_000;
/// Nobody loses anything, however slow the machine is.
const BLOCK: &str = "policy=block";
const WAITS: &str = "block_deadline=60000";

fn hosts() -> Option<Hosts> {
    Hosts::new().map_err(|why| skip(&why)).ok()
}

/// A publisher on the first host; `how` is what it says of other hosts.
fn publisher(hosts: &Hosts, place: &Place, how: &str) -> (Peer, String) {
    publisher_at(hosts, place, "tcp", how)
}

fn publisher_at(hosts: &Hosts, place: &Place, scheme: &str, how: &str) -> (Peer, String) {
    let uris = format!("{} {scheme}://{FIRST}:0", place.uri("a"));
    let size = format!("size={SIZE}");
    let arguments = ["publisher", &uris, "networks=10.79.0.0/24", &size, BLOCK, WAITS, how];
    let peer = hosts.start(0, PEER, &arguments);
    let ready = peer.expect("ready");
    let uri = ready.split_whitespace().find(|uri| uri.starts_with(scheme)).expect("an address").to_owned();
    (peer, uri)
}

fn subscriber(hosts: &Hosts, uri: &str, how: &str) -> Peer {
    hosts.start(1, PEER, &["subscriber", uri, how])
}

/// What a subscriber that cannot be served says of it.
fn refusal(hosts: &Hosts, uri: &str, how: &str) -> String {
    subscriber(hosts, uri, how).expect("failed")
}

fn publish(publisher: &mut Peer, count: u64) {
    publisher.say(&format!("publish {count}"));
    publisher.expect("published");
}

#[test]
fn between_two_hosts_frames_are_whole_and_others_are_refused_alone() {
    let (place, Some(hosts)) = (Place::new(), hosts()) else { return };
    let ids = Ids::new(&place, &["p", "s", "stranger", "thief"], &["p", "s"]);
    ids.trust("stranger", "p");
    ids.trust("thief", "p");
    let (mut publisher, uri) = publisher(&hosts, &place, &ids.of("p"));
    let good = subscriber(&hosts, &uri, &ids.of("s"));
    good.expect("connected");
    publish(&mut publisher, 100);
    good.try_follow(100).unwrap_or_else(|error| panic!("{error}"));

    let unknown = refusal(&hosts, &uri, &ids.of("stranger"));
    assert!(unknown.contains("does not trust the certificate of this end, sha256:"), "{unknown}");
    let clear = refusal(&hosts, &uri, "insecure=true");
    assert!(clear.contains("it speaks TLS") && clear.contains("--identity"), "{clear}");
    let neither = hosts.start(1, PEER, &["subscriber", &uri]).expect("failed");
    assert!(neither.contains("pagecast keygen") && neither.contains("--insecure"), "{neither}");
    // Somebody else listens where the publisher is expected.
    let (_false_publisher, false_uri) = self::publisher(&hosts, &Place::new(), &ids.of("thief"));
    let not_it = refusal(&hosts, &false_uri, &ids.of("s"));
    assert!(not_it.contains("is not trusted here") && not_it.contains("trusted"), "{not_it}");
    let (_clear_publisher, clear_uri) = self::publisher(&hosts, &Place::new(), "insecure=true");
    let in_clear = refusal(&hosts, &clear_uri, &ids.of("s"));
    assert!(in_clear.contains("it speaks clear text") && in_clear.contains("keygen"), "{in_clear}");

    // Who was served all the while noticed nothing.
    publish(&mut publisher, 100);
    good.try_follow(200).unwrap_or_else(|error| panic!("{error}"));
    // Who is trusted from now on may come from now on.
    ids.trust("p", "stranger");
    let known = subscriber(&hosts, &uri, &ids.of("stranger"));
    known.expect("connected");
    publish(&mut publisher, 50);
    known.try_follow(250).and(good.try_follow(250)).unwrap_or_else(|error| panic!("{error}"));
    // Who is not any more makes no new link; one that stands stays.
    ids.distrust("p", "stranger");
    let unknown = refusal(&hosts, &uri, &ids.of("stranger"));
    assert!(unknown.contains("does not trust the certificate of this end"), "{unknown}");
    publish(&mut publisher, 50);
    known.try_follow(300).and(good.try_follow(300)).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn who_stalls_or_speaks_nonsense_holds_nobody_up() {
    let (place, Some(hosts)) = (Place::new(), hosts()) else { return };
    let ids = Ids::new(&place, &["p", "s"], &["p", "s"]);
    let (mut publisher, uri) = publisher(&hosts, &place, &ids.of("p"));
    let address = uri.strip_prefix("tcp://").expect("its address").to_owned();
    // More than may be there at a time, each stuck at another place of a handshake, or of nothing.
    let nonsense = hosts.start(1, PEER, &["stallers", &address, "count=40"]);
    nonsense.expect("ready");
    let good = subscriber(&hosts, &uri, &ids.of("s"));
    good.expect("connected");
    publish(&mut publisher, 100);
    good.try_follow(100).unwrap_or_else(|error| panic!("{error}"));
    // And they are gone when their time is up.
    nonsense.expect("all gone");
    publish(&mut publisher, 100);
    good.try_follow(200).unwrap_or_else(|error| panic!("{error}"));
}

/// A subscriber behind somebody who keeps a copy of all that passes.
fn recorded(hosts: &Hosts, place: &Place, publisher: &str, subscriber_is: &str) -> Vec<u8> {
    let (mut publisher, uri) = self::publisher(hosts, place, publisher);
    let (copy, to) = (place.path().join("copy"), uri.strip_prefix("tcp://").expect("its address"));
    let _ = std::fs::remove_file(&copy);
    let listen = format!("{SECOND}:7200");
    let arguments = ["recorder", &listen, &format!("to={to}"), &format!("file={}", copy.display())];
    let recorder = hosts.start(1, PEER, &arguments);
    recorder.expect("ready");
    let subscriber = subscriber(hosts, &format!("tcp://{listen}"), subscriber_is);
    subscriber.expect("connected");
    publish(&mut publisher, 20);
    subscriber.try_follow(20).unwrap_or_else(|error| panic!("{error}"));
    eventually("all was copied", || std::fs::metadata(&copy).is_ok_and(|file| file.len() > 20 * SIZE as u64));
    std::fs::read(&copy).expect("a copy")
}

/// How many pages of frames that were published, and whether their caps, can be read in it.
fn readable(copy: &[u8]) -> (usize, bool) {
    let stamps =
        (0..20).flat_map(|frame| (0..SIZE.div_ceil(PAGE)).map(move |page| stamp(frame, page as u64)));
    let stamps: std::collections::HashSet<u64> = stamps.collect();
    let words = copy.windows(8).map(|bytes| u64::from_le_bytes(bytes.try_into().expect("eight bytes")));
    let found: std::collections::HashSet<u64> = words.filter(|word| stamps.contains(word)).collect();
    (found.len(), copy.windows(18).any(|bytes| bytes == b"application/x-test"))
}

#[test]
fn who_listens_on_the_way_reads_nothing() {
    let (place, Some(hosts)) = (Place::new(), hosts()) else { return };
    let ids = Ids::new(&place, &["p", "s"], &["p", "s"]);
    let copy = recorded(&hosts, &place, &ids.of("p"), &ids.of("s"));
    assert_eq!(readable(&copy), (0, false), "of {} bytes", copy.len());
    // The control: in clear text the same listener reads all of it.
    let copy = recorded(&hosts, &place, "insecure=true", "insecure=true");
    assert_eq!(readable(&copy), (20 * SIZE.div_ceil(PAGE), true), "of {} bytes", copy.len());
}

#[test]
fn a_subscriber_may_listen_and_the_publisher_dial() {
    let (place, Some(hosts)) = (Place::new(), hosts()) else { return };
    let ids = Ids::new(&place, &["p", "s"], &["p", "s"]);
    let listen = format!("tcp://{SECOND}:7201");
    let listening = format!("{listen}?mode=listen");
    let subscriber = hosts.start(1, PEER, &["subscriber", &listening, "networks=10.79.0.0/24", &ids.of("s")]);
    let uris = format!("{} {listen}?mode=connect", place.uri("a"));
    let size = format!("size={SIZE}");
    let arguments = ["publisher", &uris, &size, BLOCK, WAITS, &ids.of("p")];
    let mut publisher = hosts.start(0, PEER, &arguments);
    publisher.expect("ready");
    subscriber.expect("connected");
    publish(&mut publisher, 50);
    subscriber.try_follow(50).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn what_carries_a_link_is_decided_behind_the_keys() {
    let (place, Some(hosts)) = (Place::new(), hosts()) else { return };
    let ids = Ids::new(&place, &["p", "s", "stranger"], &["p", "s"]);
    ids.trust("stranger", "p");
    let (mut publisher, uri) = publisher_at(&hosts, &place, "remote", &ids.of("p"));
    let either = subscriber(&hosts, &uri, &ids.of("s"));
    let tcp = subscriber(&hosts, &uri.replace("remote:", "tcp:"), &ids.of("s"));
    either.expect("connected");
    tcp.expect("connected");
    publish(&mut publisher, 50);
    either.try_follow(50).and(tcp.try_follow(50)).unwrap_or_else(|error| panic!("{error}"));
    let unknown = refusal(&hosts, &uri, &ids.of("stranger"));
    assert!(unknown.contains("does not trust the certificate of this end"), "{unknown}");
    let clear = refusal(&hosts, &uri, "insecure=true");
    assert!(clear.contains("it speaks TLS"), "{clear}");
}

#[test]
fn a_peer_that_is_killed_comes_back() {
    let (place, Some(hosts)) = (Place::new(), hosts()) else { return };
    let ids = Ids::new(&place, &["p", "s"], &["p", "s"]);
    let (mut publisher, uri) = publisher(&hosts, &place, &ids.of("p"));
    for _ in 0..5 {
        let mut subscriber = subscriber(&hosts, &uri, &ids.of("s"));
        subscriber.expect("connected");
        publish(&mut publisher, 3);
        eventually("a frame came", || subscriber.acknowledged() > 0);
        subscriber.kill();
    }
    let last = subscriber(&hosts, &uri, &ids.of("s"));
    last.expect("connected");
    publish(&mut publisher, 10);
    eventually("all came", || last.acknowledged() >= 25);
}
