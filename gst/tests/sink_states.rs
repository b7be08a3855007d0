//! State changes of a sink in any order end in time and leave nothing behind. One test in a process of its own,
//! since it counts the process's descriptors and mappings.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::*;
use gst::prelude::*;
use pagecast::Message;
use pagecast_tests::proc;
use pagecast_tests::random::Random;

const CHANGES: u32 = 1000;

/// Reads for as long as it lives, keeps a few frames, and comes again when it is sent away.
struct Reader {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<u64>>,
}

impl Reader {
    fn new(place: &Place) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (end, subscriber) = (stop.clone(), subscriber(place));
        let thread = std::thread::spawn(move || {
            let (mut frames, mut kept) = (0, Vec::new());
            while !end.load(Ordering::SeqCst) {
                match subscriber.recv(Some(Duration::from_millis(5))) {
                    Ok(Message::Frame(frame)) => {
                        frames += 1;
                        kept.push(frame);
                        if kept.len() > 3 {
                            kept.remove(0);
                        }
                    }
                    Ok(_) => {}
                    Err(_) => std::thread::sleep(Duration::from_millis(1)),
                }
            }
            frames
        });
        Self { stop, thread: Some(thread) }
    }

    fn end(mut self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap()
    }
}

fn changes(random: &mut Random, count: u32) -> u64 {
    let place = Place::new();
    let launch = |live: bool, wait: bool, frames: i32| {
        format!(
            "videotestsrc is-live={live} num-buffers={frames} ! video/x-raw,format=GRAY8,width=64,height=64,framerate=200/1 ! \
             pagecastsink name=k block-deadline=500000000 wait-for-connection={wait} uri={}",
            place.uri()
        )
    };
    let mut pipeline = Pipeline::new(&launch(false, false, -1));
    let mut readers = vec![Reader::new(&place)];
    let mut frames = 0;
    let states = [gst::State::Null, gst::State::Ready, gst::State::Paused, gst::State::Playing];
    for _ in 0..count {
        let begin = Instant::now();
        match random.below(13) {
            0 => {
                // Two sinks never serve one address: the old one must be gone first.
                let _ = pipeline.0.set_state(gst::State::Null);
                let frames = if random.below(2) == 0 { -1 } else { random.below(30) as i32 };
                pipeline = Pipeline::new(&launch(random.below(2) == 0, random.below(2) == 0, frames));
            }
            1 => {
                let flags = gst::SeekFlags::FLUSH;
                let _ = pipeline.0.seek_simple(flags, gst::ClockTime::from_mseconds(random.below(100)));
            }
            2 if readers.len() < 4 => readers.push(Reader::new(&place)),
            3 => frames += readers.pop().map_or(0, Reader::end),
            4 => std::thread::sleep(Duration::from_millis(random.below(100))),
            _ => {
                let _ = pipeline.0.set_state(states[random.below(4) as usize]);
                if random.below(2) == 0 {
                    let _ = pipeline.0.state(gst::ClockTime::from_mseconds(10));
                }
            }
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "took {:?}", begin.elapsed());
    }
    // After all that it works.
    let _ = pipeline.0.set_state(gst::State::Null);
    let last = Pipeline::new(&launch(true, false, -1));
    last.play();
    let read = Arc::new(Mutex::new(subscriber(&place)));
    for _ in 0..10 {
        read.lock().unwrap().next_frame(Some(Duration::from_secs(30))).expect("frames come");
    }
    frames + readers.into_iter().map(Reader::end).sum::<u64>()
}

#[test]
fn state_changes_in_any_order_leave_nothing_behind() {
    init();
    let mut random = Random::new(0x9e37_79b9_7f4a_7c15);
    changes(&mut random, 50); // what is made once, is made
    let own = std::process::id() as i32;
    let settled = |what: &str, before: usize, count: fn(i32) -> usize| {
        eventually(&format!("{what}: {before} before, {} after", count(own)), || count(own) <= before);
    };
    std::thread::sleep(Duration::from_millis(200));
    let before = (proc::descriptors(own), proc::memfd_mappings(own), proc::threads(own));
    let frames = changes(&mut random, CHANGES);
    assert!(frames > 50, "the readers got {frames} frames in all");
    settled("descriptors", before.0, proc::descriptors);
    settled("mappings", before.1, proc::memfd_mappings);
    settled("threads", before.2 + 2, proc::threads); // GLib keeps some in a pool
}
