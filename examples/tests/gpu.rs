//! The example `gpu`: pages of ours drawn by a software device that imports (Mesa of Debian 13), or by the one whose own
//! pages they are; else what is missing is said. It needs the testbed's devices; elsewhere each test is skipped.

use std::collections::{BTreeSet, VecDeque};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use pagecast::{Description, FaceKind, Frame, Plane, Pool, PoolOptions, Publisher, PublisherOptions};
use pagecast_tests::screen::Picture;
use pagecast_tests::{Place, skip};

const PATIENCE: Duration = Duration::from_secs(60);
const FRAMES: u64 = 20;
/// Frames that are kept beside those under way, so that more buffers come round.
const KEPT: usize = 4;
const WIDTH: usize = 300;
const HEIGHT: usize = 200;
/// Lines are longer than the picture is wide, and begin somewhere in the buffer.
const STRIDE: usize = 1280;
const BEFORE: usize = 4096;
/// A virtual GPU (vgem), which Mesa draws for with the CPU, in pages of that GPU's own.
const NODE: &str = "/dev/dri/card0";

fn pixel(number: u64, x: usize, y: usize) -> [u8; 3] {
    let (x, y, at) = (x as u64, y as u64, 8 * number);
    [(x + at) as u8, (y + at) as u8, (x ^ y) as u8]
}

fn expected(number: u64) -> Picture {
    let pixels = (0..HEIGHT).flat_map(|y| (0..WIDTH).flat_map(move |x| pixel(number, x, y)));
    Picture { width: WIDTH, height: HEIGHT, bytes: pixels.collect() }
}

fn frame(pool: &Pool, number: u64, spoilt: Option<(usize, usize)>) -> Frame {
    let length = STRIDE * HEIGHT;
    let lease = pool.acquire_by(BEFORE + length, Some(Instant::now() + PATIENCE), || true);
    let mut lease = lease.expect("a buffer");
    let mut bytes = vec![0x77; length];
    for (y, line) in bytes.chunks_mut(STRIDE).enumerate() {
        for (x, four) in line.chunks_mut(4).take(WIDTH).enumerate() {
            let [red, green, blue] = pixel(number, x, y);
            four.copy_from_slice(&[blue ^ u8::from(spoilt == Some((x, y))), green, red, 0]);
        }
    }
    lease.write(BEFORE, &bytes).expect("written");
    lease.end_writing();
    let planes = [Plane { offset: 0, stride: STRIDE as i32 }].into_iter().collect();
    let (width, height) = (WIDTH as u32, HEIGHT as u32);
    let said = Description { offset: Some(number), width, height, planes, ..Description::default() };
    let part = Frame::builder().describe(said).segment(lease.buffer().clone(), BEFORE, length);
    part.owner(std::sync::Mutex::new(lease)).build().expect("a frame")
}

/// What the example did, and what it must have seen.
struct Run {
    output: Output,
    picture: Option<Picture>,
    buffers: usize,
}

impl Run {
    fn said(&self) -> String {
        let (out, err) = (&self.output.stdout, &self.output.stderr);
        format!("{}\n{}{}", self.output.status, String::from_utf8_lossy(out), String::from_utf8_lossy(err))
    }

    /// It drew the last picture as it must be, and imported each buffer once.
    fn drew(&self, picture: &Picture) {
        assert!(self.output.status.success(), "{}", self.said());
        let counts = format!("drawn {FRAMES} frames, imported {} buffers", self.buffers);
        assert!(self.said().contains(&counts), "{counts}: {}", self.said());
        assert!((KEPT..FRAMES as usize).contains(&self.buffers), "{} buffers", self.buffers);
        let drawn = self.picture.as_ref().expect("a picture");
        assert_eq!((drawn.width, drawn.height), (WIDTH, HEIGHT));
        assert_eq!(drawn.differs(picture), None, "the first other pixel");
    }

    /// It ended with these words, not with a signal.
    fn failed(&self, words: &str) {
        assert_eq!(self.output.status.code(), Some(1), "{}", self.said());
        assert!(self.said().contains(words), "{words}: {}", self.said());
    }
}

/// Publishes to the example, with these arguments of it.
fn run(backing: &str, spoilt: Option<(usize, usize)>, arguments: &[&str]) -> Run {
    let place = Place::new();
    let uri = place.uri("a");
    // It compiles its first picture's program with all the time it needs, and loses nothing.
    let block_deadline = Some(PATIENCE);
    let options = PublisherOptions { live: false, block_deadline, ..PublisherOptions::default() };
    let publisher = Publisher::open(&uri, options).expect("a publisher");
    publisher.set_caps("video/x-raw, format=(string)BGRx, width=300, height=200").expect("caps");
    let backing = backing.parse().expect("a backing");
    let pool = Pool::new(PoolOptions { backing, ..PoolOptions::default() });
    publisher.set_pool(&pool);
    let output = place.path().join("last.ppm");
    let mut command = Command::new(program());
    command.args(["--uri", &uri, "--frames", &FRAMES.to_string(), "--output"]).arg(&output).args(arguments);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.expect("the example");
    let came = || publisher.wait_for_subscribers(1, Some(Duration::from_millis(50)));
    let until = Instant::now() + PATIENCE;
    let (mut kept, mut used) = (VecDeque::new(), BTreeSet::new());
    while !came() && child.try_wait().expect("its state").is_none() {
        assert!(Instant::now() < until, "the example neither comes nor ends");
    }
    for number in 0..FRAMES {
        if child.try_wait().expect("its state").is_some() {
            break;
        }
        let frame = frame(&pool, number, spoilt);
        let face = frame.segments()[0].buffer.face(FaceKind::DmaBuf).expect("a dma-buf").fd;
        let file = std::fs::File::from(face.try_clone_to_owned().expect("a descriptor"));
        used.insert(file.metadata().expect("its inode").ino());
        publisher.publish(&frame).expect("published");
        kept.push_back(frame);
        if kept.len() > KEPT {
            kept.pop_front();
        }
    }
    while child.try_wait().expect("its state").is_none() {
        if Instant::now() > until {
            let _ = child.kill();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let ended = child.wait_with_output().expect("its output");
    let picture = std::fs::read(output).ok().and_then(|ppm| Picture::parse(&ppm));
    Run { output: ended, picture, buffers: used.len() }
}

fn program() -> PathBuf {
    let test = std::env::current_exe().expect("a path");
    let path = test.ancestors().nth(2).expect("the folder of programs").join("examples/gpu");
    assert!(path.exists(), "{} is missing: cargo build -p pagecast-examples --examples", path.display());
    path
}

/// Whether the devices are there; else the test is skipped.
fn has_devices() -> bool {
    let open = |path: &str| std::fs::File::options().read(true).write(true).open(path);
    let missing = ["/dev/udmabuf", "/dev/dma_heap/system", NODE].into_iter().find(|path| open(path).is_err());
    let driver = std::fs::canonicalize("/sys/class/drm/card0/device").unwrap_or_default();
    match missing {
        Some(path) => skip(&format!("{path} cannot be opened")),
        None if !driver.ends_with("vgem") => skip("card0 is a real one"),
        None => return true,
    }
    false
}

/// Whether Mesa's software device imports here: that of Debian 12 (22.3) does not, that of 13 (25.0) does.
fn software_imports() -> bool {
    let system = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    !system.contains("VERSION_ID=\"12\"")
}

#[test]
fn a_software_device_draws_with_our_pages_or_says_what_is_missing() {
    if !has_devices() {
        return;
    }
    for backing in ["memfd", "dma-heap"] {
        let drawn = run(backing, None, &[]);
        match software_imports() {
            true => drawn.drew(&expected(FRAMES - 1)),
            false => drawn.failed("imports no dma-bufs"),
        }
    }
}

#[test]
fn a_device_draws_with_its_own_pages() {
    if has_devices() {
        let backing = format!("drm-dumb:{NODE}");
        run(&backing, None, &["--device", NODE]).drew(&expected(FRAMES - 1));
    }
}

/// The control of the two above.
#[test]
fn a_wrong_pixel_is_seen() {
    if has_devices() {
        let drawn = run(&format!("drm-dumb:{NODE}"), Some((17, 150)), &["--device", NODE]);
        let picture = drawn.picture.as_ref().unwrap_or_else(|| panic!("{}", drawn.said()));
        assert_eq!(picture.differs(&expected(FRAMES - 1)), Some((17, 150)));
    }
}

#[test]
fn a_device_that_cannot_read_them_is_an_error_and_no_crash() {
    if has_devices() {
        run("memfd", None, &["--device", NODE]).failed("cannot read them");
        run("memfd", None, &["--device", "/dev/dri/card999"]).failed("card999");
    }
}
