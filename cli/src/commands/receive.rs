//! What the commands that receive frames have in common.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use pagecast::ipc::wire::RefusalCode;
use pagecast::subscriber::SubscriberFigures;
use pagecast::{Frame, Message, Policy, Rate, RecvError, Subscriber, SubscriberOptions};

use crate::address;
use crate::exit::{Exit, Failure};
use crate::output::note;
use crate::signals;

/// How frames are asked for.
#[derive(Clone, Debug, Args)]
pub(crate) struct Receive {
    /// What happens to frames for which there is no room: auto, block, drop-oldest, drop-newest, latest.
    #[arg(long, value_name = "POLICY")]
    pub(super) policy: Option<Policy>,
    /// Frames to hold at most.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) credits: Option<u32>,
    /// Take only the newest of the frames that have arrived.
    #[arg(long)]
    pub(super) latest: bool,
    /// Frames per second at most, e.g. 10 or 30000/1001.
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub(super) max_framerate: Option<Rate>,
    /// End after so many frames.
    #[arg(short = 'n', long = "frames", value_name = "N")]
    pub(super) frames: Option<u64>,
    /// End, with exit code 5, when no frame comes for so many seconds.
    #[arg(long, value_name = "SECONDS", value_parser = super::seconds)]
    pub(super) timeout: Option<f64>,
    /// Wait for the publisher if it is not there yet, and for the next one when it ends.
    #[arg(long)]
    pub(super) reconnect: bool,
    #[command(flatten)]
    pub(super) remote: address::Remote,
}

impl Receive {
    /// One frame, within so many seconds.
    #[cfg(feature = "gstreamer")]
    pub(super) fn one(timeout: f64, remote: &address::Remote) -> Self {
        Self {
            policy: None,
            credits: Some(1),
            latest: true,
            max_framerate: None,
            frames: Some(1),
            timeout: Some(timeout),
            reconnect: false,
            remote: remote.clone(),
        }
    }

    /// Whether frames are left out because it was asked for.
    pub(super) fn leaves_out(&self) -> bool {
        self.latest || self.max_framerate.is_some() || self.policy == Some(Policy::Latest)
    }

    fn options(&self, uri: &str) -> Result<SubscriberOptions, Failure> {
        Ok(SubscriberOptions {
            policy: self.policy,
            credits: self.credits,
            latest: self.latest,
            max_rate: self.max_framerate,
            reconnect: self.reconnect,
            remote: self.remote.options([uri])?,
            ..SubscriberOptions::default()
        })
    }
}

/// A rate for clap: `25` or `30000/1001`.
fn rate(text: &str) -> Result<Rate, String> {
    let (frames, seconds) = text.split_once('/').unwrap_or((text, "1"));
    let rate =
        frames.parse().ok().zip(seconds.parse().ok()).map(|(frames, seconds)| Rate { frames, seconds });
    rate.filter(|rate| rate.interval().is_some())
        .ok_or_else(|| format!("{text:?} is no rate: 25 or 30000/1001"))
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// As many frames as were wanted came.
    Enough,
    /// The publisher said so.
    Over,
    /// A signal.
    Signal,
}

/// Who is told what comes.
pub(super) struct Calls<C, E, S> {
    /// The link stands (again).
    pub(super) connected: C,
    /// A frame; whether it counts.
    pub(super) each: E,
    /// About every second.
    pub(super) second: S,
}

/// Receives frames and hands each to its call, until enough came or the stream ends.
pub(super) fn frames<C: FnMut(), E, S>(
    uri: &str,
    how: &Receive,
    mut calls: Calls<C, E, S>,
) -> Result<(End, SubscriberFigures), Failure>
where
    E: FnMut(&Frame) -> Result<bool, Failure>,
    S: FnMut(&Subscriber) -> Result<(), Failure>,
{
    let subscriber = Arc::new(Subscriber::open(uri, how.options(uri)?)?);
    let interrupt = subscriber.clone();
    let _registration = signals::on_end(move || interrupt.interrupt());
    let mut watch = Watch::new(how);
    let mut left = how.frames.unwrap_or(u64::MAX);
    let end = loop {
        if left == 0 {
            break End::Enough;
        }
        match subscriber.recv(Some(watch.wait())) {
            Ok(Message::Frame(frame)) => {
                watch.frame();
                left -= u64::from((calls.each)(&frame)?);
            }
            Ok(Message::Connected(welcome)) => {
                let (name, pid) = (&welcome.name, welcome.pid);
                tracing::info!(name, pid, policy = ?welcome.policy, credits = welcome.credits, "connected");
                (calls.connected)();
            }
            Ok(Message::Event(event)) if event.name == pagecast::EOS && !how.reconnect => break End::Over,
            Ok(Message::Disconnected(why)) => note(format_args!("{why}; waiting for the next publisher")),
            Ok(_) | Err(RecvError::Timeout) => {}
            Err(RecvError::Interrupted) => break End::Signal,
            Err(RecvError::Refused { code: RefusalCode::Closing, .. }) => break End::Over,
            Err(error) => return Err(lost(uri, error)),
        }
        if watch.second_is_over() {
            (calls.second)(&subscriber)?;
        }
        watch.check(uri)?;
    };
    Ok((end, subscriber.figures()))
}

/// What to say when there is no publisher, or no longer.
pub(super) fn lost(uri: &str, error: RecvError) -> Failure {
    match error {
        RecvError::Closed => {
            let message = format!(
                "the publisher of {uri} is gone without an end of the stream; --reconnect waits for the next"
            );
            Failure::new(Exit::NoPublisher, message)
        }
        // Not of this machine.
        error @ RecvError::Remote { .. } => error.into(),
        error => hint(error.into()),
    }
}

/// With a hint what to do where there is no publisher.
pub(super) fn hint(failure: Failure) -> Failure {
    match failure.exit {
        Exit::NoPublisher => {
            let hint = "`pagecast list` shows the publishers of this machine";
            Failure::new(Exit::NoPublisher, format_args!("{failure}\n{hint}"))
        }
        _ => failure,
    }
}

/// Looks at the time.
struct Watch {
    patience: Option<Duration>,
    last_frame: Instant,
    next_second: Instant,
}

const SECOND: Duration = Duration::from_secs(1);

impl Watch {
    fn new(how: &Receive) -> Self {
        let now = Instant::now();
        let patience = how.timeout.map(Duration::from_secs_f64);
        Self { patience, last_frame: now, next_second: now + SECOND }
    }

    /// How long to wait for the next message.
    fn wait(&self) -> Duration {
        let second = self.next_second.saturating_duration_since(Instant::now());
        let patience = self.patience.map(|patience| patience.saturating_sub(self.last_frame.elapsed()));
        patience.map_or(second, |patience| patience.min(second))
    }

    fn frame(&mut self) {
        self.last_frame = Instant::now();
    }

    fn second_is_over(&mut self) -> bool {
        let now = Instant::now();
        let over = now >= self.next_second;
        if over {
            self.next_second = now + SECOND;
        }
        over
    }

    fn check(&self, uri: &str) -> Result<(), Failure> {
        match self.patience {
            Some(patience) if self.last_frame.elapsed() >= patience => {
                let message = format!("no frame from {uri} for {} s", patience.as_secs_f64());
                Err(Failure::new(Exit::Timeout, message))
            }
            _ => Ok(()),
        }
    }
}
