use super::*;

fn round(event: &gst::Event) -> gst::Event {
    match outgoing(event) {
        Outgoing::Sticky { name, data } => sticky(&name, &data).unwrap_or_else(|| panic!("{name} is lost")),
        Outgoing::Event { name, data } => super::event(&data).unwrap_or_else(|| panic!("{name} is lost")),
        Outgoing::NotCarried(name) => panic!("{name} is not carried"),
    }
}

fn same(event: &gst::Event) {
    let again = round(event);
    assert_eq!(again.type_(), event.type_());
    match (again.structure(), event.structure()) {
        (Some(again), Some(event)) => assert_eq!(again.to_string(), event.to_string()),
        (again, event) => assert_eq!(again.is_some(), event.is_some()),
    }
}

#[test]
fn caps_with_buffers_survive() {
    gst::init().unwrap();
    let codec_data = gst::Buffer::from_slice([1, 0x64, 0, 0x1f, 0xff, 0xe1]);
    let caps = gst::Caps::builder("video/x-h264")
        .field("stream-format", "avc")
        .field("codec_data", codec_data)
        .field("width", 320)
        .field("framerate", gst::Fraction::new(30, 1))
        .build();
    let again = round(&gst::event::Caps::new(&caps));
    let gst::EventView::Caps(again) = again.view() else { panic!("not caps") };
    assert_eq!(again.caps_owned(), caps);
    let data = again.caps().structure(0).unwrap().get::<gst::Buffer>("codec_data").unwrap();
    assert_eq!(data.map_readable().unwrap().as_slice(), [1, 0x64, 0, 0x1f, 0xff, 0xe1]);

    let headers = [vec![1_u8, b'v', b'o'], vec![3, 0, 255], vec![5; 4000]].map(gst::Buffer::from_slice);
    let caps =
        gst::Caps::builder("audio/x-vorbis").field("streamheader", gst::Array::new(headers.iter())).build();
    let again = round(&gst::event::Caps::new(&caps));
    let gst::EventView::Caps(again) = again.view() else { panic!("not caps") };
    assert_eq!(again.caps_owned(), caps);
    let list = again.caps().structure(0).unwrap().get::<gst::Array>("streamheader").unwrap();
    let last = list[2].get::<gst::Buffer>().unwrap();
    assert_eq!(last.map_readable().unwrap().as_slice(), [5; 4000]);
}

#[test]
fn segments_of_all_formats_survive() {
    gst::init().unwrap();
    let mut time = gst::FormattedSegment::<gst::ClockTime>::new();
    time.set_rate(-1.5);
    time.set_applied_rate(2.0);
    time.set_flags(gst::SegmentFlags::RESET | gst::SegmentFlags::TRICKMODE);
    time.set_base(gst::ClockTime::from_seconds(3));
    time.set_offset(gst::ClockTime::from_mseconds(7));
    time.set_start(gst::ClockTime::from_mseconds(1));
    time.set_stop(gst::ClockTime::from_seconds(90));
    time.set_time(gst::ClockTime::from_seconds(1));
    time.set_position(gst::ClockTime::from_seconds(4));
    time.set_duration(gst::ClockTime::from_seconds(100));
    let bytes = gst::FormattedSegment::<gst::format::Bytes>::new();
    for event in [gst::event::Segment::new(&time), gst::event::Segment::new(&bytes)] {
        let again = round(&event);
        let (gst::EventView::Segment(again), gst::EventView::Segment(event)) = (again.view(), event.view())
        else {
            panic!("not a segment")
        };
        assert_eq!(again.segment(), event.segment());
    }
}

#[test]
fn senseless_segments_are_refused() {
    gst::init().unwrap();
    let good = segment::write(&gst::FormattedSegment::<gst::ClockTime>::new().upcast());
    assert!(segment::read(good.as_bytes()).is_some());
    for (from, to) in [
        ("rate=(double)1", "rate=(double)0"),
        ("applied-rate=(double)1", "applied-rate=(double)0"),
        ("format=(int)3", "format=(int)77"),
        ("start=(guint64)0", "start=(guint64)18446744073709551615"),
        ("stop=(guint64)18446744073709551615", "stop=(string)no"),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good, "{from} is not in {good}");
        assert!(segment::read(bad.as_bytes()).is_none(), "{bad}");
    }
    assert!(segment::read(b"segment").is_none());
    assert!(segment::read(b"\xff").is_none());
    assert!(segment::read(b"a\0b").is_none());
}

#[test]
fn stream_start_and_tags_survive() {
    gst::init().unwrap();
    let stream = gst::Stream::new(Some("cam/1"), None, gst::StreamType::VIDEO, gst::StreamFlags::SELECT);
    let start = gst::event::StreamStart::builder("cam/1")
        .flags(gst::StreamFlags::SELECT)
        .group_id(gst::GroupId::next())
        .stream(stream)
        .build();
    let (again, gst::EventView::StreamStart(start)) = (round(&start), start.view()) else { panic!() };
    let gst::EventView::StreamStart(again) = again.view() else { panic!("not a stream-start") };
    assert_eq!(again.stream_id(), "cam/1");
    assert_eq!(again.stream_flags(), start.stream_flags());
    assert_eq!(again.group_id(), start.group_id());
    assert_eq!(again.stream().unwrap().stream_type(), gst::StreamType::VIDEO);

    for scope in [gst::TagScope::Stream, gst::TagScope::Global] {
        let mut tags = gst::TagList::new();
        let out = tags.get_mut().unwrap();
        out.set_scope(scope);
        out.add::<gst::tags::Title>(&"a \"title\" ; with = all\nof it", gst::TagMergeMode::Append);
        out.add::<gst::tags::Bitrate>(&4_000_000, gst::TagMergeMode::Append);
        let again = round(&gst::event::Tag::new(tags.clone()));
        let gst::EventView::Tag(again) = again.view() else { panic!("not tags") };
        assert_eq!(again.tag_owned(), tags);
        assert_eq!(again.tag().scope(), scope);
    }
}

fn cover(size: usize) -> gst::Sample {
    let caps = gst::Caps::builder("image/jpeg").field("width", 8).build();
    gst::Sample::builder().buffer(&gst::Buffer::from_slice(vec![7_u8; size])).caps(&caps).build()
}

#[test]
fn cover_pictures_survive_or_make_room() {
    gst::init().unwrap();
    for (size, kept) in [(1000, true), (100_000, false)] {
        let mut tags = gst::TagList::new();
        let out = tags.get_mut().unwrap();
        out.add::<gst::tags::Image>(&cover(size), gst::TagMergeMode::Append);
        out.add::<gst::tags::Artist>(&"somebody", gst::TagMergeMode::Append);
        let again = round(&gst::event::Tag::new(tags));
        let gst::EventView::Tag(again) = again.view() else { panic!("not tags") };
        assert_eq!(again.tag().get::<gst::tags::Artist>().unwrap().get(), "somebody");
        let image = again.tag().get::<gst::tags::Image>();
        assert_eq!(image.is_some(), kept);
        if let Some(image) = image {
            assert_eq!(image.get().buffer().unwrap().map_readable().unwrap().as_slice(), vec![7; size]);
        }
    }
}

#[test]
fn tables_of_contents_survive() {
    gst::init().unwrap();
    let mut toc = gst::Toc::new(gst::TocScope::Global);
    let mut chapter = gst::TocEntry::new(gst::TocEntryType::Chapter, "chapter-1");
    let mut part = gst::TocEntry::new(gst::TocEntryType::Track, "part-1");
    part.get_mut().unwrap().set_start_stop_times(5, 10);
    let out = chapter.get_mut().unwrap();
    out.set_start_stop_times(0, 1_000_000_000_000);
    out.set_loop(gst::TocLoopType::PingPong, 3);
    out.append_sub_entry(part);
    let mut tags = gst::TagList::new();
    tags.get_mut().unwrap().add::<gst::tags::Title>(&"one", gst::TagMergeMode::Append);
    out.set_tags(tags);
    toc.get_mut().unwrap().append_entry(chapter);
    let again = round(&gst::event::Toc::new(&toc, true));
    let gst::EventView::Toc(again) = again.view() else { panic!("not a table of contents") };
    let (toc, updated) = again.toc();
    assert!(updated);
    assert_eq!(toc.scope(), gst::TocScope::Global);
    let chapter = &toc.entries()[0];
    assert_eq!((chapter.uid(), chapter.entry_type()), ("chapter-1", gst::TocEntryType::Chapter));
    assert_eq!(chapter.start_stop_times(), Some((0, 1_000_000_000_000)));
    assert_eq!(chapter.loop_(), Some((gst::TocLoopType::PingPong, 3)));
    assert_eq!(chapter.tags().unwrap().get::<gst::tags::Title>().unwrap().get(), "one");
    assert_eq!(chapter.sub_entries()[0].uid(), "part-1");
    assert_eq!(chapter.sub_entries()[0].start_stop_times(), Some((5, 10)));
}

#[test]
fn other_events_survive() {
    gst::init().unwrap();
    let content = || {
        gst::Structure::builder("application/x-mine")
            .field("text", "with \"quotes\", commas;\nand lines")
            .field("caps", gst::Caps::builder("video/x-raw").field("width", 5).build())
            .field("inner", gst::Structure::builder("inner").field("n", 5_i64).build())
            .build()
    };
    same(&gst::event::Gap::builder(gst::ClockTime::from_seconds(2)).duration(gst::ClockTime::SECOND).build());
    same(&gst::event::Gap::builder(gst::ClockTime::SECOND).gap_flags(gst::GapFlags::DATA).build());
    same(&gst::event::Eos::new());
    same(&gst::event::FlushStart::new());
    same(&gst::event::FlushStop::new(true));
    same(&gst::event::StreamGroupDone::new(gst::GroupId::next()));
    same(&gst::event::SegmentDone::new(gst::ClockTime::SECOND));
    same(&gst::event::Buffersize::new(gst::ClockTime::SECOND, 2 * gst::ClockTime::SECOND, true));
    same(&gst::event::InstantRateChange::new(2.0, gst::SegmentFlags::TRICKMODE));
    same(&gst::event::CustomDownstream::new(content()));
    same(&gst::event::CustomDownstreamOob::new(content()));
    same(&gst::event::CustomDownstreamSticky::new(content()));
    let data = gst::Buffer::from_slice([1, 2, 3]);
    same(&gst::event::Protection::builder("edef8ba9-79d6-4ace-a3c8-27dcd51d21ed", &data).build());
    let sticky = outgoing(&gst::event::CustomDownstreamSticky::new(content()));
    assert!(matches!(sticky, Outgoing::Sticky { name, .. } if name == "event:application/x-mine"));
    let gap = outgoing(&gst::event::Gap::new(gst::ClockTime::SECOND, None));
    assert!(matches!(gap, Outgoing::Event { name, .. } if name == GAP));
    assert!(matches!(outgoing(&gst::event::Eos::new()), Outgoing::Event { name, .. } if name == EOS));
}

#[test]
fn what_makes_no_event_is_left_out() {
    gst::init().unwrap();
    let gap = super::event;
    assert!(gap(b"").is_none());
    assert!(gap(b"eos").is_none());
    assert!(gap(b"12345\n").is_none(), "no such type");
    let kind = |event: gst::Event| raw::event_kind(&event);
    let seek = gst::event::Reconfigure::new();
    assert!(gap(format!("{}\n", kind(seek)).as_bytes()).is_none(), "upstream");
    let gap_kind = kind(gst::event::Gap::new(gst::ClockTime::SECOND, None));
    assert!(gap(format!("{gap_kind}\n").as_bytes()).is_none(), "fields are missing");
    let number = "18446744073709551615";
    for (start, duration) in [
        ("(guint64)1", "(string)long"),
        ("(gint64)1", "(guint64)1"),
        (&format!("(guint64){number}"), "(guint64)1"),
    ] {
        let content = format!("{gap_kind}\nGstEventGap, timestamp={start}, duration={duration};");
        assert!(gap(content.as_bytes()).is_none(), "{content}");
    }
    let endless = format!("{gap_kind}\nGstEventGap, timestamp=(guint64)1, duration=(guint64){number};");
    assert!(gap(endless.as_bytes()).is_some(), "no duration, as GStreamer says it");
    let stop_kind = kind(gst::event::FlushStop::new(true));
    assert!(gap(format!("{stop_kind}\nGstEventFlushStop, reset-time=(int)1;").as_bytes()).is_none());
    let caps_kind = kind(gst::event::Caps::new(&gst::Caps::new_empty_simple("a/b")));
    assert!(gap(format!("{caps_kind}\na").as_bytes()).is_none(), "caps have their own form");
    assert!(sticky("caps", b"video/x-raw, width=[1,2]").is_none(), "not fixed");
    assert!(sticky("unheard-of", b"x").is_none());
}

#[test]
fn events_over_the_limit_are_named() {
    gst::init().unwrap();
    let content = gst::Structure::builder("big").field("text", "x".repeat(MAX_EVENT_BYTES)).build();
    let event = gst::event::CustomDownstream::new(content);
    assert_eq!(outgoing(&event), Outgoing::NotCarried("custom-downstream".to_owned()));
}
