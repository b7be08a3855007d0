//! An application that had one camera and several readers in one process, and gave each of them an
//! `Arc<[u8]>` of every frame: one copy out of the camera's buffer, one allocation per frame. With frames
//! instead of `Arc<[u8]>` nothing is copied, other processes may read too, and a buffer goes back to the
//! camera when its last reader drops it.
//!
//! ```sh
//! cargo run -p pagecast-examples --example camera_app -- --frames 120
//! cargo run -p pagecast-examples --example camera_app -- --device /dev/video0    # a real one, by V4L2
//! cargo run -p pagecast-examples --example subscribe -- --uri unix:camera    # beside it
//! ```
//!
//! What it shows: `on_last_release` queues a buffer to the camera again; readers keep frames as long as they
//! like, also when the camera is gone; and where they keep too many, the camera's last buffers are protected
//! by copies into a pool of our own, which is counted and named. With `--device` all of that is done by
//! `pagecast_camera`, whose buffers are the driver's own.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use pagecast::{Description, Frame, Lease, Pool, PoolOptions, Publisher, PublisherOptions};
use pagecast_camera::{Camera, CameraOptions, Step};
use pagecast_examples::{Outcome, draw, is_drawn, option};

const WIDTH: usize = 640;
const SIZE: usize = WIDTH * 480;
/// Buffers that this camera has; no driver gives more than it was asked for at the start.
const BUFFERS: usize = 6;
/// So many must stay with the camera, or it would lose frames.
const RESERVE: usize = 2;

/// A camera that is drawn, with a fixed set of buffers: it fills those that are queued, in turn.
struct Drawn {
    queue: Sender<Lease>,
    queued: Receiver<Lease>,
    ready: Vec<Lease>,
}

impl Drawn {
    fn open() -> Result<Self, Box<dyn std::error::Error>> {
        let pool = Pool::new(PoolOptions::default());
        let (queue, queued) = channel();
        let ready = (0..BUFFERS).map(|_| pool.acquire(SIZE)).collect::<Result<_, _>>()?;
        Ok(Self { queue, queued, ready })
    }

    /// The next picture in one of the camera's own buffers.
    fn capture(&mut self, number: u64) -> Result<Lease, Box<dyn std::error::Error>> {
        self.ready.extend(self.queued.try_iter());
        let mut buffer = self.ready.pop().ok_or("the camera has no buffer left")?;
        draw(&mut buffer.as_mut_slice()[..SIZE], WIDTH, number);
        Ok(buffer)
    }
}

/// What becomes of a picture: a frame, of the camera's own buffer where it can be spared.
struct Frames {
    own: Pool,
    copied: u64,
}

impl Frames {
    fn make(&mut self, camera: &mut Drawn, number: u64) -> Result<Frame, Box<dyn std::error::Error>> {
        let buffer = camera.capture(number)?;
        let builder =
            Frame::builder().describe(Description { offset: Some(number), ..Description::default() });
        if camera.ready.len() >= RESERVE {
            let queue = camera.queue.clone();
            let pages = buffer.buffer().clone();
            // After the camera is closed nobody listens; then the buffer is simply freed.
            let requeue = move || drop(queue.send(buffer));
            return Ok(builder.segment(pages, 0, SIZE).on_last_release(requeue).build()?);
        }
        if self.copied == 0 {
            println!(
                "fallback: frames are copied while readers hold {} of {BUFFERS} buffers",
                BUFFERS - RESERVE
            );
        }
        self.copied += 1;
        let mut copy = self.own.acquire(SIZE)?;
        let mut buffer = buffer;
        copy.write(0, &buffer.as_mut_slice()[..SIZE])?;
        camera.queue.send(buffer)?;
        Ok(builder.lease(copy, SIZE).build()?)
    }
}

/// A reader's thread; it ends with how many frames it read, and those it kept.
type Reader = JoinHandle<Result<(u64, Vec<Frame>), String>>;

/// A reader that keeps its last `keep` frames, as a recorder or tracker does.
fn reader(keep: usize) -> (Sender<Frame>, Reader) {
    let (sender, frames) = channel::<Frame>();
    let thread = std::thread::spawn(move || {
        let (mut read, mut kept) = (0, Vec::new());
        for frame in frames {
            check(&frame)?;
            read += 1;
            kept.push(frame);
            if kept.len() > keep {
                kept.remove(0);
            }
        }
        Ok((read, kept))
    });
    (sender, thread)
}

/// The same readers behind a camera of V4L2; they count what they can read.
fn film(device: &str, publisher: &Publisher, count: u64) -> Outcome {
    // What is kept here, and what a subscriber may hold and have waiting, leaves the driver enough.
    let mut camera = Camera::open(device, CameraOptions { buffers: 32, ..CameraOptions::default() })?;
    println!("{}", camera.describe().unwrap_or_default());
    camera.prepare(publisher)?;
    let (mut kept, mut read) = (VecDeque::new(), 0_usize);
    while camera.figures().frames < count {
        match camera.step(Some(Duration::from_secs(5)))? {
            Step::Frame(frame) => {
                camera.publish(publisher, &frame)?;
                read += frame.to_vec()?.len();
                kept.push_back(frame);
                if kept.len() > option("--keep", 8)? {
                    kept.pop_front();
                }
            }
            Step::Gone(reason) => println!("{reason}; waiting for it"),
            Step::Back => camera.prepare(publisher)?,
            Step::Nothing => println!("no picture for 5 s"),
            _ => {}
        }
    }
    let figures = camera.figures();
    drop(camera);
    // The camera is closed; what was kept is still there.
    let last: usize =
        kept.iter().map(|frame| frame.to_vec().map(|bytes| bytes.len())).sum::<Result<_, _>>()?;
    publisher.publish_event("eos", &[])?;
    publisher.close(Duration::from_secs(1));
    println!(
        "frames {}, read {read} bytes, copied {}, kept after the end {} of {last} bytes",
        figures.frames,
        figures.copied,
        kept.len()
    );
    Ok(())
}

fn check(frame: &Frame) -> Result<(), String> {
    let number = frame.description().offset.unwrap_or_default();
    let guard = frame.read().map_err(|error| error.to_string())?;
    let picture = guard.bytes(0).ok_or("others can write these pages")?;
    let good = is_drawn(picture, WIDTH, number);
    guard.finish().map_err(|error| error.to_string())?;
    if good { Ok(()) } else { Err(format!("frame {number} is not what the camera saw")) }
}

fn main() -> Outcome {
    let count = option("--frames", 120_u64)?;
    let publisher =
        Publisher::open(&option("--uri", "unix:camera".to_owned())?, PublisherOptions::default())?;
    let device = option("--device", String::new())?;
    if !device.is_empty() {
        publisher.wait_for_subscribers(option("--wait", 0)?, Some(Duration::from_secs(30)));
        return film(&device, &publisher, count);
    }
    publisher.set_caps("video/x-raw, format=GRAY8, width=640, height=480, framerate=60/1")?;
    publisher.wait_for_subscribers(option("--wait", 0)?, Some(Duration::from_secs(30)));
    let mut camera = Drawn::open()?;
    let mut frames = Frames { own: Pool::new(PoolOptions::default()), copied: 0 };
    // A preview, a recorder, and a tracker that looks back further than the camera has buffers.
    let readers: Vec<_> = [0, 2, option("--keep", 8)?].into_iter().map(reader).collect();
    for number in 0..count {
        let frame = frames.make(&mut camera, number)?;
        publisher.publish(&frame)?;
        for (sender, _) in &readers {
            sender.send(frame.clone())?; // as cheap as cloning an Arc
        }
        drop(frame);
        std::thread::sleep(Duration::from_millis(16));
    }
    publisher.publish_event("eos", &[])?;
    publisher.close(Duration::from_secs(1));
    drop((camera, publisher));
    let (mut read, mut kept) = (0, Vec::new());
    for (sender, thread) in readers {
        drop(sender);
        let (frames, last) = thread.join().map_err(|_| "a reader panicked")??;
        read += frames;
        kept.extend(last);
    }
    // The camera and its pipeline are gone; what was kept is still what it was.
    kept.iter().try_for_each(check)?;
    println!("frames {count}, read {read}, copied {}, kept after the end {}", frames.copied, kept.len());
    Ok(())
}
