//! What a link to another host costs: figures of a run, their medians, the table, the targets.

use serde::Serialize;

use super::contender::Transport;
use super::job::{Job, Measured};
use super::report::Cell;
use super::run::Run;
use super::spread::Spread;
use super::targets::{Bound, Targets, median};
use crate::output::Table;

const GB: f64 = 1e9;

/// What one run came to, beside what every run does.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct LinkRun {
    /// Bytes per second that the slowest subscriber received, from the first frame to the last.
    pub(crate) throughput: f64,
    /// Bytes of frames, over all subscribers.
    pub(crate) bytes: f64,
    /// Bytes that network interfaces sent, warm-up left out by proportion.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) wire_bytes: Option<f64>,
}

impl LinkRun {
    /// Of the producer and its subscribers, in this order.
    pub(super) fn of(job: &Job, done: &[Measured], wire_bytes: Option<u64>) -> Self {
        let subscribers = done.get(1..).unwrap_or_default();
        // Programs of others may know it at the sender's end only.
        let told = done.iter().map(|one| one.throughput).filter(|throughput| *throughput > 0.0);
        let slowest = told.reduce(f64::min).unwrap_or(0.0);
        let bytes = job.frames as f64 * job.bytes() as f64 * subscribers.len() as f64;
        // Programs of others send no frames to warm up.
        let warmup = if job.contender.transport.has_one_receiver() { 0 } else { job.warmup };
        let measured = job.frames as f64 / (job.frames + warmup).max(1) as f64;
        Self { throughput: slowest, bytes, wire_bytes: wire_bytes.map(|sent| sent as f64 * measured) }
    }

    pub(super) fn brief(&self) -> String {
        format!("{:.3} GB/s", self.throughput / GB)
    }
}

/// Medians over the runs that count.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct LinkSummary {
    /// GB per second that the slowest subscriber received.
    pub(crate) gb_per_second: Option<Spread>,
    /// CPU-seconds per GB that arrived, of all processes.
    pub(crate) cpu_seconds_per_gb: Option<Spread>,
    /// The same, of the sender.
    pub(crate) sender_cpu_seconds_per_gb: Option<Spread>,
    /// The same, of the receivers.
    pub(crate) receiver_cpu_seconds_per_gb: Option<Spread>,
    /// CPU-milliseconds of the sender per frame, for all subscribers together.
    pub(crate) sender_cpu_ms_per_frame: Option<Spread>,
    /// The same per frame and subscriber.
    pub(crate) sender_cpu_ms_per_frame_and_subscriber: Option<Spread>,
    /// Bytes on the wire per frame and subscriber.
    pub(crate) wire_bytes_per_frame: Option<Spread>,
}

impl LinkSummary {
    pub(super) fn of(cell: &Cell) -> Option<Self> {
        if !cell.contender.transport.is_remote() {
            return None;
        }
        let subscribers = f64::from(cell.contender.consumers.max(1));
        let spread = |figure: &dyn Fn(&Run, &LinkRun) -> Option<f64>| {
            Spread::of(cell.counting().filter_map(|run| figure(run, run.link.as_ref()?)))
        };
        let per_gb = |seconds: &dyn Fn(&Run) -> f64| {
            spread(&|run, link| Some(seconds(run) * GB / link.bytes).filter(|_| link.bytes > 0.0))
        };
        let frames = |run: &Run| run.frames.max(1) as f64;
        let ms_per_frame = |run: &Run| run.producer_cpu_seconds * 1000.0 / frames(run);
        Some(Self {
            gb_per_second: spread(&|_, link| Some(link.throughput / GB)),
            cpu_seconds_per_gb: per_gb(&Run::cpu_seconds),
            sender_cpu_seconds_per_gb: per_gb(&|run| run.producer_cpu_seconds),
            receiver_cpu_seconds_per_gb: per_gb(&|run| run.consumer_cpu_seconds.iter().sum()),
            sender_cpu_ms_per_frame: spread(&|run, _| Some(ms_per_frame(run))),
            sender_cpu_ms_per_frame_and_subscriber: spread(&|run, _| Some(ms_per_frame(run) / subscribers)),
            wire_bytes_per_frame: spread(&|run, link| Some(link.wire_bytes? / frames(run) / subscribers)),
        })
    }
}

/// One row for each contender.
pub(super) fn table<'a>(cells: impl Iterator<Item = &'a Cell>) -> Table {
    let mut table = Table::new([
        "TRANSPORT",
        ">1->N",
        ">GB/s",
        ">CPU-s/GB",
        ">SENDER",
        ">RECEIVER",
        ">ms/FRAME",
        ">PER SUBSCRIBER",
        ">WIRE BYTES",
        ">FAULTS",
        ">COPIED",
        ">FPS",
        ">P50 us",
        ">P99 us",
        ">RUNS",
    ]);
    for cell in cells {
        let summary = &cell.summary;
        let link = summary.link.clone().unwrap_or_default();
        let whole = |spread: &Option<Spread>, digits| spread.map_or("-".into(), |s| s.show(digits));
        let median = |spread: &Option<Spread>, digits: usize| {
            spread.map_or("-".into(), |s| format!("{:.digits$}", s.median))
        };
        table.row([
            cell.name.clone(),
            cell.contender.consumers.to_string(),
            whole(&link.gb_per_second, 3),
            whole(&link.cpu_seconds_per_gb, 3),
            median(&link.sender_cpu_seconds_per_gb, 3),
            median(&link.receiver_cpu_seconds_per_gb, 3),
            median(&link.sender_cpu_ms_per_frame, 3),
            median(&link.sender_cpu_ms_per_frame_and_subscriber, 3),
            median(&link.wire_bytes_per_frame, 0),
            median(&summary.faults, 3),
            median(&summary.copied, 2),
            median(&summary.fps, 1),
            median(&summary.latency_us.p50, 1),
            median(&summary.latency_us.p99, 0),
            format!("{}/{}", cell.runs.len() - summary.discarded, cell.runs.len()),
        ]);
    }
    table
}

/// The targets for links of frames of one size.
pub(super) fn judge(targets: &mut Targets, cells: &[&Cell], size: &str) {
    // What the kernel does for soft RDMA is in nobody's CPU, so there is no bound for it.
    let compared = [
        (Transport::PagecastTcp, Transport::TcpLoop, 0.9, Some(1.2)),
        (Transport::PagecastTcp, Transport::TcpLoopNear, 0.9, Some(1.2)),
        (Transport::PagecastRdma, Transport::IbWriteBw, 0.95, None),
    ];
    for (ours, theirs, throughput, cpu) in compared {
        for ours in cells.iter().filter(|cell| cell.contender.transport == ours) {
            let consumers = ours.contender.consumers;
            let Some(theirs) = cells.iter().find(|cell| cell.is(theirs, consumers)) else { continue };
            let of = |what: &str| format!("{what}: {} / {}, {size}, 1->{consumers}", ours.name, theirs.name);
            let gb = |run: &Run| run.link.as_ref().map(|link| link.throughput);
            targets.bounded(of("throughput"), pairs(ours, theirs, gb), Bound::AtLeast(throughput));
            let Some(cpu) = cpu else { continue };
            let per_byte = |run: &Run| Some(run.cpu_seconds() / run.link.as_ref()?.bytes);
            targets.bounded(of("CPU per byte"), pairs(ours, theirs, per_byte), Bound::AtMost(cpu));
        }
    }
    for ours in cells.iter().filter(|cell| cell.contender.transport.is_ours()) {
        let of = |text: &str| format!("{text}: {}, {size}, 1->{}", ours.name, ours.contender.consumers);
        targets.bounded(of("minor faults per frame"), median(ours.summary.faults), Bound::AtMost(0.01));
        targets.bounded(of("copies per frame"), median(ours.summary.copied), Bound::AtMost(0.0));
    }
}

/// The median of the ratios, run by run: what slows the whole machine down cancels out.
fn pairs(ours: &Cell, theirs: &Cell, figure: impl Fn(&Run) -> Option<f64>) -> Option<f64> {
    let pairs = ours.runs.iter().zip(&theirs.runs).filter(|(ours, theirs)| ours.counts() && theirs.counts());
    median(Spread::of(pairs.filter_map(|(ours, theirs)| Some(figure(ours)? / figure(theirs)?))))
}

#[cfg(test)]
mod tests {
    use super::super::contender::Contender;
    use super::super::size::FrameSize;
    use super::*;

    fn cell(transport: Transport, throughputs: &[f64]) -> Cell {
        let contender = Contender { transport, kind: None, consumers: 2 };
        let mut cell = Cell::new(contender, FrameSize::Bytes { frame_bytes: 1 << 20 });
        let run = |throughput: &f64| Run {
            frames: 10,
            producer_cpu_seconds: 2.0,
            consumer_cpu_seconds: vec![1.0, 3.0],
            link: Some(LinkRun { throughput: *throughput, bytes: 2e9, wire_bytes: Some(4000.0) }),
            ..Run::default()
        };
        cell.runs = throughputs.iter().map(run).collect();
        cell
    }

    #[test]
    fn figures_are_per_gb_and_per_frame_and_subscriber() {
        let link = LinkSummary::of(&cell(Transport::TcpLoop, &[3e9, 1e9, 2e9])).unwrap();
        let of = |spread: Option<Spread>| spread.unwrap().median;
        assert_eq!(of(link.gb_per_second), 2.0);
        assert_eq!((of(link.cpu_seconds_per_gb), of(link.sender_cpu_seconds_per_gb)), (3.0, 1.0));
        assert_eq!(of(link.receiver_cpu_seconds_per_gb), 2.0);
        assert_eq!(of(link.sender_cpu_ms_per_frame), 200.0);
        assert_eq!(of(link.sender_cpu_ms_per_frame_and_subscriber), 100.0);
        assert_eq!(of(link.wire_bytes_per_frame), 200.0);
        assert!(LinkSummary::of(&cell(Transport::Pagecast, &[1e9])).is_none());
    }

    #[test]
    fn pairs_are_compared_run_by_run_and_broken_ones_left_out() {
        let ours = cell(Transport::PagecastTcp, &[1e9, 20e9, 3e9]);
        let mut theirs = cell(Transport::TcpLoop, &[2e9, 20e9, 30e9]);
        theirs.runs[2].dropped = 1;
        let gb = |run: &Run| run.link.as_ref().map(|link| link.throughput);
        assert_eq!(pairs(&ours, &theirs, gb), Some(0.75));
    }
}
