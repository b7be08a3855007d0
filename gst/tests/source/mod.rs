//! What the tests of `pagecastsrc` share: places, publishers without GStreamer, pipelines that end.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod coded;
pub(crate) mod launch;

use std::time::{Duration, Instant};

use gst::prelude::*;
use pagecast::{Description, Frame, Hooks, Pool, PoolOptions, Publisher, PublisherOptions, Times};

/// No test waits longer for anything.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// GStreamer with our elements.
pub(crate) fn init() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        gst::init().expect("GStreamer");
        gstpagecast::plugin_register_static().expect("our plugin");
    });
}

/// A folder for one test's files, gone with it.
pub(crate) struct Place(tempfile::TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        init();
        Self(tempfile::Builder::new().prefix("pagecast-src").tempdir().expect("a temporary folder"))
    }

    pub(crate) fn uri(&self) -> String {
        format!("unix:{}", self.file("socket"))
    }

    pub(crate) fn file(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }
}

/// A publisher without GStreamer, of frames that say their number.
pub(crate) struct Source {
    pub(crate) publisher: Publisher,
    pool: Pool,
    pub(crate) size: usize,
}

impl Source {
    pub(crate) fn new(uri: &str, options: PublisherOptions) -> Self {
        Self::with_hooks(uri, options, Hooks::default())
    }

    pub(crate) fn with_hooks(uri: &str, options: PublisherOptions, hooks: Hooks) -> Self {
        let pool = Pool::new(PoolOptions { limit: 64 << 20, ..PoolOptions::default() });
        // Where it waits for somebody nothing is lost, however slow the machine is.
        let options = PublisherOptions { block_deadline: Some(LIMIT), ..options };
        let publisher = Publisher::open_with(uri, options, hooks).expect("a publisher");
        publisher.set_pool(&pool);
        Self { publisher, pool, size: 1000 }
    }

    /// One whose frames have this size.
    pub(crate) fn sized(uri: &str, size: usize, options: PublisherOptions) -> Self {
        Self { size, ..Self::new(uri, options) }
    }

    /// One that is not live and waits for its subscribers.
    pub(crate) fn patient(uri: &str) -> Self {
        Self::new(uri, PublisherOptions { live: false, ..PublisherOptions::default() })
    }

    /// One that publishes 10x10 GRAY8 at 50 frames per second.
    pub(crate) fn video(uri: &str, options: PublisherOptions) -> Self {
        let source = Self::sized(uri, 120, options);
        source
            .publisher
            .set_caps("video/x-raw, format=(string)GRAY8, width=10, height=10, framerate=50/1")
            .expect("caps");
        source
    }

    pub(crate) fn with_pool(self, options: PoolOptions) -> Self {
        Self { pool: Pool::new(options), ..self }
    }

    pub(crate) fn frame(&self, number: u64, times: Times) -> Frame {
        let until = Some(Instant::now() + LIMIT);
        let mut lease = self.pool.acquire_by(self.size, until, || true).expect("a buffer");
        lease.as_mut_slice()[..self.size].fill(number as u8);
        let description = Description { offset: Some(number), times, ..Description::default() };
        Frame::builder().describe(description).lease(lease, self.size).build().expect("a frame")
    }

    /// Publishes frame `number` with the times of a 50 fps stream.
    pub(crate) fn publish(&self, number: u64) {
        let at = number * FRAME;
        let times = Times { pts: Some(at), running: Some(at), duration: Some(FRAME), ..Times::default() };
        self.publisher.publish(&self.frame(number, times)).expect("published");
    }

    pub(crate) fn wait_for(&self, subscribers: usize) {
        assert!(self.publisher.wait_for_subscribers(subscribers, Some(LIMIT)), "no subscriber came");
    }
}

/// Nanoseconds of a frame at 50 fps.
pub(crate) const FRAME: u64 = 20_000_000;

/// A pipeline that is ended with the test.
pub(crate) struct Pipeline(pub(crate) gst::Pipeline);

impl Pipeline {
    pub(crate) fn new(description: &str) -> Self {
        init();
        let made = gst::parse::launch(&pagecast_tests::patient(description)).expect(description);
        Self(made.downcast::<gst::Pipeline>().expect("a pipeline"))
    }

    pub(crate) fn playing(description: &str) -> Self {
        let pipeline = Self::new(description);
        pipeline.play();
        pipeline
    }

    pub(crate) fn play(&self) {
        self.0.set_state(gst::State::Playing).expect("playing");
    }

    pub(crate) fn element(&self, name: &str) -> gst::Element {
        self.0.by_name(name).expect(name)
    }

    pub(crate) fn sink(&self, name: &str) -> gst_app::AppSink {
        self.element(name).downcast().expect("an appsink")
    }

    /// Waits for the end of the stream.
    pub(crate) fn wait(&self) {
        let message = self.message(&[gst::MessageType::Eos, gst::MessageType::Error]);
        if let gst::MessageView::Error(error) = message.view() {
            panic!("{}: {:?}", error.error(), error.debug());
        }
    }

    /// Waits for an error and returns its text.
    pub(crate) fn error(&self) -> String {
        let message = self.message(&[gst::MessageType::Error, gst::MessageType::Eos]);
        match message.view() {
            gst::MessageView::Error(error) => error.error().to_string() + &error.debug().unwrap_or_default(),
            _ => panic!("the stream ended without an error"),
        }
    }

    /// Waits for an element message of ours.
    pub(crate) fn told(&self, name: &str) -> gst::Structure {
        let until = Instant::now() + LIMIT;
        while Instant::now() < until {
            let message = self.message(&[gst::MessageType::Element, gst::MessageType::Error]);
            match message.structure() {
                Some(structure) if structure.name() == name => return structure.to_owned(),
                _ => assert_ne!(message.type_(), gst::MessageType::Error, "{message:?}"),
            }
        }
        panic!("no message {name}");
    }

    pub(crate) fn message(&self, types: &[gst::MessageType]) -> gst::Message {
        let bus = self.0.bus().expect("a bus");
        let limit = gst::ClockTime::from_nseconds(LIMIT.as_nanos() as u64);
        bus.timed_pop_filtered(limit, types).unwrap_or_else(|| panic!("none of {types:?} came"))
    }

    pub(crate) fn stats(&self, name: &str) -> gst::Structure {
        self.element(name).property("stats")
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        let _ = self.0.set_state(gst::State::Null);
    }
}

/// The next buffer of an appsink.
pub(crate) fn pull(sink: &gst_app::AppSink) -> gst::Sample {
    let limit = gst::ClockTime::from_nseconds(LIMIT.as_nanos() as u64);
    sink.try_pull_sample(limit).unwrap_or_else(|| panic!("no sample; eos: {}", sink.is_eos()))
}

/// Number, bytes checked.
pub(crate) fn number(sample: &gst::Sample) -> u64 {
    let buffer = sample.buffer().expect("a buffer");
    let bytes = buffer.map_readable().expect("mapped");
    let number = buffer.offset();
    assert!(bytes.iter().all(|byte| *byte == number as u8), "frame {number} has other bytes");
    number
}

pub(crate) fn pts(sample: &gst::Sample) -> Option<u64> {
    sample.buffer().expect("a buffer").pts().map(gst::ClockTime::nseconds)
}

/// The running time of a sample in its segment.
pub(crate) fn running(sample: &gst::Sample) -> u64 {
    let segment =
        sample.segment().expect("a segment").downcast_ref::<gst::ClockTime>().expect("in time").clone();
    segment.to_running_time(sample.buffer().expect("a buffer").pts()).expect("in the segment").nseconds()
}

/// Waits until something is true.
pub(crate) fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    let until = Instant::now() + LIMIT;
    while !is_true() {
        assert!(Instant::now() < until, "did not come true: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
