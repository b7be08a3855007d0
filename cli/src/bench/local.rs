//! `pagecast bench local`: the plan of a measurement, and its execution.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::contender::{Contender, Kind, Transport};
use super::job::Job;
use super::machine::Machine;
use super::report::{self, Cell, Report, Terms};
use super::run::{brief, run};
use super::{svg, targets};
use crate::exit::{Exit, Failure, Outcome};
use crate::output;

const MAX_CONSUMERS: u32 = 64;

/// What to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Against {
    /// shmsink and shmsrc.
    Shm,
    /// unixfdsink and unixfdsrc (GStreamer 1.24 and newer).
    Unixfd,
    /// tee and queue in one process.
    Tee,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Pace {
    /// Frames at a fixed rate.
    Live,
    /// As fast as the slowest consumer takes them; nothing may be lost.
    Free,
}

/// Measure producer and consumers in real processes: CPU above the bare source, faults, memory, latency.
///
/// The source writes 8 bytes into every 4 KiB page of every frame; consumers read one byte of every page.
/// A full read of each frame costs more than any transport and would hide it (see --full-read). Every run
/// measures all contenders in turn, from a warm-up frame on; the table shows the median and the extremes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pagecast bench local --runs 3 --frames 200
  pagecast bench local --consumers 1,3,16 --against shm,tee --json result.json --svg result.svg
  pagecast bench local --sizes 1920x1080,3840x2160 --consumers 3
  pagecast bench local --pace free --against shm

The targets below the table are the project's own; whether they are met never changes the exit code.")]
pub(crate) struct Local {
    /// Numbers of consumers, 1 to 64.
    #[arg(long, value_delimiter = ',', default_value = "1,3", value_parser = clap::value_parser!(u32).range(1..=MAX_CONSUMERS as i64))]
    consumers: Vec<u32>,
    /// Sizes of the NV12 frames.
    #[arg(long, value_delimiter = ',', default_value = "1920x1080", value_parser = size)]
    sizes: Vec<(u32, u32)>,
    /// Live or free running.
    #[arg(long, value_enum, default_value = "live")]
    pace: Pace,
    /// Frames per second, when live.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=1000))]
    fps: u32,
    /// Frames measured in each run.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    frames: u64,
    /// Frames before the measurement begins.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(0..=100_000))]
    warmup: u64,
    /// Runs, of all contenders in turn.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// What else to measure in pipelines beside pagecastsink and pagecastsrc.
    #[arg(long, value_enum, value_delimiter = ',')]
    against: Vec<Against>,
    /// How consumers in pipelines take frames.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "appsink,callback")]
    kinds: Vec<Kind>,
    /// Measure the library and the floor only, without pipelines.
    #[arg(long)]
    library: bool,
    /// Consumers read every byte.
    #[arg(long)]
    full_read: bool,
    /// Where pages come from: auto, memfd, hugetlb.
    #[arg(long, default_value = "memfd", value_parser = backing)]
    backing: String,
    /// The most bytes the publisher's pool may have.
    #[arg(long, default_value_t = 1 << 30)]
    pool_limit: u64,
    /// Write all runs and medians to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the medians into this file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Say nothing of single runs.
    #[arg(short, long)]
    quiet: bool,
}

fn size(text: &str) -> Result<(u32, u32), String> {
    let parsed = text.split_once('x').and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
    match parsed {
        Some((width @ 64..=16384, height @ 64..=16384)) if width % 4 == 0 && height % 2 == 0 => {
            Ok((width, height))
        }
        _ => Err("a size is WIDTHxHEIGHT, 64x64 to 16384x16384; widths by 4, heights by 2".to_owned()),
    }
}

fn backing(text: &str) -> Result<String, String> {
    let known: Result<pagecast::BackingChoice, _> = text.parse();
    known.map(|choice| choice.as_str().to_owned()).map_err(|error| error.to_string())
}

impl Local {
    pub(crate) fn run(self) -> Outcome {
        let machine = Machine::describe();
        let mut notes = Vec::new();
        let plan = self.plan(&mut notes);
        output::note(format_args!("{}", machine.line()));
        if cfg!(debug_assertions) {
            notes.push("this is a debug build: its figures say nothing about a release build".to_owned());
        }
        notes.iter().for_each(|note| output::note(format_args!("note: {note}")));
        let cells = self.measure(&plan)?;
        let mut report = Report::new(self.terms(), machine, notes, cells);
        report.targets = targets::judge(&report);
        report::print(&report)?;
        if let Some(path) = &self.json {
            let json = serde_json::to_string_pretty(&report).map_err(Failure::failed)?;
            write(path, &(json + "\n"))?;
        }
        if let Some(path) = &self.svg {
            write(path, &svg::draw(&report))?;
        }
        let broken = report.cells.iter().filter(|cell| !cell.runs.iter().any(|run| run.counts())).count();
        Ok(if broken == 0 { Exit::Ok } else { Exit::Failed })
    }

    fn terms(&self) -> Terms {
        Terms {
            pace: if self.pace == Pace::Live { "live" } else { "free" },
            fps: (self.pace == Pace::Live).then_some(self.fps),
            frames: self.frames,
            warmup: self.warmup,
            runs: self.runs,
            touched: if self.full_read { "every byte" } else { "one byte per 4 KiB page" },
            format: "NV12",
            backing: self.backing.clone(),
            pool_limit: self.pool_limit,
        }
    }

    /// Everything that one run measures of one size, in order.
    fn plan(&self, notes: &mut Vec<String>) -> Vec<Contender> {
        let plain = |transport, consumers| Contender { transport, kind: None, consumers };
        let mut plan = vec![plain(Transport::Source, 0), plain(Transport::Pagecast, 0)];
        let pipelines = self.pipelines(notes);
        if !pipelines.is_empty() {
            plan.push(plain(Transport::GstSource, 0));
            if pipelines.contains(&Transport::GstPagecast) {
                plan.push(plain(Transport::GstPagecast, 0));
            }
        }
        for &consumers in &self.consumers {
            plan.push(plain(Transport::Seqpacket, consumers));
            plan.push(plain(Transport::Pagecast, consumers));
            for &kind in &self.kinds {
                let of =
                    |transport: &Transport| Contender { transport: *transport, kind: Some(kind), consumers };
                plan.extend(pipelines.iter().map(of));
            }
        }
        plan
    }

    #[cfg(feature = "gstreamer")]
    fn pipelines(&self, notes: &mut Vec<String>) -> Vec<Transport> {
        if self.library {
            return Vec::new();
        }
        if let Err(error) = super::gstreamer::init() {
            notes.push(format!("no pipelines: {error}"));
            return Vec::new();
        }
        let mut pipelines = vec![Transport::GstPagecast];
        pipelines.retain(|_| gst::ElementFactory::find("pagecastsink").is_some());
        for against in &self.against {
            let (transport, element) = match against {
                Against::Shm => (Transport::GstShm, "shmsink"),
                Against::Unixfd => (Transport::GstUnixfd, "unixfdsink"),
                Against::Tee => (Transport::GstTee, "tee"),
            };
            match gst::ElementFactory::find(element) {
                Some(_) => pipelines.push(transport),
                None => notes.push(format!("{element} is not installed: it is left out")),
            }
        }
        pipelines
    }

    #[cfg(not(feature = "gstreamer"))]
    fn pipelines(&self, notes: &mut Vec<String>) -> Vec<Transport> {
        if !self.library || !self.against.is_empty() {
            notes.push("built without GStreamer: the library and the floor only".to_owned());
        }
        Vec::new()
    }

    fn measure(&self, plan: &[Contender]) -> Result<Vec<Cell>, Failure> {
        let folder = crate::workers::folder("bench")?;
        let mut cells = Vec::new();
        for &(width, height) in &self.sizes {
            let first = cells.len();
            cells.extend(plan.iter().map(|contender| Cell::new(*contender, width, height)));
            for number in 0..self.runs {
                for (at, contender) in plan.iter().enumerate() {
                    let job = Job {
                        contender: *contender,
                        width,
                        height,
                        fps: (self.pace == Pace::Live).then_some(self.fps),
                        warmup: self.warmup,
                        frames: self.frames,
                        full_read: self.full_read,
                        backing: self.backing.clone(),
                        pool_limit: self.pool_limit,
                        socket: folder.path().join("s"),
                    };
                    let run = run(&job)?;
                    if !self.quiet {
                        let of = format!("{width}x{height} run {}/{}", number + 1, self.runs);
                        let (label, consumers) = (contender.label(), contender.consumers);
                        output::note(format_args!("{of}  {label}, 1->{consumers}: {}", brief(&run)));
                    }
                    cells[first + at].runs.push(run);
                }
            }
        }
        Ok(cells)
    }
}

fn write(path: &PathBuf, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text)
        .map_err(|error| Failure::failed(format_args!("cannot write {}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_checked() {
        assert_eq!(size("1920x1080"), Ok((1920, 1080)));
        for wrong in ["", "1920", "63x64", "66x64", "1920x1081", "20000x100", "ax64"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
