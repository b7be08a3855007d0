//! Times of a live publisher in pipelines with clocks of their own.

mod source;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gst::prelude::*;
use gstpagecast::convert::events::{Outgoing, outgoing};
use pagecast::clock::monotonic_ns;
use pagecast::{PublisherOptions, Times};
use source::*;

const MS: u64 = 1_000_000;
/// Frames that are looked at, at least.
const ENOUGH: usize = 20;

fn live(uri: &str) -> Source {
    Source::video(uri, PublisherOptions { live: true, ..PublisherOptions::default() })
}

/// Nine of ten are not worse. A thread that loses its processor between two looks at clocks makes a single
/// frame late, which says nothing of the rate between them.
fn nearly_worst(mut errors: Vec<u64>) -> u64 {
    errors.sort_unstable();
    assert!(errors.len() >= ENOUGH, "only {} frames were looked at", errors.len());
    errors[errors.len() * 9 / 10]
}

/// A pipeline clock that began somewhere else and runs faster than `CLOCK_MONOTONIC`.
fn skewed(ppm: u64) -> (gst::Clock, impl Fn(u64) -> u64) {
    init();
    let clock: gst::Clock = gst::glib::Object::builder::<gst::SystemClock>().build().upcast();
    let (internal, external) = (monotonic_ns(), 5_000_000_000_000);
    let time = gst::ClockTime::from_nseconds;
    clock.set_calibration(time(internal), time(external), 1_000_000 + ppm, 1_000_000);
    let at = move |monotonic: u64| {
        external + (u128::from(monotonic - internal) * u128::from(1_000_000 + ppm) / 1_000_000) as u64
    };
    (clock, at)
}

fn clock(monotonic: u64, running: u64, latency_min: u64) -> pagecast::Clock {
    pagecast::Clock { monotonic, running: Some(running), latency_min, latency_max: None }
}

#[test]
fn frames_are_due_when_the_publisher_would_show_them_whatever_the_clocks_are() {
    let place = Place::new();
    let source = live(&place.uri());
    let pipeline = Pipeline::new(&format!(
        "pagecastsrc name=src is-live=true uri={} ! appsink name=a sync=false",
        place.uri()
    ));
    let (own, at) = skewed(5_000);
    pipeline.0.use_clock(Some(&own));
    pipeline.play();
    source.wait_for(1);
    let base = pipeline.0.base_time().unwrap().nseconds();
    let sink = pipeline.sink("a");
    // The publisher's running time begins elsewhere, too, and is slower; its pipeline has 40 ms latency.
    let begin = monotonic_ns();
    let running_at = |monotonic: u64| 77_000 * MS + (monotonic - begin) - (monotonic - begin) / 500;
    let mut errors = Vec::new();
    let mut told = 0;
    // On a busy machine that takes longer.
    while told < 5000 * MS || errors.len() < ENOUGH {
        let now = monotonic_ns();
        if told == 0 || now - begin > told {
            source.publisher.set_clock(clock(now, running_at(now), 40 * MS));
            told = now - begin + 1000 * MS;
        }
        let running = running_at(now);
        let times = Times { pts: Some(running), running: Some(running), ..Times::default() };
        source.publisher.publish(&source.frame(1, times)).unwrap();
        let pts = pts(&pull(&sink)).unwrap();
        // Both rates are known from the second comparison on.
        if told > 3000 * MS {
            errors.push(pts.abs_diff(at(now + 40 * MS) - base));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    // 7000 ppm between the two would be 7 ms within a second.
    let worst = nearly_worst(errors);
    assert!(worst < MS, "{worst} ns off");
}

/// A publisher that is there has a second to say that it is live: one that the machine kept from answering is asked again.
fn paused(pipeline: &Pipeline) -> gst::StateChangeSuccess {
    let begun = Instant::now();
    loop {
        let asked = Instant::now();
        let change = pipeline.0.set_state(gst::State::Paused).unwrap();
        let answered =
            change == gst::StateChangeSuccess::NoPreroll || asked.elapsed() < Duration::from_secs(1);
        if answered || begun.elapsed() > LIMIT {
            return change;
        }
        pipeline.0.set_state(gst::State::Null).unwrap();
    }
}

#[test]
fn a_live_publisher_makes_a_live_source() {
    let place = Place::new();
    let source = live(&place.uri());
    let pipeline = Pipeline::new(&format!("pagecastsrc name=src uri={} ! fakesink name=s", place.uri()));
    assert!(!pipeline.element("src").property::<bool>("is-live"), "nobody was asked yet");
    assert_eq!(paused(&pipeline), gst::StateChangeSuccess::NoPreroll);
    assert!(pipeline.element("src").property::<bool>("is-live"));
    assert_eq!(source.publisher.subscribers(), 0, "who asks is no subscriber");
    pipeline.play();
    source.wait_for(1);
    let mut query = gst::query::Latency::new();
    eventually("the publisher's terms are known", || {
        assert!(pipeline.element("src").query(&mut query));
        query.result().2.is_some()
    });
    let (live, min, max) = query.result();
    let welcome = source.publisher.info().subscribers[0].clone();
    let held = u64::from(welcome.credits + welcome.mailbox_limit);
    assert!(live && min == gst::ClockTime::from_mseconds(10));
    assert_eq!(max.unwrap().nseconds(), 10 * MS + held * FRAME);
}

#[test]
fn a_publisher_that_is_not_live_makes_a_source_that_is_not() {
    let place = Place::new();
    let source = Source::patient(&place.uri());
    for (set, expected) in [
        ("", gst::StateChangeSuccess::Async),
        ("is-live=false", gst::StateChangeSuccess::Async),
        ("is-live=true", gst::StateChangeSuccess::NoPreroll),
    ] {
        let pipeline = Pipeline::new(&format!("pagecastsrc name=src {set} uri={} ! fakesink", place.uri()));
        assert_eq!(pipeline.0.set_state(gst::State::Paused).unwrap(), expected, "{set}");
        let mut query = gst::query::Latency::new();
        assert!(pipeline.element("src").query(&mut query));
        assert_eq!(query.result().0, set == "is-live=true");
    }
    drop(source);
}

#[test]
fn frames_of_a_live_publisher_that_came_later_begin_with_the_pipeline() {
    let place = Place::new();
    let pipeline =
        Pipeline::playing(&format!("pagecastsrc name=src uri={} ! appsink name=a sync=false", place.uri()));
    let source = live(&place.uri());
    source.wait_for(1);
    let begin = monotonic_ns();
    let publish = |n: u64| {
        let now = monotonic_ns();
        source.publisher.set_clock(clock(now, now - begin, 0));
        let times =
            Times { pts: Some(now), running: Some(now - begin), duration: Some(FRAME), ..Times::default() };
        source.publisher.publish(&source.frame(n, times)).unwrap();
    };
    publish(0);
    let first = pull(&pipeline.sink("a"));
    assert_eq!((number(&first), pts(&first)), (0, Some(0)));
    let (reached, ..) = pipeline.0.state(gst::ClockTime::from_seconds(20));
    assert!(reached.is_ok());
    let mut before = 0;
    for n in 1..10 {
        publish(n);
        let sample = pull(&pipeline.sink("a"));
        let pts = pts(&sample).unwrap();
        assert!(pts > before, "{pts} after {before}");
        before = pts;
    }
    // A pause does not count.
    pipeline.0.set_state(gst::State::Paused).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    pipeline.play();
    let _ = (publish(10), publish(11));
    let sample = pull(&pipeline.sink("a"));
    let pts = sample.buffer().unwrap().pts().unwrap();
    // It was published before now. With the pause counted it would be two seconds from now.
    let now = pipeline.0.current_running_time().unwrap();
    assert!(pts < now + gst::ClockTime::SECOND, "{pts} at {now}");
}

#[test]
fn explicitly_not_live_keeps_the_publishers_times() {
    let place = Place::new();
    let source = live(&place.uri());
    let launch =
        format!("pagecastsrc name=src is-live=false uri={} ! appsink name=a sync=false", place.uri());
    let pipeline = Pipeline::playing(&launch);
    source.wait_for(1);
    for n in 0..5 {
        source.publish(1000 + n);
        assert_eq!(pts(&pull(&pipeline.sink("a"))), Some((1000 + n) * FRAME));
    }
}

#[test]
fn both_ends_follow_clocks_of_their_own() {
    let place = Place::new();
    let caps = "video/x-raw,format=GRAY8,width=16,height=16,framerate=50/1";
    let publish = Pipeline::new(&format!(
        "videotestsrc is-live=true ! {caps} ! pagecastsink name=s uri={} processing-deadline=0",
        place.uri()
    ));
    let (theirs, _) = skewed(3_000);
    publish.0.use_clock(Some(&theirs));
    publish.0.set_latency(gst::ClockTime::from_mseconds(60));
    // Running times of the frames, by number.
    let times: Arc<Mutex<HashMap<u64, u64>>> = Arc::default();
    let note = times.clone();
    let pad = publish.element("s").static_pad("sink").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let buffer = info.buffer().unwrap();
        note.lock().unwrap().insert(buffer.offset(), buffer.pts().unwrap().nseconds());
        gst::PadProbeReturn::Ok
    });
    let consume = Pipeline::new(&format!(
        "pagecastsrc name=src is-live=true uri={} ! appsink name=a sync=false",
        place.uri()
    ));
    let (ours, our_time_at) = skewed(8_000);
    consume.0.use_clock(Some(&ours));
    publish.play();
    eventually("the publisher serves", || std::path::Path::new(&place.file("socket")).exists());
    consume.play();
    let (internal, external, numerator, denominator) = theirs.calibration();
    let base = |pipeline: &Pipeline| pipeline.0.base_time().unwrap().nseconds();
    let mut errors = Vec::new();
    for n in 0..200 {
        let sample = pull(&consume.sink("a"));
        let buffer = sample.buffer().unwrap();
        let running = times.lock().unwrap()[&buffer.offset()] + 60 * MS;
        let since = u128::from(base(&publish) + running - external.nseconds());
        let due = internal.nseconds() + (since * u128::from(denominator) / u128::from(numerator)) as u64;
        let expected = our_time_at(due).checked_sub(base(&consume));
        if let Some(expected) = expected.filter(|_| n > 120) {
            errors.push(buffer.pts().unwrap().nseconds().abs_diff(expected));
        }
    }
    // 5000 ppm between the two would be 5 ms within a second, 20 ms in all.
    let worst = nearly_worst(errors);
    assert!(worst < MS, "{worst} ns off");
}

#[test]
fn a_publisher_that_finds_out_late_that_it_is_live() {
    let place = Place::new();
    let source = Source::patient(&place.uri());
    let launch = format!("pagecastsrc name=src uri={} ! appsink name=a sync=false", place.uri());
    let pipeline = Pipeline::playing(&launch);
    source.wait_for(1);
    let is_live = || {
        let mut query = gst::query::Latency::new();
        assert!(pipeline.element("src").query(&mut query));
        query.result().0
    };
    let publish = |n: u64, captured: Option<u64>| {
        let now = monotonic_ns();
        source.publisher.set_clock(clock(now, now, 0));
        let times = Times { pts: Some(n * 1000 * FRAME), running: Some(now), captured, ..Times::default() };
        source.publisher.publish(&source.frame(n, times)).unwrap();
        pts(&pull(&pipeline.sink("a"))).unwrap()
    };
    assert_eq!(publish(1, None), 1000 * FRAME);
    assert!(!is_live());
    let (reached, ..) = pipeline.0.state(gst::ClockTime::from_seconds(20));
    assert!(reached.is_ok());
    let due = publish(2, Some(monotonic_ns()));
    assert!(due <= pipeline.0.current_running_time().unwrap().nseconds());
    assert!(is_live());
}

/// Whatever a publisher says of times, the element goes on: what cannot be told in GStreamer is left out or cut off.
#[test]
fn times_that_nobody_can_have_do_not_end_the_stream() {
    const LATEST: u64 = u64::MAX - 1;
    let place = Place::new();
    let source = live(&place.uri());
    source
        .publisher
        .set_caps("video/x-raw, format=(string)GRAY8, width=10, height=10, framerate=1/2147483647")
        .unwrap();
    let launch = format!("pagecastsrc name=src is-live=true uri={} ! appsink name=a sync=false", place.uri());
    let pipeline = Pipeline::playing(&launch);
    source.wait_for(1);
    source.publisher.set_clock(clock(1, LATEST, LATEST));
    let all = Some(LATEST);
    let times = Times { pts: all, dts: all, duration: all, running: all, captured: all, published: None };
    for n in 0..2 {
        source.publisher.publish(&source.frame(n, times)).unwrap();
        assert_eq!(number(&pull(&pipeline.sink("a"))), n);
    }
    let mut query = gst::query::Latency::new();
    assert!(pipeline.element("src").query(&mut query));
    // An event by its number: a gap.
    for start in ["(guint64)18446744073709551615", "(guint64)18446744073709551614", "(string)now"] {
        let gap = gst::event::Gap::new(gst::ClockTime::SECOND, None);
        let Outgoing::Event { name, data } = outgoing(&gap) else { panic!("{gap:?}") };
        let said = String::from_utf8(data).unwrap().replace("(guint64)1000000000", start);
        assert!(said.contains(start), "{said}");
        source.publisher.publish_event(&name, said.as_bytes()).unwrap();
    }
    source.publish(7);
    assert_eq!(number(&pull(&pipeline.sink("a"))), 7);
}
