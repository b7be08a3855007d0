//! iperf3: what a well-known program gets out of the same network, for comparison.

use serde_json::Value;

use super::job::{Job, Measured};
use super::produce::finish;
use super::program::{Ended, Program, free_port};
use crate::workers::child::{Control, say};

pub(super) const PROGRAM: &str = "iperf3";

fn text(error: impl std::fmt::Display) -> String {
    format!("{PROGRAM}: {error}")
}

/// Sends as many bytes as the frames would have.
pub(super) fn produce(job: &Job, control: &Control) -> Result<(), String> {
    let (host, port) = (job.route.publisher, free_port(job.route.publisher)?);
    say("ready", &port.to_string());
    say("connected", &());
    if !control.wait_for_go() {
        return Ok(());
    }
    let total = job.frames * job.bytes() as u64;
    let client = format!("-c {host} -p {port} -n {total} -J");
    let ended = start(&client)?.end(control)?;
    figure(&report(&ended)?, "sum_sent")?;
    finish(Measured { usage: ended.usage, frames: job.frames, ..Measured::default() }, control);
    Ok(())
}

/// Receives them.
pub(super) fn consume(job: &Job, control: &Control) -> Result<Measured, String> {
    let (host, port) = (job.route.publisher, job.address()?);
    let mut server = start(&format!("-s -1 -B {host} -p {port} -J"))?;
    server.wait_for_listener(port.parse().map_err(text)?)?;
    say("ready", &());
    let ended = server.end(control)?;
    let throughput = figure(&report(&ended)?, "sum_received")? / 8.0;
    Ok(Measured { usage: ended.usage, frames: job.frames, throughput, ..Measured::default() })
}

fn start(arguments: &str) -> Result<Program, String> {
    Program::start(PROGRAM, &arguments.split(' ').map(str::to_owned).collect::<Vec<_>>())
}

fn report(ended: &Ended) -> Result<Value, String> {
    let report: Value = serde_json::from_str(&ended.output).map_err(text)?;
    match report["error"].as_str() {
        Some(error) => Err(text(error)),
        None => Ok(report),
    }
}

/// Bits per second.
fn figure(report: &Value, sum: &str) -> Result<f64, String> {
    report["end"][sum]["bits_per_second"].as_f64().ok_or_else(|| text(format_args!("no {sum} in its report")))
}
