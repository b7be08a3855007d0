//! iperf3: what a well-known program gets out of the same network, for comparison.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::consume::PATIENCE;
use super::job::{Job, Measured};
use super::produce::finish;
use crate::workers::child::{Control, say};
use crate::workers::usage::Usage;

pub(super) const PROGRAM: &str = "iperf3";

fn text(error: impl std::fmt::Display) -> String {
    format!("{PROGRAM}: {error}")
}

/// Whether it can be started.
pub(super) fn is_installed() -> bool {
    let quiet = Command::new(PROGRAM).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    quiet.is_ok_and(|status| status.success())
}

/// Sends as many bytes as the frames would have.
pub(super) fn produce(job: &Job, control: &Control) -> Result<(), String> {
    // A port that is free now; nobody else is likely to take it before the server does.
    let free = TcpListener::bind((job.host.as_str(), 0)).and_then(|listener| listener.local_addr());
    let port = free.map_err(text)?.port();
    say("ready", &port.to_string());
    say("connected", &());
    if !control.wait_for_go() {
        return Ok(());
    }
    let total = job.frames * job.bytes() as u64;
    let mut command = Command::new(PROGRAM);
    command.args(["-c", &job.host, "-p", &port.to_string(), "-n", &total.to_string(), "-J"]);
    let (report, usage) = run(command.stdin(Stdio::null()).stdout(Stdio::piped()), control)?;
    figure(&report, "sum_sent")?;
    finish(Measured { usage, frames: job.frames, ..Measured::default() }, control);
    Ok(())
}

/// Receives them.
pub(super) fn consume(job: &Job, control: &Control) -> Result<Measured, String> {
    let port = job.address()?;
    let mut command = Command::new(PROGRAM);
    command.args(["-s", "-1", "-B", &job.host, "-p", port, "-J"]);
    let child = start(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
    wait_for_listener(port.parse().map_err(text)?)?;
    say("ready", &());
    let (report, usage) = end(child, control)?;
    let throughput = figure(&report, "sum_received")? / 8.0;
    Ok(Measured { usage, frames: job.frames, throughput, ..Measured::default() })
}

fn start(command: &mut Command) -> Result<Guard, String> {
    command.spawn().map(Guard).map_err(text)
}

fn run(command: &mut Command, control: &Control) -> Result<(Value, Usage), String> {
    end(start(command)?, control)
}

/// A child that does not outlive us.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What it printed, and what it took from its start to its end.
fn end(mut child: Guard, control: &Control) -> Result<(Value, Usage), String> {
    let out = child.0.stdout.take().ok_or("no output")?;
    let reader = std::thread::spawn(move || serde_json::from_reader::<_, Value>(out));
    while child.0.try_wait().map_err(text)?.is_none() {
        if control.stopped() {
            return Err("stopped before the end".to_owned());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let report = reader.join().map_err(|_| "its output could not be read".to_owned())?.map_err(text)?;
    match report["error"].as_str() {
        Some(error) => Err(text(error)),
        None => Ok((report, Usage::of_children())),
    }
}

/// Bits per second.
fn figure(report: &Value, sum: &str) -> Result<f64, String> {
    report["end"][sum]["bits_per_second"].as_f64().ok_or_else(|| text(format_args!("no {sum} in its report")))
}

fn wait_for_listener(port: u16) -> Result<(), String> {
    let until = Instant::now() + PATIENCE;
    let tables =
        || ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| std::fs::read_to_string(path).unwrap_or_default());
    while !tables().iter().any(|table| has_listener(table, port)) {
        if Instant::now() > until {
            return Err(text("its server does not listen"));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Whether a table of sockets, as the kernel prints it, has one that listens at this port.
fn has_listener(table: &str, port: u16) -> bool {
    let address = format!(":{port:04X}");
    table.lines().skip(1).any(|line| {
        let mut fields = line.split_whitespace();
        fields.nth(1).is_some_and(|local| local.ends_with(&address)) && fields.nth(1) == Some("0A")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_seen_in_the_kernels_table_and_a_connection_is_none() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = std::net::TcpStream::connect(address).unwrap();
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        assert!(has_listener(&table, address.port()));
        assert!(!has_listener(&table, client.local_addr().unwrap().port()));
    }
}
