//! The demonstration's relay: it subscribes as any other and serves the same pages over TCP.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use pagecast::{Info, Relay, RelayError, RelayOptions};
use serde::{Deserialize, Serialize};

use super::publish::REPORT_EVERY;
use crate::workers::child::{Control, say};
use crate::workers::usage::Usage;

/// Frames that wait at the relay for each of its subscribers.
const MAILBOX: u32 = 4;
/// Frames it may hold of its publisher: two subscribers' mailboxes, two frames on the way to each, one in hand.
pub(super) const CREDITS: u32 = 2 * (MAILBOX + 2) + 1;

/// What the relay is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RelayJob {
    pub(super) socket: PathBuf,
}

/// What the relay reports.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct RelayReport {
    /// Frames passed on.
    pub(super) frames: u64,
    /// Frames that its publisher did not give it.
    pub(super) lost: u64,
    pub(super) cpu_seconds: f64,
    /// What it serves.
    pub(super) info: Info,
}

/// Why there can be no TCP link within this host.
pub(super) fn missing() -> Option<String> {
    let connect = || {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        TcpStream::connect_timeout(&listener.local_addr()?, Duration::from_secs(1))
    };
    connect().err().map(|error| format!("no TCP over the loopback: {error}"))
}

/// Passes on until it is told to stop.
pub(crate) fn relay(job: &RelayJob, control: &Control) -> Result<(), String> {
    let text = |error: RelayError| error.to_string();
    let mut options = RelayOptions::default();
    options.subscriber.credits = Some(CREDITS);
    options.subscriber.name = "relay".to_owned();
    options.publisher.mailbox = Some(MAILBOX);
    let from = format!("unix:{}", job.socket.display());
    let relay = Relay::open(&from, "tcp://127.0.0.1:0", options).map_err(text)?;
    say("ready", &report(&relay));
    let mut next_report = Instant::now();
    while !control.stopped() {
        match relay.step(Some(REPORT_EVERY)) {
            Ok(_) => {}
            Err(_) if control.stopped() => break,
            Err(error) => return Err(text(error)),
        }
        if Instant::now() >= next_report {
            next_report = Instant::now() + REPORT_EVERY;
            say("report", &report(&relay));
        }
    }
    say("done", &report(&relay));
    relay.close(Duration::from_millis(200));
    Ok(())
}

fn report(relay: &Relay) -> RelayReport {
    let figures = relay.figures();
    RelayReport {
        frames: figures.upstream.frames,
        lost: figures.upstream.dropped,
        cpu_seconds: Usage::now().cpu_seconds,
        info: figures.downstream,
    }
}
