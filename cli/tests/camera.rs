//! `serve --device`: the kernel's virtual camera, without GStreamer, seen from outside.
#![cfg(feature = "camera")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{ChildStderr, Command};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use common::nobody::{VIDEO, as_nobody};
use common::{LIMIT, Place, Running, eventually, expect_code, finish, skip, stderr, stdout};
use nix::sys::signal::Signal;
use pagecast_tests::camera::{Camera, dma_bufs};
use pagecast_tests::driver::{Dequeued, DriverTrace, fewest, missed};

const MODE: &str = "320x180@15";
/// So many buffers that two subscribers who are late, each with what it holds and what waits for it, leave the reserve alone.
const ENOUGH: &str = "--buffers 32 --credits 4";

/// `pagecast serve cam0 --device …`, and what it says.
struct Serving {
    process: Running,
    lines: Receiver<String>,
}

impl Serving {
    fn start(place: &Place, camera: &Camera, mode: &str, more: &str) -> Self {
        let path = camera.path.display();
        let serve = format!("serve cam0 --device {path} --mode {MODE}:{mode} {more}");
        Self::of(place.command(&serve)).0
    }

    /// Of a command that serves, and what it said until it did.
    fn of(command: Command) -> (Self, String) {
        let mut process = Running::start(command);
        let lines = lines(process.0.stderr.take().expect("piped"));
        let serving = Self { process, lines };
        let said = serving.wait_for("serving unix:cam0");
        (serving, said)
    }

    /// Everything up to the line that has this in it, which is the last.
    #[track_caller]
    fn wait_for(&self, part: &str) -> String {
        let mut seen = String::new();
        loop {
            let line = self.lines.recv_timeout(LIMIT);
            let line = line.unwrap_or_else(|error| panic!("{error}: no {part:?} in {seen:?}"));
            seen.push_str(&line);
            seen.push('\n');
            if line.contains(part) {
                return seen;
            }
        }
    }

    fn pid(&self) -> i32 {
        self.process.0.id() as i32
    }

    /// Ctrl-C; its last line.
    fn end(mut self) -> String {
        self.process.signal(Signal::SIGINT);
        let last = self.wait_for("frames published");
        assert_eq!(self.process.end().code(), Some(130));
        last
    }
}

fn lines(from: ChildStderr) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        BufReader::new(from).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
    });
    lines
}

fn camera() -> Option<Camera> {
    let camera = Camera::find();
    if camera.is_none() {
        skip("there is no virtual camera (vivid)");
    }
    camera
}

/// The picture that `pipe` writes, of a stream that is not moving.
fn received(place: &Place) -> Vec<u8> {
    let output = place.run("pipe cam0 -n 1");
    expect_code(&output, 0);
    output.stdout
}

#[test]
fn what_is_no_camera_or_no_mode_is_named() {
    let place = Place::new();
    for (wrong, text) in [
        ("serve x --device /dev/null", "no V4L2 device"),
        ("serve x --device /dev/video77", "no such device"),
        ("serve x --device /dev/video0 --mode 8x8@", "no mode of a camera"),
        ("serve x --mode 8x8", "--device"),
        #[cfg(feature = "gstreamer")]
        ("serve x --mode 8x8 --test 64x64", "--device"),
        #[cfg(feature = "gstreamer")]
        ("serve x --reserve 2 --test 64x64", "--device"),
    ] {
        let output = place.run(wrong);
        expect_code(&output, 2);
        assert!(stderr(&output).contains(text), "{wrong}: {}", stderr(&output));
    }
    let Some(camera) = camera() else { return };
    let path = camera.path.display();
    for (mode, text) in [("1x1:UYVY", "UYVY 320x180"), (":JXL", "formats NV12")] {
        let output = place.run(&format!("serve x --device {path} --mode {mode}"));
        expect_code(&output, 2);
        assert!(stderr(&output).contains(text), "{mode}: {}", stderr(&output));
    }
    let output = place.run("doctor --json");
    let about = stdout(&output);
    assert!(
        about.contains("vivid") && about.contains("NV12 320x180") && about.contains("Brightness"),
        "{about}"
    );
}

#[test]
fn the_drivers_pages_go_out_as_they_are_and_return() {
    let Some(camera) = camera() else { return };
    let place = Place::new();
    let before = dma_bufs();
    let expected = camera.capture(place.path(), "NV12");
    let serving = Serving::start(&place, &camera, "NV12", ENOUGH);
    // Pixels as v4l2-ctl sees them; one line of another pattern is enough to tell.
    assert!(received(&place) == expected, "the picture is another");
    camera.set("test_pattern=1");
    eventually("another picture", || received(&place) != expected);
    // Whoever reads has mapped what the driver exported, and nothing was copied.
    let reader = Running::start(place.command("recv cam0 --policy drop-oldest"));
    let pid = reader.0.id() as i32;
    eventually("it has the pages", || dma_bufs_of(pid).len() >= 3);
    let exported = dma_bufs_of(serving.pid());
    assert!(dma_bufs_of(pid).is_subset(&exported));
    let info = place.info("cam0");
    assert_eq!(
        (&info["publisher"]["copied"], &info["publisher"]["backing"]),
        (&0.into(), &"imported".into())
    );
    // Another program cannot have the camera meanwhile.
    let second = place.run(&format!("serve cam1 --device {}", camera.path.display()));
    expect_code(&second, 1);
    assert!(stderr(&second).contains("another program is using"), "{}", stderr(&second));
    drop(reader);
    let last = serving.end();
    assert!(last.contains(" 0 copied,"), "{last}");
    eventually("all dma-bufs are gone", || dma_bufs() <= before);
}

/// Four subscribers that have had frames.
fn four_readers(place: &Place, credits: u32) -> Vec<Running> {
    let recv = format!("recv cam0 --credits {credits}");
    let readers: Vec<Running> = (0..4).map(|_| Running::start(place.command(&recv))).collect();
    let subscribers = || place.info("cam0")["subscribers"].clone();
    eventually("all have frames", || {
        subscribers().as_array().is_some_and(|all| all.len() == 4 && all.iter().all(|one| one["frames"] != 0))
    });
    readers
}

fn hold_what_they_may(place: &Place) -> bool {
    let info = place.info("cam0");
    info["subscribers"].as_array().is_some_and(|all| all.iter().all(|one| one["held"] == one["credits"]))
}

/// For so long, and until so many pictures have come: what was taken from the driver.
fn five_seconds(trace: &DriverTrace, pictures: usize) -> Vec<Dequeued> {
    let (begin, then) = (trace.taken().len(), Instant::now());
    eventually("the camera goes on", || {
        then.elapsed() >= Duration::from_secs(5) && trace.taken().len() >= begin + pictures
    });
    trace.taken().split_off(begin)
}

#[test]
fn subscribers_that_are_stopped_do_not_starve_the_camera() {
    let Some(camera) = camera() else { return };
    let place = Place::new();
    let trace = DriverTrace::begin();
    let serving = Serving::start(&place, &camera, "NV12", "--buffers 8 --credits 3");
    let readers = four_readers(&place, 3);
    // Ten times as many pictures as the driver has buffers, while all read and while nobody does.
    let reading = five_seconds(&trace, 80);
    readers.iter().for_each(|reader| reader.signal(Signal::SIGSTOP));
    eventually("they hold what they may", || hold_what_they_may(&place));
    let stopped = five_seconds(&trace, 80);
    // Two of the reserve of three: the one that is being looked at counts as gone, and one returns a moment later.
    assert!(fewest(&stopped) >= 2, "the driver had {} left: {stopped:?}", fewest(&stopped));
    // So nothing is lost for want of a buffer; what an emulated machine misses by itself it misses either way.
    let part = |taken: &[Dequeued]| missed(taken) as f64 / (missed(taken) + taken.len() as u64) as f64;
    println!("missed: {:.2} while all read, {:.2} while all are stopped", part(&reading), part(&stopped));
    assert!(part(&stopped) <= part(&reading) + 0.5, "{reading:?} {stopped:?}");
    // What is told of it.
    let info = place.info("cam0");
    let foreign = &info["publisher"]["foreign"];
    assert_eq!((&foreign["buffers"], &foreign["reserve"]), (&8.into(), &3.into()), "{info}");
    assert!(foreign["fewest"].as_u64() >= Some(2) && foreign["left_out"] == 0, "{info}");
    assert!(info["publisher"]["copied"].as_u64() > Some(0), "nothing had to be copied: {info}");
    // It gives the publisher a moment only to answer.
    eventually("top tells it, too", || {
        let top = stdout(&place.run("top -n 1 cam0"));
        top.contains(" copied, ") && top.contains("/8 left (reserve 3)")
    });
    let text = stdout(&place.run("info cam0 --timeout 30"));
    assert!(text.contains("8 buffers, at the fewest ") && text.contains(" missed, 0 left out"), "{text}");
    drop(readers);
    let last = serving.end();
    // Its own count is the driver's, as the kernel saw it.
    let expected = format!("{} missing in the driver's count", missed(&trace.taken()));
    assert!(last.contains(&expected), "{expected}: {last}");
    assert!(!last.contains(" 0 copied,"), "{last}");
}

/// The control of the one above: without a reserve the same subscribers leave the driver nothing.
#[test]
fn without_a_reserve_they_starve_it() {
    let Some(camera) = camera() else { return };
    let place = Place::new();
    let trace = DriverTrace::begin();
    let serving = Serving::start(&place, &camera, "NV12", "--buffers 8 --credits 24 --reserve 0");
    let readers = four_readers(&place, 24);
    readers.iter().for_each(|reader| reader.signal(Signal::SIGSTOP));
    let (mut taken, mut at) = (0, Instant::now());
    eventually("the driver has none left, and no picture can be taken", || {
        let all = trace.taken();
        if all.len() != taken || all.last().is_none_or(|one| one.left > 0) {
            (taken, at) = (all.len(), Instant::now());
        }
        at.elapsed() > Duration::from_secs(2)
    });
    readers.iter().for_each(|reader| reader.signal(Signal::SIGCONT));
    eventually("it goes on", || trace.taken().len() > taken + 8);
    assert!(missed(&trace.taken()) > 0, "and what it missed meanwhile is a gap");
    drop(readers);
    let last = serving.end();
    assert!(last.contains(" 0 copied,"), "{last}");
}

/// The inodes of the dma-bufs that a process has open.
fn dma_bufs_of(pid: i32) -> BTreeSet<u64> {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors").flatten();
    let is_dma_buf = |path: &PathBuf| fs::read_link(path).is_ok_and(|link| link.starts_with("/dmabuf:"));
    let paths = open.map(|entry| entry.path()).filter(is_dma_buf);
    paths.filter_map(|path| fs::metadata(path).ok()).map(|file| file.ino()).collect()
}

/// A library that lets no program export a buffer, for `LD_PRELOAD`: so are drivers that have no dma-bufs.
fn no_exports(place: &Place) -> PathBuf {
    const SOURCE: &str = r#"
        #define _GNU_SOURCE
        #include <dlfcn.h>
        #include <errno.h>
        #include <linux/videodev2.h>
        int ioctl(int fd, unsigned long request, void *argument) {
            int (*real)(int, unsigned long, void *) = dlsym(RTLD_NEXT, "ioctl");
            if ((unsigned int)request == (unsigned int)VIDIOC_EXPBUF) { errno = ENOTTY; return -1; }
            return real(fd, request, argument);
        }"#;
    let (source, library) = (place.path().join("no-exports.c"), place.path().join("no-exports.so"));
    fs::write(&source, SOURCE).expect("written");
    let compiled = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).status();
    assert!(compiled.is_ok_and(|status| status.success()), "a C compiler");
    library
}

#[test]
fn what_a_driver_does_not_export_is_copied_and_said() {
    let Some(camera) = camera() else { return };
    let place = Place::new();
    let expected = camera.capture(place.path(), "NV12");
    let path = camera.path.display();
    let mut command = place.command(&format!("serve cam0 --device {path} --mode {MODE}:NV12"));
    command.env("LD_PRELOAD", no_exports(&place));
    let (serving, said) = Serving::of(command);
    assert!(said.contains("copied: this driver exports no dma-bufs"), "{said}");
    assert!(received(&place) == expected, "the picture is another");
    let info = place.info("cam0");
    assert_eq!(info["publisher"]["access"], "enforced", "copies are pages of ours: {info}");
    all_copied(&serving.end());
}

/// What is said at the end: as many copies as frames.
fn all_copied(last: &str) {
    let counts: Vec<u64> =
        last.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect();
    assert!(counts[0] > 0 && counts[0] == counts[1], "as many copies as frames: {last}");
}

/// The same under GStreamer's own source, which then has ordinary memory.
#[test]
#[cfg(feature = "gstreamer")]
fn what_v4l2src_cannot_export_is_copied_and_said_once() {
    let Some(camera) = camera() else { return };
    let place = Place::new();
    let expected = camera.capture(place.path(), "NV12");
    let (path, caps) = (camera.path.display(), pagecast_tests::camera::CAPS);
    let mut command = place.command(&format!("serve cam0 v4l2src device={path} ! {caps}"));
    command.env("LD_PRELOAD", no_exports(&place));
    let (serving, before) = Serving::of(command);
    assert!(received(&place) == expected, "the picture is another");
    let info = place.info("cam0");
    assert_eq!(info["publisher"]["access"], "enforced", "copies are pages of ours: {info}");
    serving.process.signal(Signal::SIGINT);
    let said = before + &serving.wait_for("frames published");
    assert_eq!(said.matches("Frames are copied once each").count(), 1, "{said}");
    all_copied(said.lines().last().expect("a line"));
}

#[test]
fn who_is_in_the_cameras_group_needs_no_privilege() {
    let Some(camera) = camera() else { return };
    let place = Place::new();
    let path = camera.path.display();
    std::os::unix::fs::chown(&camera.path, None, Some(VIDEO)).expect("chown");
    fs::set_permissions(&camera.path, fs::Permissions::from_mode(0o660)).expect("chmod");
    let serve = format!("serve cam0 --device {path} --mode {MODE}:NV12 {ENOUGH}");
    let output = finish(as_nobody(&place, "--clear-groups", &serve).spawn().expect("setpriv"));
    expect_code(&output, 1);
    assert!(stderr(&output).contains("usually video"), "{}", stderr(&output));
    let (serving, _) = Serving::of(as_nobody(&place, &format!("--groups={VIDEO}"), &serve));
    // A subscriber of the same user, who is in no group at all.
    let output = finish(as_nobody(&place, "--clear-groups", "recv cam0 -n 20").spawn().expect("setpriv"));
    expect_code(&output, 0);
    let last = serving.end();
    assert!(last.contains(" 0 copied,"), "{last}");
}

/// Takes the virtual camera away, as unplugging it does.
fn plug(in_or_out: &str) {
    fs::write(format!("/sys/bus/platform/drivers/vivid/{in_or_out}"), "vivid.0").expect(in_or_out);
}

/// Frames come again to a subscriber that stayed while something happened to the camera.
fn outlasts(camera: &Camera, happens: impl FnOnce(), then: impl FnOnce()) {
    let place = Place::new();
    let serving = Serving::start(&place, camera, "NV12", ENOUGH);
    let mut reader = Running::start(place.command("recv cam0 -n 90 --json"));
    let frames = || place.info("cam0")["subscribers"][0]["frames"].as_u64().unwrap_or(0);
    eventually("it has frames", || frames() > 0);
    happens();
    serving.wait_for("waiting for it to come back");
    let info = place.info("cam0");
    assert_eq!(info["subscribers"].as_array().map(Vec::len), Some(1), "the subscriber stays");
    then();
    serving.wait_for("the camera is back");
    assert!(reader.end().success());
    serving.end();
}

#[test]
fn a_camera_that_was_unplugged_comes_back_to_those_who_stayed() {
    let Some(camera) = camera() else { return };
    outlasts(&camera, || plug("unbind"), || plug("bind"));
}

#[test]
fn a_stream_that_the_driver_has_given_up_is_begun_anew() {
    let Some(camera) = camera() else { return };
    outlasts(&camera, || camera.set("inject_fatal_streaming_error=1"), || ());
}

#[test]
fn planes_in_several_buffers_come_one_behind_the_other() {
    let Some(camera) = camera() else { return };
    let place = Place::new();
    camera.reload(&["multiplanar=2"]);
    let result = std::panic::catch_unwind(|| {
        for format in ["NM12", "YM12", "YUYV"] {
            let expected = camera.capture(place.path(), format);
            let serving = Serving::start(&place, &camera, format, ENOUGH);
            assert!(received(&place) == expected, "{format}: the picture is another");
            let last = serving.end();
            assert!(last.contains(" 0 copied,"), "{last}");
        }
    });
    camera.reload(&[]);
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}
