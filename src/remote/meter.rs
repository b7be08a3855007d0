//! What is known of a link to another host: set by its bridge, read by whoever asks.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pagecast_ipc::socket::Transport;
use pagecast_remote::LinkFigures;
use pagecast_remote::opening::{Choice, Reason};
use serde::{Deserialize, Serialize};

/// How long a message takes there and back, microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RoundTripFigures {
    /// As last measured.
    pub last: f64,
    /// The least so far.
    pub least: f64,
}

/// Figures of a link to another host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RemoteFigures {
    /// What carries it: `tcp` or `rdma`; `remote` until that is decided.
    pub transport: String,
    /// The address of the other end.
    pub peer: String,
    /// Why a `remote://` link is carried by TCP, where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
    /// How long a message takes there and back; `None` before it was measured.
    pub rtt_us: Option<RoundTripFigures>,
    /// Bytes that went over the wire in the direction of the frames, all framing included.
    pub wire_bytes: u64,
    /// Frames that were copied because the link could not read their pages.
    #[serde(default)]
    pub copied: u64,
    /// Frames that the subscriber holds, or that are on their way to it.
    pub held: usize,
}

#[derive(Debug, Default)]
struct State {
    transport: &'static str,
    peer: String,
    link: LinkFigures,
    credits: u32,
    copied: u64,
    held: usize,
}

/// The figures of one link.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meter(Arc<Mutex<State>>);

impl Meter {
    /// The link stands.
    pub(super) fn begin(&self, transport: &'static str, peer: &SocketAddr) {
        let mut state = self.state();
        (state.transport, state.peer) = (transport, peer.to_string());
    }

    pub(super) fn set(&self, link: LinkFigures, held: usize) {
        let mut state = self.state();
        if state.link.chosen != link.chosen {
            match link.chosen {
                Some(Choice::Rdma) => {
                    state.transport = Transport::Rdma.scheme();
                    tracing::info!(peer = state.peer, "remote:// goes by rdma");
                }
                Some(Choice::Tcp(reason)) => {
                    state.transport = Transport::Tcp.scheme();
                    match reason {
                        Reason::AskedFor => {}
                        reason => tracing::warn!(peer = state.peer, %reason, "remote:// goes by tcp"),
                    }
                }
                None => {}
            }
        }
        (state.link, state.held) = (link, held);
    }

    /// A frame was copied for the link.
    pub(super) fn count_copied(&self) {
        self.state().copied += 1;
    }

    /// The subscriber may hold so many frames.
    pub(super) fn grant(&self, credits: u32) {
        self.state().credits = credits;
    }

    /// Frames that the subscriber may hold, as its publisher counts.
    pub(crate) fn credits(&self) -> u32 {
        self.state().credits
    }

    /// What carries the link; empty before it stands.
    pub(crate) fn transport(&self) -> &'static str {
        self.state().transport
    }

    /// How well the other host's clock is known; `None` before it is.
    pub(crate) fn uncertainty(&self) -> Option<Duration> {
        self.state().link.clock.map(|clock| clock.uncertainty)
    }

    pub(crate) fn figures(&self) -> RemoteFigures {
        let state = self.state();
        let us = |duration: Duration| duration.as_secs_f64() * 1e6;
        let rtt = |known: pagecast_remote::pulse::RoundTrip| RoundTripFigures {
            last: us(known.last),
            least: us(known.least),
        };
        RemoteFigures {
            transport: state.transport.to_owned(),
            peer: state.peer.clone(),
            fallback: match state.link.chosen {
                Some(Choice::Tcp(reason)) if reason != Reason::AskedFor => {
                    Some(format!("tcp instead of rdma: {reason}"))
                }
                _ => None,
            },
            rtt_us: state.link.round_trip.map(rtt),
            wire_bytes: state.link.wire_bytes,
            copied: state.copied,
            held: state.held,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
