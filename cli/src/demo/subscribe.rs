//! The demonstration's subscribers: two check every page, one makes small pictures, one records, one only watches.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::uio::pwrite;
use nix::unistd::ftruncate;
use pagecast::{Frame, Message, Rate, RecvError, Subscriber, SubscriberOptions};
use serde::{Deserialize, Serialize};

use super::picture::{small_planar, small_rgb, write_png};
use super::publish::REPORT_EVERY;
use crate::stamp;
use crate::workers::child::{Control, say};
use crate::workers::usage::Usage;

/// Between two pictures of the scaler.
const PICTURES: Duration = Duration::from_millis(500);
/// Frames per second of the viewer.
const VIEWS: u32 = 10;
/// The recording is this many times smaller than the picture, each way.
const RECORD_FACTOR: usize = 12;
/// The recording ends at this size.
const RECORD_LIMIT: u64 = 64 << 20;

/// What a subscriber does with frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Task {
    Verify,
    Scale,
    Record,
    /// As the verifier, of frames that came over TCP.
    Remote,
    /// Over TCP, too, and content with few.
    View,
}

impl Task {
    /// Whether the scene stops it for a while.
    pub(super) fn is_to_stop(self) -> bool {
        matches!(self, Task::Record | Task::View)
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Task::Verify => "verifier",
            Task::Scale => "scaler",
            Task::Record => "recorder",
            Task::Remote => "remote",
            Task::View => "viewer",
        }
    }
}

/// What a subscriber is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SubscriberJob {
    pub(super) uri: String,
    pub(super) task: Task,
    /// Frames it asks to hold.
    pub(super) credits: u32,
    /// Scale and record in pipelines.
    pub(super) pipelines: bool,
    /// What it writes, if it writes.
    pub(super) file: PathBuf,
}

/// What a subscriber reports.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct SubscriberReport {
    /// Frames received.
    pub(super) frames: u64,
    /// Frames missing, by the numbers in the pages.
    pub(super) lost: u64,
    /// Frames that the link says this subscriber was too slow for.
    pub(super) dropped: u64,
    /// Frames with a page that is not their own.
    pub(super) bad: u64,
    /// The first of them.
    pub(super) first_bad: Option<String>,
    /// Attempts to write into the pages, and how many of them were refused.
    pub(super) write_attempts: u32,
    pub(super) writes_refused: u32,
    /// Pictures or frames written.
    pub(super) written: u64,
    pub(super) cpu_seconds: f64,
    pub(super) latency_p50_us: f64,
}

impl SubscriberReport {
    /// Takes note of a frame's number: those between it and the last one are missing.
    pub(super) fn follow(&mut self, last: &mut Option<u64>, number: u64) {
        let expected = last.map_or(number, |last| last + 1);
        match number.checked_sub(expected) {
            Some(missing) => self.lost += missing,
            None => self.found_bad(format!("frame {number} came after frame {}", expected - 1)),
        }
        *last = Some(number);
    }

    pub(super) fn found_bad(&mut self, what: String) {
        self.bad += 1;
        self.first_bad.get_or_insert(what);
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Receives until it is told to stop.
pub(crate) fn subscribe(job: &SubscriberJob, control: &Control) -> Result<(), String> {
    #[cfg(feature = "gstreamer")]
    if job.pipelines && matches!(job.task, Task::Scale | Task::Record) {
        return super::pipeline::subscribe(job, control);
    }
    let name = job.task.as_str().to_owned();
    // Who says nothing for some seconds, because it is stopped, is cut off by a remote publisher.
    let reconnect = job.task == Task::View;
    let max_rate = (job.task == Task::View).then_some(Rate { frames: VIEWS, seconds: 1 });
    let credits = Some(job.credits);
    let options = SubscriberOptions { name, reconnect, max_rate, credits, ..SubscriberOptions::default() };
    let subscriber = Subscriber::open(&job.uri, options).map_err(text)?;
    let mut worker = Worker {
        job,
        report: SubscriberReport::default(),
        last: None,
        kept: None,
        next_picture: Instant::now(),
        recording: None,
        recorded: 0,
    };
    let mut next_report = Instant::now();
    while !control.stopped() {
        match subscriber.recv(Some(REPORT_EVERY)) {
            Ok(Message::Connected(_)) => say("ready", &()),
            Ok(Message::Frame(frame)) => worker.take(frame)?,
            Ok(_) | Err(RecvError::Timeout) => {}
            Err(RecvError::Closed | RecvError::Refused { .. }) => break,
            Err(error) => return Err(text(error)),
        }
        if Instant::now() >= next_report {
            next_report = Instant::now() + REPORT_EVERY;
            say("report", &worker.report(&subscriber));
        }
    }
    worker.kept = None;
    worker.finish()?;
    say("done", &worker.report(&subscriber));
    Ok(())
}

struct Worker<'a> {
    job: &'a SubscriberJob,
    report: SubscriberReport,
    last: Option<u64>,
    /// The frame before the newest: it must stay what it was for as long as it is held.
    kept: Option<(u64, Frame)>,
    next_picture: Instant,
    recording: Option<BufWriter<File>>,
    recorded: u64,
}

impl Worker<'_> {
    fn take(&mut self, frame: Frame) -> Result<(), String> {
        self.report.frames += 1;
        match self.job.task {
            Task::Verify | Task::Remote => {
                self.verify(frame);
                Ok(())
            }
            Task::View => self.count(&frame),
            Task::Scale => {
                self.count(&frame)?;
                self.scale(&frame)
            }
            Task::Record => {
                self.count(&frame)?;
                self.record(&frame)
            }
        }
    }

    /// Counts missing numbers by the stamp in the first page.
    fn count(&mut self, frame: &Frame) -> Result<(), String> {
        let guard = frame.read().map_err(text)?;
        let mut bytes = [0; 8];
        guard.copy_to(0, &mut bytes).map_err(text)?;
        guard.finish().map_err(text)?;
        let (number, page) = stamp::read_stamp(u64::from_le_bytes(bytes));
        match page {
            0 => self.follow(number),
            _ => self.bad(format!("no stamp in the first page: {bytes:x?}")),
        }
        Ok(())
    }

    fn follow(&mut self, number: u64) {
        self.report.follow(&mut self.last, number);
    }

    fn bad(&mut self, what: String) {
        self.report.found_bad(what);
    }

    /// Checks every page twice: when the frame comes, and again when it is given back.
    fn verify(&mut self, frame: Frame) {
        if self.report.write_attempts == 0 && self.job.task == Task::Verify {
            self.try_to_write(&frame);
        }
        if let Some((number, kept)) = self.kept.take() {
            match stamp::check(&kept) {
                Ok(found) if found == number => {}
                Ok(found) => self.bad(format!("frame {number} became frame {found} while it was held")),
                Err(error) => self.bad(format!("while it was held: {error}")),
            }
        }
        match stamp::check(&frame) {
            Ok(number) => {
                self.follow(number);
                self.kept = Some((number, frame));
            }
            Err(error) => {
                self.bad(error.to_string());
                // It came, whatever is in it.
                self.last = self.last.map(|last| last + 1);
            }
        }
    }

    /// What a hostile subscriber would try; the kernel must refuse each.
    fn try_to_write(&mut self, frame: &Frame) {
        for plane in frame.planes() {
            let by_mapping = map_writable(plane.fd);
            let by_write = pwrite(plane.fd, &[0xff; 8], plane.offset as i64).is_ok();
            let by_truncation = ftruncate(plane.fd, 4096).is_ok();
            for succeeded in [by_mapping, by_write, by_truncation] {
                self.report.write_attempts += 1;
                self.report.writes_refused += u32::from(!succeeded);
            }
        }
    }

    fn scale(&mut self, frame: &Frame) -> Result<(), String> {
        if Instant::now() < self.next_picture {
            return Ok(());
        }
        self.next_picture = Instant::now() + PICTURES;
        let guard = frame.read().map_err(text)?;
        let bytes = guard.bytes(0).ok_or("others may write into the frame")?;
        let (width, height, rgb) = small_rgb(bytes, 4);
        guard.finish().map_err(text)?;
        write_png(&self.job.file, width, height, &rgb).map_err(text)?;
        self.report.written += 1;
        Ok(())
    }

    fn record(&mut self, frame: &Frame) -> Result<(), String> {
        if self.recorded > RECORD_LIMIT {
            return Ok(());
        }
        let guard = frame.read().map_err(text)?;
        let bytes = guard.bytes(0).ok_or("others may write into the frame")?;
        let (width, height, planes) = small_planar(bytes, RECORD_FACTOR);
        guard.finish().map_err(text)?;
        if self.recording.is_none() {
            let mut file = BufWriter::new(File::create(&self.job.file).map_err(text)?);
            writeln!(file, "YUV4MPEG2 W{width} H{height} F60:1 Ip A1:1 C420jpeg").map_err(text)?;
            self.recording = Some(file);
        }
        if let Some(file) = &mut self.recording {
            file.write_all(b"FRAME\n").and_then(|()| file.write_all(&planes)).map_err(text)?;
        }
        self.recorded += planes.len() as u64;
        self.report.written += 1;
        Ok(())
    }

    fn finish(&mut self) -> Result<(), String> {
        self.recording.take().map_or(Ok(()), |mut file| file.flush().map_err(text))
    }

    fn report(&self, subscriber: &Subscriber) -> SubscriberReport {
        let figures = subscriber.figures();
        SubscriberReport {
            dropped: figures.dropped,
            cpu_seconds: Usage::now().cpu_seconds,
            latency_p50_us: figures.latency_us.p50,
            ..self.report.clone()
        }
    }
}

/// Whether the pages can be mapped for writing.
fn map_writable(fd: BorrowedFd<'_>) -> bool {
    let length = NonZeroUsize::new(4096).unwrap_or(NonZeroUsize::MIN);
    let (protection, flags) = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED);
    // SAFETY: a new mapping at an address of the kernel's choice touches nothing that is there already; it
    // is neither read nor written, and goes at once.
    unsafe {
        match mmap(None, length, protection, flags, fd, 0) {
            Ok(at) => {
                let _ = munmap(at, length.get());
                true
            }
            Err(_) => false,
        }
    }
}
