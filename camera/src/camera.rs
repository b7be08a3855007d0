//! Frames of a camera's own buffers, copies from the reserve on, and a camera that comes back.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pagecast::clock::monotonic_ns;
use pagecast::publisher::ForeignPool;
use pagecast::{Clock, Description, Frame, FrameFlags, Pool, PoolError, PoolOptions, Publisher, Times};

use crate::capture::{Capture, Picture};
use crate::format::Format;
use crate::{CameraError, Device, Mode};

/// How often a camera that is gone is looked for.
const LOOK: Duration = Duration::from_millis(250);
/// How often subscribers learn how the running time goes.
const REFRESH: u64 = 1_000_000_000;

/// How a camera is used.
#[derive(Clone, Debug)]
pub struct CameraOptions {
    /// What it is to capture.
    pub mode: Mode,
    /// Buffers that the driver is asked for.
    pub buffers: u32,
    /// Buffers that stay with the driver: from here on pictures are copied, so that it never lacks one.
    pub reserve: u32,
    /// Where copies go.
    pub pool: PoolOptions,
}

impl Default for CameraOptions {
    fn default() -> Self {
        Self { mode: Mode::default(), buffers: 16, reserve: 3, pool: PoolOptions::default() }
    }
}

/// What [`Camera::step`] found.
#[derive(Debug)]
#[non_exhaustive]
pub enum Step {
    /// A frame, to be published.
    Frame(Frame),
    /// Nothing came in time.
    Nothing,
    /// Subscribers hold all that they may, and the pool for copies is used up: a picture was left out.
    Left,
    /// The camera is not there any more; further steps wait for it.
    Gone(CameraError),
    /// It is there again, and may capture something else: [`Camera::prepare`] tells subscribers.
    Back,
}

/// Figures of a camera.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CameraFigures {
    /// Pictures that became frames.
    pub frames: u64,
    /// Those that needed a copy.
    pub copied: u64,
    /// Pictures that were left out, because the pool for copies was used up.
    pub left: u64,
    /// Pictures that are missing in the driver's own count.
    pub lost: u64,
    /// The fewest buffers that the driver had left when it gave a picture; `None` before the first.
    pub fewest: Option<usize>,
    /// Times the camera came back.
    pub returned: u64,
}

/// A camera that stays the same through being unplugged and plugged in.
pub struct Camera {
    path: PathBuf,
    options: CameraOptions,
    capture: Option<Capture>,
    format: Format,
    /// What is said of every picture of this format.
    picture: Description,
    pool: Pool,
    figures: CameraFigures,
    /// `CLOCK_MONOTONIC` at running time 0.
    base: u64,
    /// The driver's number of the last picture of this life of the stream.
    last: Option<u32>,
    /// Something is missing before the next frame.
    gap: bool,
    /// The last frame needed a copy.
    copied: bool,
    paired: u64,
    looked: Option<Instant>,
}

impl Camera {
    /// Opens a camera and begins to capture.
    ///
    /// # Errors
    /// [`CameraError`] if it is not there, has no such mode, or somebody else captures from it; or if there can be no pool.
    pub fn open(path: impl AsRef<Path>, options: CameraOptions) -> Result<Self, CameraError> {
        let path = path.as_ref().to_owned();
        let pool = Pool::new(options.pool.clone());
        pool.check()?;
        let capture = start(&path, &options)?;
        let format = capture.format().clone();
        let picture = describe(&format);
        Ok(Self {
            path,
            options,
            capture: Some(capture),
            format,
            picture,
            pool,
            figures: CameraFigures::default(),
            base: monotonic_ns(),
            last: None,
            gap: false,
            copied: false,
            paired: 0,
            looked: None,
        })
    }

    /// What it captures.
    pub fn format(&self) -> &Format {
        &self.format
    }

    /// Where copies go.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Its figures.
    pub fn figures(&self) -> CameraFigures {
        self.figures
    }

    /// What the camera is called, and how it is used; `None` while it is gone.
    pub fn describe(&self) -> Option<String> {
        let capture = self.capture.as_ref()?;
        let how = match capture.is_exported() {
            true => "its own, as dma-bufs",
            false => "copied: this driver exports no dma-bufs",
        };
        let (device, format, buffers) = (capture.device(), capture.format(), capture.buffers());
        Some(format!("{} ({}), {format}, {buffers} buffers, {how}", device.card(), device.driver()))
    }

    /// Tells a publisher what is going to come.
    ///
    /// # Errors
    /// If the publisher is closed.
    pub fn prepare(&self, publisher: &Publisher) -> Result<(), CameraError> {
        publisher.set_pool(&self.pool);
        publisher.set_live(true);
        // The driver waits for every buffer: it must not come back a moment later than it could.
        publisher.set_attentive(true);
        if let Some(caps) = self.format.caps() {
            publisher.set_caps(&caps)?;
        }
        Ok(())
    }

    /// Publishes a frame of [`Step::Frame`], and what belongs to it.
    ///
    /// # Errors
    /// As [`Publisher::publish`].
    pub fn publish(&mut self, publisher: &Publisher, frame: &Frame) -> Result<(), CameraError> {
        let now = monotonic_ns();
        if now.saturating_sub(self.paired) >= REFRESH {
            self.paired = now;
            let duration = self.format.duration().unwrap_or(0);
            publisher.set_clock(Clock {
                monotonic: now,
                running: Some(now.saturating_sub(self.base)),
                latency_min: duration,
                latency_max: Some(duration * u64::from(self.options.buffers)),
            });
        }
        self.tell(publisher);
        publisher.publish(frame)?;
        if self.copied {
            publisher.count_copied();
        }
        Ok(())
    }

    /// Tells a publisher how the driver's buffers are doing, as [`Camera::publish`] does with every frame.
    pub fn tell(&self, publisher: &Publisher) {
        let figures = &self.figures;
        publisher.set_foreign_pool(Some(ForeignPool {
            buffers: self.capture.as_ref().map_or(0, |capture| capture.buffers() as u32),
            reserve: self.options.reserve,
            fewest: figures.fewest.map(|fewest| fewest as u32),
            missed: figures.lost,
            left_out: figures.left,
        }));
    }

    /// Waits for the next picture, or for the camera to come back.
    ///
    /// # Errors
    /// Those that waiting will not mend; that the camera is gone is none, see [`Step::Gone`].
    pub fn step(&mut self, timeout: Option<Duration>) -> Result<Step, CameraError> {
        let Some(capture) = &self.capture else { return self.look(timeout) };
        match capture.next(timeout) {
            Ok(Some(picture)) => self.frame(picture),
            Ok(None) => Ok(Step::Nothing),
            Err(error) if error.is_gone() => {
                self.capture = None;
                self.last = None;
                self.gap = true;
                Ok(Step::Gone(error))
            }
            Err(error) => Err(error),
        }
    }

    /// Looks whether the camera is back.
    fn look(&mut self, timeout: Option<Duration>) -> Result<Step, CameraError> {
        let pause = LOOK.saturating_sub(self.looked.map_or(LOOK, |looked| looked.elapsed()));
        std::thread::sleep(timeout.map_or(pause, |timeout| pause.min(timeout)));
        if timeout.is_some_and(|timeout| timeout < pause) {
            return Ok(Step::Nothing);
        }
        self.looked = Some(Instant::now());
        match start(&self.path, &self.options) {
            Ok(capture) => {
                self.format = capture.format().clone();
                self.picture = describe(&self.format);
                self.capture = Some(capture);
                self.figures.returned += 1;
                Ok(Step::Back)
            }
            // A node that has just come may not be ours yet, or not answer yet.
            Err(error) => {
                tracing::debug!("not yet: {error}");
                Ok(Step::Nothing)
            }
        }
    }

    fn frame(&mut self, picture: Picture) -> Result<Step, CameraError> {
        let lost = self.last.map_or(0, |last| missing(last, picture.sequence));
        self.figures.lost += u64::from(lost);
        self.gap |= lost > 0;
        self.last = Some(picture.sequence);
        let builder = Frame::builder().describe(self.description(&picture));
        let queued = self.capture.as_ref().map_or(0, Capture::queued);
        self.figures.fewest = Some(self.figures.fewest.map_or(queued, |fewest| fewest.min(queued)));
        let spare = queued >= self.options.reserve as usize;
        self.copied = !(spare && picture.is_exported());
        let built = if self.copied {
            let size = picture.size();
            let mut lease = match self.pool.acquire(size) {
                Ok(lease) => lease,
                Err(error) => return self.left(&error),
            };
            picture.copy_to(lease.as_mut_slice())?;
            self.figures.copied += 1;
            builder.lease(lease, size)
        } else {
            picture.segments(builder).owner(picture)
        };
        self.gap = false;
        self.figures.frames += 1;
        Ok(Step::Frame(built.build()?))
    }

    fn left(&mut self, error: &PoolError) -> Result<Step, CameraError> {
        tracing::debug!("a picture is left out: {error}");
        self.figures.left += 1;
        self.gap = true;
        Ok(Step::Left)
    }

    fn description(&self, picture: &Picture) -> Description {
        let captured = picture.captured.unwrap_or_else(monotonic_ns);
        let running = captured.saturating_sub(self.base);
        let mut description = self.picture.clone();
        description.flags.set(FrameFlags::DISCONT, self.gap);
        description.offset = Some(u64::from(picture.sequence));
        let times = &mut description.times;
        (times.pts, times.running, times.captured) = (Some(running), Some(running), Some(captured));
        description
    }
}

/// Pictures between two that follow each other in the driver's count, which wraps; none where it began anew.
fn missing(last: u32, sequence: u32) -> u32 {
    match sequence.wrapping_sub(last) {
        0 | 0x8000_0000.. => 0,
        step => step - 1,
    }
}

fn describe(format: &Format) -> Description {
    Description {
        times: Times { duration: format.duration(), ..Times::default() },
        width: format.size.0,
        height: format.size.1,
        planes: format.planes().into_iter().collect(),
        ..Description::default()
    }
}

fn start(path: &Path, options: &CameraOptions) -> Result<Capture, CameraError> {
    let device = Device::open(path)?;
    let format = device.set(&options.mode)?;
    Capture::start(device, format, options.buffers)
}

#[cfg(test)]
mod tests {
    use super::missing;

    #[test]
    fn missing_pictures_are_counted_over_the_end_and_not_backwards() {
        assert_eq!(
            [missing(6, 7), missing(6, 9), missing(u32::MAX, 0), missing(u32::MAX - 1, 2)],
            [0, 2, 0, 3]
        );
        assert_eq!([missing(7, 7), missing(700, 0), missing(9, 8)], [0, 0, 0]);
    }
}
