//! dma-bufs, where the machine makes them (/dev/udmabuf), and what is said where it does not.

mod source;

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use gst::prelude::*;
use gst_allocators::DmaBufMemory;
use pagecast::allocators::dma_buf::Direction;
use pagecast::allocators::{DmaHeapBacking, DrmDumbBacking, dma_buf, foreign};
use pagecast::{FaceKind, Fence, Frame, PublisherOptions, Times};
use pagecast_tests::importer::{Importer, Work};
use pagecast_tests::skip;
use source::*;

fn has_udmabuf() -> bool {
    std::fs::OpenOptions::new().read(true).write(true).open("/dev/udmabuf").is_ok()
}

fn video(place: &Place) -> Source {
    Source::video(&place.uri(), PublisherOptions { live: false, ..PublisherOptions::default() })
}

fn features(sample: &gst::Sample) -> String {
    sample.caps().unwrap().features(0).unwrap().to_string()
}

fn is_dma_buf(sample: &gst::Sample) -> bool {
    let buffer = sample.buffer().unwrap();
    let Some(memory) = buffer.peek_memory(0).downcast_memory_ref::<DmaBufMemory>() else { return false };
    // SAFETY: the memory keeps its descriptor open.
    dma_buf::is_dma_buf(unsafe { BorrowedFd::borrow_raw(memory.fd()) })
}

#[test]
fn who_asks_for_dma_bufs_gets_them_and_caps_say_so() {
    if !has_udmabuf() {
        return skip("/dev/udmabuf cannot be opened");
    }
    let place = Place::new();
    let source = video(&place);
    let launch = |face: &str| {
        Pipeline::playing(&format!(
            "pagecastsrc name=src face={face} uri={} ! appsink name=a sync=false",
            place.uri()
        ))
    };
    let (dma_buf, memory) = (launch("dma-buf"), launch("auto"));
    source.wait_for(2);
    for n in 0..20 {
        source.publish(n);
        let sample = pull(&dma_buf.sink("a"));
        assert_eq!(number(&sample), n);
        assert_eq!(features(&sample), "memory:DMABuf");
        assert!(is_dma_buf(&sample));
        let sample = pull(&memory.sink("a"));
        assert_eq!(number(&sample), n);
        assert!(!is_dma_buf(&sample), "who does not ask gets what he cannot write");
        assert_ne!(features(&sample), "memory:DMABuf");
    }
}

#[test]
fn dma_bufs_are_taken_where_there_is_nothing_else() {
    if !has_udmabuf() {
        return skip("/dev/udmabuf cannot be opened");
    }
    let place = Place::new();
    let source = video(&place);
    let pipeline =
        Pipeline::playing(&format!("pagecastsrc name=src uri={} ! appsink name=a sync=false", place.uri()));
    // As of a camera: a buffer that has no other face.
    let own = source.frame(7, Times::default());
    let face = own.segments()[0].buffer.face(FaceKind::DmaBuf).expect("a dma-buf face");
    let buffer = Arc::new(foreign::import(face.fd.as_fd()).expect("a foreign dma-buf"));
    source.wait_for(1);
    let publish = || {
        let description = own.description().clone();
        let frame = Frame::builder().describe(description).segment(buffer.clone(), 0, source.size);
        source.publisher.publish(&frame.owner(own.clone()).build().unwrap()).unwrap();
    };
    publish();
    let sink = pipeline.sink("a");
    let mut sample = None;
    eventually("it came back and asked for dma-bufs", || {
        publish();
        sample = sink.try_pull_sample(gst::ClockTime::from_mseconds(20));
        sample.is_some()
    });
    let sample = sample.unwrap();
    assert_eq!(number(&sample), 7);
    assert!(is_dma_buf(&sample));
    assert_ne!(features(&sample), "memory:DMABuf", "nobody downstream asked for that");
}

#[test]
fn no_dma_buf_is_an_error_with_a_remedy() {
    let place = Place::new();
    let pool = pagecast::PoolOptions {
        wants: pagecast::Wants { offer_dma_buf: false, ..Default::default() },
        ..Default::default()
    };
    let source = video(&place).with_pool(pool);
    let pipeline = Pipeline::new(&format!("pagecastsrc face=dma-buf uri={} ! fakesink", place.uri()));
    let _ = pipeline.0.set_state(gst::State::Playing);
    source.wait_for(1);
    source.publish(0);
    let error = pipeline.error();
    assert!(error.contains("set face=auto"), "{error}");
}

/// The kernel's virtual GPU at work on pages of its own, and a publisher of dma-bufs.
struct AtWork {
    importer: Importer,
    work: Work,
    fence: Fence,
    source: Source,
    _own: Frame,
}

fn at_work(place: &Place) -> Option<AtWork> {
    let importer = match Importer::open() {
        Ok(importer) if has_udmabuf() => importer,
        Ok(_) => return skip_none("/dev/udmabuf cannot be opened"),
        Err(why) => return skip_none(&why),
    };
    let source = video(place);
    let own = source.frame(0, Times::default());
    let fd = own.segments()[0].buffer.face(FaceKind::DmaBuf).expect("a dma-buf").fd;
    let work = importer.begin_work(importer.import(fd));
    let fence = Fence::of_dma_buf(fd, Direction::Read).expect("a fence");
    Some(AtWork { importer, work, fence, source, _own: own })
}

fn skip_none<T>(why: &str) -> Option<T> {
    skip(why);
    None
}

/// Publishes a frame that a device still writes.
fn publish_fenced(source: &Source, number: u64, fence: &Fence) {
    let plain = source.frame(number, Times::default());
    let description = plain.description().clone();
    let buffer = plain.segments()[0].buffer.clone();
    let frame = Frame::builder().describe(description).segment(buffer, 0, source.size);
    let frame = frame.acquire_fence(fence.clone()).owner(plain).build();
    source.publisher.publish(&frame.expect("a frame")).expect("published");
}

/// A reader that has had frame 0; of the two that follow, a device still writes the first.
fn reader_of_fenced(place: &Place, source: &Source, fence: &Fence) -> Pipeline {
    let reader = Pipeline::playing(&format!(
        "pagecastsrc name=src face=dma-buf uri={} ! appsink name=a sync=false",
        place.uri()
    ));
    source.wait_for(1);
    source.publish(0);
    assert_eq!(number(&pull(&reader.sink("a"))), 0, "a control: nobody works on this one");
    publish_fenced(source, 1, fence);
    source.publish(2);
    reader
}

#[test]
fn a_frame_goes_downstream_when_its_device_is_done() {
    let place = Place::new();
    let Some(AtWork { importer, work, fence, source, _own }) = at_work(&place) else { return };
    let reader = reader_of_fenced(&place, &source, &fence);
    let sink = reader.sink("a");
    let early = sink.try_pull_sample(gst::ClockTime::from_mseconds(200));
    assert!(early.is_none() || fence.has_signalled(), "a device writes it");
    if !fence.has_signalled() {
        importer.finish(work);
    }
    let first = early.unwrap_or_else(|| pull(&sink));
    assert!(fence.has_signalled());
    // The kernel's device lets nobody wait for longer than ten seconds, which pass quickly on a machine that stood still.
    if number(&first) == 1 {
        assert_eq!(number(&pull(&sink)), 2);
    } else {
        assert_eq!(reader.stats("src").get::<u64>("dropped"), Ok(1));
    }
}

#[test]
fn a_device_that_is_never_done_costs_its_frame_only() {
    let place = Place::new();
    let Some(AtWork { importer: _importer, fence, source, _own, .. }) = at_work(&place) else { return };
    let reader = reader_of_fenced(&place, &source, &fence);
    let sink = reader.sink("a");
    let next = pull(&sink);
    if number(&next) == 1 {
        assert!(fence.has_signalled(), "the kernel's own limit came first");
    } else {
        assert_eq!(number(&next), 2);
        assert!(next.buffer().unwrap().flags().contains(gst::BufferFlags::DISCONT), "one is missing");
        assert_eq!(reader.stats("src").get::<u64>("dropped"), Ok(1));
    }
}

#[test]
fn a_pipeline_ends_while_a_device_works() {
    let place = Place::new();
    let Some(AtWork { importer: _importer, fence, source, _own, .. }) = at_work(&place) else { return };
    let reader =
        Pipeline::playing(&format!("pagecastsrc name=src face=dma-buf uri={} ! fakesink", place.uri()));
    source.wait_for(1);
    publish_fenced(&source, 1, &fence);
    eventually("it has it", || reader.stats("src").get::<u64>("frames").unwrap() == 1);
    let begun = std::time::Instant::now();
    drop(reader);
    assert!(begun.elapsed() < dma_buf::DEVICE_LIMIT || fence.has_signalled(), "{:?}", begun.elapsed());
}

/// From an element that fills pages of a device to one that reads them.
fn through(backing: &str, frames: usize) {
    const SOURCE: &str = "videotestsrc pattern=smpte75 ! video/x-raw,format=GRAY8,width=320,height=240";
    let place = Place::new();
    let expected = Pipeline::playing(&format!("{SOURCE} ! appsink name=a sync=false"));
    let expected = pull(&expected.sink("a")).buffer_owned().unwrap();
    let expected = expected.map_readable().unwrap();
    let sink = format!("pagecastsink name=s {backing} policy=block wait-for-connection=true sync=false");
    let writer = Pipeline::new(&format!("{SOURCE} ! {sink} uri={}", place.uri()));
    writer.0.set_state(gst::State::Playing).expect("playing, or about to");
    let reader = Pipeline::playing(&format!(
        "pagecastsrc face=dma-buf uri={} ! appsink name=a sync=false",
        place.uri()
    ));
    for at in 0..frames {
        let sample = pull(&reader.sink("a"));
        assert!(is_dma_buf(&sample));
        let bytes = sample.buffer().unwrap().map_readable().unwrap();
        assert!(bytes.as_slice() == expected.as_slice(), "{backing}: frame {at}");
    }
    let stats = writer.stats("s");
    assert_eq!(stats.get::<u64>("copied"), Ok(0), "{stats}");
    let kind = backing.split(['=', ' ']).nth(1).unwrap();
    assert_eq!(stats.get::<&str>("backing"), Ok(kind), "{stats}");
}

#[test]
fn elements_fill_pages_of_a_dma_heap() {
    if DmaHeapBacking::open("system").is_err() {
        return skip("the heap `system` cannot be opened");
    }
    through("backing=dma-heap", 50);
    through("backing=dma-heap backing-device=system", 3);
}

#[test]
fn elements_fill_dumb_buffers() {
    if DrmDumbBacking::first().is_err() {
        return skip("no DRM device makes dumb buffers");
    }
    through("backing=drm-dumb", 50);
}

#[test]
fn a_device_that_is_not_there_is_named_at_the_start() {
    for (backing, device) in [("dma-heap", "nowhere"), ("drm-dumb", "/dev/dri/card999")] {
        let place = Place::new();
        let pipeline = Pipeline::new(&format!(
            "videotestsrc ! pagecastsink backing={backing} backing-device={device} uri={}",
            place.uri()
        ));
        assert!(pipeline.0.set_state(gst::State::Playing).is_err());
        let error = pipeline.error();
        assert!(error.contains(device), "{error}");
    }
}
