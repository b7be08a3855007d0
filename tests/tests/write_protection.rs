//! A subscriber cannot write into the pages it reads, by whatever way: checked in a process of its own, with
//! the descriptors that came over a real link.

use pagecast::allocators::{Fault, MemfdBacking};
use pagecast::{Pool, PoolOptions, Publisher, PublisherOptions};
use pagecast_tests::peers::{PATIENCE, Peer};
use pagecast_tests::scene::Scene;
use pagecast_tests::{Place, stamped};

const PEER: &str = env!("CARGO_BIN_EXE_pagecast-peer");

/// Lets a process try every way to write, and returns what it says.
fn attempts(scene: &mut Scene, options: &[&str]) -> String {
    let publisher = format!("publisher={}", scene.publisher.pid());
    let mut role = vec!["writer", &publisher];
    role.extend(options);
    let writer = scene.join(&role);
    let tried = scene.publish_until(&writer, "tried");
    assert!(!tried.starts_with('0'), "it was given nothing to write into: {tried}");
    writer.expect("wrote")
}

#[test]
fn nobody_of_the_same_user_can_write() {
    let mut scene = Scene::new(PEER, 1, &[]);
    assert_eq!(attempts(&mut scene, &[]), "[]");
    scene.publish(40);
}

#[test]
fn nobody_of_another_user_can_write() {
    if !nix::unistd::Uid::effective().is_root() {
        return pagecast_tests::skip("not root: there is no other user to be");
    }
    // It joins as root and then gives up its rights, as a sandboxed decoder does.
    let mut scene = Scene::new(PEER, 1, &[]);
    assert_eq!(attempts(&mut scene, &["later_uid=65534"]), "[]");
    scene.publish(40);
}

/// The negative control: where a seal is left out, the same attempts succeed.
#[test]
fn without_the_seals_this_suite_fails() {
    let place = Place::new();
    let uri = place.uri("broken");
    let backing = MemfdBacking::broken(Fault::NoWriteSeal);
    let pool = Pool::with_backing(Box::new(backing), PoolOptions::default());
    let publisher = Publisher::open(&uri, PublisherOptions::default()).expect("a publisher");
    let me = format!("publisher={}", std::process::id());
    let writer = Peer::start(PEER, &["writer", &uri, &me, "broken=true"]);
    assert!(publisher.wait_for_subscribers(1, Some(PATIENCE)));
    publisher.publish(&stamped(&pool, 0, 100_000)).expect("published");
    let wrote = writer.expect("wrote");
    for way in ["mmap", "mprotect", "pwrite", "punch a hole", "send into"] {
        assert!(wrote.contains(&format!("reopen own: {way}")), "{way} is not among {wrote}");
        assert!(wrote.contains(&format!("reopen publisher: {way}")), "{way} is not among {wrote}");
    }
}
