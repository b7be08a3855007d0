//! `subscriber`: receives, checks and acknowledges. `victim`: receives from a false publisher until it
//! knows what is wrong with it.

use std::time::{Duration, Instant};

use pagecast::{FaceSet, Frame, Message, ReadError, RecvError, Subscriber, SubscriberOptions};

use super::{Options, commands, say, stay};
use crate::{check, proc};

struct Healthy {
    expected: Option<u64>,
    kept: Vec<Frame>,
    keep: usize,
    /// Whether the next frame is the first of its link, and such frames are kept.
    first: bool,
    keep_each: bool,
    slow: Duration,
}

/// Options: `policy`, `credits`, `keep` (asked for), `hold` (frames kept until `release`), `slow` (ms per
/// frame), `quiet=true` (losses are expected), `keep_each=true` (the first frame of each link is
/// kept), `dma_bufs=true` (taken where there is no memory face), `deaf=true` (nothing is received once `hold` are kept), `insecure=true` (from other hosts). Commands: `check`,
/// `release`.
pub(super) fn run(uri: &str, options: &Options) {
    let settings = SubscriberOptions {
        policy: options.get("policy"),
        credits: options.get("credits"),
        keep: options.get("keep").unwrap_or(1),
        faces: if options.get("dma_bufs").unwrap_or(false) { FaceSet::all() } else { FaceSet::MEMORY },
        remote: options.remote(),
        ..SubscriberOptions::default()
    };
    let subscriber = match Subscriber::open(uri, settings) {
        Ok(subscriber) => subscriber,
        Err(error) => return say(&format!("failed {error}")),
    };
    let mut healthy = Healthy {
        expected: None,
        kept: Vec::new(),
        keep: options.get("hold").unwrap_or(0),
        first: false,
        keep_each: options.get("keep_each").unwrap_or(false),
        slow: Duration::from_millis(options.get("slow").unwrap_or(0)),
    };
    let quiet = options.get("quiet").unwrap_or(false);
    let deaf = options.get("deaf").unwrap_or(false);
    let mut told = false;
    let commands = commands();
    loop {
        if deaf && healthy.keep > 0 && healthy.kept.len() == healthy.keep {
            if !told {
                say("deaf");
            }
            told = true;
            commands.recv().iter().for_each(|command| healthy.obey(command));
            continue;
        }
        match subscriber.recv(Some(Duration::from_millis(20))) {
            Ok(Message::Frame(frame)) => healthy.take(frame, quiet),
            Ok(Message::Connected(welcome)) => {
                say(&format!("connected {} {}", welcome.subscriber, subscriber.figures().epoch));
                healthy.expected = None;
                healthy.first = true;
            }
            Ok(Message::Disconnected(why)) => say(&format!("disconnected {why}")),
            Ok(_) | Err(RecvError::Timeout) => {}
            Err(error) => {
                say(&format!("failed {error}"));
                stay();
            }
        }
        commands.try_recv().iter().for_each(|command| healthy.obey(command));
    }
}

impl Healthy {
    fn obey(&mut self, command: &str) {
        match command {
            "check" => self.check_kept(),
            "release" => {
                self.kept.clear();
                self.keep = 0;
                say("released");
            }
            _ => panic!("no such command: {command}"),
        }
    }

    fn take(&mut self, frame: Frame, quiet: bool) {
        std::thread::sleep(self.slow);
        let number = match check(&frame) {
            Ok(number) => number,
            Err(error) => return say(&format!("bad {error}")),
        };
        if !quiet && self.expected.is_some_and(|expected| expected != number) {
            say(&format!("lost {:?} to {number}", self.expected));
        }
        self.expected = Some(number + 1);
        let first = std::mem::take(&mut self.first);
        if self.kept.len() < self.keep || (first && self.keep_each) {
            self.kept.push(frame);
            say(&format!("kept {}", self.kept.len()));
        } else {
            drop(frame);
        }
        say(&format!("ack {number}"));
    }

    /// Of the frames kept: how many are whole, how many are known to be evicted, how many are neither.
    fn check_kept(&self) {
        let (mut whole, mut evicted, mut wrong, mut changed) = (0, 0, 0, 0);
        for frame in &self.kept {
            match frame.to_vec() {
                Ok(_) if check(frame).is_ok() => whole += 1,
                Ok(_) => wrong += 1,
                Err(ReadError::Evicted(_)) => evicted += 1,
                Err(error) => say(&format!("failed {error}")),
            }
            // What is in the pages now, whatever the link says.
            changed += usize::from(!pages_are_untouched(frame));
        }
        say(&format!("checked whole={whole} evicted={evicted} wrong={wrong} changed={changed}"));
    }
}

fn pages_are_untouched(frame: &Frame) -> bool {
    let Ok(guard) = frame.read() else { return false };
    let mut bytes = vec![0; frame.size()];
    let Some(number) = frame.description().offset else { return false };
    guard.copy_to(0, &mut bytes).is_ok()
        && bytes.chunks(crate::PAGE).enumerate().all(|(page, bytes)| {
            let stamp = crate::stamp(number, page as u64).to_le_bytes();
            let len = bytes.len().min(8);
            bytes[..len] == stamp[..len]
        })
}

/// Receives without reconnecting until something is wrong, for at most `within` milliseconds, and says what
/// it was, how many descriptors were left over, and how long it took.
pub(super) fn run_victim(uri: &str, options: &Options) {
    let any_face = options.get("any_face").unwrap_or(false);
    let settings = SubscriberOptions { reconnect: false, any_face, ..SubscriberOptions::default() };
    let me = std::process::id() as i32;
    let before = proc::fds(me);
    let subscriber = Subscriber::open(uri, settings).expect("a subscriber");
    let start = Instant::now();
    let within = options.get("within").map(Duration::from_millis);
    let mut frames = 0;
    let error = loop {
        let left = within.map(|within| within.saturating_sub(start.elapsed()));
        match subscriber.recv(left) {
            Ok(Message::Frame(frame)) => {
                frames += 1;
                if let Err(error) = frame.to_vec() {
                    say(&format!("unreadable {error}"));
                }
            }
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    say(&format!("ended {error}"));
    drop(subscriber);
    let after = proc::fds(me);
    let leaked = (after.others + after.memfds) as i64 - (before.others + before.memfds) as i64;
    say(&format!("leaked {leaked} frames {frames}"));
    stay();
}
