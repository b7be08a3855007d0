//! What a measurement came to: the table, and all of it as JSON.

use serde::Serialize;

use super::contender::{Contender, Transport};
use super::link::{self, LinkSummary};
use super::machine::Machine;
use super::run::Run;
use super::size::FrameSize;
use super::spread::Spread;
use super::targets::Target;
use crate::exit::Failure;
use crate::output::{self, Table};

/// Under which terms was measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Terms {
    pub(crate) pace: &'static str,
    pub(crate) fps: Option<u32>,
    pub(crate) frames: u64,
    pub(crate) warmup: u64,
    pub(crate) runs: u32,
    /// What consumers read of a frame.
    pub(crate) touched: &'static str,
    pub(crate) format: &'static str,
    pub(crate) backing: String,
    pub(crate) pool_limit: u64,
}

/// A contender with a number of consumers and a size, and its runs.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Cell {
    pub(crate) name: String,
    #[serde(flatten)]
    pub(crate) contender: Contender,
    #[serde(flatten)]
    pub(crate) size: FrameSize,
    pub(crate) summary: Summary,
    pub(crate) runs: Vec<Run>,
}

/// Medians over the runs that count.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Summary {
    /// Runs that lost frames or failed; they enter no median.
    pub(crate) discarded: usize,
    /// Of all processes, per 1000 frames.
    pub(crate) cpu_seconds: Option<Spread>,
    /// The same above the bare source, of the same run.
    pub(crate) cpu_seconds_above_source: Option<Spread>,
    pub(crate) producer_cpu_seconds: Option<Spread>,
    /// Of one consumer, per 1000 frames.
    pub(crate) consumer_cpu_seconds: Option<Spread>,
    /// Per frame, of all processes.
    pub(crate) faults: Option<Spread>,
    /// Copies per frame by the transport, where it says so.
    pub(crate) copied: Option<Spread>,
    pub(crate) memory_bytes: Option<Spread>,
    pub(crate) fps: Option<Spread>,
    /// Of the slowest consumer.
    pub(crate) latency_us: Percentiles,
    /// Where it crosses a network.
    #[serde(flatten)]
    pub(crate) link: Option<LinkSummary>,
}

/// Spreads of percentiles.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) p50: Option<Spread>,
    pub(crate) p99: Option<Spread>,
    pub(crate) p999: Option<Spread>,
    pub(crate) max: Option<Spread>,
}

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Bench {
    Local,
    Remote,
}

/// All of it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) bench: Bench,
    pub(crate) version: &'static str,
    pub(crate) machine: Machine,
    pub(crate) terms: Terms,
    pub(crate) notes: Vec<String>,
    pub(crate) targets: Vec<Target>,
    pub(crate) cells: Vec<Cell>,
}

impl Cell {
    pub(crate) fn new(contender: Contender, size: FrameSize) -> Self {
        let name = contender.label();
        Self { name, contender, size, summary: Summary::default(), runs: Vec::new() }
    }

    /// The runs that may enter a median.
    pub(crate) fn counting(&self) -> impl Iterator<Item = &Run> {
        self.runs.iter().filter(|run| run.counts())
    }

    fn sum_up(&self, baseline: Option<&Cell>) -> Summary {
        let counting = || self.counting();
        let spread = |figure: &dyn Fn(&Run) -> f64| Spread::of(counting().map(figure));
        let frames = |run: &Run| run.frames.max(1) as f64;
        let latency = |pick: &dyn Fn(&pagecast::latency::LatencyFigures) -> f64| {
            Spread::of(counting().filter_map(|run| run.latency_us.as_ref()).map(pick))
        };
        let consumers = counting().flat_map(|run| {
            run.consumer_cpu_seconds.iter().map(move |seconds| seconds * 1000.0 / frames(run))
        });
        Summary {
            discarded: self.runs.len() - counting().count(),
            cpu_seconds: spread(&Run::cpu_per_1000),
            cpu_seconds_above_source: baseline.and_then(|baseline| self.above(baseline)),
            producer_cpu_seconds: spread(&Run::producer_per_1000),
            consumer_cpu_seconds: Spread::of(consumers),
            faults: spread(&|run| run.minor_faults as f64 / frames(run)),
            copied: Spread::of(counting().filter_map(|run| Some(run.copied? as f64 / frames(run)))),
            memory_bytes: spread(&|run| run.memory_bytes as f64),
            fps: spread(&|run| run.fps),
            latency_us: Percentiles {
                p50: latency(&|figures| figures.p50),
                p99: latency(&|figures| figures.p99),
                p999: latency(&|figures| figures.p999),
                max: latency(&|figures| figures.max),
            },
            link: LinkSummary::of(self),
        }
    }

    /// Run by run, so that what slows the whole machine down cancels out.
    fn above(&self, baseline: &Cell) -> Option<Spread> {
        let pairs = self.runs.iter().zip(&baseline.runs);
        let counting = pairs.filter(|(run, source)| run.counts() && source.counts());
        Spread::of(counting.map(|(run, source)| run.cpu_per_1000() - source.cpu_per_1000()))
    }

    pub(crate) fn is(&self, transport: Transport, consumers: u32) -> bool {
        self.contender.transport == transport && self.contender.consumers == consumers
    }
}

impl Report {
    pub(crate) fn new(
        bench: Bench,
        terms: Terms,
        machine: Machine,
        notes: Vec<String>,
        mut cells: Vec<Cell>,
    ) -> Self {
        let summaries: Vec<Summary> = cells
            .iter()
            .map(|cell| {
                let transport = cell.contender.transport;
                let is_baseline =
                    |other: &&Cell| other.size == cell.size && other.is(transport.baseline(), 0);
                let baseline = cells.iter().find(is_baseline).filter(|_| !transport.is_baseline());
                cell.sum_up(baseline)
            })
            .collect();
        cells.iter_mut().zip(summaries).for_each(|(cell, summary)| cell.summary = summary);
        let version = env!("CARGO_PKG_VERSION");
        Self { bench, version, machine, terms, notes, targets: Vec::new(), cells }
    }

    /// The sizes, in order.
    pub(crate) fn sizes(&self) -> Vec<FrameSize> {
        let mut sizes: Vec<FrameSize> = self.cells.iter().map(|cell| cell.size).collect();
        sizes.dedup();
        sizes
    }
}

/// The table, its terms and the targets.
pub(crate) fn print(report: &Report) -> Result<(), Failure> {
    let terms = &report.terms;
    let pace = terms.fps.map_or_else(|| "free running".to_owned(), |fps| format!("live at {fps} fps"));
    output::line(format_args!("{}", report.machine.line()))?;
    for size in report.sizes() {
        let format = if size.is_picture() { format!(" {}", terms.format) } else { String::new() };
        output::line(format_args!(
            "\n{size}{format}, {pace}, {} frames after {} of warm-up, {} runs: median (min..max)",
            terms.frames, terms.warmup, terms.runs
        ))?;
        let touched = terms.touched;
        let cells = report.cells.iter().filter(|cell| cell.size == size);
        match report.bench {
            Bench::Local => {
                let read = format_args!("consumers read {touched} of every frame");
                output::line(format_args!("CPU in seconds per 1000 frames; {read}"))?;
                table(cells).print()?;
            }
            Bench::Remote => {
                output::line(format_args!(
                    "CPU in seconds per GB; subscribers read {touched} of every frame"
                ))?;
                link::table(cells).print()?;
            }
        }
    }
    if !report.targets.is_empty() {
        output::line("\nTargets of the project (they do not decide the exit code)")?;
        super::targets::table(&report.targets).print()?;
    }
    Ok(())
}

fn table<'a>(cells: impl Iterator<Item = &'a Cell>) -> Table {
    let mut table = Table::new([
        "TRANSPORT",
        ">1->N",
        ">CPU ABOVE SOURCE",
        ">CPU ALL",
        ">PRODUCER",
        ">CONSUMER",
        ">FAULTS",
        ">COPIED",
        ">MEMORY",
        ">FPS",
        ">P50 us",
        ">P99 us",
        ">RUNS",
    ]);
    for cell in cells {
        let summary = &cell.summary;
        let whole = |spread: &Option<Spread>, digits| spread.map_or("-".into(), |s| s.show(digits));
        let median = |spread: &Option<Spread>, digits: usize| {
            spread.map_or("-".into(), |s| format!("{:.digits$}", s.median))
        };
        let memory = summary.memory_bytes.map_or("-".into(), |s| output::bytes(s.median as u64));
        let runs = format!("{}/{}", cell.runs.len() - summary.discarded, cell.runs.len());
        table.row([
            cell.name.clone(),
            cell.contender.consumers.to_string(),
            whole(&summary.cpu_seconds_above_source, 3),
            median(&summary.cpu_seconds, 3),
            median(&summary.producer_cpu_seconds, 3),
            median(&summary.consumer_cpu_seconds, 3),
            median(&summary.faults, 3),
            median(&summary.copied, 2),
            memory,
            median(&summary.fps, 1),
            median(&summary.latency_us.p50, 1),
            median(&summary.latency_us.p99, 0),
            runs,
        ]);
    }
    table
}
