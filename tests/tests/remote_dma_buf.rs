//! Frames whose pages are a dma-buf alone, on links to other hosts: the CPU's access to them ends when they have left, and
//! with a link that dies. The kernel counts both, so this is for the testbed; elsewhere it is skipped.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use pagecast::{FaceKind, Frame, Pool, PoolOptions, Publisher, PublisherOptions, allocators};
use pagecast_tests::peers::Peer;
use pagecast_tests::{eventually, skip, stamped};

const PEER: &str = env!("CARGO_BIN_EXE_pagecast-peer");
const TRACING: &str = "/sys/kernel/tracing";
/// More than two sockets hold.
const SIZE: usize = 24 << 20;

/// Counts in the kernel how often CPU access to a udmabuf begins and ends, by anybody.
struct Counting;

impl Counting {
    fn new() -> Self {
        if !Path::new(TRACING).join("kprobe_events").exists() {
            let mount = Command::new("mount").args(["-t", "tracefs", "tracefs", TRACING]).status();
            assert!(mount.is_ok_and(|status| status.success()), "tracefs cannot be mounted");
        }
        let probes = "p:pagecast/begin begin_cpu_udmabuf\np:pagecast/end end_cpu_udmabuf\n";
        tell("kprobe_events", probes);
        tell("events/pagecast/enable", "1");
        Self
    }

    /// How often it began, and how often it ended.
    fn counts(&self) -> (u64, u64) {
        let text = std::fs::read_to_string(Path::new(TRACING).join("kprobe_profile")).expect("counts");
        let count = |name: &str| {
            let line = text.lines().find(|line| line.split_whitespace().next() == Some(name)).expect(name);
            line.split_whitespace().nth(1).and_then(|count| count.parse().ok()).expect("a count")
        };
        (count("begin"), count("end"))
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("begun and ended: {:?}", self.counts());
        }
        tell("events/pagecast/enable", "0");
        tell("kprobe_events", "");
    }
}

fn tell(file: &str, text: &str) {
    std::fs::write(Path::new(TRACING).join(file), text).expect(file);
}

/// A stamped frame, of which only its dma-buf is known.
fn by_dma_buf(pool: &Pool, number: u64) -> Frame {
    let frame = stamped(pool, number, SIZE);
    let face = frame.segments()[0].buffer.face(FaceKind::DmaBuf).expect("a dma-buf face");
    let buffer = allocators::foreign::import(face.fd).expect("imported");
    assert!(buffer.mapped_dma_buf().is_some(), "it has no other face");
    let description = frame.description().clone();
    let built = Frame::builder().describe(description).segment(Arc::new(buffer), 0, SIZE).owner(frame);
    built.build().expect("a frame")
}

#[test]
fn access_to_a_dma_buf_ends_when_its_frame_has_left_or_its_link_dies() {
    if std::env::var_os("PAGECAST_TESTBED").is_none() {
        return skip("it counts in the kernel, whoever else is there");
    }
    let counting = Counting::new();
    let options = PublisherOptions { live: false, block_deadline: None, ..PublisherOptions::default() };
    let publisher = Publisher::open("tcp://127.0.0.1:0", options).expect("a publisher");
    let uri = publisher.info().uri;
    let pool = Pool::new(PoolOptions::default());
    publisher.set_pool(&pool);
    let healthy = Peer::start(PEER, &["subscriber", &uri]);
    healthy.expect("connected");
    assert!(publisher.wait_for_subscribers(1, Some(Duration::from_secs(30))));
    for number in 0..3 {
        publisher.publish(&by_dma_buf(&pool, number)).expect("published");
    }
    healthy.try_follow(3).unwrap_or_else(|error| panic!("{error}"));
    eventually("what has left is not accessed", || {
        let (begun, ended) = counting.counts();
        begun >= 3 && begun == ended
    });
    drop(healthy);
    eventually("its going is noticed", || publisher.subscribers() == 0);

    // One is killed, one is silent for too long; each with a frame under way.
    for kills in [true, false] {
        let mut victim = Peer::start(PEER, &["subscriber", &uri]);
        victim.expect("connected");
        victim.stop();
        publisher.publish(&by_dma_buf(&pool, 0)).expect("published");
        eventually("the frame is under way", || {
            let (begun, ended) = counting.counts();
            begun > ended
        });
        if kills {
            victim.kill();
        }
        eventually("its end is noticed", || publisher.subscribers() == 0);
        eventually("access has ended", || {
            let (begun, ended) = counting.counts();
            begun == ended
        });
    }
}
