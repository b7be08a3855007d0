//! `pagecast recv`.

use std::time::Instant;

use clap::Args;
use pagecast::latency::known;
use pagecast::remote::RemoteFigures;
use pagecast::subscriber::SubscriberFigures;
use pagecast::{Frame, Subscriber};
use serde::Serialize;

use super::receive::{self, Calls, Receive};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{self, bytes, microseconds};
use crate::{address, stamp};

/// Wrong frames that are told one by one.
const TOLD: u64 = 5;

#[derive(Debug, Args)]
#[command(after_help = "\
Without a PIPELINE the frames are counted and their order is checked; their
bytes are read only with --check. On a terminal a line is printed every second.
Frames that were lost (not left out by --latest or --max-framerate) make the
exit code 1.
A PIPELINE whose publisher was killed gets the end of the stream, so that it
can complete its files, and the exit code is 3.

Examples:
  pagecast recv cam0
  pagecast recv cam0 -n 600 --check --json
  pagecast recv cam0 --latest --max-framerate 10
  pagecast recv cam0 --timeout 5          exit code 5 when nothing comes for 5 s
  pagecast recv cam0 videoconvert ! autovideosink
  pagecast recv cam0 -n 100 x264enc ! mp4mux ! filesink location=a.mp4")]
pub(crate) struct Recv {
    /// The publisher: unix:NAME, unix:/path, tcp://, rdma:// or remote://HOST:PORT, or NAME.
    #[arg(value_name = "URI", value_parser = address::parse)]
    uri: String,
    #[command(flatten)]
    how: Receive,
    /// Check the stamps that `pagecast demo` writes into every page.
    #[arg(long)]
    check: bool,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
    /// What receives the frames, as for gst-launch-1.0.
    #[cfg(feature = "gstreamer")]
    #[arg(value_name = "PIPELINE", trailing_var_arg = true, allow_hyphen_values = true)]
    pipeline: Vec<String>,
}

/// What `recv` found.
#[derive(Debug, Serialize)]
struct Summary {
    uri: String,
    caps: Option<String>,
    #[serde(flatten)]
    figures: SubscriberFigures,
    seconds: f64,
    fps: f64,
    out_of_order: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    checked: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wrong: Option<u64>,
}

/// What is seen of the frames themselves.
#[derive(Debug, Default)]
struct Seen {
    caps: Option<String>,
    first: Option<Instant>,
    last: Option<Instant>,
    last_id: u64,
    out_of_order: u64,
    last_number: Option<u64>,
    checked: u64,
    wrong: u64,
}

impl Seen {
    fn frame(&mut self, frame: &Frame, check: bool) {
        let now = Instant::now();
        self.first.get_or_insert(now);
        self.last = Some(now);
        if self.caps.as_deref() != frame.caps() {
            self.caps = frame.caps().map(str::to_owned);
            tracing::info!(caps = self.caps, "caps");
        }
        if self.last_id >= frame.id() {
            self.out_of_order += 1;
        }
        self.last_id = frame.id();
        if check {
            self.check(frame);
        }
    }

    fn check(&mut self, frame: &Frame) {
        self.checked += 1;
        let wrong = match stamp::check(frame) {
            Ok(number) if self.last_number.is_some_and(|last| last >= number) => {
                Some(format!("it is stamped {number}, not later than the one before"))
            }
            Ok(number) => {
                self.last_number = Some(number);
                None
            }
            Err(error) => Some(error.to_string()),
        };
        if let Some(wrong) = wrong {
            self.wrong += 1;
            if self.wrong <= TOLD {
                output::note(format_args!("frame {}: {wrong}", frame.id()));
            }
        }
    }

    /// A new life of the link may begin with any number.
    fn restart(&mut self) {
        self.last_id = 0;
        self.last_number = None;
    }
}

impl Recv {
    pub(crate) fn run(self) -> Outcome {
        #[cfg(feature = "gstreamer")]
        if !self.pipeline.is_empty() {
            if self.check || self.json {
                return Err(Failure::usage("--check and --json are for receiving without a PIPELINE"));
            }
            return super::recv_pipeline::run(&self.uri, &self.how, &self.pipeline);
        }
        let seen = std::cell::RefCell::new(Seen::default());
        let mut pace = Pace::default();
        let each = |frame: &Frame| {
            seen.borrow_mut().frame(frame, self.check);
            Ok(true)
        };
        let connected = || seen.borrow_mut().restart();
        let second = |subscriber: &Subscriber| pace.print(&subscriber.figures());
        let (end, figures) = receive::frames(&self.uri, &self.how, Calls { connected, each, second })?;
        tracing::info!(?end, "ended");
        let summary = self.summary(seen.into_inner(), figures);
        if self.json {
            output::json(&summary)?;
        } else {
            output::line(&summary)?;
        }
        self.judge(&summary)
    }

    fn summary(&self, seen: Seen, figures: SubscriberFigures) -> Summary {
        let span =
            seen.first.zip(seen.last).map(|(first, last)| last - first).unwrap_or_default().as_secs_f64();
        let intervals = figures.frames.saturating_sub(1) as f64;
        Summary {
            uri: self.uri.clone(),
            caps: seen.caps,
            seconds: span,
            fps: if span > 0.0 { intervals / span } else { 0.0 },
            out_of_order: seen.out_of_order,
            checked: self.check.then_some(seen.checked),
            wrong: self.check.then_some(seen.wrong),
            figures,
        }
    }

    fn judge(&self, summary: &Summary) -> Outcome {
        if let Some(wrong) = summary.wrong.filter(|wrong| *wrong > 0) {
            return Err(Failure::failed(format_args!("{wrong} frames are not as they were stamped")));
        }
        if summary.out_of_order > 0 {
            return Err(Failure::failed(format_args!("{} frames came out of order", summary.out_of_order)));
        }
        if summary.figures.dropped > 0 && !self.how.leaves_out() {
            let dropped = summary.figures.dropped;
            return Err(Failure::failed(format_args!(
                "{dropped} frames were lost: ask for --policy block or more --credits, or allow it by --latest"
            )));
        }
        Ok(Exit::Ok)
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let figures = &self.figures;
        write!(f, "{} frames, {}", figures.frames, bytes(figures.bytes))?;
        if self.seconds > 0.0 {
            write!(f, " in {:.2} s: {:.2} fps", self.seconds, self.fps)?;
        }
        write!(f, ", {} dropped", figures.dropped)?;
        if let (Some(checked), Some(wrong)) = (self.checked, self.wrong) {
            write!(f, ", {checked} checked, {wrong} wrong")?;
        }
        if figures.reconnects > 0 {
            write!(f, ", {} reconnects", figures.reconnects)?;
        }
        if figures.frames > 0 {
            write!(f, "\n{}", Latencies(figures))?;
        }
        match &figures.remote {
            Some(remote) => write!(f, "\n{}", Wire(remote, figures.frames)),
            None => Ok(()),
        }
    }
}

/// Latencies in words; between two hosts as far as they are known.
struct Latencies<'a>(&'a SubscriberFigures);

impl std::fmt::Display for Latencies<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (all, uncertainty) = (&self.0.latency_us, self.0.uncertainty_us);
        let told =
            |time: f64| known(time, uncertainty).map_or("unknown".to_owned(), |us| format!("{us:.0} us"));
        write!(f, "latency p50 {}, p99 {}, max {}", told(all.p50), told(all.p99), told(all.max))?;
        match uncertainty {
            Some(0.0) => Ok(()),
            Some(uncertainty) => write!(f, ", each within {uncertainty:.0} us"),
            None => write!(f, ": how the clocks of the two hosts stand to each other is not known"),
        }
    }
}

/// A link to another host in words.
struct Wire<'a>(&'a RemoteFigures, u64);

impl std::fmt::Display for Wire<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(link, frames) = self;
        let rtt = link.rtt_us.map_or("unknown".to_owned(), |rtt| microseconds(rtt.last));
        let per_frame = link.wire_bytes.checked_div(*frames).map_or("-".to_owned(), bytes);
        write!(f, "{} {}, rtt {rtt}, {per_frame} on the wire per frame", link.transport, link.peer)?;
        link.fallback.as_ref().map_or(Ok(()), |why| write!(f, "\n{why}"))
    }
}

/// The line per second on a terminal.
#[derive(Debug, Default)]
struct Pace {
    last: Option<(Instant, SubscriberFigures)>,
}

impl Pace {
    fn print(&mut self, figures: &SubscriberFigures) -> Result<(), Failure> {
        if !output::is_terminal() {
            return Ok(());
        }
        let now = Instant::now();
        let (frames, size, dropped, seconds) = match &self.last {
            Some((then, last)) => (
                figures.frames - last.frames,
                figures.bytes - last.bytes,
                figures.dropped - last.dropped,
                (now - *then).as_secs_f64(),
            ),
            None => (figures.frames, figures.bytes, figures.dropped, 1.0),
        };
        self.last = Some((now, figures.clone()));
        let (fps, rate) = (frames as f64 / seconds, bytes((size as f64 / seconds) as u64));
        let total = figures.frames;
        Ok(output::line(format_args!("{total:>8} frames  {fps:>7.1} fps  {rate:>10}/s  {dropped} dropped"))?)
    }
}
