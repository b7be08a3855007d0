//! What the tests of the elements share.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test file uses a part of it")]

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, Instant};

use gst::prelude::*;
use gst_allocators::FdMemory;
use pagecast::{Frame, Message, RecvError, Subscriber, SubscriberOptions};
use pagecast_tests::patient;

/// Initialises GStreamer with the plugin.
pub fn init() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        gst::init().expect("GStreamer");
        gstpagecast::plugin_register_static().expect("the plugin");
    });
}

/// `block-deadline` of a sink whose clients lose nothing, however slow the machine is.
pub const PATIENT: u64 = 60_000_000_000;

/// A folder for one test's sockets, gone with it.
pub struct Place(tempfile::TempDir);

impl Place {
    pub fn new() -> Self {
        Self(tempfile::Builder::new().prefix("pagecast-gst").tempdir().expect("a temporary folder"))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn socket(&self) -> String {
        self.path().join("s").display().to_string()
    }

    pub fn uri(&self) -> String {
        format!("unix:{}", self.socket())
    }
}

/// A pipeline that is stopped at the end of its test.
pub struct Pipeline(pub gst::Pipeline, Mutex<Vec<(gst::MessageType, String)>>);

impl Pipeline {
    pub fn new(description: &str) -> Self {
        init();
        let element = gst::parse::launch(&patient(description))
            .unwrap_or_else(|error| panic!("{description}: {error}"));
        Self(element.downcast().expect("a pipeline"), Mutex::default())
    }

    pub fn play(&self) -> &Self {
        self.0.set_state(gst::State::Playing).expect("it plays");
        self
    }

    pub fn element(&self, name: &str) -> gst::Element {
        self.0.by_name(name).unwrap_or_else(|| panic!("no element {name}"))
    }

    pub fn stats(&self, sink: &str) -> gst::Structure {
        self.element(sink).property("stats")
    }

    pub fn copied(&self, sink: &str) -> u64 {
        self.stats(sink).get("copied").expect("copied")
    }

    /// Waits for the end of the stream.
    pub fn eos(&self) {
        let bus = self.0.bus().expect("a bus");
        loop {
            let message = bus.timed_pop(gst::ClockTime::from_seconds(30)).expect("the end of the stream");
            match message.view() {
                gst::MessageView::Eos(_) => return,
                gst::MessageView::Error(error) => panic!("{error:?}"),
                _ => self.note(&message),
            }
        }
    }

    /// The texts of all messages of one type so far: infos, warnings and errors.
    pub fn texts(&self, kind: gst::MessageType) -> Vec<String> {
        let bus = self.0.bus().expect("a bus");
        std::iter::from_fn(|| bus.pop()).for_each(|message| self.note(&message));
        let all = self.1.lock().unwrap();
        all.iter().filter(|(of, _)| *of == kind).map(|(_, text)| text.clone()).collect()
    }

    fn note(&self, message: &gst::Message) {
        let text = match message.view() {
            gst::MessageView::Info(info) => info.error().to_string(),
            gst::MessageView::Warning(warning) => warning.error().to_string(),
            gst::MessageView::Error(error) => error.error().to_string(),
            _ => return,
        };
        self.1.lock().unwrap().push((message.type_(), text));
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        let _ = self.0.set_state(gst::State::Null);
    }
}

/// A subscriber that waits for its publisher.
pub fn subscriber(place: &Place) -> Subscriber {
    with(place, SubscriberOptions::default())
}

pub fn with(place: &Place, options: SubscriberOptions) -> Subscriber {
    Subscriber::open(&place.uri(), options).expect("a subscriber")
}

/// Everything up to the end of the stream.
pub fn drain(subscriber: &Subscriber) -> Vec<Message> {
    let mut all = Vec::new();
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        match subscriber.recv(Some(Duration::from_secs(30))) {
            Ok(Message::Event(event)) if event.name == "eos" => return all,
            Ok(message) => all.push(message),
            Err(error) => panic!("after {} messages: {error}", all.len()),
        }
        assert!(Instant::now() < until, "no end after {} messages", all.len());
    }
}

/// Gives every frame up to the end of the stream to `look`, one at a time.
pub fn each_frame(subscriber: &Subscriber, mut look: impl FnMut(&Frame)) -> usize {
    for count in 0.. {
        match subscriber.next_frame(Some(Duration::from_secs(30))) {
            Ok(frame) => look(&frame),
            Err(RecvError::Closed) => return count,
            Err(error) => panic!("after {count} frames: {error}"),
        }
    }
    unreachable!()
}

/// The inodes of the descriptors of all memories that pass a pad; 0 stands for memory without one.
pub fn inodes_at(pad: &gst::Pad) -> Arc<Mutex<BTreeSet<u64>>> {
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let into = seen.clone();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(buffer) = info.buffer() {
            let mut seen = into.lock().unwrap();
            for memory in buffer.iter_memories() {
                seen.insert(memory.downcast_memory_ref::<FdMemory>().map_or(0, |memory| inode(memory.fd())));
            }
        }
        gst::PadProbeReturn::Ok
    });
    seen
}

pub fn inode(fd: i32) -> u64 {
    std::fs::metadata(format!("/proc/self/fd/{fd}")).map_or(0, |data| data.ino())
}

/// Waits until something is true.
pub fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_true() {
        assert!(Instant::now() < deadline, "did not come true: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
