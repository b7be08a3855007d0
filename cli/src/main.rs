//! The `pagecast` command.

mod address;
mod bench;
mod caps;
mod commands;
#[cfg(feature = "gstreamer")]
mod convert;
mod demo;
mod exit;
mod layout;
mod output;
#[cfg(feature = "gstreamer")]
mod pipeline;
mod process;
mod signals;
mod stamp;
mod workers;
mod y4m;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{ArgAction, Parser};
use tracing_subscriber::filter::LevelFilter;

use commands::Command;
use exit::Exit;

const AFTER_HELP: &str = "\
A publisher is named by unix:NAME (in the runtime folder, see `pagecast doctor`), unix:/path/of/socket, or NAME alone.

Examples:
  pagecast list
  pagecast info cam0
  pagecast recv cam0 -n 100
  pagecast doctor

";

#[derive(Debug, Parser)]
#[command(name = "pagecast", version, about = "Zero-copy frames for many consumers")]
#[command(after_help = format!("{AFTER_HELP}{}", exit::HELP), propagate_version = true)]
struct Cli {
    /// Tell more on stderr; twice for debugging.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let level = match cli.verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        _ => LevelFilter::DEBUG,
    };
    let colour = std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr);
    log.with_ansi(colour).without_time().init();
    let result = signals::install().and_then(|()| cli.command.run());
    let exit = match result {
        Ok(exit) => exit,
        Err(failure) => {
            failure.report();
            failure.exit
        }
    };
    // A signal that ended the command cleanly still shows in its exit code.
    let exit = match (exit, signals::caught()) {
        (Exit::Ok, Some(signal)) => Exit::Signal(signal),
        (exit, _) => exit,
    };
    exit.into()
}
