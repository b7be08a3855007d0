//! Subscribers that stop, keep or dawdle: the others lose nothing, and memory stays within the limit. Each is
//! a process; memory and descriptors are read from /proc.

use nix::sys::signal::Signal;
use pagecast::publisher::SubscriberInfo;
use pagecast_tests::eventually;
use pagecast_tests::peers::Peer;
use pagecast_tests::proc;
use pagecast_tests::scene::Scene;

const PEER: &str = env!("CARGO_BIN_EXE_pagecast-peer");

/// A frame, and a pool of forty of them.
const SIZE: u64 = 256 * 1024;
const POOL: u64 = 40;
/// What a publisher's process takes beside its pages.
const CONSTANT: u64 = 48 << 20;

fn options() -> [String; 2] {
    [format!("size={SIZE}"), format!("limit={}", SIZE * POOL)]
}

fn scene(healthy: usize, more: &[&str]) -> Scene {
    let options = options();
    let mut options: Vec<&str> = options.iter().map(String::as_str).collect();
    options.extend(more);
    Scene::new(PEER, healthy, &options)
}

/// The publisher's memory, as the kernel sees it.
fn within_limits(scene: &mut Scene) {
    let fds = scene.fds();
    assert!(fds.memfd_bytes <= SIZE * POOL, "pages over the limit: {fds:?}");
    let private = proc::private_bytes(scene.publisher.pid());
    assert!(private <= CONSTANT, "{private} bytes beside its pages");
    let info = scene.info().publisher;
    assert!(info.pool_total <= info.pool_limit, "{info:?}");
}

fn figures(scene: &mut Scene, peer: &Peer) -> SubscriberInfo {
    let pid = peer.pid();
    let info = scene.info();
    info.subscribers.into_iter().find(|subscriber| subscriber.pid == pid).expect("it is still served")
}

fn stopped(scene: &Scene, count: usize) -> Vec<Peer> {
    let peers: Vec<Peer> = (0..count).map(|_| scene.join(&["subscriber", "quiet=true"])).collect();
    peers.iter().for_each(|peer| drop(peer.expect("connected")));
    peers.iter().for_each(Peer::stop);
    peers
}

/// All but one stopped, one of them slow and one that returns nothing, for 20 times the pool.
fn all_but_one(more: &[&str]) {
    let mut scene = scene(1, more);
    let slow = scene.join(&["subscriber", "quiet=true", "slow=200"]);
    let hoarder = scene.join(&["subscriber", "quiet=true", "hold=1000"]);
    slow.expect("connected");
    hoarder.expect("connected");
    let victims = stopped(&scene, 4);
    scene.publish(20 * POOL);
    within_limits(&mut scene);
    for peer in victims.iter().chain([&hoarder]) {
        let figures = figures(&mut scene, peer);
        assert!(figures.dropped > 0, "it did not reach its limit: {figures:?}");
        assert_eq!(figures.held, figures.credits as usize, "it did not reach its limit: {figures:?}");
    }
    for peer in &victims {
        peer.signal(Signal::SIGCONT);
    }
    let before = scene.published();
    scene.publish(2 * POOL);
    for peer in victims.iter().chain([&slow]) {
        follows(&mut scene, peer, before);
    }
    within_limits(&mut scene);
    assert_eq!(scene.info().subscribers.len(), 7, "nobody was cut off");
    assert_eq!(scene.info().publisher.faults, 0);
}

/// A subscriber that was stopped goes on with frames published after `before`.
fn follows(scene: &mut Scene, peer: &Peer, before: u64) {
    scene.is_followed_by(peer, before);
    assert!(!peer.has_said("disconnected"), "it was cut off");
}

#[test]
fn stopped_subscribers_cost_a_live_stream_nothing() {
    all_but_one(&["policy=drop-oldest"]);
}

#[test]
fn stopped_subscribers_cost_an_automatic_live_stream_nothing() {
    all_but_one(&["policy=auto", "live=true"]);
}

#[test]
fn newest_frames_dropped_cost_others_nothing() {
    all_but_one(&["policy=drop-newest"]);
}

#[test]
fn mailboxes_of_one_cost_others_nothing() {
    all_but_one(&["policy=latest"]);
}

/// Not live: the producer waits for whoever is behind, but only until the deadline.
#[test]
fn a_stopped_subscriber_holds_a_blocking_stream_only_to_the_deadline() {
    let mut scene = scene(1, &["policy=auto", "live=false", "block_deadline=1000"]);
    let victims = stopped(&scene, 2);
    scene.publish(20 * POOL);
    within_limits(&mut scene);
    for peer in &victims {
        let figures = figures(&mut scene, peer);
        assert_eq!((figures.policy.as_str(), figures.stalls), ("block", 1), "{figures:?}");
        assert!(figures.dropped > 0, "{figures:?}");
        assert_eq!(figures.held, figures.credits as usize, "{figures:?}");
    }
    let before = scene.published();
    for peer in &victims {
        peer.signal(Signal::SIGCONT);
    }
    for peer in &victims {
        follows(&mut scene, peer, before);
    }
    assert_eq!(scene.info().subscribers.len(), 3, "nobody was cut off");
}

/// A subscriber cannot ask for the right to hold a live producer.
#[test]
fn nobody_blocks_a_live_stream_by_asking() {
    let mut scene = scene(1, &["policy=auto", "live=true", "block_deadline=60000"]);
    let victim = scene.join(&["subscriber", "quiet=true", "policy=block"]);
    victim.expect("connected");
    victim.stop();
    scene.publish(2 * POOL);
    assert_eq!(figures(&mut scene, &victim).policy, "drop-oldest");
}

#[test]
fn who_keeps_its_last_frame_is_not_evicted_while_the_publisher_pauses() {
    let mut scene = scene(1, &["hold_timeout=2000"]);
    let keeper = scene.join(&["subscriber", "hold=1"]);
    keeper.expect("connected");
    scene.healthy.push(keeper);
    scene.publish(1);
    scene.healthy[1].expect("kept");
    for _ in 0..3 {
        // Longer than the hold timeout, both with and without frames.
        std::thread::sleep(std::time::Duration::from_millis(2500));
        scene.publish(100);
    }
    assert_eq!(scene.info().publisher.evicted, 0);
}

#[test]
fn who_keeps_more_is_evicted_and_knows_it() {
    let mut scene = scene(1, &["hold_timeout=2000"]);
    let mut keeper = scene.join(&["subscriber", "hold=3", "quiet=true"]);
    keeper.expect("connected");
    scene.publish(3);
    keeper.expect("kept 3");
    eventually("it is evicted", || {
        scene.publish(4);
        scene.info().publisher.evicted == 1
    });
    scene.publish(2 * POOL);
    keeper.say("check");
    assert!(keeper.expect("checked").starts_with("whole=0 evicted=3 wrong=0"));
}

/// Descriptors on their way count per user, for all processes of that user.
#[test]
fn sixty_three_stopped_subscribers_of_an_ordinary_user_cost_it_nothing() {
    let mut ordinary: Vec<&str> = vec!["nofile=1024"];
    if nix::unistd::Uid::effective().is_root() {
        ordinary.push("uid=65534");
    }
    let place = pagecast_tests::Place::open_to_all();
    let size = format!("size={}", 20_000);
    let mut options = vec![size.as_str()];
    options.extend(&ordinary);
    let mut scene = Scene::at(PEER, place, &options, "");
    let join = |scene: &Scene, quiet| {
        let mut role = vec!["subscriber", quiet];
        role.extend(&ordinary);
        scene.join(&role)
    };
    let healthy = join(&scene, "quiet=false");
    healthy.expect("connected");
    scene.healthy.push(healthy);
    let victims: Vec<Peer> = (0..63).map(|_| join(&scene, "quiet=true")).collect();
    for victim in &victims {
        victim.expect("connected");
        victim.stop();
    }
    scene.publish(3000);
    let held: Vec<usize> = scene.info().subscribers.iter().map(|subscriber| subscriber.held).collect();
    assert_eq!(held.len(), 64);
    assert!(held[1..].iter().all(|held| *held > 0), "they were served until they stopped: {held:?}");
    let newcomer_comes_late = victims.iter().map(|victim| victim.signal(Signal::SIGCONT)).count();
    assert_eq!(newcomer_comes_late, 63);
    scene.publish(40);
    assert_eq!(scene.info().publisher.faults, 0);
}

/// Each buffer takes a descriptor: whoever keeps many frames must not use them up.
#[test]
fn keepers_of_many_frames_do_not_use_up_the_publisher_s_descriptors() {
    let mut scene = Scene::new(PEER, 1, &["size=20000", "nofile=1024"]);
    let mut keepers = Vec::new();
    for _ in 0..24 {
        let keeper = scene.join(&["subscriber", "quiet=true", "credits=64", "hold=1000"]);
        eventually("it has its answer", || keeper.has_said("connected") || keeper.has_said("failed"));
        scene.publish(64);
        keepers.push(keeper);
    }
    scene.publish(100);
    // Who comes when nothing is left to give is told so.
    assert!(
        keepers
            .iter()
            .all(|keeper| keeper.has_said("connected") || keeper.has_said("failed the publisher refused"))
    );
    let fds = scene.fds();
    assert!(fds.memfds < 800, "{fds:?}");
    // Each is given more when it has taken in what was announced.
    eventually("they keep many", || {
        scene.publish(4);
        scene.info().publisher.held > 250
    });
}

/// Descriptors of all a user's processes that are on their way are counted together: while another program
/// of the user uses them up, who is served already goes on, and a newcomer waits without harm.
#[test]
fn a_foreign_program_that_uses_up_descriptors_on_their_way_only_delays_newcomers() {
    if !nix::unistd::Uid::effective().is_root() {
        return pagecast_tests::skip("not root, and our own user's limit is needed by other tests");
    }
    let ordinary = ["uid=65533", "nofile=1024"];
    let mut scene = Scene::at(PEER, pagecast_tests::Place::open_to_all(), &ordinary, "");
    let join = |scene: &Scene, more: &[&str]| {
        let peer = scene.join(&[&["subscriber"], ordinary.as_slice(), more].concat());
        peer.expect("connected");
        peer
    };
    // As many buffers as its credits can ever need.
    let healthy = join(&scene, &["hold=8"]);
    scene.healthy.push(healthy);
    scene.publish(8);
    scene.healthy[0].say("release");
    scene.healthy[0].expect("released");
    scene.publish(12);
    let hog = scene.join(&[&["hog"], ordinary.as_slice()].concat());
    hog.expect("full");
    // What it knows already it gets as ever.
    scene.publish(200);
    let newcomer = join(&scene, &["quiet=true"]);
    scene.publish(1);
    assert_eq!(newcomer.acknowledged(), 0, "the limit was not reached: this test shows nothing");
    drop(hog);
    eventually("the newcomer is served", || newcomer.acknowledged() > 220);
    scene.publish(100);
    newcomer.try_follow(321).expect("it goes on");
    assert_eq!(scene.info().subscribers.len(), 2);
}

/// The negative control: pages reused while somebody reads them are found out.
#[test]
fn with_pages_reused_early_this_suite_fails() {
    let options = options();
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let mut scene = Scene::with_fault(PEER, 1, &options, "reuse-early");
    let mut keeper = scene.join(&["subscriber", "quiet=true", "hold=4"]);
    keeper.expect("connected");
    let published = scene.try_publish(100);
    keeper.say("check");
    let checked = keeper.expect("checked");
    assert!(published.is_err() || !checked.contains("wrong=0"), "nothing was found: {checked}");
}
