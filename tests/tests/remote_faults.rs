//! What networks do to TCP links, and worse: a proxy in a process of its own stands between the two ends of one link.
//! Whatever happens there, no torn frame is delivered, the link recovers or says why it ends, nobody else loses a
//! frame, and nothing is left behind.

use pagecast_tests::peers::Peer;
use pagecast_tests::proc::{self, Fds};
use pagecast_tests::scene::Scene;
use pagecast_tests::{eventually, soon};

const PEER: &str = env!("CARGO_BIN_EXE_pagecast-peer");
const SIZE: usize = 400_000;

/// A publisher with healthy subscribers, and one behind the proxy.
struct Stage {
    scene: Scene,
    proxy: Peer,
    /// Where the proxy is.
    address: String,
    victim: Peer,
    /// Descriptors of the publisher, and of the victim, while both do nothing.
    before: (Fds, Fds),
}

impl Stage {
    /// `options` are the victim's.
    fn new(options: &[&str]) -> Self {
        let scene = Scene::across(PEER, "tcp://127.0.0.1:0", &[&format!("size={SIZE}")]);
        let proxy = scene.join_at(scene.remote.as_deref().expect("an address"), &["proxy"]);
        let address = proxy.expect("ready");
        let victim = scene.join_at(&address, &[&["subscriber"], options].concat());
        victim.expect("connected");
        let mut stage = Self { scene, proxy, address, victim, before: Default::default() };
        // Nobody is ahead of the victim: what it loses later, it loses by a fault.
        for _ in 0..2 {
            stage.scene.publish(4);
            let published = stage.scene.published();
            stage.victim.try_follow(published).unwrap_or_else(|error| panic!("{error}"));
        }
        stage.before = (stage.scene.fds(), proc::fds(stage.victim.pid()));
        stage
    }

    /// A fault, or several.
    fn inflict(&mut self, faults: &[&str]) {
        for fault in faults {
            println!("{fault}");
            self.proxy.say(fault);
            self.proxy.expect("set");
        }
    }

    /// Publishes until the victim has said a line that begins with `word`; returns the rest of it.
    fn until(&mut self, word: &str) -> String {
        self.scene.publish_until(&self.victim, word)
    }

    /// The fault has happened, or so many.
    fn happens(&mut self, faults: usize) {
        for _ in 0..faults {
            eventually("it happens", || {
                self.scene.publish(1);
                assert!(!self.victim.has_said("failed"), "{}", self.victim.expect("failed"));
                soon(|| self.proxy.has_said("did"))
            });
            self.proxy.expect("did");
        }
    }

    /// The link ends, for whatever reason. One that the publisher ended for a fault is not made again by itself: then
    /// another subscriber takes its place.
    fn ends(&mut self) -> String {
        eventually("the link ends", || {
            self.scene.publish(1);
            ["disconnected", "failed"].iter().any(|word| self.victim.has_said(word))
        });
        if !self.victim.has_said("failed") {
            return self.until("disconnected");
        }
        let why = self.until("failed");
        self.victim = self.scene.join_at(&self.address, &["subscriber", "quiet=true"]);
        why
    }

    /// Publishes until the victim has a frame published from now on.
    fn victim_follows(&mut self) {
        let before = self.scene.published();
        self.scene.is_followed_by(&self.victim, before);
    }

    /// The link ends with that, stands again, and nothing is left over.
    fn recovers(&mut self, why: &str) {
        let said = self.ends();
        assert!(said.contains(why), "{said:?}, and not {why:?}");
        self.until("connected");
        self.settles();
    }

    /// Frames arrive, all subscribers are there, and nobody holds more than before.
    fn settles(&mut self) {
        self.victim_follows();
        eventually("all links stand", || self.scene.info().subscribers.len() == 3);
        let (publisher, victim) = self.before.clone();
        eventually("the publisher's descriptors are closed", || self.scene.fds().others <= publisher.others);
        let pid = self.victim.pid();
        // Pages of the link's life, and as many of the one before, of which a frame may be held.
        eventually("the victim's descriptors are closed", || {
            let fds = proc::fds(pid);
            fds.others <= victim.others && fds.memfds <= 2 * 10 && proc::memfd_mappings(pid) <= 2 * 10
        });
        eventually("nothing is held", || self.scene.info().publisher.held == 0);
        self.scene.publish(4);
    }
}

#[test]
fn a_slow_way_is_only_slow() {
    let mut stage = Stage::new(&[]);
    for (faults, frames) in [
        (&["down delay 3", "up delay 3"][..], 12),
        (&["down rate 20000000"], 24),
        (&["down pieces 1448", "up pieces 1"], 24),
    ] {
        stage.inflict(faults);
        for _ in 0..frames / 4 {
            stage.scene.publish(4);
            let (published, victim) = (stage.scene.published(), &stage.victim);
            victim.try_follow(published).unwrap_or_else(|error| panic!("{faults:?}: {error}"));
        }
        stage.inflict(&["clear"]);
    }
    assert_eq!(stage.scene.info().subscribers.iter().map(|s| s.dropped).sum::<u64>(), 0);
    stage.settles();
}

#[test]
fn every_message_may_come_byte_by_byte() {
    let mut stage = Stage::new(&["quiet=true"]);
    // The handshake, too: every record of a life.
    stage.inflict(&["down break rst", "down pieces 1", "up pieces 1"]);
    stage.ends();
    stage.until("connected");
    stage.victim_follows();
    // All that waits for it would take a busy machine long.
    stage.inflict(&["clear"]);
    stage.settles();
}

#[test]
fn a_connection_that_breaks_anywhere_leaves_no_torn_frame() {
    let mut stage = Stage::new(&["quiet=true"]);
    for how in ["fin", "rst"] {
        for at in [0, 1, 4095, 4096, SIZE / 2, SIZE - 1] {
            stage.inflict(&[&format!("down cut-frame {at} {how}")]);
            stage.recovers(if at == 0 { "" } else { "mid-frame" });
        }
    }
}

#[test]
fn a_connection_that_breaks_in_the_handshake_is_made_again() {
    let mut stage = Stage::new(&["quiet=true"]);
    for how in ["fin", "rst"] {
        for at in [0, 3, 8, 11, 27, 60, 200, 300] {
            for side in ["down", "up"] {
                // The new connection breaks, and the next one does not.
                stage.inflict(&[&format!("{side} cut {at} {how}"), "down break rst"]);
                stage.happens(1);
                stage.until("connected");
            }
        }
    }
    stage.settles();
}

#[test]
fn a_message_that_is_damaged_ends_its_link_alone() {
    let mut stage = Stage::new(&["quiet=true"]);
    // Length, magic, length of the packet, records, kind and length of the first record.
    for place in [0, 1, 2, 3, 4, 7, 12, 13, 14, 16, 20, 21, 24, 25, 27] {
        let faults = [format!("down flip frame {place}"), format!("up flip return {place}")];
        // A return that is longer by 4 KiB is whole when many more have come, which is no fault of its own.
        for fault in &faults[..if place == 1 { 1 } else { 2 }] {
            stage.inflict(&[fault]);
            assert!(!stage.ends().is_empty(), "{fault}");
            stage.until("connected");
            stage.victim_follows();
        }
    }
    stage.settles();
}

#[test]
fn messages_of_another_epoch_are_ignored() {
    let mut stage = Stage::new(&["quiet=true"]);
    stage.inflict(&["up stale return", "down stale frame"]);
    stage.happens(2);
    stage.scene.publish(40);
    assert!(!stage.victim.has_said("disconnected"));
    stage.settles();
}

#[test]
fn credits_that_are_lost_cost_only_their_link() {
    let mut stage = Stage::new(&["quiet=true"]);
    stage.inflict(&vec!["up drop return"; 200]);
    // Nothing is returned any more: what may be held is held, and the rest is its own loss.
    eventually("it gets no more", || {
        let before = stage.victim.acknowledged();
        stage.scene.publish(20);
        stage.victim.acknowledged() == before
    });
    stage.scene.publish(100);
    let info = stage.scene.info();
    let victim = info.subscribers.iter().max_by_key(|subscriber| subscriber.id).expect("the last to come");
    assert!(victim.dropped >= 60 && victim.held as u32 <= victim.credits, "{info:?}");
    assert!(info.publisher.pool_total < 60 * SIZE as u64, "{info:?}");
    assert!(!stage.victim.has_said("disconnected"), "who is alive is not cut off for being slow");
    // The network is mended, and the link made anew.
    stage.inflict(&["clear", "down break rst"]);
    stage.recovers("");
}

#[test]
fn credits_that_come_late_or_swapped_are_right() {
    let mut stage = Stage::new(&[]);
    for _ in 0..10 {
        stage.inflict(&["up swap return"]);
        stage.happens(1);
        stage.scene.publish(8);
        // On a slow machine it would lose some for being late itself.
        let published = stage.scene.published();
        stage.victim.try_follow(published).unwrap_or_else(|error| panic!("{error}"));
    }
    stage.settles();
}

#[test]
fn credits_that_come_twice_end_the_link() {
    let mut stage = Stage::new(&["quiet=true"]);
    stage.inflict(&["up double return"]);
    stage.recovers("is not held");
    assert_eq!(stage.scene.info().publisher.faults, 1);
}

#[test]
fn frames_that_come_twice_or_swapped_end_the_link() {
    let mut stage = Stage::new(&["quiet=true"]);
    for fault in ["down double frame", "down swap frame"] {
        stage.inflict(&[fault]);
        stage.recovers("does not rise");
    }
}

/// Whoever is not heard of is left, at both ends, and what was held for it is free.
#[test]
fn a_way_that_is_silent_is_left_in_seconds() {
    let mut stage = Stage::new(&["quiet=true"]);
    for (faults, why) in [
        // Half open: nothing passes, not even the end.
        (&["down stall", "up stall"][..], "nothing was heard"),
        (&["down stall"], "nothing was heard"),
        // The publisher hears nothing and ends the link.
        (&["up stall"], ""),
        (&["down halt 5000"], ""),
    ] {
        stage.inflict(faults);
        let begun = std::time::Instant::now();
        let said = stage.until("disconnected");
        assert!(said.contains(why), "{faults:?}: {said}");
        // Five seconds, on a machine that is not waited for.
        assert!(begun.elapsed().as_secs() < 25, "{faults:?}: {:?}", begun.elapsed());
        stage.inflict(&["clear"]);
        stage.until("connected");
        stage.settles();
    }
}

/// The negative control: what is put together from two frames, or is another in one byte, is noticed.
#[test]
fn what_is_torn_or_corrupted_is_found_out() {
    for fault in ["down corrupt 40962", "down tear 200000"] {
        let mut stage = Stage::new(&["quiet=true"]);
        stage.inflict(&[fault]);
        let said = stage.until("bad");
        assert!(said.contains("is not its own"), "{said}");
    }
}
