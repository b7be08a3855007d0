//! Consumers: the library and the floor.

use std::time::Duration;

use pagecast::{RecvError, Subscriber, SubscriberOptions};

use super::contender::Transport;
use super::job::{Job, Measured, Tally};
use super::{floor, iperf, perftest, tcp_loop};
use crate::workers::child::{Control, say};

/// How long a consumer waits for a frame before it takes the run for ended.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Does a consumer's part of a run.
pub(crate) fn consume(job: &Job, control: &Control) -> Result<(), String> {
    let tally = match job.contender.transport {
        Transport::Pagecast | Transport::PagecastTcp | Transport::PagecastRdma => library(job, control),
        Transport::Seqpacket => floor::consume(job, control),
        Transport::TcpLoop | Transport::TcpLoopNear => tcp_loop::consume(job, control),
        Transport::Iperf3 => return report(&iperf::consume(job, control)?, control),
        Transport::IbWriteBw => return report(&perftest::consume(job, control)?, control),
        #[cfg(feature = "gstreamer")]
        _ => super::gstreamer::consume(job, control),
        #[cfg(not(feature = "gstreamer"))]
        _ => Err("built without GStreamer".to_owned()),
    };
    report(&tally?.measured(), control)
}

fn report(measured: &Measured, control: &Control) -> Result<(), String> {
    say("done", measured);
    control.wait_for_stop();
    Ok(())
}

fn library(job: &Job, control: &Control) -> Result<Tally, String> {
    let mut tally = Tally::new(job);
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let options = SubscriberOptions { remote: job.remote(), ..SubscriberOptions::default() };
    let subscriber = Subscriber::open(&job.source()?, options);
    let subscriber = subscriber.map_err(|error| text(&error))?;
    say("ready", &());
    loop {
        let frame = match subscriber.next_frame(Some(PATIENCE)) {
            Ok(frame) => frame,
            Err(RecvError::Timeout) if !control.stopped() => return Ok(tally),
            Err(error) => return Err(text(&error)),
        };
        let guard = frame.read().map_err(|error| text(&error))?;
        let bytes = guard.bytes(0).ok_or("others may write into the frame")?;
        let more = tally.take(bytes)?;
        guard.finish().map_err(|error| text(&error))?;
        if !more {
            return Ok(tally);
        }
    }
}
