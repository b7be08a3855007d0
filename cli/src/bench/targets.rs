//! The project's targets beside what was measured. They inform; they never decide an exit code.

use serde::Serialize;

use super::contender::{Kind, Transport};
use super::report::{Bench, Cell, Report};
use super::size::FrameSize;
use super::spread::Spread;
use crate::output::Table;

/// A target and what was measured for it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Target {
    pub(crate) what: String,
    pub(crate) measured: f64,
    #[serde(flatten)]
    pub(crate) bound: Bound,
    pub(crate) met: bool,
}

/// What a figure shall be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Bound {
    fn admits(self, measured: f64) -> bool {
        match self {
            Self::AtMost(bound) => measured <= bound,
            Self::AtLeast(bound) => measured >= bound,
        }
    }
}

/// Private memory of the processes beside the pool, as far as the memory target allows it.
const MEMORY_PER_PROCESS: f64 = 64.0 * (1 << 20) as f64;

/// All targets for which there are figures.
pub(crate) fn judge(report: &Report) -> Vec<Target> {
    let mut targets = Targets(Vec::new());
    for size in report.sizes() {
        let cells: Vec<&Cell> = report.cells.iter().filter(|cell| cell.size == size).collect();
        let size = size.to_string();
        if report.bench == Bench::Remote {
            super::link::judge(&mut targets, &cells, &size);
            continue;
        }
        for cell in &cells {
            targets.compare(cell, &cells, &size);
            targets.single(cell, &size, report.terms.pool_limit as f64);
        }
        targets.flat(&cells, &size);
    }
    if report.bench == Bench::Local {
        targets.sizes(report);
    }
    targets.0
}

/// The table of targets.
pub(crate) fn table(targets: &[Target]) -> Table {
    let mut table = Table::new(["TARGET", ">MEASURED", ">BOUND", ""]);
    for target in targets {
        let verdict = if target.met { "met" } else { "missed" };
        let number = |value: f64| if value >= 1e4 { format!("{value:.3e}") } else { format!("{value:.3}") };
        let bound = match target.bound {
            Bound::AtMost(bound) => format!("<= {}", number(bound)),
            Bound::AtLeast(bound) => format!(">= {}", number(bound)),
        };
        table.row([target.what.clone(), number(target.measured), bound, verdict.to_owned()]);
    }
    table
}

pub(super) struct Targets(Vec<Target>);

pub(super) fn median(spread: Option<Spread>) -> Option<f64> {
    spread.map(|spread| spread.median)
}

impl Targets {
    fn add(&mut self, what: String, measured: Option<f64>, at_most: f64) {
        self.bounded(what, measured, Bound::AtMost(at_most));
    }

    fn ratio(&mut self, what: String, ours: Option<f64>, theirs: Option<f64>, at_most: f64) {
        if let (Some(ours), Some(theirs)) = (ours, theirs.filter(|theirs| *theirs > 0.0)) {
            self.add(what, Some(ours / theirs), at_most);
        }
    }

    pub(super) fn bounded(&mut self, what: String, measured: Option<f64>, bound: Bound) {
        if let Some(measured) = measured.filter(|value| value.is_finite()) {
            self.0.push(Target { what, measured, bound, met: bound.admits(measured) });
        }
    }

    /// One cell beside others of the same size and number of consumers.
    fn compare(&mut self, cell: &Cell, cells: &[&Cell], size: &str) {
        let consumers = cell.contender.consumers;
        if consumers == 0 {
            return;
        }
        let find = |transport, kind| {
            cells.iter().find(|other| other.is(transport, consumers) && other.contender.kind == kind)
        };
        let above = |cell: &Cell| median(cell.summary.cpu_seconds_above_source);
        let p50 = |cell: &Cell| median(cell.summary.latency_us.p50);
        let of = |text: &str| format!("{text}, {size}, 1->{consumers}");
        let floor = find(Transport::Seqpacket, None);
        match cell.contender.transport {
            Transport::Pagecast => {
                let theirs = floor.and_then(|floor| above(floor));
                self.ratio(of("CPU above source: library / SEQPACKET floor"), above(cell), theirs, 1.5);
                let theirs = floor.and_then(|floor| p50(floor));
                self.ratio(of("latency p50: library / SEQPACKET floor"), p50(cell), theirs, 1.15);
            }
            Transport::GstPagecast => {
                let kind = cell.contender.kind;
                let (name, factor) = match kind {
                    Some(Kind::Callback) => ("callback", 0.65),
                    _ => ("appsink", 0.75),
                };
                let shm = find(Transport::GstShm, kind).and_then(|shm| above(shm));
                self.ratio(
                    of(&format!("CPU above source: pagecast / shm, {name}")),
                    above(cell),
                    shm,
                    factor,
                );
                let unixfd = find(Transport::GstUnixfd, kind).and_then(|unixfd| above(unixfd));
                self.ratio(
                    of(&format!("CPU above source: pagecast / unixfd, {name}")),
                    above(cell),
                    unixfd,
                    0.2,
                );
            }
            _ => {}
        }
    }

    /// What holds for one cell alone.
    fn single(&mut self, cell: &Cell, size: &str, pool_limit: f64) {
        let transport = cell.contender.transport;
        if !matches!(transport, Transport::Pagecast | Transport::GstPagecast) {
            return;
        }
        let consumers = cell.contender.consumers;
        let of = |text: &str| format!("{text}: {}, {size}, 1->{consumers}", cell.name);
        self.add(of("minor faults per frame"), median(cell.summary.faults), 0.01);
        self.add(of("copies per frame"), median(cell.summary.copied), 0.0);
        let processes = f64::from(consumers + 1);
        let bound = pool_limit + processes * MEMORY_PER_PROCESS;
        self.add(of("memory, bytes"), median(cell.summary.memory_bytes), bound);
    }

    /// The producer's cost per subscriber, from the fewest to the most.
    fn flat(&mut self, cells: &[&Cell], size: &str) {
        for (transport, kind) in [(Transport::Pagecast, None), (Transport::GstPagecast, Some(Kind::Appsink))]
        {
            let idle = cells.iter().find(|cell| cell.is(transport, 0));
            let idle = idle.and_then(|cell| median(cell.summary.producer_cpu_seconds));
            let cost = |cell: &&Cell| {
                let consumers = cell.contender.consumers;
                let own = cell.contender.transport == transport && cell.contender.kind == kind;
                let cost = median(cell.summary.producer_cpu_seconds)? - idle?;
                (own && consumers > 0).then_some((consumers, cost / f64::from(consumers)))
            };
            let mut costs: Vec<(u32, f64)> = cells.iter().filter_map(cost).collect();
            costs.sort_by_key(|(consumers, _)| *consumers);
            if let [(fewest, few), .., (most, many)] = costs[..] {
                let name = transport.as_str();
                let what = format!("producer CPU per subscriber: {name}, {size}, 1->{most} / 1->{fewest}");
                self.ratio(what, Some(many), Some(few), 1.2);
            }
        }
    }

    /// The cost of large frames beside that of small ones.
    fn sizes(&mut self, report: &Report) {
        let mut sizes = report.sizes();
        sizes.sort_by_key(|size| size.bytes());
        let [small, .., large] = sizes[..] else { return };
        for cell in report.cells.iter().filter(|cell| cell.size == small) {
            let Some(contender) = Some(cell.contender).filter(|contender| contender.consumers > 0) else {
                continue;
            };
            if !matches!(contender.transport, Transport::Pagecast | Transport::GstPagecast) {
                continue;
            }
            let cost = |size: FrameSize| {
                let find = |kind, consumers| {
                    report.cells.iter().find(|cell| {
                        cell.size == size
                            && cell.is(contender.transport, consumers)
                            && cell.contender.kind == kind
                    })
                };
                let idle = median(find(None, 0)?.summary.cpu_seconds)?;
                Some(median(find(contender.kind, contender.consumers)?.summary.cpu_seconds)? - idle)
            };
            let names = format!("{large} / {small}");
            let what = format!("CPU above no subscriber, {names}: {}, 1->{}", cell.name, contender.consumers);
            self.ratio(what, cost(large), cost(small), 1.2);
        }
    }
}
