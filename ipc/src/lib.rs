//! What travels between a publisher and its subscribers on one host, and who may hold what.
//!
//! * [`wire`]: the messages and their codec; no I/O.
//! * [`ledger`], [`budget`], [`mailbox`], [`fanout`]: the publisher's private books; no I/O.
//! * [`socket`]: `SOCK_SEQPACKET` sockets, descriptors in flight, names and access.
//!
//! The parts without I/O are shared by every transport.
#![deny(unsafe_op_in_unsafe_fn)]

pub mod budget;
pub mod fanout;
pub mod ledger;
pub mod mailbox;
pub mod policy;
pub mod socket;
pub mod wire;
