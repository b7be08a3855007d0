//! RDMA verbs for Pagecast: libibverbs and librdmacm behind a function table each, and ownership that keeps its rules.
//!
//! ```text
//! Verbs ─► Device ─► ProtectionDomain ─► MemoryRegion (keeps what it registers)
//!             └────► CompletionQueue ──► QueuePair (keeps the regions of all work in flight)
//! ```
//!
//! What points right is kept alive by what it points at, so nothing can be torn down in the wrong order: a queue pair is
//! destroyed before its completion queue and before the regions of its work are let go, regions before their domain, that
//! before the device.
//!
//! Queue pairs come up by what both ends tell each other ([`Endpoint`]), or by RDMA-CM ([`Connection`]), as iWARP wants it.
//!
//! The libraries are loaded at run time, librdmacm when it is first needed, so programs start without it. `ibv_fork_init` is not called: it slows every
//! registration down, and current kernels copy pinned pages at fork by themselves.

mod cm;
mod completion;
pub mod counters;
mod device;
mod domain;
mod error;
mod event;
#[cfg(feature = "fake")]
pub mod fake;
mod ffi;
mod gid;
mod memlock;
mod outcome;
mod port;
mod qp;
mod region;
mod table;
#[cfg(test)]
mod testing;

pub use cm::{Cm, Connection, Listener, MAX_PRIVATE, Request, Standing};
pub use completion::{CompletionQueue, MAX_SPIN};
pub use device::{Device, DeviceAttributes, Transport, Verbs};
pub use domain::ProtectionDomain;
pub use error::{CmError, ConnectError, DeviceError, LoadError, PostError, RegisterError};
pub use event::Event;
pub use gid::{Gid, GidKind};
pub use memlock::lockable;
pub use outcome::{Completion, Done, Fault, Side, WorkError};
pub use port::{LinkLayer, Mtu, PortAttributes, PortState};
pub use qp::{
    Closed, Depth, Doorbell, ENDPOINT_BYTES, Endpoint, MAX_DEPTH, MAX_PIECES, MAX_RETRY, MAX_RNR_RETRY,
    QueuePair, Remote, Slice, State, Timing, Write,
};
pub use region::{Access, MAX_REGION, Memory, MemoryRegion};
