//! `pagecast bench`: what frames cost, in real processes, beside a floor and the usual alternatives.

mod consume;
mod contender;
mod floor;
#[cfg(feature = "gstreamer")]
mod gstreamer;
mod iperf;
mod job;
mod link;
mod local;
mod machine;
mod perftest;
mod produce;
mod program;
mod remote;
mod report;
mod route;
mod run;
mod series;
mod size;
mod spread;
mod svg;
mod targets;
mod tcp_loop;
mod wire;

pub(crate) use consume::consume;
pub(crate) use job::Job;
pub(crate) use machine::Machine;
pub(crate) use produce::produce;

use crate::exit::Outcome;

/// Measure what frames cost.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  pagecast bench local --help
  pagecast bench local
  pagecast bench remote --against tcp-loop,iperf3
  pagecast bench remote --link rdma --size 640x480")]
pub(crate) struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Between processes of this machine.
    Local(local::Local),
    /// To other hosts, within this one.
    Remote(remote::Remote),
}

impl Bench {
    pub(crate) fn run(self) -> Outcome {
        match self.what {
            What::Local(command) => command.run(),
            What::Remote(command) => command.run(),
        }
    }
}
