//! The same scene with shmsink and unixfdsink, bounded in memory and time.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gst::prelude::*;
use gst_app::{AppSink, AppSinkCallbacks};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use super::Other;
use super::picture::{HEIGHT, Picture, SIZE, WIDTH};
use crate::exit::Failure;
use crate::output;
use crate::stamp;
use crate::workers::Role;
use crate::workers::child::{Control, say};
use crate::workers::fleet::Fleet;
use crate::workers::memory::{self, Memory};
use crate::workers::pace::Pacer;
use crate::workers::painter::{Painted, Painter};

const SET_UP: Duration = Duration::from_secs(5);
const CONSUMERS: usize = 3;
const SECOND: Duration = Duration::from_secs(1);
/// The producer is ended when it takes more memory than this above what it had.
const MEMORY_LIMIT: u64 = 1 << 30;

/// What a worker is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RivalJob {
    /// `shm` or `unixfd`.
    name: String,
    socket: PathBuf,
    fps: u32,
}

impl RivalJob {
    fn caps(&self) -> String {
        format!("video/x-raw,format=NV12,width={WIDTH},height={HEIGHT},framerate={}/1", self.fps)
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Plays the scene with each of them that is installed and for which there is time.
pub(super) fn compare(
    fps: u32,
    quick: bool,
    folder: &Path,
    until: Instant,
    notes: &mut Vec<String>,
) -> Result<Vec<Other>, Failure> {
    let installed = |name: &&str| {
        let found =
            crate::workers::gst_init().is_ok() && gst::ElementFactory::find(&format!("{name}sink")).is_some();
        if !found {
            notes.push(format!("{name}sink is not installed: it is left out"));
        }
        found
    };
    let names: Vec<&str> = ["shm", "unixfd"].into_iter().filter(installed).collect();
    let mut others = Vec::new();
    for (at, name) in names.iter().enumerate() {
        let left = until.saturating_duration_since(Instant::now()) / (names.len() - at) as u32;
        // Starting and ending take time as well, and so does a second before and after.
        let stopped = left.saturating_sub(3 * SECOND).min(Duration::from_secs(if quick { 2 } else { 8 }));
        if stopped < SECOND {
            notes.push(format!("there was no time left for {name}sink"));
            continue;
        }
        output::line(format_args!("The same with {name}sink and {name}src, {:.0} s", stopped.as_secs_f64()))?;
        let job = RivalJob { name: (*name).to_owned(), socket: folder.join(name), fps };
        let mut fleet = Fleet::new();
        let seen = play(&mut fleet, &job, stopped);
        // Those that stand still hear no word.
        drop(fleet);
        if crate::signals::caught().is_some() {
            return Err(Failure::silent(crate::exit::Exit::Ok));
        }
        let name = format!("{name}sink/{name}src");
        others.push(match seen {
            Ok(seen) => Other { name, fps, ..seen },
            Err(error) => Other { name, fps, error: Some(error), ..Other::default() },
        });
    }
    Ok(others)
}

fn play(fleet: &mut Fleet, job: &RivalJob, stopped: Duration) -> Result<Other, String> {
    let failed = |failure: Failure| failure.to_string();
    let producer = fleet.start("producer", &Role::RivalProducer(job.clone())).map_err(failed)?;
    fleet.collect(&[producer], "ready", SET_UP)?;
    let mut consumers = Vec::new();
    for number in 1..=CONSUMERS {
        let role = Role::RivalConsumer(job.clone());
        consumers.push(fleet.start(&format!("consumer {number}"), &role).map_err(failed)?);
    }
    fleet.collect(&consumers, "ready", SET_UP)?;
    let mut counts = vec![0; CONSUMERS + 1];
    fleet.tell(producer, "go");
    listen(fleet, &mut counts, SECOND)?;
    if counts[1..].contains(&0) {
        return Err("no frames came".to_owned());
    }
    let others = |counts: &[u64]| counts[1..CONSUMERS].to_vec();
    let fewest = |from: &[u64], to: &[u64]| from.iter().zip(to).map(|(a, b)| b - a).min().unwrap_or(0);
    let pid = fleet.pid(producer).as_raw();
    let memory_of = || memory::total([&Memory::of(pid)]);

    let (before, memory) = (others(&counts), memory_of());
    fleet.signal(consumers[CONSUMERS - 1], Signal::SIGSTOP);
    let began = Instant::now();
    while began.elapsed() + SECOND < stopped && memory_of() < memory + MEMORY_LIMIT {
        listen(fleet, &mut counts, SECOND.min(stopped.saturating_sub(SECOND + began.elapsed())))?;
    }
    let late = others(&counts);
    listen(fleet, &mut counts, SECOND)?;
    let stopped_seconds = began.elapsed().as_secs_f64();
    let after = others(&counts);
    let memory_growth = memory_of() as i64 - memory as i64;
    fleet.signal(consumers[CONSUMERS - 1], Signal::SIGKILL);
    listen(fleet, &mut counts, SECOND)?;
    Ok(Other {
        stopped_seconds,
        due: (stopped_seconds * f64::from(job.fps)) as u64,
        received: fewest(&before, &after),
        received_last_second: fewest(&late, &after),
        memory_growth,
        received_after_kill: fewest(&after, &others(&counts)),
        ..Other::default()
    })
}

/// Hears the consumers' counts for a while.
fn listen(fleet: &mut Fleet, counts: &mut [u64], length: Duration) -> Result<(), String> {
    let until = Instant::now() + length;
    while let Some(report) = fleet.next(until).map_err(|failure| failure.to_string())? {
        match report.event.as_str() {
            "frames" => counts[report.worker] = report.data.as_u64().unwrap_or(0),
            "failed" => return Err(fleet.complaint(report.worker, &report.data)),
            _ => {}
        }
    }
    Ok(())
}

/// The producer, until it is ended.
pub(crate) fn produce(job: &RivalJob, control: &Arc<Control>) -> Result<(), String> {
    crate::workers::gst_init()?;
    let path = job.socket.display();
    let sink = format!("{}sink socket-path={path} sync=false", job.name);
    let sink = gst::parse::bin_from_description(&sink, true).map_err(text)?;
    let picture = Picture::new();
    let (go, mut pacer, mut number) = (control.clone(), None, 0);
    let fps = job.fps;
    let paint = move |bytes: &mut [u8]| {
        if pacer.is_none() && !go.wait_for_go() {
            return Painted::End;
        }
        pacer.get_or_insert_with(|| Pacer::new(Some(fps))).wait();
        number += 1;
        picture.draw(bytes, number);
        stamp::write(&mut bytes[..SIZE], number);
        Painted::Frame(number)
    };
    let source = Painter::new(job.caps().parse().map_err(text)?, true, Box::new(paint));
    let pipeline = gst::Pipeline::new();
    pipeline.add_many([source.upcast_ref::<gst::Element>(), sink.upcast_ref()]).map_err(text)?;
    source.link(&sink).map_err(text)?;
    run(&pipeline, control)
}

/// A consumer, until it is ended; it says how many frames it has received.
pub(crate) fn consume(job: &RivalJob, control: &Control) -> Result<(), String> {
    crate::workers::gst_init()?;
    let path = job.socket.display();
    let caps = if job.name == "shm" { format!("is-live=true ! {} ", job.caps()) } else { String::new() };
    let description = format!(
        "{}src socket-path={path} {caps}! appsink name=app sync=false enable-last-sample=false",
        job.name
    );
    let pipeline = gst::parse::launch(&description).map_err(text)?;
    let pipeline = pipeline.downcast::<gst::Pipeline>().map_err(|_| "no pipeline")?;
    let app = pipeline.by_name("app").and_then(|app| app.downcast::<AppSink>().ok()).ok_or("no appsink")?;
    let frames = AtomicU64::new(0);
    let callbacks = AppSinkCallbacks::builder().new_sample(move |app| {
        let sample = app.pull_sample().map_err(|_| gst::FlowError::Eos)?;
        let map = sample.buffer().and_then(|buffer| buffer.map_readable().ok());
        if map.is_some_and(|map| map.len() >= SIZE) {
            let count = frames.fetch_add(1, Ordering::Relaxed) + 1;
            if count % 5 == 1 {
                say("frames", &count);
            }
        }
        Ok(gst::FlowSuccess::Ok)
    });
    app.set_callbacks(callbacks.build());
    run(&pipeline, control)
}

fn run(pipeline: &gst::Pipeline, control: &Control) -> Result<(), String> {
    pipeline.set_state(gst::State::Playing).map_err(text)?;
    say("ready", &());
    let bus = pipeline.bus().ok_or("no bus")?;
    while !control.stopped() {
        let message = bus.timed_pop_filtered(
            gst::ClockTime::from_mseconds(100),
            &[gst::MessageType::Error, gst::MessageType::Eos],
        );
        match message.as_ref().map(|message| message.view()) {
            Some(gst::MessageView::Error(error)) => return Err(error.error().to_string()),
            Some(_) => break,
            None => {}
        }
    }
    // A pipeline that stands still would keep us here; the process ends with or without it.
    Ok(())
}
