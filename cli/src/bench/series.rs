//! Contenders measured in turn, and what becomes of the figures.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::contender::Contender;
use super::job::Job;
use super::machine::Machine;
use super::report::{self, Bench, Cell, Report, Terms};
use super::route::Route;
use super::run::{brief, run};
use super::size::FrameSize;
use super::{svg, targets};
use crate::exit::{Exit, Failure, Outcome};
use crate::output;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Pace {
    /// Frames at a fixed rate.
    Live,
    /// As fast as the slowest consumer takes them; nothing may be lost.
    Free,
}

/// What all measurements are told alike.
#[derive(Debug, Args)]
pub(super) struct Series {
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

/// What one measurement is about.
pub(super) struct Plan {
    pub(super) bench: Bench,
    /// Everything that one run measures of one size, in order.
    pub(super) contenders: Vec<Contender>,
    pub(super) sizes: Vec<FrameSize>,
    pub(super) pace: Pace,
    /// The ends of links to other hosts.
    pub(super) route: Route,
    /// What is to be said of it.
    pub(super) notes: Vec<String>,
}

fn backing(text: &str) -> Result<String, String> {
    let known: Result<pagecast::BackingChoice, _> = text.parse();
    known.map(|choice| choice.to_string()).map_err(|error| error.to_string())
}

impl Series {
    /// Carries the plan out, and reports.
    pub(super) fn run(&self, mut plan: Plan) -> Outcome {
        let machine = Machine::describe();
        output::note(format_args!("{}", machine.line()));
        if cfg!(debug_assertions) {
            plan.notes
                .push("this is a debug build: its figures say nothing about a release build".to_owned());
        }
        plan.notes.iter().for_each(|note| output::note(format_args!("note: {note}")));
        let cells = self.measure(&plan)?;
        let mut report = Report::new(plan.bench, self.terms(&plan), machine, plan.notes, cells);
        report.targets = targets::judge(&report);
        report::print(&report)?;
        if let Some(path) = &self.json {
            let json = serde_json::to_string_pretty(&report).map_err(Failure::failed)?;
            write(path, &(json + "\n"))?;
        }
        if let Some(path) = &self.svg {
            write(path, &svg::draw(&report))?;
        }
        let broken = report.cells.iter().filter(|cell| cell.counting().next().is_none()).count();
        Ok(if broken == 0 { Exit::Ok } else { Exit::Failed })
    }

    fn fps(&self, plan: &Plan) -> Option<u32> {
        (plan.pace == Pace::Live).then_some(self.fps)
    }

    fn terms(&self, plan: &Plan) -> Terms {
        Terms {
            pace: if plan.pace == Pace::Live { "live" } else { "free" },
            fps: self.fps(plan),
            frames: self.frames,
            warmup: self.warmup,
            runs: self.runs,
            touched: match (self.full_read, plan.bench) {
                (true, _) => "every byte",
                (false, Bench::Local) => "one byte per 4 KiB page",
                (false, Bench::Remote) => "and compare 8 bytes per 4 KiB page",
            },
            format: "NV12",
            backing: self.backing.clone(),
            pool_limit: self.pool_limit,
        }
    }

    fn measure(&self, plan: &Plan) -> Result<Vec<Cell>, Failure> {
        let folder = crate::workers::folder("bench")?;
        let mut cells = Vec::new();
        for &size in &plan.sizes {
            let first = cells.len();
            cells.extend(plan.contenders.iter().map(|contender| Cell::new(*contender, size)));
            for number in 0..self.runs {
                for (at, contender) in plan.contenders.iter().enumerate() {
                    let run = run(&self.job(plan, *contender, size, folder.path()))?;
                    if !self.quiet {
                        let of = format!("{size} run {}/{}", number + 1, self.runs);
                        let (label, consumers) = (contender.label(), contender.consumers);
                        output::note(format_args!("{of}  {label}, 1->{consumers}: {}", brief(&run)));
                    }
                    cells[first + at].runs.push(run);
                }
            }
        }
        Ok(cells)
    }

    fn job(&self, plan: &Plan, contender: Contender, size: FrameSize, folder: &Path) -> Job {
        Job {
            contender,
            size,
            fps: self.fps(plan),
            warmup: self.warmup,
            frames: self.frames,
            full_read: self.full_read,
            check: plan.bench == Bench::Remote && !self.full_read,
            backing: self.backing.clone(),
            pool_limit: self.pool_limit,
            socket: folder.join("s"),
            route: plan.route,
            address: None,
        }
    }
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text)
        .map_err(|error| Failure::failed(format_args!("cannot write {}: {error}", path.display())))
}
