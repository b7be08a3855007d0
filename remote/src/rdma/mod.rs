//! Links over RDMA.
//!
//! A TCP connection carries all records, and stays for as long as the link. The bytes of a frame do not travel on it: the
//! subscriber's end answers a frame's record with a *grant*, a place in pages that it has registered; the publisher's end
//! writes there, straight from the pages the frame is in, and ends with the number of the grant: an immediate, or a message
//! where a device has no immediates. A frame exists when its record and its number are both here. It never becomes TCP by itself.
//!
//! Queue pairs are told of each other on the control connection, or meet by RDMA-CM where a device wants that.

mod bell;
mod control;
mod domain;
mod error;
mod link;
mod meeting;
mod places;
mod receiver;
mod sender;
pub mod wire;
mod words;

pub use domain::Sources;
pub use error::RdmaError;
pub(crate) use link::Pair;
pub use receiver::RdmaReceiver;
pub use sender::RdmaSender;
pub use words::RdmaWords;
