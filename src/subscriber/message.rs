//! What a subscriber receives, why it does not, and what it counts.

use pagecast_ipc::socket::{ReceiveError, SocketError};
use pagecast_ipc::wire::{Clock, Event, RefusalCode, Sticky, Welcome};

use super::PublisherFault;
use crate::frame::Frame;
use crate::latency::LatencyFigures;
use crate::remote::RemoteFigures;

/// What arrives, in stream order.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Message {
    /// The link stands; after an earlier [`Message::Disconnected`] this is another life of it.
    Connected(Welcome),
    /// A sticky value changed: caps, segment, tags.
    Sticky(Sticky),
    /// A frame.
    Frame(Frame),
    /// An event.
    Event(Event),
    /// The publisher's clock.
    Clock(Clock),
    /// The answer to [`Subscriber::query`](super::Subscriber::query), JSON.
    Info(Vec<u8>),
    /// The link ended, and is looked for again.
    Disconnected(String),
}

/// Why nothing was received.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecvError {
    /// Nothing came in time.
    #[error("nothing came in time")]
    Timeout,
    /// [`Subscriber::interrupt`](super::Subscriber::interrupt) was called.
    #[error("receiving was interrupted")]
    Interrupted,
    /// The publisher ended the link.
    #[error("the publisher is gone")]
    Closed,
    /// The publisher does not want us.
    #[error("the publisher refused: {text}")]
    Refused {
        /// Why.
        code: RefusalCode,
        /// Why, in words.
        text: String,
    },
    /// Somebody is there but says nothing, and reconnecting is off.
    #[error("the publisher did not answer within {seconds} seconds: is it stopped?")]
    NoAnswer {
        /// How long it had.
        seconds: u64,
    },
    /// There is no publisher, and reconnecting is off.
    #[error("cannot connect to {uri}: {source}")]
    Connect {
        /// Where.
        uri: String,
        /// Why.
        source: SocketError,
    },
    /// There is no link to another host, or it was lost.
    #[error("{uri}: {reason}")]
    Remote {
        /// Where.
        uri: String,
        /// Why.
        reason: String,
    },
    /// The publisher broke the protocol: the peer is at fault.
    #[error("the publisher is at fault: {0}")]
    Fault(#[from] PublisherFault),
    /// The socket failed.
    #[error(transparent)]
    Socket(ReceiveError),
    /// The name of the publisher cannot be used.
    #[error("{0}")]
    Uri(String),
    /// The asynchronous runtime cannot watch the link.
    #[error("the runtime cannot watch the link: {0}")]
    Runtime(String),
}

/// Figures of a subscriber, with the names that statistics have everywhere.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct SubscriberFigures {
    /// Frames received.
    pub frames: u64,
    /// Frames missing between those received.
    pub dropped: u64,
    /// Bytes of the frames received.
    pub bytes: u64,
    /// How often the link was made again.
    pub reconnects: u64,
    /// This life of the link.
    pub epoch: u32,
    /// Publication to reception, microseconds.
    pub latency_us: LatencyFigures,
    /// By how much 99 of 100 latencies may be wrong, microseconds: 0 where both ends have one clock, `None` while it is
    /// not known how the other host's clock stands. A latency that is less is unknown ([`latency::known`]).
    ///
    /// [`latency::known`]: crate::latency::known
    pub uncertainty_us: Option<f64>,
    /// How the publisher is reached, or was last; empty before.
    pub transport: String,
    /// Frames that it may hold; 0 while there is no link.
    pub credits: u32,
    /// The link to another host, or the last one.
    pub remote: Option<RemoteFigures>,
}
