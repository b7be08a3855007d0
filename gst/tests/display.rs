//! A display imports our pages: `pagecastsrc ! kmssink` on a driver that imports dma-bufs, its picture taken from outside.
//! It needs the testbed with a display; elsewhere each test is skipped.

mod source;

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

use pagecast::{
    BackingChoice, Description, FaceKind, Frame, Plane, Pool, PoolOptions, Publisher, PublisherOptions,
};
use pagecast_tests::camera::dma_bufs;
use pagecast_tests::importer::kernel_says;
use pagecast_tests::peers::Peer;
use pagecast_tests::roles::say;
use pagecast_tests::screen::{DRIVER, Picture, Screen, device};
use pagecast_tests::tracing::{Calls, Trace, display};
use source::*;

const WIDTH: usize = 640;
const HEIGHT: usize = 480;
const STRIDE: usize = 4 * WIDTH;
const SIZE: usize = STRIDE * HEIGHT;
/// Frames that are kept beside those under way, so that more buffers come round.
const KEPT: usize = 4;
const ROUNDS: u64 = 16;

/// The pixel of a frame: its number moves through the picture, and stands in bars at top and bottom.
fn pixel(number: u64, x: usize, y: usize) -> [u8; 3] {
    if !(32..HEIGHT - 32).contains(&y) {
        return [if number >> (x / 40) & 1 == 1 { 255 } else { 0 }; 3];
    }
    let (x, y, at) = (x as u64, y as u64, 8 * number);
    [(x + at) as u8, (y + at) as u8, (x ^ y) as u8]
}

/// Frame `number` as it must be seen.
fn expected(number: u64) -> Picture {
    let pixels = (0..HEIGHT).flat_map(|y| (0..WIDTH).flat_map(move |x| pixel(number, x, y)));
    Picture { width: WIDTH, height: HEIGHT, bytes: pixels.collect() }
}

/// Whoever fills pages, without GStreamer.
struct Studio {
    publisher: Publisher,
    pool: Pool,
    place: Place,
    kept: VecDeque<Frame>,
    used: BTreeSet<u64>,
}

impl Studio {
    fn open(backing: BackingChoice) -> Self {
        let place = Place::new();
        let block_deadline = Some(2 * LIMIT); // a slow display loses nothing
        let options = PublisherOptions { live: false, block_deadline, ..PublisherOptions::default() };
        let publisher = Publisher::open(&place.uri(), options).expect("a publisher");
        let caps = "video/x-raw, format=(string)BGRx, width=640, height=480, framerate=30/1";
        publisher.set_caps(caps).expect("caps");
        let pool = Pool::new(PoolOptions { backing, ..PoolOptions::default() });
        publisher.set_pool(&pool);
        Self { publisher, pool, place, kept: VecDeque::new(), used: BTreeSet::new() }
    }

    /// Publishes frame `number`, with one pixel spoilt.
    fn publish(&mut self, number: u64, spoilt: Option<(usize, usize)>) {
        let lease = self.pool.acquire_by(SIZE, Some(Instant::now() + LIMIT), || true);
        let mut lease = lease.expect("a buffer");
        let line = |y| (0..WIDTH).flat_map(move |x| pixel(number, x, y));
        let mut bytes: Vec<u8> = (0..HEIGHT).flat_map(line).collect();
        if let Some((x, y)) = spoilt {
            bytes[3 * (y * WIDTH + x)] ^= 1;
        }
        let four = |rgb: &[u8]| [rgb[2], rgb[1], rgb[0], 0];
        let bytes: Vec<u8> = bytes.chunks_exact(3).flat_map(four).collect();
        lease.write(0, &bytes).expect("written");
        let planes = [Plane { offset: 0, stride: STRIDE as i32 }].into_iter().collect();
        let (width, height) = (WIDTH as u32, HEIGHT as u32);
        let said = Description { offset: Some(number), width, height, planes, ..Description::default() };
        let frame = Frame::builder().describe(said).lease(lease, SIZE).build().expect("a frame");
        let face = frame.segments()[0].buffer.face(FaceKind::DmaBuf).expect("a dma-buf");
        self.used.insert(nix::sys::stat::fstat(face.fd).expect("its inode").st_ino);
        self.publisher.publish(&frame).expect("published");
        self.kept.push_back(frame);
        if self.kept.len() > KEPT {
            self.kept.pop_front();
        }
    }

    /// Publishes frames, each when the one before is to be seen.
    fn show(&mut self, screen: &mut Screen, numbers: std::ops::Range<u64>) {
        for number in numbers {
            self.publish(number, None);
            seen(screen, number, &expected(number));
        }
    }

    /// The other end: a process with a display, which shows frame 0.
    fn display(&mut self, screen: &mut Screen, face: &str) -> Peer {
        let program = std::env::current_exe().expect("this program").display().to_string();
        let arguments = ["entry", "--exact", "--ignored", "--nocapture", "--test-threads=1"];
        let pipeline = format!(
            "pagecastsrc uri={} face={face} ! kmssink driver-name={DRIVER} force-modesetting=true sync=false",
            self.place.uri()
        );
        let peer = Peer::start_with_env(&program, &arguments, &[(PIPELINE, &pipeline)]);
        assert!(self.publisher.wait_for_subscribers(1, Some(2 * LIMIT)), "no display came");
        // Who asked for memory comes again for dma-bufs, and misses what is published meanwhile.
        let first = expected(0);
        eventually("the display shows the first frame", || {
            self.publish(0, None);
            screen.picture() == first
        });
        peer
    }
}

/// Waits until the screen shows this picture.
fn seen(screen: &mut Screen, number: u64, picture: &Picture) {
    let until = Instant::now() + LIMIT;
    loop {
        let now = screen.picture();
        if now == *picture {
            return;
        }
        let (size, pixel) = ((now.width, now.height), now.differs(picture));
        assert!(Instant::now() < until, "frame {number} is not shown: {size:?}, first other pixel {pixel:?}");
    }
}

const PIPELINE: &str = "PAGECAST_DISPLAY";

/// The side of the display.
#[test]
#[ignore = "runs as a child of other tests"]
fn entry() {
    let Ok(description) = std::env::var(PIPELINE) else { return };
    let pipeline = Pipeline::playing(&description);
    // The test's end is ours.
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    say(&format!("\nfailed {}", pipeline.error()));
}

/// How often the display was asked for these since the trace began.
fn counts(trace: &Trace) -> [usize; 3] {
    [display::IMPORT, display::ADD_FRAMEBUFFER, display::CREATE_DUMB].map(|what| trace.requests(what))
}

/// How often the kernel says that the display is attached to each of these.
fn attached(inodes: &BTreeSet<u64>) -> Vec<usize> {
    let display = device();
    inodes.iter().map(|inode| kernel_says(*inode).matches(&display).count()).collect()
}

#[test]
fn a_display_shows_pages_of_a_device_and_imports_each_once() {
    let Some(mut screen) = Screen::open() else { return };
    shown(&mut screen, Studio::open(heap()), "auto");
}

#[test]
fn a_display_shows_our_own_pages_and_imports_each_once() {
    let Some(mut screen) = Screen::open() else { return };
    shown(&mut screen, Studio::open(BackingChoice::Memfd), "dma-buf");
}

fn heap() -> BackingChoice {
    BackingChoice::DmaHeap("system".to_owned())
}

fn shown(screen: &mut Screen, mut studio: Studio, face: &str) {
    let before = dma_bufs();
    let trace = Trace::begin(Calls::Display);
    let peer = studio.display(screen, face);
    studio.show(screen, 1..ROUNDS);
    let once = counts(&trace);
    let imports = attached(&studio.used);
    assert!(imports.iter().all(|times| *times <= 1), "{imports:?}: none is imported twice");
    let imported = imports.iter().sum::<usize>();
    assert!((KEPT..ROUNDS as usize).contains(&imported), "{imports:?}");
    // kmssink sets the mode with a picture of its own.
    assert_eq!(once, [imported, imported + 1, 1], "imports, framebuffers, pages of its own");
    studio.show(screen, ROUNDS..2 * ROUNDS);
    assert_eq!(counts(&trace), once, "the second half took no request but to show what is known");
    assert_eq!(attached(&studio.used), imports);
    assert!(trace.requests(display::FLIP) >= 2 * ROUNDS as usize - 1);
    drop((trace, peer, studio));
    eventually("the machine's dma-bufs are those of before", || dma_bufs() <= before);
}

/// The control of the two above: what may not be imported is copied into the display's own pages.
#[test]
fn who_gives_memory_is_copied_and_that_is_counted() {
    let Some(mut screen) = Screen::open() else { return };
    let mut studio = Studio::open(BackingChoice::Memfd);
    let trace = Trace::begin(Calls::Display);
    let _peer = studio.display(&mut screen, "memory");
    studio.show(&mut screen, 1..4);
    let [imported, _, own] = counts(&trace);
    assert!(imported == 0 && own > 1, "{imported} imported, {own} pages of its own");
    assert!(attached(&studio.used).iter().all(|times| *times == 0));
}

#[test]
fn a_wrong_pixel_is_seen() {
    let Some(mut screen) = Screen::open() else { return };
    let mut studio = Studio::open(heap());
    let _peer = studio.display(&mut screen, "auto");
    let mut spoilt = expected(2);
    spoilt.bytes[3 * (200 * WIDTH + 100)] ^= 1;
    studio.publish(2, Some((100, 200)));
    seen(&mut screen, 2, &spoilt);
    assert_eq!(screen.picture().differs(&expected(2)), Some((100, 200)));
}
