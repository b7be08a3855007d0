//! `hostile`: does one thing that a subscriber must not do, says `attacked` and what came of it, and stays.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use pagecast::ipc::wire::limits::{MAX_EVENT_BYTES, MAX_PACKET};
use pagecast::ipc::wire::{Event, Hello, Role, ToPublisher};

use super::raw::{Raw, packet};
use super::{Options, say, stay};

/// How long floods last.
const FLOOD: Duration = Duration::from_millis(1500);

pub(super) fn run(uri: &str, options: &Options) {
    let kind: String = options.get("kind").expect("a kind");
    let mut kept = Vec::new();
    let outcome = match kind.as_str() {
        "return-twice" => after_frames(uri, |raw, frames| raw.say(&returns(&[frames[0], frames[0]]))),
        "return-unknown" => after_frames(uri, |raw, frames| raw.say(&returns(&[frames[1] + 1_000_000]))),
        "return-not-sent" => after_frames(uri, |raw, frames| raw.say(&returns(&[frames[1] + 20]))),
        "seen-too-many" => after_frames(uri, |raw, _| raw.say(&[ToPublisher::Seen(1 << 40)])),
        "seen-backwards" => after_frames(uri, |raw, _| raw.say(&[ToPublisher::Seen(0)])),
        "hello-twice" => after_frames(uri, |raw, _| raw.say(&[hello()])),
        "query" => after_frames(uri, |raw, _| raw.say(&[ToPublisher::Query])),
        "random" => after_frames(uri, |raw, _| raw.send(&noise(777, 1), &[])),
        "record-count" => after_frames(uri, |raw, _| raw.send(&patched(raw.epoch, 12, &[0xff, 0xff]), &[])),
        "return-count" => after_frames(uri, |raw, _| raw.send(&patched(raw.epoch, 24, &[0xff, 0xff]), &[])),
        "body-length" => after_frames(uri, |raw, _| raw.send(&patched(raw.epoch, 20, &[0xff; 4]), &[])),
        "unknown-kind" => after_frames(uri, |raw, _| raw.send(&patched(raw.epoch, 16, &[0xee, 0x7f]), &[])),
        "too-long" => after_frames(uri, |raw, _| raw.send(&vec![0; MAX_PACKET + 1], &[])),
        "many-fds" => after_frames(uri, |raw, _| with_fds(raw, 40)),
        "truncated" => truncated(uri),
        "hellos" => hellos(uri),
        "fds" => fds(uri, &mut kept),
        "wrong-epoch" => wrong_epoch(uri, &mut kept),
        "half-closed" => half_closed(uri),
        "idle" => idle(uri, &mut kept),
        "storm" => storm(uri),
        "flood-requests" => flood(uri, &mut kept, &[request(MAX_EVENT_BYTES)]),
        "flood-small" => flood(uri, &mut kept, &vec![request(8); 200]),
        "flood-old-epoch" => flood_old_epoch(uri, &mut kept),
        "flood-queries" => flood_queries(uri),
        other => panic!("no such kind: {other}"),
    };
    say(&format!("attacked {outcome}"));
    stay();
}

fn hello() -> ToPublisher {
    ToPublisher::Hello(Hello::new(Role::Subscriber, "hostile"))
}

fn returns(frames: &[u64]) -> Vec<ToPublisher> {
    vec![ToPublisher::Return(frames.to_vec())]
}

fn request(size: usize) -> ToPublisher {
    ToPublisher::Request(Event { name: "flood".to_owned(), data: vec![7; size] })
}

/// Bytes that mean nothing, the same in every run.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(|_| next()).collect()
}

/// A packet with one return record, some bytes of it replaced.
fn patched(epoch: u32, at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut packet = packet(epoch, &returns(&[]));
    packet[at..at + bytes.len()].copy_from_slice(bytes);
    packet
}

/// Holds two frames, commits one fault, and says how it was cut off.
fn after_frames(uri: &str, fault: impl FnOnce(&mut Raw, &[u64]) -> bool) -> String {
    let mut raw = Raw::join(uri);
    let frames = [raw.frame(), raw.frame()];
    fault(&mut raw, &frames);
    say("struck");
    format!("{:?}", raw.cut())
}

fn with_fds(raw: &mut Raw, count: usize) -> bool {
    let file = std::fs::File::open("/dev/null").expect("a file");
    let fds = vec![file.as_fd(); count];
    let bytes = packet(raw.epoch, &returns(&[]));
    raw.send(&bytes, &fds)
}

/// Every beginning of a packet, each on a link of its own, some before and some after the hello.
fn truncated(uri: &str) -> String {
    let whole = packet(0, &[hello()]);
    for len in 1..whole.len() {
        let mut raw = Raw::connect(uri);
        raw.send(&whole[..len], &[]);
        raw.cut();
    }
    for len in 1..26 {
        let mut raw = Raw::join(uri);
        let bytes = packet(raw.epoch, &returns(&[1]));
        raw.send(&bytes[..len], &[]);
        assert!(raw.cut().is_some(), "cut off without a word at {len}");
    }
    "each".to_owned()
}

/// Hellos that cannot be: of another version, with counts beyond any limit, twice in one packet, noise.
fn hellos(uri: &str) -> String {
    let mut newer = Hello::new(Role::Subscriber, "newer");
    (newer.version_min, newer.version_max) = (1000, 2000);
    let version = ask(uri, &packet(0, &[ToPublisher::Hello(newer)]));
    let whole = packet(0, &[hello()]);
    // The length of the name, the role, the policy; after packet and record header.
    for (at, patch) in [(24 + 28, [0xff; 4].as_slice()), (24 + 4, &[0xff; 2]), (24 + 6, &[0xff; 2])] {
        let mut bytes = whole.clone();
        bytes[at..at + patch.len()].copy_from_slice(patch);
        assert_eq!(ask(uri, &bytes), "None", "at {at}");
    }
    assert_eq!(ask(uri, &packet(0, &[hello(), hello()])), "None");
    for seed in 1..50 {
        assert_eq!(ask(uri, &noise(40 * seed as usize, seed)), "None");
    }
    version
}

fn ask(uri: &str, first: &[u8]) -> String {
    let mut raw = Raw::connect(uri);
    raw.send(first, &[]);
    format!("{:?}", raw.cut())
}

/// Sends descriptors with everything it says, also with the hello, and goes on as if that were right.
fn fds(uri: &str, kept: &mut Vec<Raw>) -> String {
    let mut raw = Raw::connect(uri);
    let file = std::fs::File::open("/dev/null").expect("a file");
    raw.send(&packet(0, &[hello()]), &[file.as_fd(); 16]);
    raw.welcome().expect("welcome");
    for _ in 0..40 {
        let frame = raw.frame();
        let bytes = packet(raw.epoch, &returns(&[frame]));
        raw.send(&bytes, &[file.as_fd(); 32]);
    }
    kept.push(raw);
    "done".to_owned()
}

/// Returns everything in packets of another life of the link.
fn wrong_epoch(uri: &str, kept: &mut Vec<Raw>) -> String {
    let mut raw = Raw::join(uri);
    for _ in 0..8 {
        let frame = raw.frame();
        let bytes = packet(raw.epoch.wrapping_add(1), &returns(&[frame, frame]));
        raw.send(&bytes, &[]);
    }
    kept.push(raw);
    "done".to_owned()
}

/// Shuts down its writing side while it holds frames.
fn half_closed(uri: &str) -> String {
    let mut raw = Raw::join(uri);
    raw.frame();
    raw.socket.shutdown_write();
    raw.cut();
    "cut".to_owned()
}

/// Connects 500 times and says nothing.
fn idle(uri: &str, kept: &mut Vec<Raw>) -> String {
    kept.extend((0..500).map(|_| Raw::connect(uri)));
    "done".to_owned()
}

/// Comes and goes: 500 times without a word, 500 times with half a hello or a whole one.
fn storm(uri: &str) -> String {
    let whole = packet(0, &[hello()]);
    for n in 0..1000 {
        let mut raw = Raw::connect(uri);
        match n % 4 {
            1 => drop(raw.send(&whole[..20], &[])),
            3 => drop(raw.send(&whole, &[])),
            _ => {}
        }
    }
    "done".to_owned()
}

/// Says this again and again, from two threads, while it holds a frame.
fn flood(uri: &str, kept: &mut Vec<Raw>, messages: &[ToPublisher]) -> String {
    let mut raw = Raw::join(uri);
    raw.frame();
    let bytes = packet(raw.epoch, messages);
    shower(&mut raw, &bytes);
    kept.push(raw);
    "done".to_owned()
}

fn flood_old_epoch(uri: &str, kept: &mut Vec<Raw>) -> String {
    let mut raw = Raw::join(uri);
    raw.frame();
    let bytes = packet(raw.epoch.wrapping_sub(1), &returns(&[1]));
    shower(&mut raw, &bytes);
    kept.push(raw);
    "done".to_owned()
}

fn shower(raw: &mut Raw, bytes: &[u8]) {
    let end = Instant::now() + FLOOD;
    let socket = &raw.socket;
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while Instant::now() < end {
                    if socket.send(bytes, &[]) == Err(pagecast::ipc::socket::SendError::Closed) {
                        return;
                    }
                }
            });
        }
    });
}

/// An observer that asks without listening, again and again.
fn flood_queries(uri: &str) -> String {
    let end = Instant::now() + FLOOD;
    while Instant::now() < end {
        let mut raw = Raw::connect(uri);
        raw.say(&[ToPublisher::Hello(Hello::new(Role::Observer, "hostile"))]);
        raw.welcome().expect("welcome");
        while Instant::now() < end && raw.say(&vec![ToPublisher::Query; 200]) {}
    }
    "done".to_owned()
}
