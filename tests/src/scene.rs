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
    /// Its address.
    pub uri: String,
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
        let mut arguments = vec!["publisher", &uri];
        arguments.extend(options);
        let publisher = Peer::start_with_env(program, &arguments, &[("PAGECAST_FAULT", fault)]);
        publisher.expect("ready");
        let program = program.to_owned();
        Self { place, uri, publisher, healthy: Vec::new(), program, published: 0 }
    }

    /// Starts another process at this publisher: the role, then its options.
    pub fn join(&self, role: &[&str]) -> Peer {
        let mut arguments = vec![role[0], &self.uri];
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

    /// Publishes until `peer` has said a line that begins with `word`, and returns the rest of that line.
    pub fn publish_until(&mut self, peer: &Peer, word: &str) -> String {
        let deadline = std::time::Instant::now() + crate::peers::PATIENCE;
        while !peer.has_said(word) && std::time::Instant::now() < deadline {
            self.publish(BURST);
        }
        peer.expect(word)
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

    /// Waits until only the healthy are left, and the publisher has no more descriptors than `before`.
    pub fn settles(&mut self, before: &Fds) {
        let healthy = self.healthy.len();
        crate::eventually("only the healthy are left", || self.info().subscribers.len() == healthy);
        crate::eventually("descriptors are closed", || self.fds().others <= before.others);
    }

    /// Lets a stopped peer go on.
    pub fn resume(&self, peer: &Peer) {
        peer.signal(Signal::SIGCONT);
    }
}
