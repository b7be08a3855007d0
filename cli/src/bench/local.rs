//! `pagecast bench local`: the plan of a measurement, and its execution.

use clap::{Args, ValueEnum};

use super::contender::{Contender, Kind, Transport};
use super::report::Bench;
use super::route::Route;
use super::series::{Pace, Plan, Series};
use super::size::FrameSize;
use crate::exit::Outcome;

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
    #[arg(long, value_delimiter = ',', default_value = "1920x1080", value_parser = FrameSize::picture)]
    sizes: Vec<FrameSize>,
    /// Live or free running.
    #[arg(long, value_enum, default_value = "live")]
    pace: Pace,
    /// What else to measure in pipelines beside pagecastsink and pagecastsrc.
    #[arg(long, value_enum, value_delimiter = ',')]
    against: Vec<Against>,
    /// How consumers in pipelines take frames.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "appsink,callback")]
    kinds: Vec<Kind>,
    /// Measure the library and the floor only, without pipelines.
    #[arg(long)]
    library: bool,
    #[command(flatten)]
    series: Series,
}

impl Local {
    pub(crate) fn run(self) -> Outcome {
        let mut notes = Vec::new();
        let contenders = self.plan(&mut notes);
        let (sizes, pace) = (self.sizes.clone(), self.pace);
        let route = Route::LOOPBACK;
        self.series.run(Plan { bench: Bench::Local, contenders, sizes, pace, route, notes })
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
}
