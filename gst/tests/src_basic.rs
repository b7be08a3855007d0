//! `pagecastsrc` with publishers that have no GStreamer.

mod source;

use gst::prelude::*;
use pagecast::{Description, Frame, FrameFlags, Policy, PublisherOptions, Times};
use source::*;

#[test]
fn frames_arrive_in_order_with_their_times_and_then_the_end() {
    let place = Place::new();
    let source = Source::patient(&place.uri());
    source.publisher.set_caps("application/x-test, n=(int)1").unwrap();
    let pipeline =
        Pipeline::playing(&format!("pagecastsrc name=src uri={} ! appsink name=a sync=false", place.uri()));
    source.wait_for(1);
    let publish = std::thread::spawn(move || {
        (0..100).for_each(|n| source.publish(n));
        source.publisher.publish_event("eos", b"").unwrap();
        source
    });
    let sink = pipeline.sink("a");
    for n in 0..100 {
        let sample = pull(&sink);
        assert_eq!(number(&sample), n);
        let buffer = sample.buffer().unwrap();
        assert_eq!(buffer.pts().unwrap().nseconds(), n * FRAME);
        assert_eq!(buffer.dts(), None, "frame {n}");
        assert_eq!(buffer.duration().unwrap().nseconds(), FRAME);
        assert_eq!(buffer.flags().contains(gst::BufferFlags::DISCONT), n == 0, "frame {n}");
        assert_eq!(sample.caps().unwrap().to_string(), "application/x-test, n=(int)1");
        assert_eq!(running(&sample), n * FRAME);
    }
    pipeline.wait();
    assert_eq!(pipeline.stats("src").get::<u64>("frames"), Ok(100));
    drop(publish.join().unwrap());
}

#[test]
fn the_publisher_may_come_later() {
    let place = Place::new();
    let pipeline =
        Pipeline::playing(&format!("pagecastsrc name=src uri={} ! appsink name=a sync=false", place.uri()));
    let (_, now, _) = pipeline.0.state(gst::ClockTime::from_mseconds(50));
    assert_ne!(now, gst::State::Playing, "there is nothing to preroll with");
    let source = Source::patient(&place.uri());
    source.wait_for(1);
    source.publish(0);
    assert_eq!(number(&pull(&pipeline.sink("a"))), 0);
}

#[test]
fn who_comes_late_sees_frames_at_once_with_their_own_times() {
    let place = Place::new();
    let source = Source::patient(&place.uri());
    (0..500).for_each(|n| source.publish(n));
    let pipeline =
        Pipeline::playing(&format!("pagecastsrc name=src uri={} ! appsink name=a sync=false", place.uri()));
    source.wait_for(1);
    (500..503).for_each(|n| source.publish(n));
    for n in 500..503 {
        let sample = pull(&pipeline.sink("a"));
        assert_eq!((number(&sample), pts(&sample)), (n, Some(n * FRAME)));
        assert_eq!(running(&sample), (n - 500) * FRAME);
    }
}

#[test]
fn a_publisher_that_comes_again_is_found_again() {
    let place = Place::new();
    let source = Source::patient(&place.uri());
    source.publisher.set_caps("application/x-test, life=(int)1").unwrap();
    let pipeline =
        Pipeline::playing(&format!("pagecastsrc name=src uri={} ! appsink name=a sync=false", place.uri()));
    source.wait_for(1);
    (0..3).for_each(|n| source.publish(n));
    let first: Vec<_> = (0..3).map(|_| pull(&pipeline.sink("a"))).collect();
    pipeline.told("pagecast-connected");
    drop(source);
    pipeline.told("pagecast-disconnected");
    let source = Source::patient(&place.uri());
    source.publisher.set_caps("application/x-test, life=(int)2").unwrap();
    source.wait_for(1);
    (0..3).for_each(|n| source.publish(n));
    let second: Vec<_> = (0..3).map(|_| pull(&pipeline.sink("a"))).collect();
    assert_eq!(second[0].caps().unwrap().structure(0).unwrap().get("life"), Ok(2));
    assert!(second[0].buffer().unwrap().flags().contains(gst::BufferFlags::DISCONT));
    assert_eq!(second.iter().map(number).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(pts(&second[0]), Some(0));
    assert!(running(&second[0]) >= running(&first[2]) + FRAME, "running time goes on");
    assert_eq!(running(&second[2]), running(&second[0]) + 2 * FRAME);
    // What was received in the first life is still what it was.
    assert_eq!(first.iter().map(number).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(pipeline.told("pagecast-connected").get::<String>("uri").unwrap(), place.uri());
}

#[test]
fn without_reconnect_the_end_of_the_link_is_the_end() {
    let place = Place::new();
    let source = Source::patient(&place.uri());
    let launch =
        format!("pagecastsrc name=src reconnect=false uri={} ! appsink name=a sync=false", place.uri());
    let pipeline = Pipeline::playing(&launch);
    source.wait_for(1);
    source.publish(0);
    assert_eq!(number(&pull(&pipeline.sink("a"))), 0);
    drop(source);
    let types = [gst::MessageType::Eos, gst::MessageType::Error, gst::MessageType::Element];
    let lost = |message: &gst::Message| message.structure().is_some_and(|s| s.name() == "pagecast-lost");
    loop {
        let message = pipeline.message(&types);
        assert!(message.type_() != gst::MessageType::Error && !lost(&message), "{message:?}");
        if message.type_() == gst::MessageType::Eos {
            break;
        }
    }
}

#[test]
fn without_reconnect_a_publisher_that_is_not_there_is_an_error_with_a_remedy() {
    let place = Place::new();
    let launch = format!("pagecastsrc name=src reconnect=false uri={} ! fakesink", place.uri());
    let pipeline = Pipeline::new(&launch);
    let _ = pipeline.0.set_state(gst::State::Playing);
    let error = pipeline.error();
    assert!(error.contains("start the publisher first"), "{error}");
}

#[test]
fn a_socket_of_another_kind_is_an_error() {
    let place = Place::new();
    let _stream = std::os::unix::net::UnixListener::bind(place.file("socket")).unwrap();
    let pipeline = Pipeline::new(&format!("pagecastsrc name=src uri={} ! fakesink", place.uri()));
    let _ = pipeline.0.set_state(gst::State::Playing);
    let error = pipeline.error();
    assert!(error.contains(&place.file("socket")), "{error}");
}

#[test]
fn refusals_are_errors_with_a_remedy() {
    let place = Place::new();
    let options = PublisherOptions { max_subscribers: 1, ..PublisherOptions::default() };
    let source = Source::new(&place.uri(), options);
    let launch = format!("pagecastsrc name=src uri={} ! fakesink", place.uri());
    let _first = Pipeline::playing(&launch);
    source.wait_for(1);
    let second = Pipeline::new(&launch);
    let _ = second.0.set_state(gst::State::Playing);
    let error = second.error();
    assert!(error.contains("end another subscriber"), "{error}");
}

#[test]
fn settings_that_make_no_address_are_errors() {
    let place = Place::new();
    for (setting, part) in [
        ("", "neither uri nor socket-path"),
        ("uri=tcp:host", "tcp"),
        ("uri=unix:a/b", "no name"),
        (&format!("uri=\"unix:/a {}\"", place.uri()), "exactly one"),
    ] {
        let pipeline = Pipeline::new(&format!("pagecastsrc name=src {setting} ! fakesink"));
        let _ = pipeline.0.set_state(gst::State::Playing);
        let error = pipeline.error();
        assert!(error.contains(part), "{setting}: {error}");
    }
}

#[test]
fn a_relative_socket_path_is_one_of_the_working_directory() {
    let place = Place::new();
    let source = Source::patient(&place.uri());
    let here = std::env::current_dir().unwrap();
    let up: String = here.components().skip(1).map(|_| "../").collect();
    let path = format!("{up}{}", place.file("socket").trim_start_matches('/'));
    let _pipeline = Pipeline::playing(&format!("pagecastsrc name=src socket-path={path} ! fakesink"));
    source.wait_for(1);
}

#[test]
fn what_is_asked_of_the_publisher() {
    let place = Place::new();
    let source = Source::new(&place.uri(), PublisherOptions::default());
    let pipeline = Pipeline::playing(&format!(
        "pagecastsrc name=src uri={} policy=drop-newest credits=3 max-framerate=10/1 ! fakesink async=false",
        place.uri()
    ));
    source.wait_for(1);
    let subscriber = source.publisher.info().subscribers[0].clone();
    assert_eq!((subscriber.policy.as_str(), subscriber.credits), ("drop-newest", 3));
    assert!(subscriber.name.ends_with("/src"), "{}", subscriber.name);
    let told = pipeline.told("pagecast-connected");
    assert_eq!(told.get::<u32>("credits"), Ok(3));
    eventually("the statistics say it", || pipeline.stats("src").get::<u32>("credits") == Ok(3));
}

#[test]
fn a_limited_rate_thins_frames_out_at_the_publisher() {
    let place = Place::new();
    let source =
        Source::new(&place.uri(), PublisherOptions { policy: Policy::Block, ..PublisherOptions::default() });
    let launch =
        format!("pagecastsrc name=src uri={} max-framerate=10/1 ! appsink name=a sync=false", place.uri());
    let pipeline = Pipeline::playing(&launch);
    source.wait_for(1);
    let publish = std::thread::spawn(move || {
        (0..100).for_each(|n| source.publish(n));
        source.publisher.publish_event("eos", b"").unwrap();
        source
    });
    let mut numbers = Vec::new();
    while let Some(sample) = pipeline.sink("a").try_pull_sample(gst::ClockTime::from_seconds(30)) {
        assert_eq!(sample.buffer().unwrap().flags().contains(gst::BufferFlags::DISCONT), numbers.is_empty());
        numbers.push(number(&sample));
    }
    assert_eq!(numbers, (0..20).map(|n| n * 5).collect::<Vec<_>>());
    drop(publish.join().unwrap());
}

#[test]
fn latest_passes_over_what_is_old() {
    let place = Place::new();
    let source =
        Source::new(&place.uri(), PublisherOptions { credits: Some(8), ..PublisherOptions::default() });
    let launch = format!(
        "pagecastsrc name=src uri={} latest=true ! appsink name=a sync=false max-buffers=1",
        place.uri()
    );
    let pipeline = Pipeline::playing(&launch);
    source.wait_for(1);
    // The appsink takes one, the next waits for it; of those that follow only the last is to come.
    source.publish(0);
    let sink = pipeline.sink("a");
    eventually("the first is there", || pipeline.stats("src").get::<u64>("frames") == Ok(1));
    source.publish(1);
    eventually("the second waits", || pipeline.stats("src").get::<u64>("frames") == Ok(2));
    (2..7).for_each(|n| source.publish(n));
    // The last of several small frames may wait a moment for company.
    let waiting = || source.publisher.info().subscribers.iter().map(|one| one.mailbox).sum::<usize>();
    eventually("all were sent", || waiting() == 0);
    let numbers: Vec<u64> = (0..3).map(|_| number(&pull(&sink))).collect();
    assert_eq!(numbers, [0, 1, 6]);
}

#[test]
fn a_lost_frame_is_a_discontinuity() {
    let place = Place::new();
    let options = PublisherOptions {
        policy: Policy::DropNewest,
        mailbox: Some(1),
        credits: Some(3),
        ..PublisherOptions::default()
    };
    let source = Source::new(&place.uri(), options);
    let pipeline =
        Pipeline::playing(&format!("pagecastsrc name=src uri={} ! appsink name=a sync=false", place.uri()));
    source.wait_for(1);
    let sink = pipeline.sink("a");
    // The appsink keeps the first; two go to it, one waits at the publisher, the others are lost.
    (0..10).for_each(|n| source.publish(n));
    let numbers: Vec<u64> = (0..4).map(|_| number(&pull(&sink))).collect();
    assert_eq!(numbers, [0, 1, 2, 3]);
    source.publish(10);
    let sample = pull(&sink);
    assert_eq!(number(&sample), 10);
    assert!(sample.buffer().unwrap().flags().contains(gst::BufferFlags::DISCONT));
}

#[test]
fn arrival_times_where_they_are_asked_for() {
    let place = Place::new();
    let source = Source::new(&place.uri(), PublisherOptions::default());
    let launch = format!(
        "pagecastsrc name=src uri={} is-live=true do-timestamp=true ! appsink name=a sync=false",
        place.uri()
    );
    let pipeline = Pipeline::playing(&launch);
    source.wait_for(1);
    for n in 0..3 {
        let before = pipeline.0.current_running_time().unwrap().nseconds();
        source
            .publisher
            .publish(&source.frame(n, Times { pts: Some(999 * FRAME), ..Times::default() }))
            .unwrap();
        let sample = pull(&pipeline.sink("a"));
        let after = pipeline.0.current_running_time().unwrap().nseconds();
        let pts = pts(&sample).unwrap();
        assert!(before <= pts && pts <= after, "{before} {pts} {after}");
    }
}

/// A frame that cannot be decoded without those before it.
fn delta_unit(source: &Source) -> Frame {
    let frame = source.frame(0, Times::default());
    let description = Description { flags: FrameFlags::DELTA_UNIT, ..frame.description().clone() };
    let part = frame.segments()[0].clone();
    let out = Frame::builder().describe(description).segment(part.buffer, part.offset, part.length);
    out.owner(frame).build().unwrap()
}

#[test]
fn upstream_events_reach_the_publisher() {
    use std::sync::{Arc, Mutex};
    let place = Place::new();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let hear = asked.clone();
    let hooks = pagecast::Hooks {
        request: Some(Box::new(move |event| hear.lock().unwrap().push(event.name))),
        ..Default::default()
    };
    let options = PublisherOptions { live: false, ..PublisherOptions::default() };
    let source = Source::with_hooks(&place.uri(), options, hooks);
    source
        .publisher
        .set_caps("video/x-h264, stream-format=(string)byte-stream, alignment=(string)au")
        .unwrap();
    let pipeline =
        Pipeline::playing(&format!("pagecastsrc name=src uri={} ! fakesink name=s async=false", place.uri()));
    // Who joins a coded stream needs a frame to begin with.
    let heard = |count| {
        // Requests are noticed in passing.
        source.publisher.publish(&delta_unit(&source)).unwrap();
        asked.lock().unwrap().len() == count
    };
    eventually("a key unit is asked for", || heard(1));
    let event = gst_video::UpstreamForceKeyUnitEvent::builder().all_headers(true).build();
    assert!(pipeline.element("s").static_pad("sink").unwrap().push_event(event));
    eventually("and again when downstream asks", || heard(2));
    assert!(asked.lock().unwrap().iter().all(|name| name == "force-key-unit"));
    let seek = gst::event::Seek::new(
        1.0,
        gst::SeekFlags::FLUSH,
        gst::SeekType::Set,
        gst::ClockTime::ZERO,
        gst::SeekType::None,
        gst::ClockTime::NONE,
    );
    assert!(!pipeline.element("src").send_event(seek), "it cannot seek, and says so");
}

#[test]
fn a_publisher_that_says_nothing_hangs_nobody() {
    use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
    use std::os::fd::AsRawFd;
    let place = Place::new();
    let silent = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(silent.as_raw_fd(), &UnixAddr::new(place.file("socket").as_str()).unwrap()).unwrap();
    listen(&silent, Backlog::new(1).unwrap()).unwrap();
    for set in ["", "is-live=true", "is-live=false", "reconnect=false"] {
        let pipeline = Pipeline::new(&format!("pagecastsrc {set} uri={} ! fakesink", place.uri()));
        let begin = std::time::Instant::now();
        for state in [gst::State::Paused, gst::State::Playing, gst::State::Ready, gst::State::Null] {
            let _ = pipeline.0.set_state(state);
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let took = begin.elapsed();
        assert!(took < std::time::Duration::from_secs(15), "{set}: {took:?}");
    }
}
