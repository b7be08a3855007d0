//! Links of Pagecast to other hosts.
//!
//! A remote link carries the records of a local one. Only two things differ: no descriptors travel, and the
//! bytes of a frame do. A [`Sender`] is the publisher's end of one link, a [`Receiver`] the subscriber's;
//! both are driven by whoever owns them, never wait, and have one implementation per transport.
//!
//! | module | what |
//! |---|---|
//! | [`link`] | the two ends as traits, and what they exchange with their owners |
//! | [`tcp`] | links over TCP |
//! | [`rdma`] | links over RDMA, with a TCP connection for control |
//! | [`opening`] | links that may be either of these, and how that is decided |
//! | [`memory`] | links within a process: the plainest implementation there is, for tests |
//! | [`framing`] | how records become a stream of bytes, and back; no I/O |
//! | [`window`] | what the subscriber may hold, counted at the publisher; no I/O |
//! | [`pulse`] | heartbeats: when to send one, when a peer is dead, how far away it is; no I/O |
//! | [`clock`] | how another host's clock stands, and how well that is known; no I/O |
//! | [`network`] | who may come |
//! | [`secure`] | identities, and TLS between them |
#![deny(unsafe_op_in_unsafe_fn)]

pub mod clock;
mod error;
pub mod framing;
pub mod limits;
pub mod link;
pub mod memory;
pub mod network;
pub mod opening;
pub mod pulse;
pub mod rdma;
pub mod registration;
pub mod secure;
pub mod tcp;
pub mod window;

pub use error::{LinkError, PeerFault};
pub use link::{FromPublisher, FromSubscriber, LinkFigures, Pages, Part, Payload, Receiver, Room, Sender};
pub use network::{AllowList, Network};
pub use secure::{Identity, Security};
