//! `serve --device` by every kind of link at once, and what is left after kills: the testbed's virtual camera and its
//! RDMA devices, seen from outside.
#![cfg(feature = "camera")]

mod common;

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use common::{Place, Running, eventually, finish, skip, stderr};
use nix::sys::signal::Signal;
use pagecast_tests::camera::{Camera, dma_bufs};
use pagecast_tests::random::Random;
use pagecast_tests::testbed::{OTHER, OWN, Testbed, testbed};

const MODE: &str = "320x180@15:NV12";
/// So many buffers that three subscribers who are late, each with what it holds and what waits for it, leave the reserve alone.
const ENOUGH: &str = "--buffers 32 --credits 4";
/// Bytes of its pictures.
const SIZE: usize = 320 * 180 * 3 / 2;
/// Pictures that each subscriber takes.
const PICTURES: usize = 60;

fn camera() -> Option<Camera> {
    let camera = Camera::find();
    if camera.is_none() {
        skip("there is no virtual camera (vivid)");
    }
    camera
}

/// The camera's driver takes its pages from elsewhere until this is dropped.
struct Allocator<'a>(&'a Camera);

impl<'a> Allocator<'a> {
    /// 0: pages that the processor sees as any others (vmalloc); 1: those for devices (dma-contig).
    fn set(camera: &'a Camera, which: u32) -> Self {
        camera.reload(&[&format!("allocators={which}")]);
        Self(camera)
    }
}

impl Drop for Allocator<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.0.reload(&[]);
        }
    }
}

fn free_port() -> u16 {
    TcpListener::bind((OWN, 0)).expect("a port").local_addr().expect("an address").port()
}

/// Packets that a device has sent.
fn sent_by(device: &str) -> usize {
    let path = format!("/sys/class/infiniband/{device}/ports/1/hw_counters/sent_pkts");
    fs::read_to_string(path).expect("a counter").trim().parse().expect("a number")
}

/// One camera by each kind of link at once.
struct Links {
    place: Place,
    _serving: Running,
    uris: [String; 3],
}

impl Links {
    fn serve(camera: &Camera) -> Self {
        let place = Place::new();
        let (tcp, rdma) = (format!("tcp://{OWN}:{}", free_port()), format!("rdma://{OWN}:{}", free_port()));
        let device = camera.path.display();
        let serve = format!(
            "serve cam0 --device {device} --mode {MODE} --listen {tcp},{rdma} --network 10.77.0.0/24 --insecure --wait-for-clients 3 {ENOUGH}"
        );
        let _serving = Running::start(place.command(&serve));
        // Its socket is there a moment before somebody listens.
        eventually("it serves", || place.serves("cam0"));
        let from = |uri: &str| format!("{uri}?from={OTHER}");
        let uris = ["cam0".to_owned(), from(&tcp), from(&rdma)];
        Self { place, _serving, uris }
    }

    /// Subscribers by each link, who write what they get into these files.
    fn take(&self) -> Vec<(Child, PathBuf)> {
        let start = |(at, uri): (usize, &String)| {
            let file = self.place.path().join(format!("pictures{at}"));
            let mut command = self.place.command(&format!("pipe {uri} -n {PICTURES} --insecure"));
            command.stdout(File::create(&file).expect("a file"));
            (command.spawn().expect("a subscriber"), file)
        };
        self.uris.iter().enumerate().map(start).collect()
    }

    fn info(&self) -> serde_json::Value {
        self.place.info("cam0")
    }
}

/// What one camera gave to all three, and how it went: frames that RDMA wanted copies for, of how many.
fn by_each_link(camera: &Camera, _testbed: &Testbed) -> (u64, u64) {
    let folder = Place::new();
    let expected = camera.capture(folder.path(), "NV12");
    assert_eq!(expected.len(), SIZE);
    camera.set("test_pattern=1");
    assert!(camera.capture(folder.path(), "NV12") != expected, "another pattern is another picture");
    camera.set("test_pattern=0");
    let links = Links::serve(camera);
    let before = sent_by("rxe0");
    let mut readers = links.take();
    let mut last = links.info();
    // The figures of the last look at which all were there.
    let mut running = true;
    eventually("all have their pictures", || {
        running &= readers.iter_mut().all(|(reader, _)| reader.try_wait().expect("a child").is_none());
        let info = links.info();
        if running && info["subscribers"].as_array().map(Vec::len) == Some(3) {
            last = info;
        }
        readers.iter_mut().all(|(reader, _)| reader.try_wait().expect("a child").is_some())
    });
    for (reader, file) in readers {
        // A slow machine loses some on their way; what comes is right.
        let output = finish(reader);
        assert!(output.status.success() || stderr(&output).contains("were lost"), "{}", stderr(&output));
        let pictures = fs::read(file).expect("pictures");
        assert_eq!(pictures.len(), PICTURES * SIZE);
        for (number, picture) in pictures.chunks(SIZE).enumerate() {
            assert!(picture == expected, "picture {number} is not what v4l2-ctl captured");
        }
    }
    let packets = sent_by("rxe0") - before;
    assert!(packets >= PICTURES * SIZE / 4096, "{packets} packets by RDMA");
    assert_eq!(last["publisher"]["copied"], 0, "the driver's own pages: {last}");
    assert_eq!(last["publisher"]["backing"], "imported", "{last}");
    let by = |transport: &str| {
        let all = last["subscribers"].as_array().expect("subscribers").iter();
        all.clone().find(|one| one["transport"] == transport).unwrap_or_else(|| panic!("{transport}: {last}"))
    };
    let figure = |transport, name: &str| by(transport)[name].as_u64().expect("a number");
    assert_eq!((figure("unix", "copied"), figure("tcp", "copied")), (0, 0), "{last}");
    (figure("rdma", "copied"), figure("rdma", "frames"))
}

#[test]
fn one_picture_by_unix_tcp_and_rdma_at_once() {
    let Some(camera) = camera() else { return };
    let Some(testbed) = testbed() else { return };
    // Pages that the device can read where they are.
    let (copied, frames) = by_each_link(&camera, &testbed);
    println!("pages of vmalloc: {copied} of {frames} copied for RDMA");
    assert!(copied == 0 && frames > 0, "{copied} of {frames}");
    // Pages that cannot be pinned: one copy each, counted where it is made.
    let allocator = Allocator::set(&camera, 1);
    let (copied, frames) = by_each_link(&camera, &testbed);
    println!("pages of dma-contig: {copied} of {frames} copied for RDMA");
    // One or two may be under way.
    assert!(frames > 4 && copied.abs_diff(frames) <= 4, "{copied} of {frames}");
    drop(allocator);
}

/// Whoever is killed, and whenever: no dma-buf stays.
#[test]
fn kills_at_random_moments_leave_no_dma_bufs() {
    let Some(camera) = camera() else { return };
    let mut random = Random::new(11);
    let before = dma_bufs();
    for round in 0..6 {
        let place = Place::new();
        let device = camera.path.display();
        let serve = format!("serve cam0 --device {device} --mode {MODE} --buffers 8");
        let mut serving = Running::start(place.command(&serve));
        // In each third round the publisher dies while it opens the camera, or soon after.
        if round % 3 != 2 {
            eventually("it serves", || place.socket("cam0").exists());
        }
        let readers: Vec<Running> =
            (0..3).map(|_| Running::start(place.command("recv cam0 --credits 4"))).collect();
        std::thread::sleep(Duration::from_millis(random.below(1500)));
        readers[0].signal(Signal::SIGSTOP);
        std::thread::sleep(Duration::from_millis(random.below(300)));
        let kill = |process: &Running| process.signal(Signal::SIGKILL);
        match round % 3 {
            0 => {
                readers.iter().for_each(kill);
                std::thread::sleep(Duration::from_millis(random.below(300)));
                assert!(serving.0.try_wait().expect("a child").is_none(), "the publisher goes on");
                kill(&serving);
            }
            _ => {
                kill(&serving);
                std::thread::sleep(Duration::from_millis(random.below(300)));
                readers.iter().for_each(kill);
            }
        }
        serving.end();
        drop(readers);
        eventually("the machine's dma-bufs are those of before", || dma_bufs() <= before);
    }
    // And the camera is free.
    camera.capture(Place::new().path(), "NV12");
}
