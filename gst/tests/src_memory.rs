//! The memory behind received buffers: whose it is, how long, and what becomes of it when it is written to.

mod source;

use std::collections::HashSet;

use gst::prelude::*;
use gst_video::{VideoFormat, VideoFrameExt, VideoFrameRef, VideoInfo, VideoMeta};
use pagecast::{Description, Frame, Plane, Pool, PoolOptions, Publisher, PublisherOptions, Times};
use source::*;

fn inode(memory: &gst::MemoryRef) -> (u64, u64) {
    let fd = memory.downcast_memory_ref::<gst_allocators::FdMemory>().expect("memory with a descriptor").fd();
    // SAFETY: the memory keeps its descriptor open.
    let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
    let stat = nix::sys::stat::fstat(fd).expect("fstat");
    (stat.st_dev, stat.st_ino)
}

#[test]
fn what_is_read_are_the_publishers_pages_and_memories_are_few() {
    let place = Place::new();
    let source = Source::patient(&place.uri());
    let pipeline =
        Pipeline::playing(&format!("pagecastsrc name=src uri={} ! appsink name=a sync=false", place.uri()));
    source.wait_for(1);
    let mut seen = HashSet::new();
    for n in 0..300 {
        let frame = source.frame(n, Times { pts: Some(n * FRAME), ..Times::default() });
        let theirs = frame.segments()[0].buffer.identity();
        source.publisher.publish(&frame).unwrap();
        drop(frame);
        let sample = pull(&pipeline.sink("a"));
        assert_eq!(number(&sample), n);
        let memory = sample.buffer().unwrap().peek_memory(0);
        assert_eq!(Some(inode(memory)), theirs, "frame {n}");
        assert!(memory.flags().contains(gst::MemoryFlags::READONLY));
        seen.insert(memory.as_ptr() as usize);
    }
    assert!(seen.len() < 20, "{} memories for 300 frames", seen.len());
    assert_eq!(pipeline.stats("src").get::<u64>("copied"), Ok(0));
}

#[test]
fn a_sample_that_is_kept_stays_what_it_was() {
    let place = Place::new();
    let source = Source::new(&place.uri(), PublisherOptions { live: false, ..PublisherOptions::default() });
    let pipeline =
        Pipeline::playing(&format!("pagecastsrc name=src uri={} ! appsink name=a sync=false", place.uri()));
    source.wait_for(1);
    let sink = pipeline.sink("a");
    source.publish(0);
    let kept = pull(&sink);
    for n in 1..200 {
        source.publish(n);
        assert_eq!(number(&pull(&sink)), n);
    }
    assert_eq!(number(&kept), 0);
    // It outlives publisher and pipeline.
    drop(source);
    drop(pipeline);
    assert_eq!(number(&kept), 0);
}

#[test]
fn a_copy_is_made_for_who_writes_and_the_page_goes_back() {
    let place = Place::new();
    let mut source = Source::patient(&place.uri());
    source.size = 64 * 64;
    source
        .publisher
        .set_caps("video/x-raw, format=(string)GRAY8, width=64, height=64, framerate=50/1")
        .unwrap();
    let writer = Pipeline::playing(&format!(
        "pagecastsrc name=src uri={} ! textoverlay text=WRITTEN font-desc=40 ! appsink name=a sync=false",
        place.uri()
    ));
    let reader =
        Pipeline::playing(&format!("pagecastsrc name=src uri={} ! appsink name=a sync=false", place.uri()));
    source.wait_for(2);
    let mut written = Vec::new();
    for n in 0..100 {
        source.publish(n);
        let sample = pull(&writer.sink("a"));
        let bytes = sample.buffer().unwrap().map_readable().unwrap().to_vec();
        assert!(bytes.iter().any(|byte| *byte != n as u8), "frame {n} has no text on it");
        assert_eq!(number(&pull(&reader.sink("a"))), n, "the other does not see it");
        written.push(sample);
    }
    // All are kept, and none of them is the publisher's.
    eventually("pages went back", || source.publisher.info().subscribers.iter().all(|one| one.held <= 2));
}

#[test]
fn videorate_repeats_and_drops_without_holding_on() {
    let place = Place::new();
    let source = Source::video(&place.uri(), PublisherOptions { live: false, ..PublisherOptions::default() });
    let pipeline = Pipeline::playing(&format!(
        "pagecastsrc name=src uri={} ! videorate ! video/x-raw,framerate=150/1 ! appsink name=a sync=false",
        place.uri()
    ));
    source.wait_for(1);
    let publish = std::thread::spawn(move || {
        (0..100).for_each(|n| source.publish(n));
        source.publisher.publish_event("eos", b"").unwrap();
        source
    });
    let mut numbers = Vec::new();
    while let Some(sample) = pipeline.sink("a").try_pull_sample(gst::ClockTime::from_seconds(30)) {
        let buffer = sample.buffer().unwrap();
        numbers.push(buffer.map_readable().unwrap()[0]);
    }
    let distinct: HashSet<u8> = numbers.iter().copied().collect();
    assert_eq!(distinct.len(), 100);
    assert!(numbers.len() >= 290, "{} frames at three times the rate", numbers.len());
    assert!(numbers.is_sorted());
    drop(publish.join().unwrap());
}

/// A publisher of I420 with strides that nobody would expect.
struct Padded {
    publisher: Publisher,
    pool: Pool,
    info: VideoInfo,
}

const STRIDES: [usize; 3] = [400, 208, 256];

impl Padded {
    fn new(uri: &str) -> Self {
        init();
        let options = PublisherOptions { live: false, ..PublisherOptions::default() };
        let publisher = Publisher::open(uri, options).unwrap();
        publisher
            .set_caps("video/x-raw, format=(string)I420, width=321, height=241, framerate=50/1")
            .unwrap();
        let info =
            VideoInfo::builder(VideoFormat::I420, 321, 241).fps(gst::Fraction::new(50, 1)).build().unwrap();
        Self { publisher, pool: Pool::new(PoolOptions::default()), info }
    }

    fn pixel(plane: usize, line: usize, column: usize, n: usize) -> u8 {
        (plane * 70 + line * 3 + column * 5 + n * 11) as u8
    }

    /// Bytes of a line, and lines, of each plane.
    const SIZES: [(usize, usize); 3] = [(321, 241), (161, 121), (161, 121)];

    fn publish(&self, n: usize) {
        let mut planes = arrayvec::ArrayVec::new();
        let mut end = 64;
        let mut lease = self.pool.acquire(1 << 18).unwrap();
        let bytes = lease.as_mut_slice();
        bytes.fill(0xEE);
        for (plane, (width, height)) in Self::SIZES.into_iter().enumerate() {
            let stride = STRIDES[plane];
            planes.push(Plane { offset: end as u64, stride: stride as i32 });
            for line in 0..height {
                for column in 0..width {
                    bytes[end + line * stride + column] = Self::pixel(plane, line, column, n);
                }
            }
            end += stride * height + 32;
        }
        let at = Some(n as u64 * FRAME);
        let times = Times { pts: at, running: at, duration: Some(FRAME), ..Times::default() };
        let description = Description { width: 321, height: 241, planes, times, ..Description::default() };
        let frame = Frame::builder().describe(description).lease(lease, end).build().unwrap();
        self.publisher.publish(&frame).unwrap();
    }

    fn check(&self, buffer: &gst::BufferRef, n: usize) {
        let frame = VideoFrameRef::from_buffer_ref_readable(buffer, &self.info).unwrap();
        for (plane, (width, height)) in Self::SIZES.into_iter().enumerate() {
            let stride = frame.plane_stride()[plane] as usize;
            let bytes = frame.plane_data(plane as u32).unwrap();
            for line in 0..height {
                for column in 0..width {
                    let expected = Self::pixel(plane, line, column, n);
                    assert_eq!(bytes[line * stride + column], expected, "{plane} {line} {column}");
                }
            }
        }
    }
}

#[test]
fn foreign_strides_are_honoured_where_downstream_knows_them() {
    let place = Place::new();
    let source = Padded::new(&place.uri());
    let pipeline =
        Pipeline::new(&format!("pagecastsrc name=src uri={} ! appsink name=a sync=false", place.uri()));
    let pad = pipeline.sink("a").static_pad("sink").unwrap();
    pad.add_probe(gst::PadProbeType::QUERY_DOWNSTREAM, |_, info| {
        if let Some(query) = info.query_mut()
            && let gst::QueryViewMut::Allocation(query) = query.view_mut()
        {
            query.add_allocation_meta::<VideoMeta>(None);
            return gst::PadProbeReturn::Handled;
        }
        gst::PadProbeReturn::Ok
    });
    pipeline.play();
    assert!(source.publisher.wait_for_subscribers(1, Some(LIMIT)));
    for n in 0..5 {
        source.publish(n);
        let sample = pull(&pipeline.sink("a"));
        let buffer = sample.buffer().unwrap();
        let meta = buffer.meta::<VideoMeta>().expect("a video meta");
        assert_eq!(meta.stride().iter().map(|stride| *stride as usize).collect::<Vec<_>>(), STRIDES);
        source.check(buffer, n);
    }
    assert_eq!(pipeline.stats("src").get::<u64>("copied"), Ok(0));
}

#[test]
fn foreign_strides_are_made_usual_where_downstream_does_not() {
    let place = Place::new();
    let source = Padded::new(&place.uri());
    let pipeline =
        Pipeline::playing(&format!("pagecastsrc name=src uri={} ! appsink name=a sync=false", place.uri()));
    assert!(source.publisher.wait_for_subscribers(1, Some(LIMIT)));
    for n in 0..30 {
        source.publish(n);
        let sample = pull(&pipeline.sink("a"));
        let buffer = sample.buffer().unwrap();
        assert!(buffer.meta::<VideoMeta>().is_none());
        assert_eq!(buffer.size(), source.info.size());
        assert_eq!(buffer.pts().unwrap().nseconds(), n as u64 * FRAME);
        source.check(buffer, n);
    }
    assert_eq!(pipeline.stats("src").get::<u64>("copied"), Ok(30));
}
