//! Producers: the bare source, the library, the floor.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pagecast::{Frame, Policy, Publisher, PublisherOptions};

use super::contender::Transport;
use super::job::{Job, Measured, fill};
use super::{floor, iperf, perftest, tcp_loop};
use crate::workers::child::{Control, say};
use crate::workers::memory::Memory;
use crate::workers::pace::Pacer;
use crate::workers::usage::Usage;

/// How long a producer may be held before the run counts as broken.
const PATIENCE: Duration = Duration::from_secs(20);

/// Does a producer's part of a run.
pub(crate) fn produce(job: &Job, control: &Arc<Control>) -> Result<(), String> {
    match job.contender.transport {
        Transport::Source => bare(job, control),
        Transport::Pagecast | Transport::PagecastTcp | Transport::PagecastRdma => library(job, control),
        Transport::Seqpacket => floor::produce(job, control),
        Transport::TcpLoop | Transport::TcpLoopNear => tcp_loop::produce(job, control),
        Transport::Iperf3 => iperf::produce(job, control),
        Transport::IbWriteBw => perftest::produce(job, control),
        #[cfg(feature = "gstreamer")]
        _ => super::gstreamer::produce(job, control),
        #[cfg(not(feature = "gstreamer"))]
        _ => Err("built without GStreamer".to_owned()),
    }
}

/// Numbers the frames, keeps the pace, and measures what all after the warm-up takes.
pub(super) struct Meter {
    pacer: Pacer,
    number: u64,
    warmup: u64,
    end: u64,
    first: Usage,
}

impl Meter {
    pub(super) fn new(job: &Job) -> Self {
        let (warmup, end) = (job.warmup, job.end());
        Self { pacer: Pacer::new(job.fps), number: 0, warmup, end, first: Usage::now() }
    }

    /// The number of the frame that is due now; `None` after the last.
    pub(super) fn next(&mut self) -> Option<u64> {
        let number = self.number;
        if number == self.end {
            return None;
        }
        self.pacer.wait();
        if number == self.warmup {
            self.first = Usage::now();
        }
        self.number += 1;
        Some(number)
    }

    pub(super) fn measured(&self) -> Measured {
        let usage = Usage::now().since(&self.first);
        let (frames, late) = (self.end - self.warmup, self.pacer.late());
        Measured { usage, frames, late, ..Measured::default() }
    }
}

/// Calls `put` for every frame at the job's pace, and measures what that takes after the warm-up.
pub(super) fn measure(
    job: &Job,
    control: &Control,
    mut put: impl FnMut(u64) -> Result<(), String>,
) -> Result<Measured, String> {
    let mut meter = Meter::new(job);
    while let Some(number) = meter.next() {
        if control.stopped() {
            return Err("stopped before the end".to_owned());
        }
        put(number)?;
    }
    Ok(meter.measured())
}

/// Reports, and lives on until everybody has.
pub(super) fn finish(mut measured: Measured, control: &Control) {
    measured.memory = Memory::own();
    say("done", &measured);
    control.wait_for_stop();
}

fn bare(job: &Job, control: &Control) -> Result<(), String> {
    let pool = job.pool()?;
    say("ready", &());
    if !control.wait_for_go() {
        return Ok(());
    }
    let measured = measure(job, control, |number| {
        let mut lease = pool.acquire(job.bytes()).map_err(|error| error.to_string())?;
        fill(&mut lease.as_mut_slice()[..job.bytes()], number);
        Ok(())
    })?;
    finish(measured, control);
    Ok(())
}

fn library(job: &Job, control: &Control) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let live = job.fps.is_some();
    let options = PublisherOptions {
        live,
        policy: Policy::Auto,
        limit: job.pool_limit,
        block_deadline: Some(PATIENCE),
        remote: job.remote(),
        ..PublisherOptions::default()
    };
    let pool = job.pool()?;
    let publisher = Publisher::open(&job.uri(), options).map_err(|error| text(&error))?;
    publisher.set_pool(&pool);
    say("ready", &publisher.info().uri);
    let consumers = job.contender.consumers as usize;
    if !publisher.wait_for_subscribers(consumers, Some(PATIENCE)) {
        return Err(format!("only {} of {consumers} subscribers came", publisher.subscribers()));
    }
    say("connected", &());
    if !control.wait_for_go() {
        return Ok(());
    }
    let size = job.bytes();
    let mut measured = measure(job, control, |number| {
        let until = Some(Instant::now() + PATIENCE);
        let lease = pool.acquire_by(size, until, || !control.stopped());
        let mut lease = lease.map_err(|error| text(&error))?;
        fill(&mut lease.as_mut_slice()[..size], number);
        let frame = Frame::builder().lease(lease, size).build().map_err(|error| text(&error))?;
        publisher.publish(&frame).map_err(|error| text(&error))
    })?;
    measured.copied = Some(publisher.info().publisher.copied);
    finish(measured, control);
    Ok(())
}
