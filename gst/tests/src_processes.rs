//! Publishers and consumers as processes that begin, end and are killed in any order.

mod source;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use gst::prelude::*;
use pagecast::{Message, Subscriber, SubscriberOptions};
use pagecast_tests::{patient, proc};
use source::coded;
use source::launch::Launched;
use source::*;

const CAPS: &str = "video/x-raw,format=GRAY8,width=64,height=64,framerate=50/1";

/// Held for writing by who counts this process's pages, for reading by whoever else has some.
static PAGES: RwLock<()> = RwLock::new(());

fn with_pages() -> RwLockReadGuard<'static, ()> {
    PAGES.read().unwrap_or_else(PoisonError::into_inner)
}

fn publisher(place: &Place, live: bool, more: &str) -> Launched {
    let sink = format!("pagecastsink uri={} {more}", place.uri());
    Launched::new(
        &place.file("publisher"),
        &format!("videotestsrc is-live={live} pattern=ball ! {CAPS} ! {sink}"),
    )
}

#[test]
fn live_or_not_before_or_after_it_just_works() {
    for live in [true, false] {
        for first in [true, false] {
            for sink in ["filesink location=/dev/null", "fakevideosink"] {
                let place = Place::new();
                let consume =
                    format!("pagecastsrc uri={} num-buffers=30 ! videoconvert ! {sink}", place.uri());
                let mut before = first.then(|| publisher(&place, live, ""));
                if first {
                    eventually("the publisher serves", || {
                        std::path::Path::new(&place.file("socket")).exists()
                    });
                }
                let mut consumer = Launched::new(&place.file("consumer"), &consume);
                if !first {
                    std::thread::sleep(Duration::from_millis(300));
                    before = Some(publisher(&place, live, ""));
                }
                consumer.wait();
                drop(before);
            }
        }
    }
}

#[test]
fn a_killed_publisher_is_replaced() {
    let _pages = with_pages();
    let place = Place::new();
    let mut first = publisher(&place, true, "");
    let launch = format!(
        "pagecastsrc name=src uri={} ! appsink name=a sync=false max-buffers=2 drop=true",
        place.uri()
    );
    let pipeline = Pipeline::playing(&launch);
    let kept: Vec<gst::Sample> = (0..3).map(|_| pull(&pipeline.sink("a"))).collect();
    let bytes = |sample: &gst::Sample| sample.buffer().unwrap().map_readable().unwrap().to_vec();
    let before: Vec<_> = kept.iter().map(bytes).collect();
    first.kill();
    pipeline.told("pagecast-disconnected");
    assert_eq!(kept.iter().map(bytes).collect::<Vec<_>>(), before, "what is held stays what it was");
    let last = kept[2].buffer().unwrap().pts();
    // Looked at on their way: the sink may drop the very one that is marked.
    let (again, marked) = (Arc::new(AtomicBool::new(false)), gst::BufferFlags::DISCONT);
    let seen = again.clone();
    let pad = pipeline.element("src").static_pad("src").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let buffer = info.buffer().unwrap();
        seen.fetch_or(buffer.flags().contains(marked) && buffer.pts() > last, Ordering::SeqCst);
        gst::PadProbeReturn::Ok
    });
    let _second = publisher(&place, true, "");
    eventually("frames come again", || again.load(Ordering::SeqCst));
    assert!(pipeline.stats("src").get::<bool>("connected").unwrap());
}

#[test]
fn without_reconnect_a_killed_publisher_is_told_from_an_end() {
    let _pages = with_pages();
    let place = Place::new();
    let mut publisher = publisher(&place, true, "");
    // Its socket is there a moment before somebody listens.
    let options = SubscriberOptions { observe: true, reconnect: false, ..SubscriberOptions::default() };
    let observer = || Subscriber::open(&place.uri(), options.clone()).expect("an address");
    let patience = Some(Duration::from_secs(5));
    eventually("the publisher serves", || matches!(observer().recv(patience), Ok(Message::Connected(_))));
    let launch =
        format!("pagecastsrc name=src reconnect=false uri={} ! appsink name=a sync=false", place.uri());
    let pipeline = Pipeline::playing(&launch);
    pull(&pipeline.sink("a"));
    publisher.kill();
    assert_eq!(pipeline.told("pagecast-lost").get::<String>("uri").unwrap(), place.uri());
    // And yet downstream can finish what it does.
    pipeline.wait();
}

#[test]
fn kills_at_random_moments_leave_nothing_behind() {
    let _alone = PAGES.write().unwrap_or_else(PoisonError::into_inner);
    let place = Place::new();
    let launch = format!("pagecastsrc name=src uri={} ! fakesink name=s sync=false async=false", place.uri());
    let pipeline = Pipeline::playing(&launch);
    for round in 0..12 {
        let mut publisher = publisher(&place, round % 2 == 0, "");
        if round % 3 == 0 {
            let frames = pipeline.stats("src").get::<u64>("frames").unwrap();
            eventually("frames come", || pipeline.stats("src").get::<u64>("frames").unwrap() > frames + 10);
        } else {
            std::thread::sleep(Duration::from_millis(40 * round));
        }
        publisher.kill();
    }
    eventually("the link is gone", || !pipeline.stats("src").get::<bool>("connected").unwrap());
    // The sink keeps its last frame, and with it the pages of one link at most.
    let kept = pipeline.element("s").property::<Option<gst::Sample>>("last-sample");
    let held: usize = kept.map_or(0, |sample| sample.buffer().unwrap().n_memory());
    eventually("pages are gone", || proc::fds(std::process::id() as i32).memfds <= held);
}

#[test]
fn a_killed_consumer_disturbs_nobody() {
    let _pages = with_pages();
    let place = Place::new();
    let frames = 300;
    let sink = patient(&format!("pagecastsink uri={} wait-for-clients=2 policy=block", place.uri()));
    let publish =
        format!("videotestsrc num-buffers={frames} is-live=false pattern=ball ! {CAPS} ! {sink} sync=false");
    let mut publisher = Launched::new(&place.file("publisher"), &publish);
    let launch = format!("pagecastsrc name=src uri={} ! appsink name=a sync=false", place.uri());
    let pipeline = Pipeline::playing(&launch);
    let consume = format!("pagecastsrc uri={} ! fakesink sync=false", place.uri());
    let mut victim = Launched::new(&place.file("victim"), &consume);
    let mut times = HashSet::new();
    let mut count = 0;
    while let Some(sample) = pipeline.sink("a").try_pull_sample(gst::ClockTime::from_seconds(30)) {
        times.insert(pts(&sample).unwrap());
        count += 1;
        if count == 50 {
            victim.kill();
        }
    }
    assert!(pipeline.sink("a").is_eos());
    assert_eq!((count, times.len()), (frames, frames));
    publisher.wait();
}

#[test]
fn end_of_stream_ends_every_consumer() {
    let place = Place::new();
    let mut publisher = publisher(&place, true, "wait-for-clients=3");
    let consume = format!("pagecastsrc uri={} ! fakesink", place.uri());
    let launch = |n: usize| Launched::new(&place.file(&format!("consumer{n}")), &consume);
    let mut consumers: Vec<Launched> = (0..3).map(launch).collect();
    drop(consumers.pop());
    let mut third = launch(2);
    std::thread::sleep(Duration::from_millis(500));
    assert!(publisher.is_running());
    publisher.kill();
    // Killed, it says nothing: they wait for the next one, which ends properly.
    let sink = format!("pagecastsink uri={} wait-for-clients=3", place.uri());
    let line = format!("videotestsrc num-buffers=20 is-live=true ! {CAPS} ! {sink}");
    let mut next = Launched::new(&place.file("next"), &line);
    consumers.iter_mut().for_each(Launched::wait);
    third.wait();
    next.wait();
}

#[test]
fn who_joins_a_coded_stream_late_gets_a_frame_to_begin_with() {
    let _pages = with_pages();
    let place = Place::new();
    coded::joined_late(&place, &place.uri());
}
