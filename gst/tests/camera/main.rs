//! A camera whose driver exports dma-bufs: they go out as they are, to any number of processes, and the camera never
//! runs dry. It needs a vivid device and debugfs, as the testbed has them; elsewhere each test is skipped.

#[path = "../common/mod.rs"]
mod common;
mod reader;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::*;
use gst::prelude::*;
use nix::sys::signal::Signal;
use pagecast_tests::camera::*;
use pagecast_tests::driver::{Dequeued, DriverTrace, fewest, missed};
use pagecast_tests::importer::kernel_says;
use pagecast_tests::skip;
use reader::*;

/// More frames than a camera has buffers.
const ROUNDS: usize = 100;

/// What left the camera: by sequence number the digest of the bytes, read through the driver's own memory.
type Taken = Arc<Mutex<BTreeMap<u64, u64>>>;

/// A camera that is published, and what left it.
struct Shoot {
    pipeline: Pipeline,
    exported: Arc<Mutex<BTreeSet<u64>>>,
    taken: Taken,
    place: Place,
}

impl Shoot {
    fn start(camera: &Camera, properties: &str) -> Self {
        Self::start_with(camera, "dmabuf", properties)
    }

    fn start_with(camera: &Camera, io_mode: &str, properties: &str) -> Self {
        let place = Place::new();
        let description = format!(
            "v4l2src name=camera device={} io-mode={io_mode} ! {CAPS} ! pagecastsink name=sink sync=false uri={} {properties}",
            camera.path.display(),
            place.uri()
        );
        let pipeline = Pipeline::new(&description);
        let pad = pipeline.element("camera").static_pad("src").unwrap();
        let (exported, taken) = (inodes_at(&pad), taken_at(&pad));
        pipeline.play();
        Self { pipeline, exported, taken, place }
    }

    fn reader(&self, name: &str, credits: u32) -> Reader {
        Reader::start(&self.place.uri(), credits, &self.place.path().join(name))
    }

    fn count(&self) -> usize {
        self.taken.lock().unwrap().len()
    }

    /// A figure of the driver's buffers.
    fn foreign<T: for<'a> gst::glib::value::FromValue<'a> + 'static>(&self, name: &str) -> T {
        let foreign: gst::Structure = self.pipeline.stats("sink").get("foreign").expect("figures");
        foreign.get(name).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn newest(&self) -> u64 {
        self.taken.lock().unwrap().last_key_value().map_or(0, |(number, _)| *number)
    }
}

fn taken_at(pad: &gst::Pad) -> Taken {
    let taken = Taken::default();
    let into = taken.clone();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(buffer) = info.buffer() {
            let bytes = buffer.map_readable().expect("the driver's memory");
            into.lock().unwrap().insert(buffer.offset(), digest(&bytes));
        }
        gst::PadProbeReturn::Ok
    });
    taken
}

/// Dma-bufs come and go; in the end there are as many as before.
fn as_many_as(before: usize) {
    eventually("the machine's dma-bufs are those of before", || dma_bufs() <= before);
}

#[test]
fn three_processes_read_the_drivers_own_buffers() {
    let Some(camera) = Camera::find() else { return skip("there is no vivid camera") };
    let before = dma_bufs();
    let place = Place::new();
    let picture = camera.capture(place.path(), "NV12");
    camera.set("test_pattern=1");
    assert_ne!(camera.capture(place.path(), "NV12"), picture, "another pattern is another picture");
    camera.set("test_pattern=0");
    let shoot = Shoot::start(&camera, "");
    let readers: Vec<Reader> = (0..3).map(|n| shoot.reader(&format!("dump{n}"), 0)).collect();
    for (n, reader) in readers.iter().enumerate() {
        let seen: Vec<Seen> = (0..ROUNDS).map(|_| reader.next()).collect();
        let dumped = std::fs::read(shoot.place.path().join(format!("dump{n}"))).unwrap();
        assert!(dumped == picture, "reader {n}: the pixels are not those that v4l2-ctl captured");
        let taken = shoot.taken.lock().unwrap().clone();
        let exported = shoot.exported.lock().unwrap().clone();
        for frame in &seen {
            assert_eq!(frame.digest, digest(&picture), "reader {n}: {frame:?}");
            assert_eq!(taken.get(&frame.sequence), Some(&frame.digest), "reader {n}: {frame:?}");
            assert!(exported.contains(&frame.inode), "reader {n}: {frame:?} is not of {exported:?}");
        }
        assert!(seen.is_sorted_by(|a, b| a.sequence < b.sequence), "reader {n}: frames in order");
        // A buffer that came round again was known: one number, one mapping.
        let count = |of: fn(&Seen) -> u64| seen.iter().map(of).collect::<BTreeSet<_>>().len();
        let (buffers, inodes) = (count(|frame| frame.buffer), count(|frame| frame.inode));
        assert_eq!(buffers, inodes, "reader {n}: each of the driver's buffers was announced once");
        assert!(inodes < ROUNDS / 2, "reader {n}: {inodes} buffers for {ROUNDS} frames");
        // And seen from outside: what it has mapped is what the driver exported, and nothing else.
        let mapped = mapped_by(reader.0.pid());
        assert!(!mapped.is_empty() && mapped.is_subset(&exported), "reader {n}: {mapped:?} of {exported:?}");
        assert_eq!(memfds_mapped_by(reader.0.pid()), 0, "reader {n}: no pages of ours");
    }
    assert_eq!(shoot.pipeline.copied("sink"), 0);
    drop((readers, shoot));
    as_many_as(before);
}

/// The other way round: the driver writes into pages of our pool.
#[test]
fn the_driver_captures_into_our_pages() {
    let Some(camera) = Camera::find() else { return skip("there is no vivid camera") };
    let before = dma_bufs();
    let place = Place::new();
    let picture = camera.capture(place.path(), "NV12");
    let shoot = Shoot::start_with(&camera, "dmabuf-import", "backing=memfd");
    let ours = pages_at(&shoot.pipeline.element("camera").static_pad("src").unwrap());
    // Two that may not write, and one that asks for what the driver has.
    let reader = |(n, faces): (usize, &&str)| {
        Reader::start_with(&shoot.place.uri(), 0, &shoot.place.path().join(format!("dump{n}")), faces)
    };
    let faces = ["memory", "memory", "memory,dma-buf"];
    let readers: Vec<Reader> = faces.iter().enumerate().map(reader).collect();
    for (n, reader) in readers.iter().enumerate() {
        let seen: Vec<Seen> = (0..ROUNDS).map(|_| reader.next()).collect();
        let taken = shoot.taken.lock().unwrap().clone();
        let of = if faces[n] == "memory" { &ours } else { &shoot.exported };
        let pages = of.lock().unwrap().clone();
        for frame in &seen {
            assert_eq!(frame.digest, digest(&picture), "reader {n}: {frame:?}");
            assert_eq!(taken.get(&frame.sequence), Some(&frame.digest), "reader {n}: {frame:?}");
            assert!(pages.contains(&frame.inode), "reader {n}: {frame:?} is not of {pages:?}");
        }
        assert!(seen.is_sorted_by(|a, b| a.sequence < b.sequence), "reader {n}: frames in order");
        // And unlike a driver's own buffers these can be mapped so that nobody but us writes.
        let (memfds, dma_bufs) = (memfds_mapped_by(reader.0.pid()), mapped_by(reader.0.pid()).len());
        assert_eq!((memfds > 0, dma_bufs > 0), (faces[n] == "memory", faces[n] != "memory"), "reader {n}");
    }
    // The driver was given dma-bufs, and those of our pages.
    let given = shoot.exported.lock().unwrap().clone();
    assert!(given.iter().all(|inode| kernel_says(*inode).contains("udmabuf")), "{given:?}");
    assert_eq!(shoot.pipeline.copied("sink"), 0);
    camera.show_counter(true);
    readers[0].forget();
    let mut pictures = BTreeSet::new();
    let fresh = (0..10 * ROUNDS).any(|_| {
        pictures.insert(readers[0].next().digest);
        pictures.len() > 20
    });
    assert!(fresh, "{} pictures", pictures.len());
    drop((readers, shoot));
    as_many_as(before);
}

/// The inodes of the memory faces of our pages that pass a pad.
fn pages_at(pad: &gst::Pad) -> Arc<Mutex<BTreeSet<u64>>> {
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let into = seen.clone();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let memories = info.buffer().into_iter().flat_map(|buffer| buffer.iter_memories());
        let pages = memories.filter_map(gstpagecast::memory::find).filter(|page| !page.foreign);
        let inodes = pages.filter_map(|page| page.buffer.identity()).map(|(_, inode)| inode);
        into.lock().unwrap().extend(inodes);
        gst::PadProbeReturn::Ok
    });
    seen
}

#[test]
fn who_cannot_give_dma_bufs_says_what_to_do() {
    let Some(camera) = Camera::find() else { return skip("there is no vivid camera") };
    let _hidden = Hidden::new("/dev/udmabuf");
    let place = Place::new();
    let (device, uri) = (camera.path.display(), place.uri());
    let pipeline = Pipeline::new(&format!(
        "v4l2src device={device} io-mode=dmabuf-import ! {CAPS} ! pagecastsink sync=false uri={uri}"
    ));
    let _ = pipeline.0.set_state(gst::State::Playing);
    let mut said = Vec::new();
    eventually("it is said", || {
        said = pipeline.texts(gst::MessageType::Warning);
        !said.is_empty()
    });
    assert!(said.iter().any(|text| text.contains("/dev/udmabuf")), "{said:?}");
    eventually("and the source has given up", || !pipeline.texts(gst::MessageType::Error).is_empty());
}

#[test]
fn every_frame_is_a_fresh_one() {
    let Some(camera) = Camera::find() else { return skip("there is no vivid camera") };
    camera.show_counter(true);
    let shoot = Shoot::start(&camera, "");
    let readers: Vec<Reader> = (0..3).map(|n| shoot.reader(&format!("dump{n}"), 0)).collect();
    for reader in &readers {
        let seen: Vec<Seen> = (0..ROUNDS).map(|_| reader.next()).collect();
        let taken = shoot.taken.lock().unwrap().clone();
        let different: BTreeSet<u64> = seen.iter().map(|frame| frame.digest).collect();
        assert_eq!(different.len(), ROUNDS, "each frame has its own picture");
        for frame in &seen {
            assert_eq!(taken.get(&frame.sequence), Some(&frame.digest), "{frame:?} as it left the camera");
        }
    }
    assert_eq!(shoot.pipeline.copied("sink"), 0);
}

/// For so long, and until so many frames have come: what was taken from the driver.
fn five_seconds(trace: &DriverTrace, frames: usize) -> Vec<Dequeued> {
    let (begin, then) = (trace.taken().len(), Instant::now());
    eventually("the camera goes on", || {
        then.elapsed() >= Duration::from_secs(5) && trace.taken().len() >= begin + frames
    });
    trace.taken().split_off(begin)
}

#[test]
fn stopped_readers_do_not_stop_the_camera() {
    let Some(camera) = Camera::find() else { return skip("there is no vivid camera") };
    camera.show_counter(true);
    let before = dma_bufs();
    let trace = DriverTrace::begin();
    let shoot = Shoot::start(&camera, "reserve=2");
    // Together they may hold and have waiting more than the camera has.
    let readers: Vec<Reader> = (0..3).map(|n| shoot.reader(&format!("dump{n}"), 24)).collect();
    for reader in &readers {
        reader.next();
    }
    let reading = five_seconds(&trace, 60);
    readers.iter().for_each(|reader| reader.0.stop());
    eventually("the reserve is all that is left, and frames are copied", || {
        shoot.pipeline.copied("sink") > 0
    });
    let stopped = five_seconds(&trace, 60);
    // One of the reserve of two: the frame that is being copied is not with the driver.
    assert!(fewest(&stopped) >= 1, "the driver had {} left: {stopped:?}", fewest(&stopped));
    // So nothing is lost for want of a buffer; what an emulated machine misses by itself it misses either way.
    let part = |taken: &[Dequeued]| missed(taken) as f64 / (missed(taken) + taken.len() as u64) as f64;
    let (copied, of) = (shoot.pipeline.copied("sink"), stopped.len());
    println!(
        "missed: {:.2} while all read, {:.2} of {of} while all are stopped; {copied} copied",
        part(&reading),
        part(&stopped)
    );
    assert!(part(&stopped) <= part(&reading) + 0.5, "{reading:?} {stopped:?}");
    assert_eq!(shoot.foreign::<u32>("reserve"), 2);
    assert!(shoot.foreign::<u32>("buffers") > 4 && shoot.foreign::<u32>("fewest") <= 2);
    // As the driver's count says, but for a frame that the source itself left out or that is under way.
    let (told, counted) = (shoot.foreign::<u64>("missed"), missed(&trace.taken()));
    assert!(told.abs_diff(counted) <= 4, "{told} are told, and the driver's count says {counted}");
    readers.iter().for_each(|reader| reader.0.signal(Signal::SIGCONT));
    readers.iter().for_each(Reader::forget);
    let target = shoot.newest();
    for reader in &readers {
        let fresh = std::iter::repeat_with(|| reader.next()).find(|frame| frame.sequence > target);
        let fresh = fresh.expect("it goes on");
        assert_eq!(shoot.taken.lock().unwrap().get(&fresh.sequence), Some(&fresh.digest));
    }
    // Once the camera has its buffers again they go out as they are.
    let mut copied = u64::MAX;
    eventually("no more copies", || {
        let earlier = std::mem::replace(&mut copied, shoot.pipeline.copied("sink"));
        readers[0].next();
        earlier == copied
    });
    drop((readers, shoot));
    as_many_as(before);
}

/// The control of the one above: without a reserve the same readers stop the camera.
#[test]
fn without_a_reserve_stopped_readers_stop_it() {
    let Some(camera) = Camera::find() else { return skip("there is no vivid camera") };
    let trace = DriverTrace::begin();
    let shoot = Shoot::start(&camera, "reserve=0");
    let readers: Vec<Reader> = (0..3).map(|n| shoot.reader(&format!("dump{n}"), 24)).collect();
    readers.iter().map(Reader::next).for_each(|_| ());
    readers.iter().for_each(|reader| reader.0.stop());
    let (mut count, mut at) = (0, Instant::now());
    eventually("the camera has none left", || {
        let now = shoot.count();
        if now != count {
            (count, at) = (now, Instant::now());
        }
        at.elapsed() > Duration::from_secs(2)
    });
    assert_eq!(shoot.pipeline.copied("sink"), 0);
    assert_eq!(fewest(&trace.taken()), 0, "the driver had none left");
    readers.iter().for_each(|reader| reader.0.signal(Signal::SIGCONT));
    eventually("it goes on", || shoot.count() > count + 5);
    assert!(missed(&trace.taken()) > 0, "and what it missed meanwhile is a gap");
}

#[test]
fn killed_readers_leave_nothing_behind() {
    let Some(camera) = Camera::find() else { return skip("there is no vivid camera") };
    camera.show_counter(true);
    let before = dma_bufs();
    let shoot = Shoot::start(&camera, "");
    let survivor = shoot.reader("survivor", 0);
    survivor.next();
    let mut random = pagecast_tests::random::Random::new(7);
    for round in 0..8 {
        let mut victim = shoot.reader("victim", 24);
        if round % 2 == 0 {
            victim.next();
            victim.0.stop();
        }
        std::thread::sleep(Duration::from_millis(random.below(400)));
        victim.0.kill();
    }
    survivor.forget();
    let target = shoot.newest();
    let frame = std::iter::repeat_with(|| survivor.next()).find(|frame| frame.sequence > target).unwrap();
    assert_eq!(shoot.taken.lock().unwrap().get(&frame.sequence), Some(&frame.digest));
    eventually("only the survivor is left", || {
        shoot.pipeline.element("sink").property::<u32>("num-clients") == 1
    });
    drop((survivor, shoot));
    as_many_as(before);
}
