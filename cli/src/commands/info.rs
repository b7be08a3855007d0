//! `pagecast info`.

use std::time::Duration;

use clap::Args;
use pagecast::publisher::{ForeignPool, Info, PublisherFigures, SubscriberInfo};

use super::observe::Observer;
use super::receive::hint;
use crate::address;
use crate::exit::{Exit, Outcome};
use crate::output::{self, Table, bytes, microseconds};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pagecast info cam0
  pagecast info unix:/run/user/1000/pagecast/cam0.sock
  pagecast info cam0 --json | jq '.subscribers[] | {name, dropped}'")]
pub(crate) struct InfoOf {
    /// The publisher: unix:NAME, unix:/path, tcp://, rdma:// or remote://HOST:PORT, or NAME.
    #[arg(value_name = "URI", value_parser = address::parse)]
    uri: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Seconds that the publisher has to answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0, value_parser = super::seconds)]
    timeout: f64,
    #[command(flatten)]
    remote: address::Remote,
}

impl InfoOf {
    pub(crate) fn run(self) -> Outcome {
        let observer = Observer::open(&self.uri, false, &self.remote)?;
        let info = observer.ask(Duration::from_secs_f64(self.timeout)).map_err(hint)?;
        if self.json {
            output::json(&info)?;
        } else {
            show(&info)?;
        }
        Ok(Exit::Ok)
    }
}

fn show(info: &Info) -> std::io::Result<()> {
    for (name, value) in lines(info) {
        output::line(format_args!("{name:<12} {}", output::plain(&value)))?;
    }
    if info.subscribers.is_empty() {
        return output::line("no subscribers");
    }
    output::line("")?;
    subscribers(info).print()
}

fn lines(info: &Info) -> Vec<(&'static str, String)> {
    let p: &PublisherFigures = &info.publisher;
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let list = |all: &[String]| if all.is_empty() { "-".to_owned() } else { all.join(", ") };
    let mut lines = vec![
        ("name", info.name.clone()),
        ("uri", info.uri.clone()),
        ("caps", or_none(&info.caps)),
        ("pid", p.pid.to_string()),
        ("frames", format!("{} ({:.1} fps, {})", p.frames, p.fps, bytes(p.bytes))),
        ("dropped", format!("{} over all subscribers", p.dropped)),
        ("copied", p.copied.to_string()),
        ("held", p.held.to_string()),
        (
            "pool",
            format!(
                "{} of at most {}, {} free",
                bytes(p.pool_total),
                bytes(p.pool_limit),
                bytes(p.pool_free)
            ),
        ),
        ("backing", or_none(&p.backing)),
        ("faces", list(&p.faces)),
        ("access", or_none(&p.access)),
        (
            "cut off",
            format!("{} evicted, {} for faults, {} frames reclaimed", p.evicted, p.faults, p.reclaimed),
        ),
        ("epoch", p.epoch.to_string()),
    ];
    lines.extend(p.foreign.iter().map(|foreign| ("camera", of_foreign(foreign))));
    if !p.not_carried.is_empty() {
        let all: Vec<_> = p.not_carried.iter().map(|(name, count)| format!("{name} ({count})")).collect();
        lines.push(("not carried", all.join(", ")));
    }
    lines.extend(p.fallbacks.iter().map(|fallback| ("fallback", fallback.clone())));
    lines
}

fn of_foreign(foreign: &ForeignPool) -> String {
    let fewest = foreign.fewest.map_or_else(dash, |fewest| fewest.to_string());
    format!(
        "{} buffers, at the fewest {fewest} left; copies from {} on; {} missed, {} left out",
        foreign.buffers, foreign.reserve, foreign.missed, foreign.left_out
    )
}

fn dash() -> String {
    "-".to_owned()
}

/// Bytes on the wire for each frame that a subscriber on another host got.
pub(super) fn wire_per_frame(s: &SubscriberInfo) -> Option<u64> {
    s.wire_bytes.and_then(|bytes| bytes.checked_div(s.frames))
}

fn subscribers(info: &Info) -> Table {
    let mut table = Table::new([
        ">ID",
        ">PID",
        ">UID",
        "NAME",
        "TRANSPORT",
        "POLICY",
        ">FRAMES",
        ">DROPPED",
        ">SKIPPED",
        ">HELD",
        ">CREDITS",
        ">MAILBOX",
        "FACES",
        ">RTT",
        ">WIRE/FRAME",
        ">SECONDS",
    ]);
    for s in &info.subscribers {
        table.row([
            s.id.to_string(),
            if s.peer.is_some() { "-".to_owned() } else { s.pid.to_string() },
            if s.peer.is_some() { "-".to_owned() } else { s.uid.to_string() },
            s.name.clone(),
            s.peer.as_ref().map_or_else(|| s.transport.clone(), |peer| format!("{} {peer}", s.transport)),
            s.policy.clone(),
            s.frames.to_string(),
            s.dropped.to_string(),
            s.skipped.to_string(),
            s.held.to_string(),
            s.credits.to_string(),
            format!("{}/{}", s.mailbox, s.mailbox_limit),
            s.faces.join(","),
            s.rtt_us.map_or_else(dash, |rtt| microseconds(rtt.last)),
            wire_per_frame(s).map_or_else(dash, bytes),
            format!("{:.0}", s.connected_seconds),
        ]);
    }
    table
}
