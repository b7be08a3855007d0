//! Processes killed at any moment: nothing of them is left, and nobody is disturbed.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pagecast::ipc::socket::Seqpacket;
use pagecast_tests::peers::Peer;
use pagecast_tests::proc::Fds;
use pagecast_tests::random::Random;
use pagecast_tests::scene::Scene;
use pagecast_tests::{Place, eventually, proc};

const PEER: &str = env!("CARGO_BIN_EXE_pagecast-peer");

/// Subscribers killed, by so many at a time.
const KILLS: usize = 1000;
const KILLERS: usize = 4;
/// Lives of publishers.
const LIVES: usize = 100;

/// A publisher whose pool is empty, as far as nobody holds a frame.
fn settled(scene: &mut Scene) -> (proc::Fds, usize) {
    let healthy = scene.healthy.len();
    eventually("only the healthy are left", || scene.info().subscribers.len() == healthy);
    // A thread of the publisher may still have in hand what was returned.
    eventually("everything was returned", || {
        let info = scene.info().publisher;
        info.held == 0 && info.pool_total == info.pool_free
    });
    scene.publisher.say("trim");
    scene.publisher.expect("trimmed");
    (scene.fds(), proc::mappings(scene.publisher.pid()))
}

/// How far those came who were killed, whatever else the machine had to do.
#[derive(Default)]
struct Came {
    /// Admitted, at least.
    inside: AtomicUsize,
    /// Held a frame, at least.
    holding: AtomicUsize,
}

/// Kills one subscriber that has come as far as `phase`, or is on its way there.
fn prey(uri: &str, phase: u64, random: &mut Random, came: &Came) {
    let phase_option = format!("phase={phase}");
    let mut prey = match phase {
        // A whole subscriber, in the midst of receiving.
        6 => Peer::start(PEER, &["subscriber", uri, "quiet=true"]),
        _ => Peer::start(PEER, &["prey", uri, &phase_option]),
    };
    if random.below(3) > 0 {
        prey.expect(if phase == 6 { "connected" } else { "at" });
        came.inside.fetch_add(usize::from(phase > 1), Ordering::SeqCst);
        came.holding.fetch_add(usize::from(phase == 4), Ordering::SeqCst);
        std::thread::sleep(Duration::from_micros(random.below(1500)));
    } else {
        std::thread::sleep(Duration::from_micros(random.below(12_000)));
    }
    prey.kill();
}

#[test]
fn a_thousand_killed_subscribers_leave_nothing_behind() {
    let mut scene = Scene::new(PEER, 2, &[]);
    scene.publish(100);
    let (fds, mappings) = settled(&mut scene);
    let (uri, busy, came) = (scene.uri.clone(), AtomicUsize::new(KILLERS), Came::default());
    std::thread::scope(|scope| {
        for killer in 0..KILLERS {
            let (uri, busy, came) = (&uri, &busy, &came);
            scope.spawn(move || {
                let mut random = Random::new(0x5eed + killer as u64);
                for kill in 0..KILLS / KILLERS {
                    prey(uri, kill as u64 % 7, &mut random, came);
                }
                busy.fetch_sub(1, Ordering::SeqCst);
            });
        }
        while busy.load(Ordering::SeqCst) > 0 {
            scene.publish(8);
        }
    });
    let admitted = scene.info().publisher.admitted;
    let Came { inside, holding } = came;
    let (inside, holding) = (inside.into_inner() as u64, holding.into_inner() as u64);
    assert!(inside > KILLS as u64 / 3 && admitted >= inside, "{admitted} came in, at least {inside}");
    let (_, mappings_after) = settled(&mut scene);
    // Who was killed before it was let in may be noticed last.
    eventually("their descriptors are closed", || scene.fds() == fds);
    // The allocator of small things may have made another arena.
    assert!(mappings_after <= mappings + 8, "{mappings_after} mappings, before {mappings}");
    scene.publish(100);
    for healthy in &scene.healthy {
        eventually("retired buffers are let go", || proc::fds(healthy.pid()).memfds <= 40);
    }
    let info = scene.info();
    assert!(
        info.publisher.reclaimed >= holding && holding > 50,
        "{holding} held frames when they were killed: {info:?}"
    );
    assert_eq!(info.publisher.faults, 0);
    assert_eq!(info.subscribers.iter().map(|subscriber| subscriber.dropped).sum::<u64>(), 0);
}

/// The negative control: rows that are not taken back are found out.
#[test]
fn without_reclaiming_this_suite_fails() {
    let mut scene = Scene::with_fault(PEER, 1, &[], "keep-rows");
    let mut prey = scene.join(&["prey", "phase=4"]);
    scene.publish_until(&prey, "at");
    prey.kill();
    eventually("it is gone", || scene.info().subscribers.len() == 1);
    scene.publish(40);
    assert!(scene.info().publisher.held > 0, "nothing was left over");
}

/// A program that forks its workers: each has a copy of every link, and that is nobody's link any more.
#[test]
fn links_that_a_forked_child_has_too_cost_nothing_when_they_have_ended() {
    const LOOKED_AT: Duration = Duration::from_secs(2);
    let mut scene = Scene::new(PEER, 2, &[]);
    scene.publish(8);
    let before = scene.fds();
    let stranger = Seqpacket::connect(&scene.place.path().join("scene")).expect("connected");
    eventually("the stranger is let in", || scene.fds().others > before.others);
    scene.publisher.say("fork");
    scene.publisher.expect("forked");
    drop((stranger, scene.healthy.pop()));
    scene.settles(&Fds { others: before.others - 1, ..before });
    let used = proc::cpu_time(scene.publisher.pid());
    std::thread::sleep(LOOKED_AT);
    let used = proc::cpu_time(scene.publisher.pid()) - used;
    assert!(used < LOOKED_AT / 10, "{used:?} of {LOOKED_AT:?} for nothing");
    scene.publish(8);
}

/// Each life of the publisher ends by SIGKILL, the last by itself.
#[test]
fn a_hundred_killed_publishers_leave_frames_valid_and_the_path_free() {
    let place = Place::new();
    let uri = place.uri("scene");
    let subscribers: Vec<Peer> =
        (0..2).map(|_| Peer::start(PEER, &["subscriber", &uri, "keep_each=true"])).collect();
    let mut subscribers = subscribers;
    let mut random = Random::new(0x11fe);
    let mut epochs = HashSet::new();
    for life in 0..LIVES {
        // Some at rest, some in the midst of filling and sending frames.
        let busy = life % 2 == 1;
        let pace = if busy { "every_us=100" } else { "size=100000" };
        let mut publisher = Peer::start(PEER, &["publisher", &uri, pace]);
        publisher.expect("ready");
        for subscriber in &subscribers {
            let connected = subscriber.expect("connected");
            let epoch: u32 = connected.rsplit_once(' ').expect("its epoch").1.parse().expect("a number");
            epochs.insert(epoch);
        }
        if !busy {
            publisher.say("publish 4");
            publisher.expect("published");
        }
        for subscriber in &subscribers {
            subscriber.expect("kept");
        }
        std::thread::sleep(Duration::from_micros(random.below(10_000)));
        publisher.kill();
        for subscriber in &subscribers {
            subscriber.expect("disconnected");
            assert!(!subscriber.has_said("bad"), "life {life}");
        }
    }
    assert_eq!(epochs.len(), LIVES, "each life has an epoch of its own");
    for subscriber in &mut subscribers {
        subscriber.say("check");
        let checked = subscriber.expect("checked");
        assert_eq!(checked, format!("whole={LIVES} evicted=0 wrong=0 changed=0"));
        // Of each life no more is left than the frame, its link and whether the publisher is alive.
        let fds = proc::fds(subscriber.pid());
        assert!(fds.memfds <= LIVES && fds.others <= 2 * LIVES + 20, "{fds:?}");
        let before = fds.others;
        subscriber.say("release");
        subscriber.expect("released");
        let fds = proc::fds(subscriber.pid());
        assert!(fds.memfds == 0 && fds.others + 2 * LIVES <= before + 1, "{before} before, now {fds:?}");
    }
    drop(subscribers);
    let mut last = Peer::start(PEER, &["publisher", &uri]);
    last.expect("ready");
    last.say("quit");
    eventually("it has ended", || matches!(proc::state(last.pid()), 'Z' | ' '));
    let left: Vec<_> =
        std::fs::read_dir(place.path()).expect("the place").flatten().map(|e| e.path()).collect();
    assert!(left.is_empty(), "left over: {left:?}");
}
