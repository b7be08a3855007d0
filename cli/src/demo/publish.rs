//! The demonstration's publisher.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pagecast::{
    Buffer, Description, Frame, Hooks, Info, Plane, Policy, Pool, PoolOptions, Publisher, PublisherOptions,
};
use serde::{Deserialize, Serialize};

use super::picture::{HEIGHT, Picture, SIZE, WIDTH};
use crate::stamp;
use crate::workers::child::{Control, say};
use crate::workers::pace::Pacer;
use crate::workers::usage::Usage;

/// How often workers report.
pub(super) const REPORT_EVERY: Duration = Duration::from_millis(50);

/// What the publisher is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PublisherJob {
    pub(super) socket: PathBuf,
    pub(super) fps: u32,
    /// Buffers that the pool may have.
    pub(super) buffers: u64,
    /// The most a subscriber may ask for: the relay serves several.
    pub(super) credits: u32,
    pub(super) mailbox: u32,
    /// A defect to show that the checks find it; in test builds only.
    pub(super) defect: Option<Defect>,
}

/// Ways to be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Defect {
    /// Writes into pages that subscribers still hold.
    ReuseEarly,
    /// Leaves out a frame now and then.
    DropFrame,
    /// Changes a byte now and then.
    Corrupt,
}

/// What the publisher reports.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct PublisherReport {
    /// Frames published.
    pub(super) frames: u64,
    /// Frames that came too late, because the machine is too slow.
    pub(super) late: u64,
    /// Frames for which no buffer was free: the budget was broken.
    pub(super) starved: u64,
    pub(super) fps: f64,
    pub(super) cpu_seconds: f64,
    pub(super) info: Info,
}

/// A subscriber that is no longer served.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Departed {
    pub(super) id: u64,
    /// `CLOCK_MONOTONIC`, nanoseconds; its frames are back by then.
    pub(super) at: u64,
    pub(super) why: String,
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Publishes the moving picture until it is told to stop; `fps N` changes the pace.
pub(crate) fn publish(job: &PublisherJob, control: &Control) -> Result<(), String> {
    let footprint = Pool::new(PoolOptions::default()).footprint(SIZE) as u64;
    let limit = footprint * job.buffers;
    let pool = Pool::new(PoolOptions { limit, ..PoolOptions::default() });
    let options = PublisherOptions {
        name: "demo".to_owned(),
        policy: Policy::DropOldest,
        limit,
        credits: Some(job.credits),
        mailbox: Some(job.mailbox),
        ..PublisherOptions::default()
    };
    let departed = |id, why: &pagecast::publisher::Departure| {
        say("departed", &Departed { id, at: pagecast::clock::monotonic_ns(), why: format!("{why:?}") });
    };
    let hooks = Hooks { disconnected: Some(Box::new(departed)), ..Hooks::default() };
    let uri = format!("unix:{}", job.socket.display());
    let publisher = Publisher::open_with(&uri, options, hooks).map_err(text)?;
    publisher.set_pool(&pool);
    let caps = format!("video/x-raw, format=NV12, width={WIDTH}, height={HEIGHT}, framerate={}/1", job.fps);
    publisher.set_caps(&caps).map_err(text)?;
    pool.populate(SIZE, job.buffers as usize).map_err(text)?;
    let mut source = Source::new(job, pool, publisher);
    say("ready", &source.report());
    source.run(control)?;
    say("done", &source.report());
    source.publisher.close(Duration::from_millis(200));
    Ok(())
}

struct Source {
    picture: Picture,
    pool: Pool,
    publisher: Publisher,
    pacer: Pacer,
    fps: u32,
    defect: Option<Defect>,
    frames: u64,
    starved: u64,
    late: u64,
    /// The newest frame's buffer, for the publisher that is broken on purpose.
    last: Option<Arc<Buffer>>,
}

impl Source {
    fn new(job: &PublisherJob, pool: Pool, publisher: Publisher) -> Self {
        let (picture, pacer) = (Picture::new(), Pacer::new(Some(job.fps)));
        let (fps, defect) = (job.fps, job.defect);
        Self { picture, pool, publisher, pacer, fps, defect, frames: 0, starved: 0, late: 0, last: None }
    }

    fn run(&mut self, control: &Control) -> Result<(), String> {
        if !control.wait_for_go() {
            return Ok(());
        }
        self.pacer = Pacer::new(Some(self.fps));
        let mut next_report = Instant::now();
        while !control.stopped() {
            if let Some(word) = control.next(Duration::ZERO)
                && let Some(fps) = word.strip_prefix("fps ").and_then(|fps| fps.parse().ok())
            {
                self.late += self.pacer.late();
                self.pacer = Pacer::new(Some(fps));
                self.fps = fps;
            }
            self.pacer.wait();
            self.put()?;
            if Instant::now() >= next_report {
                next_report = Instant::now() + REPORT_EVERY;
                say("report", &self.report());
            }
        }
        Ok(())
    }

    fn put(&mut self) -> Result<(), String> {
        let Ok(mut lease) = self.pool.acquire(SIZE) else {
            self.starved += 1;
            return Ok(());
        };
        self.frames += 1;
        let number = self.frames;
        let bytes = &mut lease.as_mut_slice()[..SIZE];
        self.picture.draw(bytes, number);
        stamp::write(bytes, number);
        if self.defect == Some(Defect::Corrupt) && number.is_multiple_of(20) {
            bytes[100 * stamp::PAGE] ^= 1;
        }
        if self.defect == Some(Defect::DropFrame) && number.is_multiple_of(40) {
            return Ok(());
        }
        let buffer = lease.buffer().clone();
        let frame = Frame::builder().describe(describe(number, self.fps)).lease(lease, SIZE);
        self.publisher.publish(&frame.build().map_err(text)?).map_err(text)?;
        if self.defect == Some(Defect::ReuseEarly) {
            self.reuse_early(buffer, number);
        }
        Ok(())
    }

    /// Writes a later stamp into the frame before this one, which the verifier still holds.
    fn reuse_early(&mut self, buffer: Arc<Buffer>, number: u64) {
        if let Some(mapping) = self.last.replace(buffer).as_ref().and_then(|last| last.mapping()) {
            let stamp = stamp::stamp(number + 1, 7).to_le_bytes();
            let _ = mapping.copy_from(7 * stamp::PAGE, &stamp);
        }
    }

    fn report(&self) -> PublisherReport {
        let info = self.publisher.info();
        PublisherReport {
            frames: self.frames,
            late: self.late + self.pacer.late(),
            starved: self.starved,
            fps: info.publisher.fps,
            cpu_seconds: Usage::now().cpu_seconds,
            info,
        }
    }
}

fn describe(number: u64, fps: u32) -> Description {
    let mut description = Description {
        offset: Some(number),
        width: WIDTH as u32,
        height: HEIGHT as u32,
        ..Description::default()
    };
    description.times.captured = Some(pagecast::clock::monotonic_ns());
    description.times.pts = Some(number * 1_000_000_000 / u64::from(fps.max(1)));
    let stride = WIDTH as i32;
    description.planes.push(Plane { offset: 0, stride });
    description.planes.push(Plane { offset: (WIDTH * HEIGHT) as u64, stride });
    description
}
