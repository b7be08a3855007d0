//! `pagecast top`.

use std::collections::HashMap;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use clap::Args;
use pagecast::publisher::{Info, SubscriberInfo};

use super::info::wire_per_frame;
use super::list::{Found, Where};
use crate::caps::brief;
use crate::exit::{Exit, Outcome};
use crate::output::{self, Table, bytes, microseconds};
use crate::process::cpu_time;
use crate::signals;

/// How long publishers may take to answer: a stopped one must not stop the table.
const PATIENCE: Duration = Duration::from_millis(300);

#[derive(Debug, Args)]
#[command(after_help = "\
On a terminal the table refreshes in place until Ctrl-C; in a pipe one table
follows another. CPU is that of the whole process, 100 % is one processor.

Examples:
  pagecast top
  pagecast top --interval 0.5
  pagecast top -n 1
  pagecast top -n 10 --json        one line of JSON per look
  pagecast top cam0 tcp://camera.lan")]
pub(crate) struct Top {
    #[command(flatten)]
    publishers: Where,
    /// Seconds between two looks.
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = interval)]
    interval: f64,
    /// End after so many tables.
    #[arg(short = 'n', long = "count", value_name = "N")]
    count: Option<u64>,
    /// Print one line of JSON per look.
    #[arg(long)]
    json: bool,
}

fn interval(text: &str) -> Result<f64, String> {
    super::seconds(text).and_then(|s| if s >= 0.05 { Ok(s) } else { Err("at least 0.05 seconds".to_owned()) })
}

impl Top {
    pub(crate) fn run(self) -> Outcome {
        let screen = (output::is_terminal() && !self.json).then(Screen::enter).transpose()?;
        let mut before = Sample::default();
        let mut left = self.count.unwrap_or(u64::MAX);
        while left > 0 {
            let found = self.publishers.find(PATIENCE)?;
            let now = Sample::take(&found);
            match &screen {
                _ if self.json => output::json_line(&found)?,
                Some(screen) => screen.show(&table(&found, &before, &now))?,
                None => output::line(format_args!("{}\n", table(&found, &before, &now).render(None)))?,
            }
            before = now;
            left -= 1;
            if left > 0 && !signals::sleep(Duration::from_secs_f64(self.interval)) {
                break;
            }
        }
        Ok(Exit::Ok)
    }
}

/// What rates are computed from.
#[derive(Debug, Default)]
struct Sample {
    at: Option<Instant>,
    /// Frames and bytes, by publisher and subscriber (0: the publisher itself).
    counts: HashMap<(String, u32, u64), (u64, u64)>,
    cpu: HashMap<i32, Duration>,
}

impl Sample {
    fn take(found: &[Found]) -> Self {
        let mut sample = Self { at: Some(Instant::now()), ..Self::default() };
        for info in found.iter().filter_map(|found| found.info.as_ref()) {
            let p = &info.publisher;
            sample.counts.insert((info.uri.clone(), p.epoch, 0), (p.frames, p.bytes));
            for s in &info.subscribers {
                sample.counts.insert((info.uri.clone(), p.epoch, s.id), (s.frames, s.bytes));
            }
            for pid in info.subscribers.iter().map(|s| s.pid).chain([p.pid as i32]) {
                sample.cpu.extend(cpu_time(pid).map(|time| (pid, time)));
            }
        }
        sample
    }

    /// Frames and bytes per second since `before`.
    fn rates(&self, before: &Self, info: &Info, id: u64) -> Option<(f64, f64)> {
        let key = (info.uri.clone(), info.publisher.epoch, id);
        let (then, now) = (before.counts.get(&key)?, self.counts.get(&key)?);
        let seconds = self.since(before)?;
        Some((now.0.saturating_sub(then.0) as f64 / seconds, now.1.saturating_sub(then.1) as f64 / seconds))
    }

    fn cpu(&self, before: &Self, pid: i32) -> Option<f64> {
        let time = self.cpu.get(&pid)?.checked_sub(*before.cpu.get(&pid)?)?;
        Some(time.as_secs_f64() / self.since(before)? * 100.0)
    }

    fn since(&self, before: &Self) -> Option<f64> {
        Some((self.at? - before.at?).as_secs_f64()).filter(|seconds| *seconds > 0.0)
    }
}

fn table(found: &[Found], before: &Sample, now: &Sample) -> Table {
    let mut table = Table::new([
        "NAME", ">PID", ">CPU", ">FPS", ">RATE", ">FRAMES", ">DROPPED", ">HELD", ">MAILBOX", "POLICY", "WHAT",
    ]);
    for found in found {
        let Some(info) = &found.info else {
            let mut cells: [String; 11] = Default::default();
            (cells[0], cells[10]) = (found.name.clone(), found.state.to_owned());
            table.row(cells);
            continue;
        };
        table.row(publisher(info, before, now));
        for subscriber in &info.subscribers {
            table.row(subscribed(info, subscriber, before, now));
        }
    }
    table
}

fn publisher(info: &Info, before: &Sample, now: &Sample) -> [String; 11] {
    let p = &info.publisher;
    let rates = now.rates(before, info, 0);
    [
        info.name.clone(),
        p.pid.to_string(),
        percent(now.cpu(before, p.pid as i32)),
        format!("{:.1}", rates.map_or(p.fps, |(fps, _)| fps)),
        rates.map_or_else(dash, |(_, rate)| format!("{}/s", bytes(rate as u64))),
        p.frames.to_string(),
        p.dropped.to_string(),
        p.held.to_string(),
        String::new(),
        String::new(),
        what(info),
    ]
}

/// Where the frames come from, and how that is doing.
fn what(info: &Info) -> String {
    let p = &info.publisher;
    let caps = info.caps.as_deref().map_or_else(|| "no caps yet".to_owned(), brief);
    let mut text = format!("pool {}/{}, {caps}", bytes(p.pool_total), bytes(p.pool_limit));
    if p.copied > 0 || p.foreign.is_some() {
        text += &format!(", {} copied", p.copied);
    }
    if let Some(camera) = &p.foreign {
        let fewest = camera.fewest.map_or_else(dash, |fewest| fewest.to_string());
        let (buffers, reserve, missed) = (camera.buffers, camera.reserve, camera.missed + camera.left_out);
        text += &format!(", {missed} missed, camera had {fewest}/{buffers} left (reserve {reserve})");
    }
    text
}

fn subscribed(info: &Info, s: &SubscriberInfo, before: &Sample, now: &Sample) -> [String; 11] {
    let rates = now.rates(before, info, s.id);
    [
        format!("  {}", s.name),
        if s.peer.is_some() { dash() } else { s.pid.to_string() },
        percent(now.cpu(before, s.pid)),
        rates.map_or_else(dash, |(fps, _)| format!("{fps:.1}")),
        rates.map_or_else(dash, |(_, rate)| format!("{}/s", bytes(rate as u64))),
        s.frames.to_string(),
        s.dropped.to_string(),
        format!("{}/{}", s.held, s.credits),
        format!("{}/{}", s.mailbox, s.mailbox_limit),
        s.policy.clone(),
        s.peer.as_ref().map_or_else(|| format!("{} {}", s.transport, s.faces.join(",")), |peer| way(s, peer)),
    ]
}

/// The way to a subscriber on another host, and what it costs.
fn way(s: &SubscriberInfo, peer: &str) -> String {
    let rtt = s.rtt_us.map_or_else(|| "unknown".to_owned(), |rtt| microseconds(rtt.last));
    let wire = wire_per_frame(s).map_or_else(dash, bytes);
    format!("{} {peer}, rtt {rtt}, {wire}/frame", s.transport)
}

fn dash() -> String {
    "-".to_owned()
}

fn percent(value: Option<f64>) -> String {
    value.map_or_else(dash, |value| format!("{value:.0}%"))
}

/// The terminal's other screen, left when dropped.
struct Screen;

impl Screen {
    fn enter() -> io::Result<Self> {
        let mut out = io::stdout().lock();
        write!(out, "\x1b[?1049h\x1b[?25l")?;
        out.flush()?;
        Ok(Self)
    }

    fn show(&self, table: &Table) -> io::Result<()> {
        let (width, height) = output::terminal_size();
        let text = table.render(Some(width));
        let mut out = io::stdout().lock();
        write!(out, "\x1b[H")?;
        for line in text.lines().take(height.saturating_sub(2)) {
            write!(out, "{line}\x1b[K\r\n")?;
        }
        write!(out, "\x1b[2mCtrl-C ends\x1b[0m\x1b[K\x1b[J")?;
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let mut out = io::stdout().lock();
        let _ = write!(out, "\x1b[?25h\x1b[?1049l");
        let _ = out.flush();
    }
}
