//! Either side of a TCP link killed in the middle of a frame, on a way that is slowed so that it is in the middle: no torn
//! frame is delivered, nothing is left behind, nobody else is disturbed.

use std::time::Duration;

use pagecast_tests::peers::Peer;
use pagecast_tests::random::Random;
use pagecast_tests::scene::Scene;
use pagecast_tests::{eventually, proc};

const PEER: &str = env!("CARGO_BIN_EXE_pagecast-peer");
/// Kills of each side that must have left a part of a frame; together a hundred and more.
const TORN: usize = 55;
/// Kills of each side, at most.
const ROUNDS: usize = 10 * TORN;
/// A frame takes 20 ms.
const SIZE: &str = "size=1200000";
const RATE: &str = "down rate 60000000";

fn proxy(uri: &str) -> (Peer, String) {
    // What the kernel holds for the proxy would come through after a publisher's end.
    let mut proxy = Peer::start(PEER, &["proxy", uri, "buffer=65536"]);
    let address = proxy.expect("ready");
    proxy.say(RATE);
    proxy.expect("set");
    (proxy, address)
}

/// How much of a frame had been passed on when a connection ended, and of how much.
fn ended(proxy: &Peer) -> (u64, u64) {
    let said = proxy.expect("ended");
    let field = |name: &str| {
        let value = said.split(' ').find_map(|word| word.strip_prefix(name)).expect("a field");
        value.parse().expect("a number")
    };
    (field("part="), field("of="))
}

#[test]
fn subscribers_killed_in_mid_frame_leave_nothing_behind() {
    let mut scene = Scene::across(PEER, "tcp://127.0.0.1:0", &[SIZE]);
    let (proxy, address) = proxy(scene.remote.as_deref().expect("an address"));
    scene.publish(8);
    let before = scene.fds();
    let mut random = Random::new(0x7047);
    let mut torn = 0;
    for round in 0..ROUNDS {
        let mut victim = Peer::start(PEER, &["subscriber", &address, "quiet=true"]);
        victim.expect("connected");
        scene.publish_while(4, || {
            std::thread::sleep(Duration::from_micros(random.below(70_000)));
            victim.kill();
        });
        assert!(!victim.has_said("bad"), "{}", victim.expect("bad"));
        let (part, size) = ended(&proxy);
        torn += usize::from(part > 0 && part < size);
        scene.publish(2);
        if torn == TORN {
            break;
        }
        assert!(round + 1 < ROUNDS, "{torn} kills left a part of a frame");
    }
    scene.settles(&before);
    let info = scene.info();
    assert_eq!(info.publisher.faults, 0, "{info:?}");
    eventually("nothing is held", || scene.info().publisher.held == 0);
    assert!(info.subscribers.iter().all(|s| s.dropped == 0), "{info:?}");
    // Pages for what the healthy and one victim may hold and have waiting.
    assert!(info.publisher.pool_total < 60 * 1_200_000, "{info:?}");
}

#[test]
fn publishers_killed_in_mid_frame_leave_no_torn_frame() {
    let endless = |uri: &str| Peer::start(PEER, &["publisher", uri, SIZE, "every_us=0"]);
    let mut publisher = endless("tcp://127.0.0.1:0");
    let uri = publisher.expect("ready");
    let (_proxy, address) = proxy(&uri);
    let mut subscriber = Peer::start(PEER, &["subscriber", &address, "quiet=true", "hold=4"]);
    subscriber.expect("kept 4");
    let pid = subscriber.pid();
    let before = proc::fds(pid);
    let mut random = Random::new(0x7048);
    let mut torn = 0;
    for round in 0..ROUNDS {
        std::thread::sleep(Duration::from_micros(random.below(60_000)));
        publisher.kill();
        torn += usize::from(is_torn(&subscriber.expect("disconnected")));
        assert!(!subscriber.has_said("bad"), "{}", subscriber.expect("bad"));
        publisher = endless(&uri);
        publisher.expect("ready");
        subscriber.start_over();
        eventually("the next life is seen", || subscriber.acknowledged() > 0);
        if torn == TORN {
            break;
        }
        assert!(round + 1 < ROUNDS, "{torn} kills left a part of a frame");
    }
    subscriber.say("check");
    assert_eq!(subscriber.expect("checked"), "whole=4 evicted=0 wrong=0 changed=0");
    subscriber.say("release");
    subscriber.expect("released");
    eventually("what was of earlier lives is gone", || {
        // A bridge and its subscriber have a descriptor each of the frames that may be held.
        let fds = proc::fds(pid);
        fds.others <= before.others && fds.memfds <= 2 * 10 && proc::memfd_mappings(pid) <= 2 * 10
    });
}

/// Whether the subscriber itself says that it had a part of a frame, and dropped it.
fn is_torn(why: &str) -> bool {
    let Some((_, parts)) = why.split_once("mid-frame, after ") else { return false };
    let mut numbers = parts.split(' ').filter_map(|word| word.parse::<u64>().ok());
    matches!((numbers.next(), numbers.next()), (Some(part), Some(size)) if part > 0 && part < size)
}

/// The negative control: where nothing is under way no kill counts as one in mid-frame.
#[test]
fn a_kill_between_frames_leaves_no_part() {
    let mut scene = Scene::across(PEER, "tcp://127.0.0.1:0", &[SIZE]);
    let (proxy, address) = proxy(scene.remote.as_deref().expect("an address"));
    let mut victim = Peer::start(PEER, &["subscriber", &address]);
    victim.expect("connected");
    scene.publish(4);
    victim.try_follow(4).unwrap_or_else(|error| panic!("{error}"));
    victim.kill();
    assert_eq!(ended(&proxy), (0, 0));
    assert!(!is_torn("the other end closed the connection") && !is_torn("in mid-frame, after 0 of 9 bytes"));
}
