//! One file per subcommand.

mod doctor;
mod info;
mod keygen;
mod list;
mod observe;
mod pipe;
mod prove;
mod receive;
mod recv;
#[cfg(feature = "gstreamer")]
mod recv_pipeline;
mod relay;
#[cfg(any(feature = "gstreamer", feature = "camera"))]
mod serve;
#[cfg(feature = "gstreamer")]
mod snapshot;
mod top;

use clap::Subcommand;

use crate::exit::Outcome;

/// What the user wants.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Publish what a camera, a pipeline, a file or a test picture gives.
    #[cfg(any(feature = "gstreamer", feature = "camera"))]
    Serve(Box<serve::Serve>),
    /// List the publishers of this machine that can be found.
    List(list::List),
    /// Show all that a publisher tells of itself and of its subscribers.
    Info(info::InfoOf),
    /// Show publishers and subscribers, again and again.
    Top(top::Top),
    /// Show that the publisher, its subscribers and devices see the same pages.
    Prove(prove::Prove),
    /// Receive frames: count and check them, or feed them to a pipeline.
    Recv(recv::Recv),
    /// Receive here and publish there: the same pages to many more, without a copy.
    Relay(relay::RelayCommand),
    /// Write frames to stdout, for ffmpeg and others.
    Pipe(pipe::Pipe),
    /// Save one frame as a picture.
    #[cfg(feature = "gstreamer")]
    Snapshot(snapshot::Snapshot),
    /// Make an identity, for TLS with other hosts.
    Keygen(keygen::Keygen),
    /// Check what this machine offers, and say what to do about the rest.
    Doctor(doctor::Doctor),
    /// Show what Pagecast does, on this machine and in a minute.
    Demo(crate::demo::Demo),
    /// Measure what frames cost.
    Bench(crate::bench::Bench),
    #[command(hide = true)]
    Worker(crate::workers::Worker),
}

impl Command {
    pub(crate) fn run(self) -> Outcome {
        match self {
            #[cfg(any(feature = "gstreamer", feature = "camera"))]
            Self::Serve(command) => command.run(),
            Self::List(command) => command.run(),
            Self::Info(command) => command.run(),
            Self::Top(command) => command.run(),
            Self::Prove(command) => command.run(),
            Self::Recv(command) => command.run(),
            Self::Relay(command) => command.run(),
            Self::Pipe(command) => command.run(),
            #[cfg(feature = "gstreamer")]
            Self::Snapshot(command) => command.run(),
            Self::Keygen(command) => command.run(),
            Self::Doctor(command) => command.run(),
            Self::Demo(command) => command.run(),
            Self::Bench(command) => command.run(),
            Self::Worker(command) => command.run(),
        }
    }
}

/// A number of seconds, for clap.
pub(super) fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("{text:?} is no number of seconds"))?;
    let limit = 1e6;
    if (0.0..=limit).contains(&seconds) { Ok(seconds) } else { Err(format!("0 to {limit} seconds")) }
}

/// Permissions, for clap.
pub(super) fn octal(text: &str) -> Result<u32, String> {
    let perms = u32::from_str_radix(text, 8).ok().filter(|perms| *perms <= 0o777);
    perms.ok_or_else(|| format!("{text:?} are no permissions: 600, 660 or 666"))
}
