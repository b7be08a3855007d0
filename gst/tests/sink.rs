//! What pagecastsink publishes, seen by the library's own subscriber.

mod common;

use std::collections::BTreeSet;

use common::*;
use gst::prelude::*;

/// Publishes to one subscriber and compares the inodes of what it reads with those of what `writer` wrote.
fn passes_without_a_copy(before: &str, writer: &str) -> usize {
    let place = Place::new();
    let pipeline = Pipeline::new(&format!(
        "{before} ! pagecastsink name=k wait-for-connection=true uri={}",
        place.uri()
    ));
    let wrote = inodes_at(&pipeline.element(writer).static_pad("src").unwrap());
    pipeline.play();
    let subscriber = subscriber(&place);
    let mut read = BTreeSet::new();
    let frames = each_frame(&subscriber, |frame| {
        for segment in frame.segments() {
            read.insert(segment.buffer.identity().unwrap().1);
        }
    });
    pipeline.eos();
    let wrote = wrote.lock().unwrap();
    assert!(!wrote.contains(&0), "{writer} wrote memory without a descriptor");
    assert!(!read.is_empty() && read.is_subset(&wrote), "read {read:?}, written {wrote:?}");
    assert_eq!(pipeline.copied("k"), 0);
    assert!(pipeline.texts(gst::MessageType::Info).is_empty());
    frames
}

#[test]
fn videotestsrc_fills_our_pages() {
    let frames = passes_without_a_copy(
        "videotestsrc num-buffers=100 name=w ! video/x-raw,format=NV12,width=320,height=240",
        "w",
    );
    assert_eq!(frames, 100);
}

#[test]
fn videoconvert_fills_our_pages() {
    let frames = passes_without_a_copy(
        "videotestsrc num-buffers=60 ! video/x-raw,format=RGB,width=321,height=241 ! videoconvert name=w ! \
         video/x-raw,format=I420",
        "w",
    );
    assert_eq!(frames, 60);
}

#[test]
fn audio_fills_our_pages() {
    let frames = passes_without_a_copy("audiotestsrc num-buffers=200 name=w", "w");
    assert_eq!(frames, 200);
}

#[test]
fn a_decoder_fills_our_pages() {
    init();
    for (coder, decoder) in [("jpegenc", "jpegdec"), ("x264enc", "h264parse ! openh264dec")] {
        let needed = decoder.split(" ! ").chain([coder]);
        if let Some(missing) = needed.into_iter().find(|name| gst::ElementFactory::find(name).is_none()) {
            pagecast_tests::skip(&format!("there is no {missing}"));
            continue;
        }
        let frames = passes_without_a_copy(
            &format!(
                "videotestsrc num-buffers=60 ! video/x-raw,format=I420,width=320,height=240 ! {coder} ! \
                 {decoder} name=w"
            ),
            "w",
        );
        assert_eq!(frames, 60);
    }
}

/// What a filesink would have written.
fn reference(before: &str) -> Vec<u8> {
    let place = Place::new();
    let file = place.path().join("f");
    let pipeline = Pipeline::new(&format!("{before} ! filesink location={}", file.display()));
    pipeline.play().eos();
    drop(pipeline);
    std::fs::read(file).unwrap()
}

/// The pixels of whole frames: what lies between lines and planes is nobody's.
fn visible(bytes: Vec<u8>, caps: &gst::Caps) -> Vec<u8> {
    let Ok(info) = gst_video::VideoInfo::from_caps(caps) else { return bytes };
    if info.format() == gst_video::VideoFormat::Encoded {
        return bytes;
    }
    let mut pixels = Vec::with_capacity(bytes.len());
    for frame in bytes.chunks(info.size()) {
        for plane in 0..info.n_planes() as usize {
            let component = plane as u8;
            let width = (info.comp_width(component) as i32 * info.comp_pstride(component)) as usize;
            let (offset, stride) = (info.offset()[plane], info.stride()[plane] as usize);
            for line in 0..info.comp_height(component) as usize {
                pixels.extend_from_slice(&frame[offset + line * stride..][..width]);
            }
        }
    }
    pixels
}

#[test]
fn bytes_are_those_of_a_filesink() {
    for before in [
        "videotestsrc num-buffers=20 pattern=ball ! video/x-raw,format=I420,width=321,height=241",
        "audiotestsrc num-buffers=50 ! audio/x-raw,format=S24LE,channels=3,rate=44100",
        "videotestsrc num-buffers=10 ! video/x-raw,width=64,height=64 ! jpegenc",
        "audiotestsrc num-buffers=50 ! vorbisenc",
    ] {
        let place = Place::new();
        let pipeline =
            Pipeline::new(&format!("{before} ! pagecastsink wait-for-connection=true uri={}", place.uri()));
        pipeline.play();
        let mut bytes = Vec::new();
        let mut caps = gst::Caps::new_empty();
        each_frame(&subscriber(&place), |frame| {
            bytes.extend(frame.to_vec().unwrap());
            caps = frame.caps().unwrap().parse().unwrap();
        });
        let expected = reference(before);
        assert_eq!(bytes.len(), expected.len(), "{before}");
        assert!(visible(bytes, &caps) == visible(expected, &caps), "{before}: other bytes");
    }
}

#[test]
fn behind_a_tee_frames_are_copied_counted_and_said_once() {
    let place = Place::new();
    let pipeline = Pipeline::new(&format!(
        "videotestsrc num-buffers=50 name=w ! video/x-raw,format=GRAY8,width=320,height=240 ! tee name=t ! \
         queue ! pagecastsink name=k wait-for-connection=true uri={} t. ! queue ! fakesink async=false",
        place.uri()
    ));
    let wrote = inodes_at(&pipeline.element("w").static_pad("src").unwrap());
    pipeline.play();
    let frames = each_frame(&subscriber(&place), |frame| {
        assert_eq!(frame.to_vec().unwrap().len(), 320 * 240);
    });
    pipeline.eos();
    assert_eq!(frames, 50);
    assert_eq!(*wrote.lock().unwrap(), BTreeSet::from([0]), "the tee passed our pages on after all");
    assert_eq!(pipeline.copied("k"), 50);
    let said = pipeline.texts(gst::MessageType::Info);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("tee") && said[0].contains("pagecastsrc"), "{said:?}");
}

#[test]
fn coded_media_is_copied_without_a_word() {
    let place = Place::new();
    let pipeline = Pipeline::new(&format!(
        "videotestsrc num-buffers=10 ! video/x-raw,width=64,height=64 ! jpegenc ! \
         pagecastsink name=k wait-for-connection=true uri={}",
        place.uri()
    ));
    pipeline.play();
    assert_eq!(each_frame(&subscriber(&place), |_| ()), 10);
    pipeline.eos();
    assert_eq!(pipeline.copied("k"), 10);
    assert!(pipeline.texts(gst::MessageType::Info).is_empty());
}

#[test]
fn a_buffer_that_is_repeated_is_passed_each_time() {
    for before in [
        "videotestsrc num-buffers=1 ! video/x-raw,format=GRAY8,width=64,height=64,framerate=30/1 ! \
         imagefreeze num-buffers=40 name=w",
        "videotestsrc num-buffers=20 ! video/x-raw,format=GRAY8,width=64,height=64,framerate=10/1 ! \
         videorate name=w ! video/x-raw,framerate=30/1",
    ] {
        assert!(passes_without_a_copy(before, "w") >= 40);
    }
}

#[test]
fn parts_of_memories_are_passed() {
    init();
    let place = Place::new();
    let sink = gst::ElementFactory::make("pagecastsink").property("uri", place.uri()).build().unwrap();
    sink.set_property("wait-for-connection", true);
    sink.set_property("async", false);
    sink.set_property("block-deadline", PATIENT);
    sink.set_state(gst::State::Playing).unwrap();
    let pad = sink.static_pad("sink").unwrap();
    let caps = gst::Caps::builder("audio/x-raw").field("format", "S8").field("layout", "interleaved");
    let caps = caps.field("rate", 8000).field("channels", 1).build();
    let feeder = std::thread::spawn(move || {
        assert!(pad.send_event(gst::event::StreamStart::new("s")));
        assert!(pad.send_event(gst::event::Caps::new(&caps)));
        assert!(pad.send_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new())));
        let mut query = gst::query::Allocation::new(Some(&caps), false);
        assert!(pad.query(&mut query));
        let (allocator, params) = query.allocation_params().next().expect("an offer");
        let allocator = allocator.expect("an allocator");
        for n in 0..50_u8 {
            let mut memory = allocator.alloc(1000, Some(&params)).unwrap();
            memory.get_mut().unwrap().map_writable().unwrap().fill(n);
            memory.get_mut().unwrap().map_writable().unwrap()[500..].fill(n + 100);
            let mut whole = gst::Buffer::new();
            whole.make_mut().append_memory(memory);
            let part = |range| whole.copy_region(gst::BufferCopyFlags::MEMORY, range).unwrap();
            let (first, second) = (part(0..500), part(500..1000));
            drop(whole);
            // The page stays out as long as any part does, and both parts may be in one frame, too.
            assert_eq!(pad.chain(first.clone()), Ok(gst::FlowSuccess::Ok));
            assert_eq!(pad.chain(second.clone()), Ok(gst::FlowSuccess::Ok));
            let mut both = second;
            both.make_mut().append_memory(first.peek_memory(0).copy_range(..10));
            both.make_mut().append_memory(first.memory(0).unwrap());
            drop(first);
            if n % 10 == 0 {
                let parts = both.n_memory();
                assert_eq!(parts, 3);
            }
            let mut shared = gst::Buffer::new();
            shared.make_mut().append_memory(both.memory(0).unwrap());
            shared.make_mut().append_memory(both.memory(2).unwrap());
            drop(both);
            assert_eq!(pad.chain(shared), Ok(gst::FlowSuccess::Ok));
        }
        assert!(pad.send_event(gst::event::Eos::new()));
    });
    let mut count = 0;
    each_frame(&subscriber(&place), |frame| {
        let n = (count / 3) as u8;
        let bytes = frame.to_vec().unwrap();
        match count % 3 {
            0 => assert_eq!(bytes, [n; 500]),
            1 => assert_eq!(bytes, [n + 100; 500]),
            _ => {
                assert_eq!(bytes[..500], [n + 100; 500]);
                assert_eq!(bytes[500..], [n; 500]);
                assert_eq!(frame.segments()[0].buffer.id(), frame.segments()[1].buffer.id());
            }
        }
        count += 1;
    });
    feeder.join().unwrap();
    assert_eq!(count, 150);
    let stats: gst::Structure = sink.property("stats");
    assert_eq!(stats.get::<u64>("copied"), Ok(0));
    assert!(stats.get::<u64>("pool_total").unwrap() < 64 * 4096, "pages are used again: {stats}");
    sink.set_state(gst::State::Null).unwrap();
}

#[test]
fn a_decoder_that_still_refers_to_its_frames_copies_them_into_our_pages() {
    init();
    if ["x264enc", "avdec_h264"].iter().any(|name| gst::ElementFactory::find(name).is_none()) {
        return pagecast_tests::skip("there is no x264enc or avdec_h264");
    }
    let place = Place::new();
    let pipeline = Pipeline::new(&format!(
        "videotestsrc num-buffers=300 ! video/x-raw,format=I420,width=320,height=240 ! \
         x264enc tune=zerolatency speed-preset=ultrafast ! h264parse ! avdec_h264 ! \
         pagecastsink name=k sync=false wait-for-connection=true uri={}",
        place.uri()
    ));
    pipeline.play();
    assert_eq!(each_frame(&subscriber(&place), |_| ()), 300);
    pipeline.eos();
    assert_eq!(pipeline.copied("k"), 0, "nothing is left for us to copy");
}
