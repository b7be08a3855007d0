//! The messages of a link and their codec: bytes in, values out, no I/O. `docs/protocol.md` describes them.
//!
//! A packet is a header and up to [`limits::MAX_RECORDS`] records; on Unix sockets a packet is one
//! `SOCK_SEQPACKET` message. All numbers are little-endian.
#![forbid(unsafe_code)]

mod bytes;
mod frame;
mod handshake;
pub mod limits;
mod packet;
mod stream;

pub use bytes::{Reader, Writer};
pub use frame::{Frame, FrameFlags, Meta, Plane, Segment, Times};
pub use handshake::{FaceSet, Hello, RefusalCode, Role, Welcome};
pub use packet::{PACKET_HEADER, PacketBuilder, Packets, RECORD_HEADER, Record, packet_header};
pub use stream::{Announce, Clock, Event, Face, Sticky, ToPublisher, ToSubscriber};

/// What is wrong with bytes that a peer sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// It does not begin with a packet header.
    #[error("not a Pagecast packet")]
    NotAPacket,
    /// A field ends after the bytes do.
    #[error("the packet ends in mid-field")]
    Truncated,
    /// Bytes are left over.
    #[error("{0} bytes are left over")]
    Trailing(usize),
    /// A count or length is over its limit.
    #[error("{field} is {value}, the limit is {limit}")]
    OverLimit {
        /// Which.
        field: &'static str,
        /// As sent.
        value: u64,
        /// As allowed.
        limit: u64,
    },
    /// A value means nothing here.
    #[error("{field} cannot be {value}")]
    Invalid {
        /// Which.
        field: &'static str,
        /// As sent.
        value: u64,
    },
    /// A text is not UTF-8.
    #[error("{field} is not UTF-8")]
    NotUtf8 {
        /// Which.
        field: &'static str,
    },
}
