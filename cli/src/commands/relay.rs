//! `pagecast relay`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use pagecast::relay::{RelayFigures, Step};
use pagecast::{Policy, Relay, RelayError, RelayOptions};

use crate::exit::{Exit, Failure, Outcome};
use crate::output::{self, bytes, note};
use crate::{address, signals};

/// How long subscribers may take to give back what they hold when the relay ends.
const FAREWELL: Duration = Duration::from_secs(1);
const SECOND: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
#[command(after_help = "\
What FROM publishes is published again at every TO, out of the same pages. A
relay may begin before FROM is there and outlives it: whoever subscribes to the
relay stays, and frames come again when FROM does. On a terminal a line is
printed every second; Ctrl-C ends it.

Examples:
  pagecast relay cam0 cam0-again
  pagecast relay cam0 unix:/run/cam0.sock --perms 660
  pagecast relay tcp://10.0.0.5 cam0")]
pub(crate) struct RelayCommand {
    /// Where frames come from: an address or NAME.
    #[arg(value_name = "FROM", value_parser = address::parse)]
    from: String,
    /// Where to serve them: addresses or NAMEs.
    #[arg(value_name = "TO", required = true, value_parser = address::parse)]
    to: Vec<String>,
    /// What happens to subscribers that fall behind: auto, block, drop-oldest, drop-newest, latest.
    #[arg(long, value_name = "POLICY")]
    policy: Option<Policy>,
    /// Frames that the relay may hold of what FROM publishes, for all of its subscribers together.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=1024))]
    credits: Option<u32>,
    /// Subscribers at a time.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    max_clients: Option<u32>,
    /// Permissions of the sockets, octal: 600 lets in their owner only, 660 a group.
    #[arg(long, value_name = "OCTAL", value_parser = super::octal)]
    perms: Option<u32>,
    #[command(flatten)]
    remote: address::Remote,
    /// End, with exit code 5, when no frame comes for so many seconds.
    #[arg(long, value_name = "SECONDS", value_parser = super::seconds)]
    timeout: Option<f64>,
    /// Print the figures at the end as JSON.
    #[arg(long)]
    json: bool,
}

impl RelayCommand {
    pub(crate) fn run(self) -> Outcome {
        let relay = Relay::open(&self.from, &self.to.join(" "), self.options()?);
        let relay = Arc::new(relay.map_err(Failure::from)?);
        let stop = relay.clone();
        let _registration = signals::on_end(move || stop.stop());
        let ended = self.pass_on(&relay);
        let figures = relay.figures();
        relay.close(FAREWELL);
        let exit = ended?;
        match self.json {
            true => output::json(&figures)?,
            false => output::line(summary(&figures))?,
        }
        Ok(exit)
    }

    fn options(&self) -> Result<RelayOptions, Failure> {
        let mut options = RelayOptions::default();
        options.subscriber.credits = self.credits.or(options.subscriber.credits);
        options.publisher.policy = self.policy.unwrap_or(options.publisher.policy);
        options.publisher.max_subscribers = self.max_clients.unwrap_or(options.publisher.max_subscribers);
        let remote = self.remote.options(std::iter::once(&self.from).chain(&self.to).map(String::as_str))?;
        (options.subscriber.remote, options.publisher.remote) = (remote.clone(), remote);
        options.publisher.perms = self.perms.unwrap_or(options.publisher.perms);
        Ok(options)
    }

    fn pass_on(&self, relay: &Relay) -> Outcome {
        let patience = self.timeout.map(Duration::from_secs_f64);
        let (mut last_frame, mut next_line) = (Instant::now(), Instant::now() + SECOND);
        loop {
            let until_line = next_line.saturating_duration_since(Instant::now());
            let left = patience.map(|patience| patience.saturating_sub(last_frame.elapsed()));
            match relay.step(Some(left.map_or(until_line, |left| left.min(until_line)))) {
                Ok(Step::Frame) => last_frame = Instant::now(),
                Ok(Step::Connected(name)) => note(format_args!("{}: connected to {name}", self.from)),
                Ok(Step::Disconnected(why)) => note(format_args!("{why}; waiting for the next publisher")),
                Ok(Step::EndOfStream) => note(format_args!("{}: end of the stream", self.from)),
                Ok(_) => {}
                Err(_) if signals::caught().is_some() => return Ok(Exit::Ok),
                Err(error) => return Err(error.into()),
            }
            if next_line <= Instant::now() {
                next_line = Instant::now() + SECOND;
                if output::is_terminal() {
                    output::line(summary(&relay.figures()))?;
                }
            }
            if let Some(patience) = patience.filter(|patience| last_frame.elapsed() >= *patience) {
                let message = format!("no frame from {} for {} s", self.from, patience.as_secs_f64());
                return Err(Failure::new(Exit::Timeout, message));
            }
        }
    }
}

impl From<RelayError> for Failure {
    fn from(error: RelayError) -> Self {
        match error {
            RelayError::Upstream(error) => super::receive::hint(error.into()),
            RelayError::Publish(error) => error.into(),
            error => Self::failed(error),
        }
    }
}

fn summary(figures: &RelayFigures) -> String {
    let (upstream, downstream) = (&figures.upstream, &figures.downstream);
    format!(
        "{} frames in, {}, {} lost upstream; {} subscribers, {} dropped for them",
        upstream.frames,
        bytes(upstream.bytes),
        upstream.dropped,
        downstream.subscribers.len(),
        downstream.publisher.dropped
    )
}
