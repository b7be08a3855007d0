//! `ib_write_bw` of perftest: what a well-known program gets out of the same RDMA devices, for comparison.
//!
//! The sender is its client, which writes one message per frame over one reliable connection, from the same bytes again and
//! again, many at a time. It fills nothing, and the receiver looks at nothing.

use std::net::IpAddr;

use pagecast::verbs::Verbs;

use super::job::{Job, Measured};
use super::produce::finish;
use super::program::{Ended, Program, free_port};
use crate::workers::child::{Control, say};

pub(super) const PROGRAM: &str = "ib_write_bw";

fn text(error: impl std::fmt::Display) -> String {
    format!("{PROGRAM}: {error}")
}

/// Writes as many messages as there are frames.
pub(super) fn produce(job: &Job, control: &Control) -> Result<(), String> {
    let port = free_port(job.route.publisher)?;
    say("ready", &port.to_string());
    say("connected", &());
    if !control.wait_for_go() {
        return Ok(());
    }
    let mut client = arguments(job, job.route.publisher, &port.to_string())?;
    client.push(job.route.subscriber.to_string());
    let ended = Program::start(PROGRAM, &client)?.end(control)?;
    let throughput = figure(&ended, job)?;
    finish(Measured { usage: ended.usage, frames: job.frames, throughput, ..Measured::default() }, control);
    Ok(())
}

/// Lets them be written.
pub(super) fn consume(job: &Job, control: &Control) -> Result<Measured, String> {
    let port = job.address()?;
    let mut server = Program::start(PROGRAM, &arguments(job, job.route.subscriber, port)?)?;
    server.wait_for_listener(port.parse().map_err(text)?)?;
    say("ready", &());
    let ended = server.end(control)?;
    let throughput = figure(&ended, job)?;
    Ok(Measured { usage: ended.usage, frames: job.frames, throughput, ..Measured::default() })
}

/// For the end with that address.
fn arguments(job: &Job, address: IpAddr, port: &str) -> Result<Vec<String>, String> {
    let verbs = Verbs::open().map_err(text)?;
    let (device, gid) = verbs.device_for(address).map_err(text)?;
    let (size, count) = (job.bytes(), job.frames);
    let device = ["-d".to_owned(), device.name().to_owned()];
    // -F: its warnings about clocks that change their speed are of no use here.
    let rest = format!("-i {} -x {} -s {size} -n {count} -p {port} -c RC -q 1 -F", gid.port, gid.index);
    Ok(device.into_iter().chain(rest.split(' ').map(str::to_owned)).collect())
}

/// Bytes per second, if it is about what was asked for.
fn figure(ended: &Ended, job: &Job) -> Result<f64, String> {
    let last = || ended.output.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("no output");
    if !ended.success {
        return Err(text(last()));
    }
    let row =
        parse(&ended.output).ok_or_else(|| text(format_args!("no figures in its report ({})", last())))?;
    match (row.bytes, row.messages) == (job.bytes() as u64, job.frames) {
        true => Ok(row.bytes_per_second),
        false => Err(text(format_args!("it sent {} messages of {} bytes", row.messages, row.bytes))),
    }
}

#[derive(Debug, PartialEq)]
struct Row {
    bytes: u64,
    messages: u64,
    bytes_per_second: f64,
}

/// The row below the heading; columns are found by their names.
fn parse(report: &str) -> Option<Row> {
    let mut lines = report.lines().skip_while(|line| !line.trim_start().starts_with("#bytes"));
    let (heading, row) = (lines.next()?, lines.find(|line| !line.trim().is_empty())?);
    // Some names have two words.
    let heading = heading.replace("BW peak", "BW_peak").replace("BW average", "BW_average");
    let names: Vec<&str> = heading.split_whitespace().collect();
    let fields: Vec<&str> = row.split_whitespace().collect();
    let of = |name: &str| {
        let at = names.iter().position(|column| column.starts_with(name))?;
        Some((names[at], *fields.get(at)?))
    };
    let (name, average) = of("BW_average")?;
    // What older versions call MB are MiB, too.
    let unit = match name.split_once('[')?.1 {
        "MB/sec]" | "MiB/sec]" => f64::from(1 << 20),
        "Gb/sec]" => 1e9 / 8.0,
        _ => return None,
    };
    let (bytes, messages) = (of("#bytes")?.1.parse().ok()?, of("#iterations")?.1.parse().ok()?);
    let bytes_per_second = average.parse::<f64>().ok()? * unit;
    let known = bytes_per_second.is_finite() && bytes_per_second > 0.0;
    known.then_some(Row { bytes, messages, bytes_per_second })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "\
---------------------------------------------------------------------------------------
                    RDMA_Write BW Test
 Dual-port       : OFF\t\tDevice         : rxe0
 CQ Moderation   : 1
---------------------------------------------------------------------------------------
";

    #[test]
    fn reports_of_all_versions_are_read() {
        for (columns, row, expected) in [
            ("BW peak[MB/sec]    BW average[MB/sec]   MsgRate[Mpps]", "61.50  60.00  0.000136", 62_914_560.0),
            ("BW peak[MiB/sec]   BW average[MiB/sec]  MsgRate[Mpps]", "61.50  60.00  0.000136", 62_914_560.0),
            ("BW average[Gb/sec] BW peak[Gb/sec]", "2.00 8.00", 250_000_000.0),
        ] {
            let report =
                format!("{HEAD} #bytes     #iterations    {columns}\n 460800     100       {row}\n---\n");
            let row = Row { bytes: 460_800, messages: 100, bytes_per_second: expected };
            assert_eq!(parse(&report), Some(row), "{report}");
        }
    }

    #[test]
    fn what_is_no_report_is_none() {
        let columns = " #bytes     #iterations    BW peak[MB/sec]    BW average[MB/sec]   MsgRate[Mpps]\n";
        for rest in ["", columns, " #bytes #iterations\n 1 2\n", &format!("{columns} 1 2 x y z\n")] {
            assert_eq!(parse(&format!("{HEAD}{rest}")), None, "{rest}");
        }
        let unknown = columns.replace("MB/sec", "furlongs");
        for rest in [&format!("{unknown} 1 5 1.0 1.0 1.0\n"), &format!("{columns} 1 5 1.0 nan 1.0\n")] {
            assert_eq!(parse(rest), None, "{rest}");
        }
    }
}
