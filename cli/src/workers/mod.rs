//! Processes of our own: `demo` and `bench` start this same program again, each process in one role.
//!
//! A worker ends with its parent, however that ends. It is told what to do by lines on stdin, and reports
//! by lines of JSON on stdout.

pub(crate) mod child;
pub(crate) mod fleet;
pub(crate) mod memory;
pub(crate) mod pace;
#[cfg(feature = "gstreamer")]
pub(crate) mod painter;
pub(crate) mod usage;

use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid};
use serde::{Deserialize, Serialize};

use crate::exit::{Exit, Failure, Outcome};
use child::Control;

/// What a worker does.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Role {
    /// Publishes frames for a benchmark.
    BenchProducer(crate::bench::Job),
    /// Receives them.
    BenchConsumer(crate::bench::Job),
    /// Publishes the demonstration's picture.
    DemoPublisher(crate::demo::PublisherJob),
    /// Passes it on.
    DemoRelay(crate::demo::RelayJob),
    /// Receives it.
    DemoSubscriber(crate::demo::SubscriberJob),
    /// Publishes it by another transport.
    #[cfg(feature = "gstreamer")]
    RivalProducer(crate::demo::RivalJob),
    /// Receives it by another transport.
    #[cfg(feature = "gstreamer")]
    RivalConsumer(crate::demo::RivalJob),
}

/// Does one part of `demo` or `bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Worker {
    /// The process that must live.
    #[arg(long)]
    parent: i32,
    /// The role, as JSON.
    role: String,
}

impl Worker {
    pub(crate) fn run(self) -> Outcome {
        let fail = |error| Failure::failed(format_args!("prctl: {error}"));
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(fail)?;
        if getppid() != Pid::from_raw(self.parent) {
            return Ok(Exit::Failed); // it ended before we could ask to be told
        }
        let role: Role = serde_json::from_str(&self.role).map_err(Failure::usage)?;
        let control = Control::start();
        let done = match role {
            Role::BenchProducer(job) => crate::bench::produce(&job, &control),
            Role::BenchConsumer(job) => crate::bench::consume(&job, &control),
            Role::DemoPublisher(job) => crate::demo::publish(&job, &control),
            Role::DemoRelay(job) => crate::demo::relay(&job, &control),
            Role::DemoSubscriber(job) => crate::demo::subscribe(&job, &control),
            #[cfg(feature = "gstreamer")]
            Role::RivalProducer(job) => crate::demo::rival_produce(&job, &control),
            #[cfg(feature = "gstreamer")]
            Role::RivalConsumer(job) => crate::demo::rival_consume(&job, &control),
        };
        match done {
            Ok(()) => Ok(Exit::Ok),
            Err(text) => {
                child::say("failed", &text);
                Ok(Exit::Failed)
            }
        }
    }
}

/// A private folder for sockets and files, gone with the value.
pub(crate) fn folder(purpose: &str) -> Result<tempfile::TempDir, Failure> {
    let folder = tempfile::Builder::new().prefix(&format!("pagecast-{purpose}-")).tempdir();
    folder.map_err(|error| Failure::failed(format_args!("no temporary folder: {error}")))
}

/// Makes GStreamer ready, with our own elements.
#[cfg(feature = "gstreamer")]
pub(crate) fn gst_init() -> Result<(), String> {
    gst::init().map_err(|error| error.to_string())?;
    gstpagecast::plugin_register_static().map_err(|error| error.to_string())
}
