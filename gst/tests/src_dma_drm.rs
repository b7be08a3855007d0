//! Caps that say how pixels lie in dma-bufs: downstream gets the form and the face that it takes, a modifier arrives as it
//! was said, and who cannot take it is told. No driver here makes other layouts than lines: a publisher says that it has
//! some. Without /dev/udmabuf each test is skipped.

mod source;

use std::collections::BTreeSet;

use gst::prelude::*;
use gst_allocators::DmaBufMemory;
use gst_video::VideoMeta;
use pagecast::{Description, FaceKind, Frame, Plane, PublisherOptions, Times};
use pagecast_tests::skip;
use source::*;

/// Of a vendor that is none.
const ODD: &str = "NV12:0xfe00000000000123";
const OTHER: &str = "NV12:0xfe00000000000456";
/// Lines that no linear picture of this size has.
const STRIDE: i32 = 96;
const SIZE: usize = 768;

fn source(place: &Place) -> Option<Source> {
    if std::fs::OpenOptions::new().read(true).write(true).open("/dev/udmabuf").is_err() {
        skip("/dev/udmabuf cannot be opened");
        return None;
    }
    let options = PublisherOptions { live: false, ..PublisherOptions::default() };
    Some(Source::sized(&place.uri(), SIZE, options))
}

fn linear() -> String {
    "video/x-raw, format=NV12, width=32, height=16, framerate=50/1".to_owned()
}

fn dma_drm(format: &str) -> String {
    format!(
        "video/x-raw(memory:DMABuf), format=DMA_DRM, drm-format={format}, width=32, height=16, framerate=50/1"
    )
}

/// One frame with a layout of its own.
fn publish(source: &Source, number: u64) {
    publish_lines(source, number, STRIDE);
}

fn publish_lines(source: &Source, number: u64, stride: i32) {
    let plain = source.frame(number, Times::default());
    let plane = |offset| Plane { offset, stride };
    let planes = [plane(0), plane(512)].into_iter().collect();
    let description = Description { width: 32, height: 16, planes, ..plain.description().clone() };
    let buffer = plain.segments()[0].buffer.clone();
    let frame = Frame::builder().describe(description).segment(buffer, 0, SIZE).owner(plain).build();
    source.publisher.publish(&frame.expect("a frame")).expect("published");
}

fn reader(place: &Place, properties: &str, takes: &str) -> Pipeline {
    let take = if takes.is_empty() { String::new() } else { format!("! capsfilter caps=\"{takes}\"") };
    Pipeline::playing(&format!(
        "pagecastsrc name=src {properties} uri={} {take} ! appsink name=a sync=false",
        place.uri()
    ))
}

fn is_dma_buf(sample: &gst::Sample) -> bool {
    sample.buffer().unwrap().peek_memory(0).downcast_memory_ref::<DmaBufMemory>().is_some()
}

fn said(sample: &gst::Sample, field: &str) -> String {
    sample.caps().unwrap().structure(0).unwrap().get(field).unwrap_or_default()
}

/// Whether this GStreamer knows `DMA_DRM`.
fn knows_drm() -> bool {
    gst::version() >= (1, 24, 0, 0)
}

#[test]
fn the_face_follows_downstream() {
    const DMA_BUF: &str = "video/x-raw(memory:DMABuf)";
    let place = Place::new();
    let Some(source) = source(&place) else { return };
    source.publisher.set_caps(&linear()).unwrap();
    let (old, drm) = (format!("{DMA_BUF},format=NV12"), format!("{DMA_BUF},format=DMA_DRM,drm-format=NV12"));
    let both = |first: &str, second: &str| format!("{first};{second}");
    let newest = if knows_drm() { "DMA_DRM" } else { "NV12" };
    let mut cases = vec![
        ("", String::new(), false, "NV12"),
        ("", "video/x-raw,format=NV12".to_owned(), false, "NV12"),
        ("", old.clone(), true, "NV12"),
        ("", both(DMA_BUF, "video/x-raw"), true, newest),
        ("", both("video/x-raw", DMA_BUF), false, "NV12"),
        ("face=memory", both(DMA_BUF, "video/x-raw"), false, "NV12"),
        ("face=dma-buf", String::new(), true, newest),
        // Pages that devices import are pages that the CPU can read, too.
        ("face=dma-buf", "video/x-raw,format=NV12".to_owned(), true, "NV12"),
    ];
    if knows_drm() {
        cases.push(("", drm, true, "DMA_DRM"));
    }
    let readers: Vec<_> =
        cases.iter().map(|(properties, takes, ..)| reader(&place, properties, takes)).collect();
    source.wait_for(readers.len());
    for n in 0..20 {
        publish_lines(&source, n, 32);
        for (reader, (properties, takes, dma_buf, format)) in readers.iter().zip(&cases) {
            let sample = pull(&reader.sink("a"));
            let what = format!("{properties} {takes}: {:?}", sample.caps());
            assert_eq!(number(&sample), n, "{what}");
            assert_eq!(
                (is_dma_buf(&sample), said(&sample, "format").as_str()),
                (*dma_buf, *format),
                "{what}"
            );
            let drm_format = if *format == "DMA_DRM" { "NV12" } else { "" };
            assert_eq!(said(&sample, "drm-format"), drm_format, "{what}");
            let buffer = sample.buffer().unwrap();
            let meta = buffer.meta::<VideoMeta>().expect("how it lies");
            assert_eq!(
                (meta.format(), meta.stride()),
                (gst_video::VideoFormat::Nv12, &[32; 2][..]),
                "{what}"
            );
        }
    }
}

#[test]
fn a_modifier_arrives_as_it_was_said() {
    let place = Place::new();
    let Some(source) = source(&place) else { return };
    source.publisher.set_caps(&dma_drm(ODD)).unwrap();
    // Nobody asks for dma-bufs, and pages of this pool can be had as memory: the first source asks once more.
    for (face, takes) in [("", ""), ("face=dma-buf", ""), ("", &dma_drm(&format!("{{NV12, {ODD}}}")))] {
        let reader = reader(&place, face, takes);
        source.wait_for(1);
        let (sink, mut memories) = (reader.sink("a"), BTreeSet::new());
        let frames = std::iter::successors(Some(0), |n| Some(n + 1)).filter_map(|n| {
            publish(&source, n);
            sink.try_pull_sample(gst::ClockTime::from_mseconds(20))
        });
        for sample in frames.take(30) {
            memories.insert(sample.buffer().unwrap().peek_memory(0).as_ptr() as usize);
            check(&sample);
        }
        assert!(memories.len() < 20, "{} memories for 30 frames", memories.len());
        drop(reader);
        eventually("it is gone", || source.publisher.subscribers() == 0);
    }
}

/// Whether the frame is what the publisher said.
fn check(sample: &gst::Sample) {
    let caps = sample.caps().unwrap();
    assert!(is_dma_buf(sample), "{caps}");
    assert_eq!(said(sample, "drm-format"), ODD);
    number(sample);
    let meta = sample.buffer().unwrap().meta::<VideoMeta>();
    assert_eq!(meta.is_some(), knows_drm());
    if let Some(meta) = meta {
        assert_eq!((meta.offset(), meta.stride()), (&[0, 512][..], &[STRIDE; 2][..]));
        assert_eq!(meta.format().to_str(), "DMA_DRM");
    }
    #[cfg(feature = "v1_24")]
    {
        let info = gst_video::VideoInfoDmaDrm::from_caps(caps).expect("DMA_DRM caps");
        assert_eq!((info.modifier(), info.width(), info.height()), (0xfe00_0000_0000_0123, 32, 16));
        assert_eq!(info.fourcc(), u32::from_le_bytes(*b"NV12"));
    }
}

#[test]
fn who_cannot_take_a_modifier_is_told() {
    let place = Place::new();
    let Some(source) = source(&place) else { return };
    source.publisher.set_caps(&dma_drm(ODD)).unwrap();
    let lists = "video/x-raw(memory:DMABuf),format=DMA_DRM,drm-format={NV12,NV12:0x0100000000000002}";
    for (takes, told) in [
        (format!("! capsfilter caps=\"{lists}\""), "NV12:0x0100000000000002 }"),
        ("! capsfilter caps=\"video/x-raw,format=NV12\"".to_owned(), "memory:SystemMemory) NV12"),
        ("! videoconvert ! capsfilter caps=\"video/x-raw,format=I420\"".to_owned(), "memory:SystemMemory"),
    ] {
        let pipeline = Pipeline::new(&format!("pagecastsrc uri={} {takes} ! fakesink", place.uri()));
        let _ = pipeline.0.set_state(gst::State::Playing);
        source.wait_for(1);
        publish(&source, 0);
        let error = pipeline.error();
        assert!(error.contains(ODD) && error.contains(told) && error.contains("linear"), "{takes}: {error}");
        drop(pipeline);
        eventually("it is gone", || source.publisher.subscribers() == 0);
    }
    // Who insists on memory is told of that.
    let pipeline = Pipeline::new(&format!("pagecastsrc face=memory uri={} ! fakesink", place.uri()));
    let _ = pipeline.0.set_state(gst::State::Playing);
    source.wait_for(1);
    publish(&source, 0);
    let error = pipeline.error();
    assert!(error.contains(ODD) && error.contains("face=auto"), "{error}");
}

#[test]
fn another_modifier_is_negotiated_anew() {
    let place = Place::new();
    let Some(source) = source(&place) else { return };
    source.publisher.set_caps(&dma_drm(ODD)).unwrap();
    let reader = reader(&place, "face=dma-buf", &dma_drm(&format!("{{{ODD}, {OTHER}}}")));
    let sink = reader.sink("a");
    source.wait_for(1);
    for (n, format) in [ODD, OTHER, ODD, OTHER].into_iter().enumerate() {
        source.publisher.set_caps(&dma_drm(format)).unwrap();
        publish(&source, n as u64);
        let sample = pull(&sink);
        assert_eq!((number(&sample), said(&sample, "drm-format").as_str()), (n as u64, format));
    }
    source.publisher.set_caps(&dma_drm("NV12:0xfe00000000000789")).unwrap();
    publish(&source, 9);
    let error = reader.error();
    assert!(error.contains("0xfe00000000000789") && error.contains(OTHER), "{error}");
}

/// A control: what comes by TCP is no dma-buf of the publisher's, and is never said to be one that devices know.
#[test]
fn nothing_is_guessed_of_pages_that_are_no_dma_bufs() {
    let place = Place::new();
    let options = PublisherOptions { live: false, ..PublisherOptions::default() };
    let wants = pagecast::Wants { offer_dma_buf: false, ..Default::default() };
    let source = Source::sized(&place.uri(), SIZE, options)
        .with_pool(pagecast::PoolOptions { wants, ..Default::default() });
    source.publisher.set_caps(&dma_drm(ODD)).unwrap();
    let pipeline = Pipeline::new(&format!("pagecastsrc uri={} ! fakesink", place.uri()));
    let _ = pipeline.0.set_state(gst::State::Playing);
    source.wait_for(1);
    let plain = source.frame(0, Times::default());
    assert!(plain.segments()[0].buffer.face(FaceKind::DmaBuf).is_none());
    publish(&source, 0);
    // It asks for dma-bufs, is refused, and comes back for whatever there is.
    let publishing = std::sync::atomic::AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while publishing.load(std::sync::atomic::Ordering::SeqCst) {
                publish(&source, 0);
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        });
        let error = pipeline.error();
        publishing.store(false, std::sync::atomic::Ordering::SeqCst);
        assert!(error.contains(ODD) && error.contains("only as dma-bufs"), "{error}");
    });
}
