//! A publisher and healthy subscribers, each a process, that others are let loose on.

use nix::sys::signal::Signal;
use pagecast::Info;

use crate::Place;
use crate::peers::Peer;
use crate::proc::{self, Fds};

/// Frames published at once: fewer than a subscriber's credits, so that who keeps up cannot lose any.
const BURST: u64 = 4;

/// A publisher that goes on when all healthy subscribers have checked and returned what it sent: what they
/// lose then, they lose through somebody else's fault, never because the machine was slow.
#[derive(Debug)]
pub struct Scene {
    /// Where its socket is.
    pub place: Place,
    /// Its address on this host.
    pub uri: String,
    /// Its address for other hosts, if it has one.
    pub remote: Option<String>,
    /// The publisher's process.
    pub publisher: Peer,
    /// Subscribers that must not lose anything.
    pub healthy: Vec<Peer>,
    program: String,
    published: u64,
}

impl Scene {
    /// A publisher with `options`, see `roles/publisher.rs`, and so many healthy subscribers.
    pub fn new(program: &str, healthy: usize, options: &[&str]) -> Self {
        Self::with_fault(program, healthy, options, "")
    }

    /// As [`Scene::new`], with a publisher that is deliberately broken: a negative control.
    pub fn with_fault(program: &str, healthy: usize, options: &[&str], fault: &str) -> Self {
        let mut scene = Self::at(program, Place::new(), options, fault);
        for _ in 0..healthy {
            let peer = scene.join(&["subscriber"]);
            peer.expect("connected");
            scene.healthy.push(peer);
        }
        scene
    }

    /// As [`Scene::with_fault`], in a place that is there already, and with nobody in it yet.
    pub fn at(program: &str, place: Place, options: &[&str], fault: &str) -> Self {
        let uri = place.uri("scene");
        let publisher = start(program, &uri, options, fault);
        publisher.expect("ready");
        let program = program.to_owned();
        Self { place, uri, remote: None, publisher, healthy: Vec::new(), program, published: 0 }
    }

    /// A publisher that listens at `remote`, too, with a healthy subscriber each way.
    pub fn across(program: &str, remote: &str, options: &[&str]) -> Self {
        let mut scene = Self::listening(program, remote, options);
        for uri in [scene.uri.clone()].into_iter().chain(scene.remote.clone()) {
            scene.admit(&uri, &[]);
        }
        scene
    }

    /// As [`Scene::across`], with nobody there yet.
    pub fn listening(program: &str, remote: &str, options: &[&str]) -> Self {
        let place = Place::new();
        let uri = place.uri("scene");
        let publisher = start(program, &format!("{uri} {remote}"), options, "");
        let uris = publisher.expect("ready");
        let remote = uris.split(' ').next_back().map(str::to_owned);
        let program = program.to_owned();
        Self { place, uri, remote, publisher, healthy: Vec::new(), program, published: 0 }
    }

    /// Adds a healthy subscriber, before the first frame.
    pub fn admit(&mut self, uri: &str, options: &[&str]) {
        let peer = self.join_at(uri, &[&["subscriber"], options].concat());
        peer.expect("connected");
        self.healthy.push(peer);
    }

    /// Starts another process at this publisher: the role, then its options.
    pub fn join(&self, role: &[&str]) -> Peer {
        self.join_at(&self.uri, role)
    }

    /// As [`Scene::join`], by that address.
    pub fn join_at(&self, uri: &str, role: &[&str]) -> Peer {
        let mut arguments = vec![role[0], uri];
        arguments.extend(&role[1..]);
        Peer::start(&self.program, &arguments)
    }

    /// Publishes `frames` frames and sees to it that every healthy subscriber got each of them.
    ///
    /// # Errors
    /// What went wrong.
    pub fn try_publish(&mut self, frames: u64) -> Result<(), String> {
        let end = self.published + frames;
        while self.published < end {
            let burst = BURST.min(end - self.published);
            self.publisher.say(&format!("publish {burst}"));
            self.publisher.try_expect("published")?;
            self.published += burst;
            for peer in &self.healthy {
                peer.try_follow(self.published)?;
            }
        }
        Ok(())
    }

    /// As [`Scene::try_publish`].
    ///
    /// # Panics
    /// If a healthy subscriber lost anything.
    pub fn publish(&mut self, frames: u64) {
        self.try_publish(frames).unwrap_or_else(|error| panic!("the healthy were disturbed: {error}"));
    }

    /// Publishes a few frames, at most a burst, while something happens.
    pub fn publish_while(&mut self, frames: u64, happens: impl FnOnce()) {
        assert!(frames <= BURST, "the healthy may lose some");
        self.publisher.say(&format!("publish {frames}"));
        happens();
        self.publisher.expect("published");
        self.published += frames;
    }

    /// Publishes until `peer` has said a line that begins with `word`, and returns the rest of that line.
    pub fn publish_until(&mut self, peer: &Peer, word: &str) -> String {
        let deadline = std::time::Instant::now() + crate::peers::PATIENCE;
        while !peer.has_said(word) && std::time::Instant::now() < deadline {
            self.publish(BURST);
        }
        peer.expect(word)
    }

    /// Publishes until `peer` has checked a frame published after so many. It has a moment for each, so that who keeps up
    /// loses none on the way.
    ///
    /// # Panics
    /// If a frame that it got was wrong.
    pub fn is_followed_by(&mut self, peer: &Peer, before: u64) {
        crate::eventually("it gets frames", || {
            self.publish(1);
            crate::soon(|| peer.acknowledged() > before)
        });
        assert!(!peer.has_said("bad"), "{}", peer.expect("bad"));
    }

    /// Frames published so far.
    pub fn published(&self) -> u64 {
        self.published
    }

    /// The publisher's figures.
    pub fn info(&mut self) -> Info {
        self.publisher.say("info");
        let json = self.publisher.expect("info");
        serde_json::from_str(&json).expect("figures")
    }

    /// The publisher's descriptors.
    pub fn fds(&self) -> Fds {
        proc::fds(self.publisher.pid())
    }

    /// Waits until only the healthy are left; who is silent is cut off after some seconds.
    pub fn only_the_healthy_are_left(&mut self) {
        let healthy = self.healthy.len();
        crate::eventually("only the healthy are left", || self.info().subscribers.len() == healthy);
    }

    /// Waits until only the healthy are left, and the publisher has no more descriptors than `before`.
    pub fn settles(&mut self, before: &Fds) {
        self.only_the_healthy_are_left();
        crate::eventually("descriptors are closed", || self.fds().others <= before.others);
    }

    /// Lets a stopped peer go on.
    pub fn resume(&self, peer: &Peer) {
        peer.signal(Signal::SIGCONT);
    }
}

fn start(program: &str, uri: &str, options: &[&str], fault: &str) -> Peer {
    let arguments: Vec<&str> = ["publisher", uri].into_iter().chain(options.iter().copied()).collect();
    Peer::start_with_env(program, &arguments, &[("PAGECAST_FAULT", fault)])
}
