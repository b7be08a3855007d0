//! Links over TCP.
//!
//! One connection carries both directions: frames one way, credits and requests the other, heartbeats both.
//! A frame leaves by vectored writes from the pages it is in, and arrives by reads into the pages it will
//! stay in.

mod channel;
mod input;
mod output;
mod receiver;
mod sender;
mod socket;
pub(crate) mod stream;
pub(crate) mod sys;

pub use channel::Channel;
pub use receiver::TcpReceiver;
pub use sender::TcpSender;
pub use socket::{ConnectError, Destination, TcpListener, connect};
pub(crate) use sys::Piece;
