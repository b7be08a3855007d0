//! Upstream that brings its own memory: passed on where that is safe, and never starved.

mod common;

use std::os::fd::IntoRawFd;
use std::time::Duration;

use common::*;
use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_allocators::prelude::*;
use gst_allocators::subclass::prelude::*;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use pagecast::{Frame, SubscriberOptions};

/// What a camera driver or another framework does: memfds of its own, sealed against shrinking.
mod imp {
    use super::*;

    #[derive(Default)]
    pub struct Sealed;

    #[glib::object_subclass]
    impl ObjectSubclass for Sealed {
        const NAME: &'static str = "PagecastTestSealedAllocator";
        type Type = super::Sealed;
        type ParentType = gst_allocators::FdAllocator;
    }

    impl ObjectImpl for Sealed {}
    impl GstObjectImpl for Sealed {}
    impl FdAllocatorImpl for Sealed {}
    // SAFETY: the memory is made by the parent's own function, and freed by it.
    unsafe impl AllocatorImpl for Sealed {
        unsafe fn alloc(&self, size: usize, _: &gst::AllocationParams) -> *mut gst::ffi::GstMemory {
            let fd = memfd_create("upstream", MFdFlags::MFD_ALLOW_SEALING | MFdFlags::MFD_CLOEXEC).unwrap();
            nix::unistd::ftruncate(&fd, size as i64).unwrap();
            fcntl(&fd, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW)).unwrap();
            let flags = gst_allocators::FdMemoryFlags::KEEP_MAPPED;
            // SAFETY: the descriptor is given to the memory.
            let memory = unsafe { self.obj().alloc_fd(fd.into_raw_fd(), size, flags).unwrap() };
            use glib::translate::IntoGlibPtr;
            memory.into_glib_ptr()
        }
    }
}

glib::wrapper! {
    pub struct Sealed(ObjectSubclass<imp::Sealed>)
        @extends gst_allocators::FdAllocator, gst::Allocator, gst::Object;
}

const SIZE: usize = 4096;

/// A pool that has so many buffers and no more.
fn camera(buffers: u32) -> gst::BufferPool {
    let allocator: Sealed = glib::Object::new();
    let object: *mut gst::ffi::GstObject = allocator.as_ptr().cast();
    // SAFETY: the object is new and ours alone.
    unsafe { (*object).flags &= !gst::ffi::GST_ALLOCATOR_FLAG_CUSTOM_ALLOC };
    let pool = gst::BufferPool::new();
    let mut config = pool.config();
    config.set_params(None, SIZE as u32, 0, buffers);
    config.set_allocator(Some(&allocator), None);
    pool.set_config(config).unwrap();
    pool.set_active(true).unwrap();
    pool
}

struct Sink(gst::Element, gst::Pad);

impl Sink {
    fn new(place: &Place, block_deadline: u64) -> Self {
        init();
        let sink = gst::ElementFactory::make("pagecastsink").property("uri", place.uri()).build().unwrap();
        sink.set_property("async", false);
        sink.set_property("block-deadline", block_deadline);
        sink.set_state(gst::State::Playing).unwrap();
        let pad = sink.static_pad("sink").unwrap();
        assert!(pad.send_event(gst::event::StreamStart::new("s")));
        assert!(pad.send_event(gst::event::Caps::new(&gst::Caps::new_empty_simple("application/x-test"))));
        assert!(pad.send_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new())));
        Self(sink, pad)
    }

    /// Fills a buffer of the camera and publishes it; the camera never waits.
    fn shoot(&self, camera: &gst::BufferPool, n: u8) {
        let flags = gst::BufferPoolAcquireFlags::DONTWAIT;
        let params = gst::BufferPoolAcquireParams::with_flags(flags);
        let mut buffer = camera.acquire_buffer(Some(&params)).expect("the camera has a buffer left");
        buffer.make_mut().map_writable().unwrap().fill(n);
        assert_eq!(self.1.chain(buffer), Ok(gst::FlowSuccess::Ok));
    }

    fn copied(&self) -> u64 {
        self.0.property::<gst::Structure>("stats").get("copied").unwrap()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.0.set_state(gst::State::Null);
    }
}

fn connected(place: &Place, sink: &Sink, credits: u32) -> pagecast::Subscriber {
    let options = SubscriberOptions { credits: Some(credits), ..SubscriberOptions::default() };
    let subscriber = with(place, options);
    let _ = subscriber.recv(Some(Duration::from_millis(500)));
    eventually("it is connected", || {
        let _ = subscriber.recv(Some(Duration::from_millis(5)));
        sink.0.property::<u32>("num-clients") == 1
    });
    subscriber
}

/// A camera's sink, with one subscriber that has so many credits.
struct Scene {
    sink: Sink,
    camera: gst::BufferPool,
    subscriber: pagecast::Subscriber,
    _place: Place,
}

fn scene(buffers: u32, credits: u32, block_deadline: u64) -> Scene {
    let place = Place::new();
    let sink = Sink::new(&place, block_deadline);
    let camera = camera(buffers);
    let subscriber = connected(&place, &sink, credits);
    Scene { sink, camera, subscriber, _place: place }
}

#[test]
fn a_camera_keeps_its_reserve_and_gets_its_buffers_back() {
    let Scene { sink, camera, subscriber, _place } = scene(6, 8, PATIENT);
    let mut held: Vec<Frame> = Vec::new();
    for n in 0..8 {
        sink.shoot(&camera, n);
        let frame = subscriber.next_frame(Some(Duration::from_secs(30))).unwrap();
        assert_eq!(frame.to_vec().unwrap(), [n; SIZE]);
        held.push(frame);
    }
    assert_eq!(sink.copied(), 4, "four of six went out, two stay with the camera");
    held.clear();
    // They come back without anything being published.
    eventually("the camera's buffers are back", || {
        let flags = gst::BufferPoolAcquireFlags::DONTWAIT;
        let params = gst::BufferPoolAcquireParams::with_flags(flags);
        let buffers: Vec<_> = (0..6).map_while(|_| camera.acquire_buffer(Some(&params)).ok()).collect();
        buffers.len() == 6
    });
    for n in 0..50 {
        sink.shoot(&camera, n);
        drop(subscriber.next_frame(Some(Duration::from_secs(30))).unwrap());
    }
    assert_eq!(sink.copied(), 4, "no more copies");
}

#[test]
fn a_client_that_stops_does_not_stop_the_camera() {
    let Scene { sink, camera, subscriber, _place } = scene(4, 4, 1_000_000_000);
    sink.0.set_property("sync", false);
    // It reads nothing; with policy auto of a source that is not live it may hold the sink, but not for ever.
    let begin = std::time::Instant::now();
    for n in 0..40 {
        sink.shoot(&camera, n);
    }
    assert!(begin.elapsed() < Duration::from_secs(20));
    drop(subscriber);
}

#[test]
fn the_last_frames_are_delivered_after_the_end() {
    let Scene { sink, camera, subscriber, _place } = scene(16, 2, PATIENT);
    for n in 0..4 {
        sink.shoot(&camera, n);
    }
    assert!(sink.1.send_event(gst::event::Eos::new()));
    let reader = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        each_frame(&subscriber, |_| ())
    });
    drop(sink);
    assert_eq!(reader.join().unwrap(), 4);
}

#[test]
fn a_flush_drops_what_waits_and_goes_on() {
    let Scene { sink, camera, subscriber, _place } = scene(16, 2, PATIENT);
    for n in 0..4 {
        sink.shoot(&camera, n);
    }
    assert!(sink.1.send_event(gst::event::FlushStart::new()));
    assert!(sink.1.send_event(gst::event::FlushStop::new(true)));
    assert!(sink.1.send_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new())));
    sink.shoot(&camera, 9);
    assert!(sink.1.send_event(gst::event::Eos::new()));
    let mut first_bytes = Vec::new();
    each_frame(&subscriber, |frame| first_bytes.push(frame.to_vec().unwrap()[0]));
    assert_eq!(first_bytes, [0, 1, 9], "two were out, two waited");
}
