//! How a piece of work ended.

use std::ffi::c_uint;

use crate::ffi::*;

/// Which queue the work was in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The send queue.
    Send,
    /// The receive queue.
    Receive,
}

/// Work that is over: the device touches its memory no more.
#[derive(Clone, Debug)]
pub struct Completion {
    /// What was given when it was posted.
    pub token: u64,
    /// Which queue it was in.
    pub side: Side,
    /// How it ended.
    pub outcome: Result<Done, WorkError>,
}

/// Work that succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// Bytes received; 0 for sent work.
    pub bytes: u32,
    /// The value that came with a message.
    pub immediate: Option<u32>,
}

/// Whose fault it was.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nobody's: the queue pair was in error already.
    Flushed,
    /// The peer's, or the way there.
    Peer,
    /// Ours.
    Local,
    /// The device's.
    Device,
}

/// Why work failed. The queue pair is in error from then on.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorkError {
    /// An earlier failure, or [`set_error`](crate::QueuePair::set_error), emptied the queue.
    #[error("flushed: the queue pair is in error")]
    Flushed,
    /// No answer, after all retries.
    #[error("the peer does not answer: it is gone, or the way there is broken")]
    NoAnswer,
    /// The peer has posted no receive, after all retries.
    #[error("the peer has no receive posted, it gave more credit than it has")]
    NoReceive,
    /// The peer's device refused the address or the rkey.
    #[error("the peer's memory may not be written there")]
    RemoteAccess,
    /// The peer's device refused the request.
    #[error("the peer's device refused the request")]
    RemoteRefused,
    /// The peer's device could not do it.
    #[error("the peer's device failed")]
    RemoteFailed,
    /// Nonsense from the peer's device.
    #[error("the peer's device answered what nobody asked")]
    BadResponse,
    /// A message longer than the receive it met.
    #[error("the peer sent more than the posted receive takes")]
    MessageTooLong,
    /// Our request was wrong.
    #[error("our own request was refused (status {status}, vendor {vendor:#x})")]
    Local {
        /// `enum ibv_wc_status`.
        status: u32,
        /// The vendor's code.
        vendor: u32,
    },
    /// The device failed, or reported what is not known here.
    #[error("the RDMA device failed (status {status}, vendor {vendor:#x})")]
    Device {
        /// `enum ibv_wc_status`.
        status: u32,
        /// The vendor's code.
        vendor: u32,
    },
}

impl WorkError {
    /// Whose fault it was.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Flushed => Fault::Flushed,
            Self::Local { .. } => Fault::Local,
            Self::Device { .. } => Fault::Device,
            _ => Fault::Peer,
        }
    }

    /// `None` for success.
    pub(crate) fn of(status: c_uint, vendor: u32, side: Side) -> Option<Self> {
        Some(match status {
            IBV_WC_SUCCESS => return None,
            IBV_WC_WR_FLUSH_ERR => Self::Flushed,
            IBV_WC_RETRY_EXC_ERR => Self::NoAnswer,
            IBV_WC_RNR_RETRY_EXC_ERR => Self::NoReceive,
            IBV_WC_REM_ACCESS_ERR => Self::RemoteAccess,
            IBV_WC_REM_INV_REQ_ERR => Self::RemoteRefused,
            IBV_WC_REM_OP_ERR | IBV_WC_REM_ABORT_ERR => Self::RemoteFailed,
            IBV_WC_BAD_RESP_ERR => Self::BadResponse,
            // a receive is judged by what the peer sent
            IBV_WC_LOC_LEN_ERR if side == Side::Receive => Self::MessageTooLong,
            IBV_WC_LOC_LEN_ERR | IBV_WC_LOC_QP_OP_ERR | IBV_WC_LOC_PROT_ERR | IBV_WC_LOC_ACCESS_ERR => {
                Self::Local { status, vendor }
            }
            status => Self::Device { status, vendor },
        })
    }
}
