//! Buffers of several dma-bufs, or of several parts of one, as camera stacks make them (libcamerasrc: a memory per plane);
//! and layouts that only importers know. They go out as they are. Where no dma-bufs can be made each test is skipped.

mod common;

use std::os::fd::{AsFd, AsRawFd};

use common::*;
use gst::prelude::*;
use gst_allocators::prelude::*;
use gst_allocators::{DmaBufAllocator, DmaBufMemory};
use gst_video::prelude::*;
use gst_video::{VideoFormat, VideoFrameFlags, VideoFrameRef, VideoMeta};
use pagecast::{
    BackingChoice, DrmFourcc, FaceKind, FaceSet, Frame, Lease, Message, Pool, PoolOptions, Subscriber,
    SubscriberOptions,
};
use pagecast_tests::skip;

const WIDTH: usize = 32;
const HEIGHT: usize = 16;
/// Longer than the lines of a picture: where planes lie is told, not guessed.
const STRIDE: usize = 48;
const LUMA: usize = STRIDE * HEIGHT;
const CHROMA: usize = LUMA / 2;
const FRAMES: u8 = 20;
const PATIENCE: Option<std::time::Duration> = Some(std::time::Duration::from_secs(60));

/// A part of a dma-buf.
#[derive(Clone, Copy)]
struct Part {
    lease: usize,
    offset: usize,
    size: usize,
}

/// A memory per plane, each in a dma-buf of its own.
const APART: [Part; 2] =
    [Part { lease: 0, offset: 0, size: LUMA }, Part { lease: 1, offset: 0, size: CHROMA }];
/// A memory per plane, both in one dma-buf, with room before and between.
const WITHIN: [Part; 2] =
    [Part { lease: 0, offset: 4096, size: LUMA }, Part { lease: 0, offset: 12_288, size: CHROMA }];

/// What a camera has: dma-bufs, and their memories, which come round again.
struct Camera {
    leases: Vec<Lease>,
    memories: Vec<gst::Memory>,
    parts: [Part; 2],
}

fn dma_heap() -> Option<Pool> {
    init();
    let pool = |backing| Pool::new(PoolOptions { backing, ..PoolOptions::default() });
    let pool = pool(BackingChoice::DmaHeap("system".to_owned()));
    match pool.check() {
        Ok(()) => Some(pool),
        Err(error) => {
            skip(&error.to_string());
            None
        }
    }
}

impl Camera {
    fn new(pool: &Pool, parts: [Part; 2]) -> Self {
        let mut leases: Vec<Lease> = (0..2).map(|_| pool.acquire(16_384).expect("a dma-buf")).collect();
        leases.iter_mut().for_each(Lease::end_writing);
        let allocator = DmaBufAllocator::new();
        let memory = |part: &Part| {
            let face = leases[part.lease].buffer().face(FaceKind::DmaBuf).expect("a dma-buf");
            let fd = face.fd.try_clone_to_owned().expect("another descriptor");
            // SAFETY: the descriptor is a dma-buf's, and given to the memory.
            let whole = unsafe { allocator.alloc_dmabuf(fd, 16_384) };
            let mut memory = whole.expect("a memory");
            memory.get_mut().unwrap().resize(part.offset..part.offset + part.size);
            memory
        };
        let memories = parts.iter().map(memory).collect();
        Self { leases, memories, parts }
    }

    /// The picture `number`, or it would be if that were not what the caps have.
    fn shoot(&mut self, number: u8, format: VideoFormat) -> gst::Buffer {
        for (at, part) in self.parts.iter().enumerate() {
            let lease = &mut self.leases[part.lease];
            lease.as_mut_slice()[part.offset..][..part.size].fill(number + 100 * at as u8);
            lease.end_writing();
        }
        let mut buffer = gst::Buffer::new();
        let made = buffer.make_mut();
        self.memories.iter().for_each(|memory| made.append_memory(memory.clone()));
        let (offsets, strides) = ([0, LUMA], [STRIDE as i32; 2]);
        let flags = VideoFrameFlags::empty();
        VideoMeta::add_full(made, flags, format, WIDTH as u32, HEIGHT as u32, &offsets, &strides)
            .expect("a meta");
        buffer
    }

    fn inode(&self, plane: usize) -> u64 {
        let face = self.leases[self.parts[plane].lease].buffer().face(FaceKind::DmaBuf).unwrap();
        inode(face.fd.as_fd().as_raw_fd())
    }
}

struct Scene {
    writer: Pipeline,
    input: gst_app::AppSrc,
    place: Place,
}

impl Scene {
    /// A publisher that waits for so many readers.
    fn new(caps: &str, readers: u32) -> Self {
        let place = Place::new();
        let writer = Pipeline::new(&format!(
            "appsrc name=in format=time ! pagecastsink name=sink sync=false policy=block wait-for-clients={readers} uri={}",
            place.uri()
        ));
        let input: gst_app::AppSrc = writer.element("in").downcast().unwrap();
        input.set_caps(Some(&caps.parse().unwrap()));
        // It waits for its first reader, and is not PLAYING until then.
        let _ = writer.0.set_state(gst::State::Playing);
        Self { writer, input, place }
    }

    /// One that is connected.
    fn reader(&self) -> Subscriber {
        let faces = FaceSet::DMA_BUF;
        let reader = with(&self.place, SubscriberOptions { faces, ..SubscriberOptions::default() });
        assert!(matches!(reader.recv(PATIENCE), Ok(Message::Connected(_))));
        reader
    }
}

fn expected(number: u8) -> Vec<u8> {
    [vec![number; LUMA], vec![number + 100; CHROMA]].concat()
}

/// Whether the frame is the camera's picture, in the camera's pages.
fn check(frame: &Frame, camera: &Camera, number: u8) {
    assert!(frame.to_vec().unwrap() == expected(number), "picture {number}");
    assert_eq!(frame.segments().len(), 2);
    let planes = frame.planes();
    let picture = frame.picture().unwrap();
    for (at, part) in camera.parts.iter().enumerate() {
        assert_eq!((planes[at].face, planes[at].offset), (FaceKind::DmaBuf, part.offset as u64));
        assert_eq!(planes[at].stride, STRIDE as i32);
        assert_eq!(
            inode(planes[at].fd.as_raw_fd()),
            camera.inode(at),
            "plane {at} is where the camera wrote it"
        );
        let plane = picture.planes[at];
        assert_eq!((plane.offset, plane.stride), (part.offset as u64, STRIDE as u32));
        assert_eq!(inode(plane.fd.as_raw_fd()), camera.inode(at));
    }
}

fn next(reader: &Subscriber) -> Frame {
    reader.next_frame(PATIENCE).expect("a frame")
}

fn memories_go_out_as_they_are(parts: [Part; 2]) {
    let Some(pool) = dma_heap() else { return };
    let mut camera = Camera::new(&pool, parts);
    let scene = Scene::new("video/x-raw,format=NV12,width=32,height=16,framerate=50/1", 2);
    let readers = [scene.reader(), scene.reader()];
    for number in 0..FRAMES {
        scene.input.push_buffer(camera.shoot(number, VideoFormat::Nv12)).unwrap();
        readers.iter().for_each(|reader| check(&next(reader), &camera, number));
    }
    assert_eq!(scene.writer.copied("sink"), 0);
}

#[test]
fn a_dma_buf_per_plane_goes_out_as_it_is() {
    memories_go_out_as_they_are(APART);
}

#[test]
fn planes_at_offsets_of_one_dma_buf_go_out_as_they_are() {
    memories_go_out_as_they_are(WITHIN);
}

/// From element to element: downstream maps the planes where the camera wrote them.
#[test]
fn elements_find_every_plane() {
    let Some(pool) = dma_heap() else { return };
    for parts in [APART, WITHIN] {
        let mut camera = Camera::new(&pool, parts);
        let scene = Scene::new("video/x-raw,format=NV12,width=32,height=16,framerate=50/1", 1);
        let reader = Pipeline::new(&format!(
            "pagecastsrc face=dma-buf uri={} ! video/x-raw(memory:DMABuf) ! appsink name=a sync=false",
            scene.place.uri()
        ));
        reader.play();
        let sink: gst_app::AppSink = reader.element("a").downcast().unwrap();
        let info = gst_video::VideoInfo::builder(VideoFormat::Nv12, 32, 16).build().unwrap();
        for number in 0..FRAMES {
            scene.input.push_buffer(camera.shoot(number, VideoFormat::Nv12)).unwrap();
            let sample = sink.try_pull_sample(gst::ClockTime::from_seconds(30)).expect("a sample");
            let buffer = sample.buffer().unwrap();
            assert_eq!(buffer.n_memory(), 2);
            for (plane, memory) in buffer.iter_memories().enumerate() {
                let memory = memory.downcast_memory_ref::<DmaBufMemory>().expect("a dma-buf");
                assert_eq!(inode(memory.fd()), camera.inode(plane));
                assert_eq!((memory.offset(), memory.size()), (parts[plane].offset, parts[plane].size));
            }
            let picture = VideoFrameRef::from_buffer_ref_readable(buffer, &info).expect("mapped");
            assert_eq!(picture.plane_stride(), &[STRIDE as i32; 2]);
            for (plane, (lines, value)) in
                [(HEIGHT, number), (HEIGHT / 2, number + 100)].into_iter().enumerate()
            {
                let bytes = picture.plane_data(plane as u32).unwrap();
                let line = |line: usize| &bytes[line * STRIDE..][..WIDTH];
                assert!(
                    (0..lines).all(|at| line(at).iter().all(|byte| *byte == value)),
                    "plane {plane} of {number}"
                );
            }
        }
        assert_eq!(scene.writer.copied("sink"), 0);
    }
}

#[test]
fn a_modifier_goes_out_with_its_frames() {
    let Some(pool) = dma_heap() else { return };
    let caps = "video/x-raw(memory:DMABuf),format=DMA_DRM,drm-format=NV12:0xfe00000000000123,width=32,height=16,framerate=50/1";
    // Before GStreamer 1.24 metas had no format for it.
    let opaque = Some(VideoFormat::from_string("DMA_DRM")).filter(|format| *format != VideoFormat::Unknown);
    let format = opaque.unwrap_or(VideoFormat::Nv12);
    let mut camera = Camera::new(&pool, APART);
    let scene = Scene::new(caps, 1);
    let reader = scene.reader();
    for number in 0..FRAMES {
        scene.input.push_buffer(camera.shoot(number, format)).unwrap();
        let frame = next(&reader);
        check(&frame, &camera, number);
        let picture = frame.picture().unwrap();
        let modifier = u64::from(picture.modifier);
        assert_eq!((picture.fourcc, modifier), (DrmFourcc::Nv12, 0xfe00_0000_0000_0123));
        assert_eq!((picture.width, picture.height), (32, 16));
    }
    assert_eq!(scene.writer.copied("sink"), 0);
}

/// A control: memory that cannot be shared is copied, and counted.
#[test]
fn memory_of_the_process_alone_is_copied() {
    let scene = Scene::new("video/x-raw,format=NV12,width=32,height=16,framerate=50/1", 1);
    let reader = subscriber(&scene.place);
    let mut buffer = gst::Buffer::new();
    for (size, value) in [(512, 1), (256, 101)] {
        buffer.make_mut().append_memory(gst::Memory::from_mut_slice(vec![value; size]));
    }
    scene.input.push_buffer(buffer).unwrap();
    let frame = next(&reader);
    assert_eq!(frame.to_vec().unwrap(), [vec![1; 512], vec![101; 256]].concat());
    assert_eq!((frame.segments().len(), scene.writer.copied("sink")), (1, 1));
}
