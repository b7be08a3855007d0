//! One run of one contender.

use std::time::Duration;

use pagecast::latency::LatencyFigures;
use serde::Serialize;

use super::contender::Transport;
use super::job::{Job, Measured};
use super::link::LinkRun;
use super::wire;
use crate::exit::Failure;
use crate::workers::Role;
use crate::workers::fleet::Fleet;
use crate::workers::memory;

/// For connecting.
const SET_UP: Duration = Duration::from_secs(30);
/// For everybody to end.
const PATIENCE: Duration = Duration::from_secs(3);

/// What one run came to.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Run {
    /// Why it came to nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    /// Frames measured.
    pub(crate) frames: u64,
    /// Frames that some consumer did not get; if not 0 the run enters no median.
    pub(crate) dropped: u64,
    /// Frames with bytes that are not their own, where that was looked at; then the run enters no median.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) wrong: Option<u64>,
    /// Frames that the source could not make in time.
    pub(crate) late: u64,
    /// Of the producer, in the measured span.
    pub(crate) producer_cpu_seconds: f64,
    /// Of each consumer.
    pub(crate) consumer_cpu_seconds: Vec<f64>,
    /// Minor page faults of all.
    pub(crate) minor_faults: i64,
    /// Bytes of all: private memory, shared pages and memory files, once each.
    pub(crate) memory_bytes: u64,
    pub(crate) fps: f64,
    /// What crossed a network.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(crate) link: Option<LinkRun>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) copied: Option<u64>,
    /// Of the slowest consumer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) latency_us: Option<LatencyFigures>,
}

impl Run {
    /// Whether it may enter a median.
    pub(crate) fn counts(&self) -> bool {
        self.error.is_none() && self.dropped == 0 && self.wrong.unwrap_or(0) == 0
    }

    /// Of all processes.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        self.producer_cpu_seconds + self.consumer_cpu_seconds.iter().sum::<f64>()
    }

    /// Per 1000 frames, of all processes.
    pub(crate) fn cpu_per_1000(&self) -> f64 {
        self.cpu_seconds() * 1000.0 / self.frames.max(1) as f64
    }

    /// Per 1000 frames, of the producer.
    pub(crate) fn producer_per_1000(&self) -> f64 {
        self.producer_cpu_seconds * 1000.0 / self.frames.max(1) as f64
    }
}

/// Runs one job in processes of its own.
///
/// # Errors
/// Only when a signal asks us to end; what goes wrong in the run is told in it.
pub(crate) fn run(job: &Job) -> Result<Run, Failure> {
    let mut fleet = Fleet::new();
    let result = drive(&mut fleet, job);
    fleet.end_all(PATIENCE);
    if crate::signals::caught().is_some() {
        return Err(Failure::silent(crate::exit::Exit::Ok));
    }
    Ok(result.unwrap_or_else(|error| Run { error: Some(error), ..Run::default() }))
}

fn drive(fleet: &mut Fleet, job: &Job) -> Result<Run, String> {
    let text = |failure: Failure| failure.to_string();
    let producer = fleet.start("producer", &Role::BenchProducer(job.clone())).map_err(text)?;
    let said = fleet.collect(&[producer], "ready", SET_UP)?;
    // Where consumers find it, if it chose that itself.
    let address = said.first().and_then(|address| address.as_str()).map(str::to_owned);
    let job = &Job { address, ..job.clone() };
    let count = if job.contender.transport.has_processes() { job.contender.consumers } else { 0 };
    let mut consumers = Vec::new();
    for number in 1..=count {
        let role = Role::BenchConsumer(job.clone());
        consumers.push(fleet.start(&format!("consumer {number}"), &role).map_err(text)?);
    }
    if count > 0 {
        // In one go: who is ready first may be told of before.
        let all: Vec<usize> = consumers.iter().copied().chain([producer]).collect();
        fleet.collect_each(&all, |worker| if worker == producer { "connected" } else { "ready" }, SET_UP)?;
    }
    let before = wire::sent();
    fleet.tell(producer, "go");
    let all: Vec<usize> = [producer].into_iter().chain(consumers).collect();
    let frames = job.end() as f64;
    let longest = frames / f64::from(job.fps.unwrap_or(10).min(10)) + 30.0;
    let done = fleet.collect(&all, "done", Duration::from_secs_f64(longest))?;
    let wire_bytes = wire::sent().zip(before).map(|(after, before)| after.saturating_sub(before));
    let done: Result<Vec<Measured>, _> = done.into_iter().map(serde_json::from_value::<Measured>).collect();
    let done = done.map_err(|error| error.to_string())?;
    let mut run = sum_up(job, &done);
    run.link = job.contender.transport.is_remote().then(|| LinkRun::of(job, &done, wire_bytes));
    Ok(run)
}

fn sum_up(job: &Job, done: &[Measured]) -> Run {
    let (producer, consumers) = done.split_first().expect("the producer is in the list");
    // The consumers of a tee are in the producer's process, and told of in its report.
    let in_process = job.contender.transport == Transport::GstTee;
    let hearers = if in_process { done } else { consumers };
    let slowest = hearers.iter().map(|one| one.latency_us).max_by(|a, b| a.p50.total_cmp(&b.p50));
    Run {
        error: None,
        frames: producer.frames,
        dropped: done.iter().map(|one| one.lost).sum(),
        wrong: hearers.iter().map(|one| one.wrong).reduce(|a, b| Some(a? + b?)).flatten(),
        late: producer.late,
        producer_cpu_seconds: producer.usage.cpu_seconds,
        consumer_cpu_seconds: consumers.iter().map(|one| one.usage.cpu_seconds).collect(),
        minor_faults: done.iter().map(|one| one.usage.minor_faults).sum(),
        memory_bytes: memory::total(done.iter().map(|one| &one.memory)),
        // From the first frame to the last there is one interval less.
        fps: producer.frames.saturating_sub(1).max(1) as f64 / producer.usage.wall_seconds.max(1e-9),
        link: None,
        copied: producer.copied,
        // Programs of others know none.
        latency_us: slowest.filter(|latency| latency.max > 0.0),
    }
}

/// What is told of a run while others go on.
pub(crate) fn brief(run: &Run) -> String {
    match &run.error {
        Some(error) => format!("failed: {error}"),
        None if run.dropped > 0 => format!("lost {} frames: not counted", run.dropped),
        None if run.wrong.unwrap_or(0) > 0 => {
            format!("{} frames with wrong bytes: not counted", run.wrong.unwrap_or(0))
        }
        None if run.link.is_some() => run.link.as_ref().map(LinkRun::brief).unwrap_or_default(),
        None => format!("{:.3} CPU-s/1000 frames, {:.1} fps", run.cpu_per_1000(), run.fps),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_lost_frames_does_not_count() {
        let run = Run { frames: 100, producer_cpu_seconds: 1.0, ..Run::default() };
        assert!(run.counts());
        assert!(!Run { dropped: 1, ..run.clone() }.counts());
        assert!(!Run { wrong: Some(1), ..run.clone() }.counts());
        assert!(Run { wrong: Some(0), ..run.clone() }.counts());
        assert!(!Run { error: Some("x".into()), ..run.clone() }.counts());
        assert_eq!(run.cpu_per_1000(), 10.0);
    }
}
