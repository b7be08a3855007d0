//! Events on their way through: tags, gaps, flushes, custom events, and in what order they come.

mod source;

use std::sync::{Arc, Mutex};

use gst::prelude::*;
use gstpagecast::convert::events::{Outgoing, outgoing};
use pagecast::PublisherOptions;
use source::*;

fn send(source: &Source, event: &gst::Event) {
    match outgoing(event) {
        Outgoing::Sticky { name, data } => source.publisher.set_sticky(&name, &data).unwrap(),
        Outgoing::Event { name, data } => source.publisher.publish_event(&name, &data).unwrap(),
        Outgoing::NotCarried(name) => panic!("{name} is not carried"),
    }
}

/// What downstream sees: events by name, buffers by number.
fn seen(pipeline: &Pipeline) -> Arc<Mutex<Vec<String>>> {
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let note = seen.clone();
    let kinds =
        gst::PadProbeType::EVENT_DOWNSTREAM | gst::PadProbeType::EVENT_FLUSH | gst::PadProbeType::BUFFER;
    let pad = pipeline.element("s").static_pad("sink").unwrap();
    pad.add_probe(kinds, move |_, info| {
        let what = match &info.data {
            Some(gst::PadProbeData::Buffer(buffer)) => format!("{}", buffer.offset()),
            Some(gst::PadProbeData::Event(event)) => match event.view() {
                gst::EventView::Gap(gap) => format!("gap {}", gap.get().0.mseconds()),
                gst::EventView::FlushStop(stop) => format!("flush-stop {}", stop.resets_time()),
                gst::EventView::StreamStart(start) => format!("stream-start {}", start.stream_id()),
                gst::EventView::Segment(segment) => {
                    let segment = segment.segment().downcast_ref::<gst::ClockTime>().unwrap();
                    let millis = |time: Option<gst::ClockTime>| time.unwrap_or_default().mseconds();
                    format!("segment {}-{}", millis(segment.start()), millis(segment.stop()))
                }
                gst::EventView::CustomDownstream(_) => event.structure().unwrap().name().to_string(),
                gst::EventView::Latency(_) => return gst::PadProbeReturn::Ok,
                _ => event.type_().name().to_string(),
            },
            _ => return gst::PadProbeReturn::Ok,
        };
        note.lock().unwrap().push(what);
        gst::PadProbeReturn::Ok
    });
    seen
}

fn segment(start: u64, stop: u64) -> gst::Event {
    let mut segment = gst::FormattedSegment::<gst::ClockTime>::new();
    segment.set_start(gst::ClockTime::from_mseconds(start));
    segment.set_time(gst::ClockTime::from_mseconds(start));
    segment.set_stop(gst::ClockTime::from_mseconds(stop));
    // As after a segment seek: the message that it ends with is for the publisher's application.
    segment.set_flags(gst::SegmentFlags::SEGMENT);
    gst::event::Segment::new(&segment)
}

#[test]
fn events_come_in_the_order_of_the_stream() {
    let place = Place::new();
    let source = Source::patient(&place.uri());
    let pipeline =
        Pipeline::new(&format!("pagecastsrc name=src uri={} ! fakesink name=s sync=false", place.uri()));
    let seen = seen(&pipeline);
    send(&source, &gst::event::StreamStart::new("the stream"));
    source.publisher.set_caps("application/x-test").unwrap();
    send(&source, &segment(0, 100));
    pipeline.play();
    source.wait_for(1);
    // The last frame ends with the segment; there is more to come all the same.
    (0..5).for_each(|n| source.publish(n));
    let mut tags = gst::TagList::new();
    tags.get_mut().unwrap().add::<gst::tags::Title>(&"a title", gst::TagMergeMode::Append);
    send(&source, &gst::event::Tag::new(tags));
    send(&source, &gst::event::CustomDownstream::new(gst::Structure::new_empty("custom")));
    send(&source, &segment(1000, 2000));
    let gap = gst::event::Gap::builder(gst::ClockTime::from_mseconds(1000));
    send(&source, &gap.duration(gst::ClockTime::from_mseconds(20)).build());
    source.publish(51);
    send(&source, &gst::event::FlushStart::new());
    send(&source, &gst::event::FlushStop::new(true));
    source.publish(52);
    send(&source, &gst::event::Eos::new());
    pipeline.wait();
    let expected = [
        "stream-start the stream",
        "caps",
        "segment 0-100",
        "0",
        "1",
        "2",
        "3",
        "4",
        "tag",
        "custom",
        "segment 1000-2000",
        "gap 1000",
        "segment 1000-2000",
        "51",
        "flush-start",
        "flush-stop true",
        "segment 1000-2000",
        "52",
        "eos",
    ];
    assert_eq!(*seen.lock().unwrap(), expected);
}

#[test]
fn an_empty_stream_ends_as_one() {
    let place = Place::new();
    let source = Source::patient(&place.uri());
    let pipeline = Pipeline::new(&format!("pagecastsrc name=src uri={} ! fakesink name=s", place.uri()));
    let seen = seen(&pipeline);
    pipeline.play();
    source.wait_for(1);
    send(&source, &gst::event::Eos::new());
    pipeline.wait();
    let seen = seen.lock().unwrap();
    assert!(seen[0].starts_with("stream-start "), "{seen:?}");
    assert_eq!(seen[1..], ["segment 0-0", "eos"]);
}

#[test]
fn a_live_stream_is_flushed_without_turning_time_back() {
    let place = Place::new();
    let source = Source::new(&place.uri(), PublisherOptions::default());
    let pipeline =
        Pipeline::new(&format!("pagecastsrc name=src uri={} ! fakesink name=s sync=false", place.uri()));
    let seen = seen(&pipeline);
    pipeline.play();
    source.wait_for(1);
    source.publish(1);
    send(&source, &gst::event::FlushStart::new());
    send(&source, &gst::event::FlushStop::new(true));
    source.publish(2);
    eventually("all have come", || seen.lock().unwrap().last().is_some_and(|last| last == "2"));
    assert_eq!(
        seen.lock().unwrap()[1..],
        ["segment 0-0", "1", "flush-start", "flush-stop false", "segment 0-0", "2"]
    );
}

#[test]
fn eos_from_the_application_ends_a_source_that_waits() {
    for live in ["is-live=true", "is-live=false"] {
        let place = Place::new();
        let pipeline = Pipeline::playing(&format!(
            "pagecastsrc name=src {live} uri={} ! fakesink async=false",
            place.uri()
        ));
        assert!(pipeline.0.send_event(gst::event::Eos::new()), "{live}");
        pipeline.wait();
    }
}

#[test]
fn what_makes_no_sense_is_left_out() {
    let place = Place::new();
    let source = Source::patient(&place.uri());
    source.publisher.set_sticky("segment", b"nonsense").unwrap();
    source.publisher.set_sticky("event:nonsense", b"12345\nno, structure").unwrap();
    source.publisher.set_caps("video/x-raw, width=[ 1, 100 ]").unwrap();
    let pipeline =
        Pipeline::playing(&format!("pagecastsrc name=src uri={} ! appsink name=a sync=false", place.uri()));
    source.wait_for(1);
    source.publisher.publish_event("gap", b"").unwrap();
    source.publish(0);
    let sample = pull(&pipeline.sink("a"));
    assert_eq!(number(&sample), 0);
    assert_eq!(sample.caps(), None);
}
