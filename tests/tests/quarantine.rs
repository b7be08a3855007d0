//! Pages of somebody who was cut off alive: with `quarantine` they are not written again while it lives,
//! within a limit; without, it at least knows.

use std::collections::HashMap;

use nix::sys::signal::Signal;
use pagecast_tests::eventually;
use pagecast_tests::peers::Peer;
use pagecast_tests::scene::Scene;

const PEER: &str = env!("CARGO_BIN_EXE_pagecast-peer");
const POOL: u64 = 40;

fn scene(more: &[&str]) -> Scene {
    let mut options = vec!["size=65536", "limit=2621440", "hold_timeout=2000"];
    options.extend(more);
    Scene::new(PEER, 1, &options)
}

/// Processes that take `hold` frames each and then do nothing, not even read their sockets.
fn deaf(scene: &mut Scene, count: usize, hold: usize) -> Vec<Peer> {
    // As many credits: what it keeps is all that it has been given.
    let (hold, credits) = (format!("hold={hold}"), format!("credits={hold}"));
    let role = ["subscriber", "quiet=true", "deaf=true", &hold, &credits];
    let keepers: Vec<Peer> = (0..count).map(|_| scene.join(&role)).collect();
    keepers.iter().for_each(|keeper| drop(keeper.expect("connected")));
    for keeper in &keepers {
        scene.publish_until(keeper, "deaf");
    }
    keepers
}

fn evicted(scene: &mut Scene, count: u64) {
    eventually("they are evicted", || {
        scene.publish(4);
        scene.info().publisher.evicted == count
    });
}

/// What a keeper finds in the frames it kept.
fn checked(keeper: &mut Peer) -> HashMap<String, u32> {
    keeper.say("check");
    let said = keeper.expect("checked");
    let pairs = said.split(' ').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.parse().expect("a number"))).collect()
}

#[test]
fn pages_of_the_evicted_are_not_reused_while_they_live() {
    let mut scene = scene(&["quarantine=true"]);
    let mut keepers = deaf(&mut scene, 2, 4);
    evicted(&mut scene, 2);
    assert_eq!(scene.info().publisher.quarantined, 8);
    scene.publish(20 * POOL);
    for keeper in &mut keepers {
        let found = checked(keeper);
        assert_eq!((found["evicted"], found["wrong"], found["whole"]), (4, 0, 0), "it must be told");
        assert_eq!(found["changed"], 0, "pages were reused");
    }
    // Stopped or not, it is the end of the process that counts.
    keepers[0].stop();
    scene.publish(40);
    assert_eq!(scene.info().publisher.quarantined, 8);
    keepers[0].kill();
    eventually("the dead need no quarantine", || scene.info().publisher.quarantined == 4);
    keepers[1].kill();
    eventually("the dead need no quarantine", || scene.info().publisher.quarantined == 0);
    scene.publish(20 * POOL);
}

#[test]
fn quarantine_has_a_limit_and_starves_nobody() {
    let mut scene =
        scene(&["quarantine=true", "limit=5242880", "max=10", "mailbox=1", "hold_timeout=600000"]);
    // Who breaks the protocol is cut off as well; each holds two frames or more then, and lives on.
    let mut living = Vec::new();
    for _ in 0..10 {
        let attacker = scene.join(&["hostile", "kind=return-unknown"]);
        assert_eq!(scene.publish_until(&attacker, "attacked"), "Some(Fault)");
        living.push(attacker);
    }
    assert_eq!(scene.info().publisher.quarantined as u64, 2 * POOL / 4, "a quarter, and no more");
    // With the quarantine full, others take all that there is: the producer still has its own.
    let mut greedy = Vec::new();
    for _ in 0..3 {
        let role = ["subscriber", "quiet=true", "credits=64", "keep=64", "hold=1000"];
        greedy.push(scene.join(&role));
        greedy.iter().for_each(|peer| {
            eventually("it has its answer", || peer.has_said("connected") || peer.has_said("failed"));
        });
        scene.publish(80);
    }
    scene.publish(20 * POOL);
    let info = scene.info();
    // The first is the one that all scenes have; how much each of the others was granted is their order's matter.
    let greedy = &info.subscribers[1..];
    let at_its_limit = |s: &pagecast::publisher::SubscriberInfo| s.held as u32 == s.credits && s.dropped > 0;
    assert!(greedy.iter().all(at_its_limit), "they did not take all that they may: {info:?}");
    let held: usize = info.subscribers.iter().map(|subscriber| subscriber.held).sum();
    let taken = held + info.publisher.quarantined;
    assert!(taken as u64 > POOL * 5 / 4, "they did not take most of what there is: {info:?}");
    assert!(info.publisher.pool_total <= info.publisher.pool_limit, "{info:?}");
    assert_eq!(info.publisher.quarantined as u64, 2 * POOL / 4);
}

/// The negative control, and what holds without the option: pages are reused, and who held them knows it.
#[test]
fn without_quarantine_pages_are_reused_and_their_holders_know() {
    let mut scene = scene(&[]);
    let mut keepers = deaf(&mut scene, 1, 4);
    evicted(&mut scene, 1);
    assert_eq!(scene.info().publisher.quarantined, 0);
    // The buffer that came back last goes out first: others that hold some make the pool take those below.
    let _others = deaf(&mut scene, 3, 4);
    scene.publish(20 * POOL);
    let found = checked(&mut keepers[0]);
    assert_eq!((found["evicted"], found["wrong"]), (4, 0), "it must be told");
    assert!(found["changed"] > 0, "nothing was reused: this test shows nothing");
}

#[test]
fn whoever_sleeps_through_its_eviction_is_told_afterwards() {
    let mut scene = scene(&[]);
    let mut keeper = scene.join(&["subscriber", "quiet=true", "hold=4", "credits=4"]);
    keeper.expect("connected");
    scene.publish_until(&keeper, "kept 4");
    keeper.stop();
    evicted(&mut scene, 1);
    scene.publish(2 * POOL);
    // It is asked before it can have read that it was evicted.
    keeper.say("check");
    keeper.signal(Signal::SIGCONT);
    let said = keeper.expect("checked");
    assert!(said.starts_with("whole=0 evicted=4 wrong=0"), "{said}");
}

#[test]
fn frames_of_a_publisher_that_ends_stay_valid_for_the_deaf() {
    let mut scene = scene(&["hold_timeout=60000"]);
    let mut keepers = deaf(&mut scene, 1, 4);
    scene.publisher.say("close 0");
    scene.publisher.expect("closed");
    let found = checked(&mut keepers[0]);
    assert_eq!((found["whole"], found["changed"], found["wrong"]), (4, 0, 0), "{found:?}");
}
