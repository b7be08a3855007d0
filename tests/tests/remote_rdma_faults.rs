//! What can happen to links over RDMA, on the testbed's two soft devices: cables pulled, packets lost, a device taken away,
//! memory that may not be locked, subscribers that return nothing, either side killed in mid-frame. The link
//! recovers or says why it ends, others lose nothing, and the kernel's objects are back to where they were. Elsewhere
//! each test is skipped.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use pagecast::publisher::SubscriberInfo;
use pagecast::verbs::counters;
use pagecast_tests::eventually;
use pagecast_tests::peers::{PATIENCE, Peer};
use pagecast_tests::scene::Scene;
use pagecast_tests::testbed::{OTHER, OWN, Trouble, arrived, objects, run, testbed, words};

const PEER: &str = env!("CARGO_BIN_EXE_pagecast-peer");
/// Who may come; the healthy come by the loopback, where nothing happens, one of them by RDMA.
const OPEN: [&str; 2] = ["insecure=true", "networks=10.77.0.0/24,127.0.0.0/8"];
/// A frame, and what it is on the wire: packets of 4096 bytes, each with 58 of headers.
const FRAME: u64 = 800_000;
const FRAME_ON_WIRE: u64 = FRAME + FRAME.div_ceil(4096) * 58;
const LARGE: &str = "size=800000";
const SMALL: &str = "size=300000";
/// Kills of each side that must have left a part of a frame.
const TORN: usize = 5;

struct Stage {
    scene: Scene,
    victim: Peer,
}

impl Stage {
    /// A publisher, healthy subscribers, and one that comes from the other device.
    fn new(size: &str) -> Self {
        let mut scene = listening(size);
        scene.admit(&beside(&scene), &["insecure=true"]);
        Self::of(scene)
    }

    fn of(scene: Scene) -> Self {
        let victim = join(&scene, "subscriber", &[]);
        victim.expect("connected");
        let mut stage = Self { scene, victim };
        stage.victim_follows();
        stage
    }

    fn victim_follows(&mut self) {
        let before = self.scene.published();
        self.scene.is_followed_by(&self.victim, before);
    }

    fn until(&mut self, word: &str) -> String {
        self.scene.publish_until(&self.victim, word)
    }

    /// The victim's figures.
    fn figures(&mut self) -> SubscriberInfo {
        let from_there = |s: &SubscriberInfo| s.peer.as_ref().is_some_and(|peer| peer.contains("10.77.0.2:"));
        self.scene.info().subscribers.into_iter().find(from_there).expect("the victim")
    }

    /// Everybody goes, and nothing is left of them in the kernel.
    fn leaves(self, objects_before: usize) {
        drop(self);
        eventually("the kernel's objects are gone", || objects() <= objects_before);
    }
}

/// A publisher, and healthy subscribers on this host and by TCP.
fn listening(size: &str) -> Scene {
    let remote = format!("tcp://127.0.0.1:0 rdma://{OWN}:0");
    let mut scene = Scene::listening(PEER, &remote, &[&OPEN[..], &[size]].concat());
    let uris = scene.info().uri;
    let tcp = uris.split(' ').find(|uri| uri.starts_with("tcp:")).expect("an address");
    for uri in [scene.uri.clone().as_str(), tcp] {
        scene.admit(uri, &[]);
    }
    scene
}

/// The address by RDMA for somebody who comes from the publisher's own device.
fn beside(scene: &Scene) -> String {
    format!("{}?from={OWN}", scene.remote.as_deref().expect("an address"))
}

/// Somebody who comes from the other device.
fn join(scene: &Scene, role: &str, options: &[&str]) -> Peer {
    let uri = scene.remote.as_deref().expect("an address");
    scene.join_at(&format!("{uri}?from={OTHER}"), &[&[role, "insecure=true", "quiet=true"], options].concat())
}

#[test]
fn an_interface_that_goes_down_ends_the_link_and_it_stands_again() {
    let Some(_testbed) = testbed() else { return };
    let before = objects();
    let mut stage = Stage::new(SMALL);
    let down = Trouble::begin(
        &["ip link set vm1 down"],
        &["ip link set vm1 up", "ip route add 10.77.0.1 dev vm1 src 10.77.0.2 table 102"],
    );
    assert!(!stage.until("disconnected").is_empty());
    stage.scene.only_the_healthy_are_left();
    stage.scene.publish(20);
    drop(down);
    stage.until("connected");
    stage.victim_follows();
    stage.leaves(before);
}

#[test]
fn a_device_that_is_taken_away_stops_nobody_else_and_is_used_again_when_it_is_back() {
    let Some(_testbed) = testbed() else { return };
    let before = objects();
    let mut stage = Stage::new(SMALL);
    let back = Trouble::begin(&[], &["rdma link add rxe1 type rxe netdev vm1"]);
    // The kernel waits for those who have it open.
    let mut deletion = words("rdma link delete rxe1").spawn().expect("rdma");
    eventually("it is being taken away", || !run("rdma link").contains("rxe1"));
    stage.scene.publish(20);
    let far = stage.victim.acknowledged();
    eventually("it goes on, or says that it does not", || {
        stage.scene.publish(1);
        stage.victim.acknowledged() > far || stage.victim.has_said("disconnected")
    });
    let early = join(&stage.scene, "subscriber", &[]);
    let said = early.expect("failed");
    assert!(said.contains("`rdma link`"), "{said}");
    stage.victim.kill();
    eventually("it is gone", || deletion.try_wait().expect("rdma").is_some());
    stage.scene.only_the_healthy_are_left();
    drop(back);
    stage.victim = join(&stage.scene, "subscriber", &[]);
    stage.victim_follows();
    stage.leaves(before);
}

#[test]
fn one_packet_in_a_hundred_may_be_lost() {
    let Some(_testbed) = testbed() else { return };
    let before = objects();
    let mut stage = Stage::new(SMALL);
    let loss = Trouble::begin(
        &["tc qdisc add dev vm0 root netem loss 1%", "tc qdisc add dev vm1 root netem loss 1%"],
        &["tc qdisc del dev vm0 root", "tc qdisc del dev vm1 root"],
    );
    let frames = stage.figures().frames;
    eventually("thirty frames have come through", || {
        stage.victim_follows();
        stage.figures().frames > frames + 30
    });
    let lost = run("tc -s qdisc show dev vm0");
    assert!(!lost.contains("dropped 0,"), "nothing was lost, so nothing is shown: {lost}");
    drop(loss);
    assert!(!stage.victim.has_said("disconnected"), "{}", stage.victim.expect("disconnected"));
    stage.leaves(before);
}

#[test]
fn who_may_lock_too_little_is_told_what_to_do() {
    let Some(_testbed) = testbed() else { return };
    let before = objects();
    let mut stage = Stage::new(SMALL);
    let poor = join(&stage.scene, "subscriber", &["memlock=65536", "uid=65534"]);
    let said = stage.scene.publish_until(&poor, "disconnected");
    assert!(said.contains("ulimit -l"), "{said}");
    drop(poor);
    stage.victim_follows();
    stage.leaves(before);
}

#[test]
fn who_returns_nothing_holds_its_window_and_costs_nobody_else() {
    let Some(_testbed) = testbed() else { return };
    let before = objects();
    let mut stage = Stage::new(SMALL);
    drop(std::mem::replace(&mut stage.victim, join(&stage.scene, "subscriber", &["hold=1000"])));
    stage.until("kept 8");
    stage.scene.publish(40);
    assert!(!stage.victim.has_said("kept 9"), "more than its window");
    eventually("what it cannot have is its loss", || {
        stage.scene.publish(4);
        stage.figures().dropped >= 20
    });
    stage.victim.say("release");
    stage.victim.expect("released");
    stage.victim_follows();
    // One that is stopped is cut off, and comes back.
    stage.victim.stop();
    eventually("it is cut off", || {
        stage.scene.publish(1);
        stage.scene.info().subscribers.len() == stage.scene.healthy.len()
    });
    stage.victim.signal(Signal::SIGCONT);
    stage.until("connected");
    stage.victim_follows();
    stage.leaves(before);
}

/// How often a peer was not ready until the device gave up.
fn given_up() -> u64 {
    counters::read("rxe0", 1).expect("counters")["retry_rnr_exceeded_err"]
}

#[test]
fn who_receives_grants_or_means_nothing_is_cut_off_within_seconds() {
    let Some(_testbed) = testbed() else { return };
    let before = objects();
    // On a slow machine the link of a neighbour by RDMA may end, too: it must be back by itself.
    let scene = listening(SMALL);
    let neighbour = scene.join_at(&beside(&scene), &["subscriber", "insecure=true", "quiet=true"]);
    neighbour.expect("connected");
    let mut stage = Stage::of(scene);
    let not_ready = given_up();
    // The control does what it should until its receives are used up, only it says nothing more.
    let kinds = ["receives=8", "receives=0", "grants=false", "key=77"];
    let all = kinds.map(|kind| join(&stage.scene, "raw-rdma", &[kind]));
    let written = kinds.into_iter().zip(all).map(|(kind, hostile)| was_cut_off(&mut stage, kind, hostile));
    assert_eq!(written.collect::<Vec<_>>(), [true, false, false, false], "who had a frame, of {kinds:?}");
    assert!(given_up() > not_ready, "no device said that it was not ready");
    stage.victim_follows();
    let published = stage.scene.published();
    stage.scene.is_followed_by(&neighbour, published);
    drop(neighbour);
    stage.leaves(before);
}

/// Waits until somebody hostile is cut off; whether it had a frame before.
fn was_cut_off(stage: &mut Stage, kind: &str, mut hostile: Peer) -> bool {
    for _ in 0..5 {
        let after: u64 = stage.scene.publish_until(&hostile, "closed").parse().expect("milliseconds");
        if after > 0 {
            assert!(after < 15_000, "{kind}: {after} ms");
            return hostile.has_said("written");
        }
        // On a slow machine a hello may come too late.
        hostile = join(&stage.scene, "raw-rdma", &[kind]);
    }
    panic!("{kind}: no frame was ever announced");
}

/// The way is slowed, so that a kill comes in mid-frame.
fn slowed() -> Trouble {
    Trouble::begin(
        &["tc qdisc add dev vm0 root netem rate 120mbit limit 10000"],
        &["tc qdisc del dev vm0 root"],
    )
}

/// Waits until about so many thousandths of a frame have come to the other device's interface since; whether it is a part of
/// one that is there now.
fn is_cut(since: u64, thousandths: u64) -> bool {
    let deadline = Instant::now() + PATIENCE;
    let target = FRAME_ON_WIRE * thousandths / 1000;
    while arrived("vm1") - since < target && Instant::now() < deadline {
        std::thread::sleep(Duration::from_micros(500));
    }
    let there = arrived("vm1") - since;
    let part = there % FRAME_ON_WIRE * 100 / FRAME_ON_WIRE;
    there > target && (10..80).contains(&part)
}

/// How far a round lets the frames come: from a fifth to two and a half.
fn phase(round: u64) -> u64 {
    [200, 400, 550, 1200, 1400, 1550, 2300, 2500][round as usize % 8]
}

#[test]
fn subscribers_killed_in_mid_frame_leave_nothing_behind() {
    let Some(_testbed) = testbed() else { return };
    let before = objects();
    let mut stage = Stage::new(LARGE);
    // Alone on the slow way, so that what comes there is for the prey.
    stage.victim.kill();
    let slow = slowed();
    let mut torn = 0;
    for round in 0..3 * TORN as u64 {
        stage.scene.only_the_healthy_are_left();
        let mut prey = join(&stage.scene, "subscriber", &[]);
        prey.expect("connected");
        let since = arrived("vm1");
        let mut cut = false;
        stage.scene.publish_while(4, || {
            cut = is_cut(since, phase(round));
            prey.kill();
        });
        assert!(!prey.has_said("bad"), "{}", prey.expect("bad"));
        torn += usize::from(cut && prey.acknowledged() < stage.scene.published());
        if torn >= TORN {
            break;
        }
    }
    assert!(torn >= TORN, "{torn} kills came in mid-frame");
    drop(slow);
    stage.victim = join(&stage.scene, "subscriber", &[]);
    stage.victim_follows();
    stage.leaves(before);
}

#[test]
fn publishers_killed_in_mid_frame_leave_no_torn_frame() {
    let Some(_testbed) = testbed() else { return };
    let before = objects();
    let _slow = slowed();
    let start = |uri: &str| {
        let publisher = Peer::start(PEER, &[&["publisher", uri, LARGE], &OPEN[..]].concat());
        let uri = publisher.expect("ready");
        (publisher, uri)
    };
    let (mut publisher, uri) = start(&format!("rdma://{OWN}:0"));
    let from = format!("{uri}?from={OTHER}");
    let mut subscriber =
        Peer::start(PEER, &["subscriber", &from, "insecure=true", "quiet=true", "keep_each=true"]);
    let (mut torn, mut whole) = (0, 0);
    for round in 0..3 * TORN as u64 {
        subscriber.expect("connected");
        let since = arrived("vm1");
        publisher.say("publish 4");
        let cut = is_cut(since, phase(round));
        publisher.kill();
        let said = subscriber.expect("disconnected");
        torn += usize::from(cut && said.contains("mid-frame"));
        assert!(!subscriber.has_said("bad"), "{}", subscriber.expect("bad"));
        if torn >= TORN {
            break;
        }
        publisher = start(&uri).0;
    }
    assert!(torn >= TORN, "{torn} kills came in mid-frame");
    // What it kept of the lives that are over.
    while subscriber.has_said("kept") {
        subscriber.expect("kept");
        whole += 1;
    }
    subscriber.say("check");
    assert_eq!(subscriber.expect("checked"), format!("whole={whole} evicted=0 wrong=0 changed=0"));
    assert!(whole > 0, "nothing was kept");
    drop((publisher, subscriber));
    eventually("the kernel's objects are gone", || objects() <= before);
}
