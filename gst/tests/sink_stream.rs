//! The stream that pagecastsink publishes: caps, events, clients, settings.

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::*;
use gst::prelude::*;
use pagecast::{Message, SubscriberOptions};

#[test]
fn caps_segment_and_tags_come_before_their_frames() {
    let place = Place::new();
    let pipeline = Pipeline::new(&format!(
        "videotestsrc num-buffers=5 ! video/x-raw,format=I420,width=64,height=48 ! \
         taginject tags=\"title=sonata\" ! pagecastsink wait-for-connection=true uri={}",
        place.uri()
    ));
    pipeline.play();
    let mut frames = 0;
    each_frame(&subscriber(&place), |frame| {
        let stream = frame.stream();
        let caps: gst::Caps = stream.caps().expect("caps").parse().unwrap();
        assert_eq!(caps.structure(0).unwrap().get::<i32>("width"), Ok(64));
        for name in ["stream-start", "segment", "tag"] {
            let data = stream.get(name).unwrap_or_else(|| panic!("no {name}"));
            gstpagecast::convert::events::sticky(name, data)
                .unwrap_or_else(|| panic!("{name} makes no event"));
        }
        assert!(String::from_utf8_lossy(stream.get("tag").unwrap()).contains("sonata"));
        let description = frame.description();
        assert_eq!((description.width, description.height, description.planes.len()), (64, 48, 3));
        let times = description.times;
        let time = frames * 1_000_000_000 / 30;
        assert!(times.pts.unwrap().abs_diff(time) < 2 && times.running == times.pts, "{times:?}");
        frames += 1;
    });
    assert_eq!(frames, 5);
}

#[test]
fn a_stream_that_changes_its_size_loses_nothing() {
    let place = Place::new();
    let pipeline = Pipeline::new(&format!(
        "appsrc name=a format=time is-live=false block=true max-buffers=4 ! \
         pagecastsink name=k wait-for-connection=true uri={}",
        place.uri()
    ));
    pipeline.play();
    let source = pipeline.element("a");
    let feeder = std::thread::spawn(move || {
        for n in 0..60_u32 {
            let size = if (n / 10).is_multiple_of(2) { 16 } else { 48 };
            let caps =
                gst_video::VideoInfo::builder(gst_video::VideoFormat::Gray8, size, size).build().unwrap();
            let bytes = vec![n as u8; caps.size()];
            let sample = gst::Sample::builder()
                .caps(&caps.to_caps().unwrap())
                .buffer(&gst::Buffer::from_slice(bytes))
                .build();
            let _ = source.emit_by_name::<gst::FlowReturn>("push-sample", &[&sample]);
        }
        let _ = source.emit_by_name::<gst::FlowReturn>("end-of-stream", &[]);
    });
    let mut n = 0_u32;
    each_frame(&subscriber(&place), |frame| {
        let caps: gst::Caps = frame.caps().unwrap().parse().unwrap();
        let info = gst_video::VideoInfo::from_caps(&caps).unwrap();
        assert_eq!(info.width(), if (n / 10).is_multiple_of(2) { 16 } else { 48 }, "frame {n}");
        let bytes = frame.to_vec().unwrap();
        assert_eq!(bytes.len(), info.size());
        assert!(bytes.iter().all(|byte| *byte == n as u8), "frame {n}");
        n += 1;
    });
    assert_eq!(n, 60);
    feeder.join().unwrap();
}

#[test]
fn gaps_empty_buffers_lists_and_events_keep_their_order() {
    let place = Place::new();
    init();
    let sink = gst::ElementFactory::make("pagecastsink").property("uri", place.uri()).build().unwrap();
    sink.set_property("wait-for-connection", true);
    sink.set_property("async", false);
    sink.set_property("sync", false);
    sink.set_state(gst::State::Playing).unwrap();
    let pad = sink.static_pad("sink").unwrap();
    let feeder = std::thread::spawn({
        let pad = pad.clone();
        move || {
            let buffer = |n: u8, len: usize| {
                let mut buffer = gst::Buffer::from_mut_slice(vec![n; len]);
                buffer.make_mut().set_pts(gst::ClockTime::from_mseconds(u64::from(n)));
                buffer
            };
            let start = gst::event::StreamStart::new("s");
            assert!(pad.send_event(start));
            assert!(
                pad.send_event(gst::event::Caps::new(&gst::Caps::new_empty_simple("application/x-test")))
            );
            assert!(
                pad.send_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()))
            );
            assert_eq!(pad.chain(buffer(1, 10)), Ok(gst::FlowSuccess::Ok));
            let gap =
                gst::event::Gap::builder(gst::ClockTime::from_mseconds(2)).duration(gst::ClockTime::MSECOND);
            assert!(pad.send_event(gap.build()));
            let mut list = gst::BufferList::new();
            let parts = list.get_mut().unwrap();
            parts.add(buffer(3, 5));
            parts.add(buffer(4, 5));
            assert_eq!(pad.chain_list(list), Ok(gst::FlowSuccess::Ok));
            let mut empty = gst::Buffer::new();
            empty.make_mut().set_pts(gst::ClockTime::from_mseconds(5));
            empty.make_mut().set_flags(gst::BufferFlags::GAP | gst::BufferFlags::DROPPABLE);
            assert_eq!(pad.chain(empty), Ok(gst::FlowSuccess::Ok));
            let custom = gst::Structure::builder("mine").field("n", 6).build();
            assert!(pad.send_event(gst::event::CustomDownstream::new(custom)));
            let mut many = gst::Buffer::new();
            for n in 0..20_u8 {
                many.make_mut().append_memory(gst::Memory::from_slice([n; 3]));
            }
            assert_eq!(pad.chain(many), Ok(gst::FlowSuccess::Ok));
            assert!(pad.send_event(gst::event::Eos::new()));
        }
    });
    let told: Vec<String> = drain(&subscriber(&place))
        .into_iter()
        .filter_map(|message| match message {
            Message::Frame(frame) => {
                let flags = frame.description().flags;
                Some(format!(
                    "{:?} {:?}",
                    frame.to_vec().unwrap().iter().map(|b| u32::from(*b)).sum::<u32>(),
                    flags.bits()
                ))
            }
            Message::Event(event) => Some(event.name),
            _ => None,
        })
        .collect();
    feeder.join().unwrap();
    let empty = (pagecast::FrameFlags::GAP | pagecast::FrameFlags::DROPPABLE).bits();
    let empty = format!("0 {empty}");
    let many = format!("{} 0", (0..20).sum::<u32>() * 3);
    assert_eq!(told, ["10 0", "gap", "15 0", "20 0", &empty, "custom-downstream", &many]);
    sink.set_state(gst::State::Null).unwrap();
}

#[test]
fn a_late_joiner_of_a_coded_stream_makes_upstream_send_a_key_unit() {
    let place = Place::new();
    let pipeline = Pipeline::new(&format!(
        "videotestsrc is-live=true ! video/x-raw,width=64,height=64 ! jpegenc name=w ! pagecastsink name=k uri={}",
        place.uri()
    ));
    let asked = Arc::new(Mutex::new(0));
    let count = asked.clone();
    let pad = pipeline.element("w").static_pad("src").unwrap();
    pad.add_probe(gst::PadProbeType::EVENT_UPSTREAM, move |_, info| {
        if info.event().is_some_and(|event| gst_video::ForceKeyUnitEvent::is(event)) {
            *count.lock().unwrap() += 1;
        }
        gst::PadProbeReturn::Ok
    });
    pipeline.play();
    let first = subscriber(&place);
    first.next_frame(Some(Duration::from_secs(30))).unwrap();
    eventually("a request for a key unit", || *asked.lock().unwrap() == 1);
    first.request("force-key-unit", b"");
    eventually("a request of its own", || {
        // It is noticed with the frames it returns.
        first.next_frame(Some(Duration::from_secs(30))).unwrap();
        *asked.lock().unwrap() == 2
    });
    first.request("seek", b"");
    for _ in 0..20 {
        first.next_frame(Some(Duration::from_secs(30))).unwrap();
    }
    assert_eq!(pipeline.element("k").property::<u32>("num-clients"), 1);
    drop(first);
    eventually("it is gone", || pipeline.element("k").property::<u32>("num-clients") == 0);
}

#[test]
fn a_live_source_says_so_and_a_file_does_not() {
    for (live, policy) in [(true, pagecast::Policy::DropOldest), (false, pagecast::Policy::Block)] {
        let place = Place::new();
        let pipeline = Pipeline::new(&format!(
            "videotestsrc is-live={live} ! video/x-raw,format=GRAY8,width=64,height=64 ! pagecastsink uri={}",
            place.uri()
        ));
        pipeline.play();
        pipeline.0.state(gst::ClockTime::from_seconds(30)).0.unwrap();
        let subscriber = subscriber(&place);
        let frame = subscriber.next_frame(Some(Duration::from_secs(30))).unwrap();
        let welcome = subscriber.welcome().unwrap();
        assert_eq!((welcome.live, welcome.policy), (live, Some(policy)));
        let captured = frame.description().times.captured;
        assert_eq!(captured.is_some(), live);
        if let Some(captured) = captured {
            let age = pagecast::clock::monotonic_ns().abs_diff(captured);
            assert!(age < 10_000_000_000, "captured {age} ns ago");
        }
        let mut clock = subscriber.clock();
        for _ in 0..100 {
            clock = clock.or_else(|| subscriber.clock());
            subscriber.next_frame(Some(Duration::from_secs(30))).unwrap();
        }
        assert!(clock.expect("a clock").running.is_some());
    }
}

#[test]
fn settings_that_cannot_be_are_said_with_a_remedy() {
    let place = Place::new();
    let start = |settings: &str| {
        let pipeline = Pipeline::new(&format!("fakesrc ! pagecastsink {settings}"));
        let _ = pipeline.0.set_state(gst::State::Playing);
        let _ = pipeline.0.state(gst::ClockTime::from_seconds(5));
        let texts = pipeline.texts(gst::MessageType::Error);
        texts.first().cloned().unwrap_or_else(|| panic!("{settings}: no error"))
    };
    assert!(start("").contains("set uri"));
    assert!(start("uri=nonsense").contains("unix:nonsense"));
    let first = Pipeline::new(&format!("videotestsrc ! pagecastsink uri={}", place.uri()));
    first.play();
    eventually("it serves", || std::path::Path::new(&place.socket()).exists());
    let error = start(&format!("uri={}", place.uri()));
    assert!(error.contains(&place.socket()), "{error}");
}

#[test]
fn wanted_clients_are_waited_for() {
    let place = Place::new();
    let pipeline = Pipeline::new(&format!(
        "videotestsrc num-buffers=30 ! video/x-raw,format=GRAY8,width=64,height=64 ! \
         pagecastsink name=k sync=false wait-for-clients=2 uri={}",
        place.uri()
    ));
    pipeline.play();
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let subscriber = subscriber(&place);
            std::thread::spawn(move || each_frame(&subscriber, |_| ()))
        })
        .collect();
    for reader in readers {
        assert_eq!(reader.join().unwrap(), 30, "nobody missed the beginning");
    }
    pipeline.eos();
}

#[test]
fn who_is_slow_gets_the_end_of_the_stream_too() {
    let place = Place::new();
    let pipeline = Pipeline::new(&format!(
        "videotestsrc num-buffers=40 ! video/x-raw,format=GRAY8,width=64,height=64 ! \
         pagecastsink sync=false wait-for-clients=1 block-deadline=3000000000 uri={}",
        place.uri()
    ));
    pipeline.play();
    let slow = subscriber(&place);
    let reader = std::thread::spawn(move || {
        let mut count = 0;
        each_frame(&slow, |_| {
            count += 1;
            // What waits when the stream has ended takes longer than any one frame may.
            std::thread::sleep(Duration::from_millis(if count > 24 { 225 } else { 0 }));
        })
    });
    pipeline.eos();
    drop(pipeline);
    assert_eq!(reader.join().unwrap(), 40);
}

#[test]
fn one_client_more_than_allowed_is_refused() {
    let place = Place::new();
    let pipeline = Pipeline::new(&format!(
        "videotestsrc is-live=true ! video/x-raw,format=GRAY8,width=64,height=64 ! \
         pagecastsink name=k max-clients=2 uri={}",
        place.uri()
    ));
    let (came, left) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(0)));
    for (signal, count) in [("client-connected", &came), ("client-disconnected", &left)] {
        let count = count.clone();
        pipeline.element("k").connect(signal, false, move |_| {
            *count.lock().unwrap() += 1;
            None
        });
    }
    pipeline.play();
    let guests = [subscriber(&place), subscriber(&place)];
    for guest in &guests {
        guest.next_frame(Some(Duration::from_secs(30))).unwrap();
    }
    let options = SubscriberOptions { reconnect: false, ..SubscriberOptions::default() };
    let refused = with(&place, options).next_frame(Some(Duration::from_secs(30)));
    assert!(matches!(refused, Err(pagecast::RecvError::Refused { .. })), "{refused:?}");
    assert_eq!((*came.lock().unwrap(), *left.lock().unwrap()), (2, 0));
    drop(guests);
    eventually("both are gone", || *left.lock().unwrap() == 2);
}

#[test]
fn waiting_for_a_client_ends_with_the_state() {
    let place = Place::new();
    let pipeline = Pipeline::new(&format!(
        "videotestsrc ! video/x-raw,format=GRAY8,width=64,height=64 ! \
         pagecastsink wait-for-connection=true uri={}",
        place.uri()
    ));
    for _ in 0..3 {
        pipeline.play();
        pipeline.0.state(gst::ClockTime::from_seconds(30)).0.unwrap();
        pipeline.0.set_state(gst::State::Paused).unwrap();
        pipeline.0.state(gst::ClockTime::from_seconds(30)).0.unwrap();
        pipeline.play();
        pipeline.0.set_state(gst::State::Null).unwrap();
    }
}

#[test]
fn a_small_pool_with_clients_that_keep_everything_never_starves_its_source() {
    let place = Place::new();
    let limit = 10 * 128 * 1024;
    let pipeline = Pipeline::new(&format!(
        "videotestsrc is-live=true ! video/x-raw,format=GRAY8,width=400,height=300,framerate=100/1 ! \
         pagecastsink name=k backing=memfd pool-limit={limit} uri={}",
        place.uri()
    ));
    pipeline.play();
    let keepers: Vec<_> = (0..3).map(|_| subscriber(&place)).collect();
    let mut kept = Vec::new();
    for keeper in &keepers {
        // One that gets no share is refused; the others keep whatever they are given.
        let patience =
            |kept: usize| if kept == 0 { Duration::from_secs(30) } else { Duration::from_millis(300) };
        while let Ok(frame) = keeper.next_frame(Some(patience(kept.len()))) {
            kept.push(frame);
        }
    }
    assert!(!kept.is_empty());
    let frames = || pipeline.stats("k").get::<u64>("frames").unwrap();
    let before = frames();
    eventually("200 more frames, 20 times the pool", || frames() > before + 200);
    let stats = pipeline.stats("k");
    assert!(stats.get::<u64>("pool_total").unwrap() <= limit, "{stats}");
    assert_eq!(stats.get::<u64>("copied"), Ok(0), "{stats}");
    assert_eq!(stats.get::<u64>("refused-pages"), Ok(0), "{stats}");
    for frame in &kept {
        frame.to_vec().expect("still valid");
    }
}
