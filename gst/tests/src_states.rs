//! State changes in any order end in time and leave nothing behind. One test in a process of its own, since it
//! counts the process's descriptors and mappings.

mod source;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gst::prelude::*;
use pagecast::PublisherOptions;
use pagecast_tests::proc;
use pagecast_tests::random::Random;
use source::*;

const CHANGES: u32 = 1000;

/// A publisher that comes and goes, and publishes while it is there.
struct Coming {
    source: Arc<Mutex<Option<Source>>>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Coming {
    fn new() -> Self {
        let source: Arc<Mutex<Option<Source>>> = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, end) = (source.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let mut number = 0;
            while !end.load(Ordering::SeqCst) {
                if let Some(source) = shared.lock().unwrap().as_ref() {
                    source.publish(number);
                    number += 1;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Self { source, stop, thread: Some(thread) }
    }

    fn set(&self, source: Option<Source>) {
        let before = std::mem::replace(&mut *self.source.lock().unwrap(), source);
        drop(before);
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap();
    }
}

fn publisher(uri: &str, live: bool) -> Source {
    Source::video(uri, PublisherOptions { live, ..PublisherOptions::default() })
}

fn changes(random: &mut Random, count: u32) {
    let place = Place::new();
    let coming = Coming::new();
    let launch = format!("pagecastsrc name=src uri={} ! queue ! fakesink name=s sync=false", place.uri());
    let mut pipeline = Pipeline::new(&launch);
    let states = [gst::State::Null, gst::State::Ready, gst::State::Paused, gst::State::Playing];
    for _ in 0..count {
        match random.below(12) {
            0 => coming.set(None),
            1 => {
                coming.set(None);
                coming.set(Some(publisher(&place.uri(), random.below(2) == 0)));
            }
            2 => pipeline = Pipeline::new(&launch),
            3 => {
                let seek = gst::ClockTime::from_seconds(1);
                let _ = pipeline.0.seek_simple(gst::SeekFlags::FLUSH, seek);
            }
            4 => drop(pipeline.0.send_event(gst::event::Eos::new())),
            _ => {
                let state = states[random.below(4) as usize];
                let begin = Instant::now();
                let _ = pipeline.0.set_state(state);
                if random.below(2) == 0 {
                    let _ = pipeline.0.state(gst::ClockTime::from_mseconds(5));
                }
                let took = begin.elapsed();
                assert!(took < Duration::from_secs(20), "to {state:?} took {took:?}");
            }
        }
    }
    // After all that it works.
    let _ = pipeline.0.set_state(gst::State::Null);
    coming.set(None);
    coming.set(Some(publisher(&place.uri(), true)));
    pipeline.play();
    eventually("frames come", || pipeline.stats("src").get::<u64>("frames").is_ok_and(|frames| frames > 10));
    drop(pipeline);
    coming.set(None);
}

#[test]
fn a_thousand_changes_leave_nothing_behind() {
    init();
    let mut random = Random::new(0x9e37_79b9_7f4a_7c15);
    changes(&mut random, 50);
    let own = std::process::id() as i32;
    let (fds, maps) = (proc::descriptors(own), proc::memfd_mappings(own));
    changes(&mut random, CHANGES);
    eventually("descriptors and mappings are as before", || {
        proc::descriptors(own) <= fds && proc::memfd_mappings(own) <= maps
    });
    assert_eq!(proc::memfd_mappings(own), 0, "with no publisher and no subscriber left");
}
