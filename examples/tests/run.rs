//! Runs every example as its header says, in processes of their own, and looks at what they print.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use pagecast_examples::draw;

/// No example of this test takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A place for sockets, gone with the test.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn uri(&self) -> String {
        format!("unix:{}", self.0.path().join("socket").display())
    }
}

/// An example's process, gone with this.
struct Running(Option<Child>);

impl Running {
    /// Ends it if it takes too long; what it printed.
    fn end(mut self) -> String {
        let mut child = self.0.take().expect("it runs");
        let deadline = Instant::now() + PATIENCE;
        while child.try_wait().expect("its state").is_none() {
            if Instant::now() > deadline {
                let _ = child.kill();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let Output { status, stdout, stderr } = child.wait_with_output().expect("its output");
        let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        assert!(status.success(), "{status}\n{out}\n{err}");
        out.into_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a path");
    let path = test.ancestors().nth(2).expect("the folder of programs").join("examples").join(name);
    assert!(path.exists(), "{} is missing: cargo build -p pagecast-examples --examples", path.display());
    path
}

fn start(name: &str, arguments: &[&str]) -> Running {
    let mut command = Command::new(example(name));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Running(Some(command.spawn().expect("a process")))
}

/// The sum of all bytes of the test pattern.
fn drawn(frames: u64, width: usize, height: usize) -> u64 {
    let mut picture = vec![0; width * height];
    let sum = |number| {
        draw(&mut picture, width, number);
        picture.iter().map(|byte| u64::from(*byte)).sum::<u64>()
    };
    (0..frames).map(sum).sum()
}

#[test]
fn what_is_published_is_what_both_kinds_of_subscriber_read() {
    let place = Place::new();
    let uri = place.uri();
    let publish = ["--uri", &uri, "--frames", "50", "--size", "320x240", "--fps", "0", "--wait", "2"];
    let publisher = start("publish", &publish);
    let blocking = start("subscribe", &["--uri", &uri]);
    let on_a_runtime = start("subscribe", &["--uri", &uri, "--async"]);
    let expected = format!("frames 50, dropped 0, bytes {}, sum {}", 50 * 320 * 240, drawn(50, 320, 240));
    for subscriber in [blocking, on_a_runtime] {
        let printed = subscriber.end();
        assert!(printed.contains(&expected), "{expected}:\n{printed}");
        assert!(printed.contains("format=GRAY8, width=320"), "{printed}");
    }
    let printed = publisher.end();
    assert!(printed.contains("frames 50, dropped 0"), "{printed}");
    assert!(!Path::new(uri.trim_start_matches("unix:")).exists(), "the socket is gone");
}

#[test]
fn a_wrong_size_is_said() {
    let child = Command::new(example("publish")).args(["--size", "wide"]).output().expect("a process");
    assert!(!child.status.success());
    assert!(String::from_utf8_lossy(&child.stderr).contains("640x480"));
}

#[test]
fn the_camera_keeps_its_buffers_and_readers_keep_their_frames() {
    let place = Place::new();
    let spared = start("camera_app", &["--uri", &place.uri(), "--frames", "40", "--keep", "1"]).end();
    assert!(spared.contains("frames 40, read 120,") && spared.contains("kept after the end 3"), "{spared}");
    // However late the readers are, the first four of six buffers can be spared.
    assert!(copied(&spared) <= 36, "{spared}");
    let uri = place.uri();
    let other = start("subscribe", &["--uri", &uri]);
    let wait = ["--uri", &uri, "--frames", "40", "--keep", "8", "--wait", "1"];
    let hoarded = start("camera_app", &wait).end();
    let printed = other.end();
    assert!(printed.contains("format=GRAY8") && !printed.contains("\nframes 0,"), "{printed}");
    assert!(hoarded.contains("fallback: frames are copied"), "{hoarded}");
    assert!(hoarded.contains("read 120,") && (1..=36).contains(&copied(&hoarded)), "{hoarded}");
    assert!(hoarded.contains("kept after the end 10"), "{hoarded}");
}

/// In the testbed, where the kernel has a virtual camera.
#[test]
fn a_camera_of_v4l2_is_filmed() {
    if std::env::var_os("PAGECAST_TESTBED").is_none() {
        pagecast_tests::skip("no camera of somebody's is opened: this is for the testbed");
        return;
    }
    let place = Place::new();
    let uri = place.uri();
    let other = start("subscribe", &["--uri", &uri]);
    let film = ["--device", "/dev/video0", "--uri", &uri, "--frames", "30", "--keep", "2", "--wait", "1"];
    let printed = start("camera_app", &film).end();
    assert!(printed.contains("its own, as dma-bufs") && printed.contains("frames 30,"), "{printed}");
    assert!(printed.contains("copied 0, kept after the end 2"), "{printed}");
    let printed = other.end();
    assert!(printed.contains("video/x-raw") && !printed.contains("\nframes 0,"), "{printed}");
}

/// The number after "copied".
fn copied(printed: &str) -> u64 {
    let number = printed.split("copied ").last().and_then(|rest| rest.split(',').next());
    number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no figure: {printed}"))
}

#[test]
fn pipelines_of_an_application_share_its_pages() {
    let place = Place::new();
    let uri = place.uri();
    let application = start("gst_app", &["--uri", &uri, "--frames", "60", "--clients", "2"]);
    let expected = format!("frames 60, dropped 0, bytes {}, sum {}", 60 * 320 * 240, drawn(60, 320, 240));
    let printed = start("subscribe", &["--uri", &uri]).end();
    assert!(printed.contains(&expected), "{expected}:\n{printed}");
    let printed = application.end();
    assert!(printed.contains("frames 60, received 60, wrong 0, copied 0"), "{printed}");
}

#[test]
fn a_decoder_fills_our_pages_without_a_sink_of_ours() {
    let place = Place::new();
    let uri = place.uri();
    let pipeline = "videotestsrc num-buffers=30 ! video/x-raw,width=320,height=240 ! jpegenc ! jpegdec";
    let publisher = start("allocator", &["--uri", &uri, "--wait", "1", "--pipeline", pipeline]);
    let printed = start("subscribe", &["--uri", &uri, "--frames", "1"]).end();
    assert!(printed.contains("frames 1,") && printed.contains("video/x-raw"), "{printed}");
    let printed = publisher.end();
    assert!(printed.contains("frames 30, in our pages 30, passed on 0, copied 0"), "{printed}");
}

#[test]
fn memory_that_cannot_be_shared_is_copied_and_counted() {
    let place = Place::new();
    // Whatever crosses a tee keeps its own memory.
    let pipeline = "videotestsrc num-buffers=30 ! tee ! queue";
    let printed = start("allocator", &["--uri", &place.uri(), "--pipeline", pipeline]).end();
    assert!(printed.contains("frames 30, in our pages 0, passed on 0, copied 30"), "{printed}");
}
