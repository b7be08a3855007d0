//! What can go wrong besides the connection.

use pagecast_verbs::{CmError, ConnectError, DeviceError, LoadError, PostError, RegisterError, WorkError};

/// Why a link over RDMA is at its end, or has none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RdmaError {
    /// There are no verbs here.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The device has said that it is gone or broken.
    #[error("the RDMA device {0} is gone, or broken: `rdma link` and the kernel's log say more")]
    Gone(String),
    /// The two queue pairs do not come together.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// RDMA-CM does not bring them together.
    #[error(transparent)]
    Cm(#[from] CmError),
    /// One device is iWARP's, the other is not.
    #[error("one end's RDMA device is iWARP's and the other's is not: tcp:// connects the two hosts")]
    Transports,
    /// Others than the publisher have called too often.
    #[error("somebody else calls for the publisher's RDMA connection again and again")]
    Strangers,
    /// The publisher has not called.
    #[error(
        "the publisher has made no RDMA connection in time: do firewalls let RDMA-CM through, at any port?"
    )]
    NobodyCame,
    /// The other end has ended its queue pair, but not the control connection.
    #[error("the RDMA connection has ended")]
    Parted,
    /// Pages cannot be registered.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// Work was refused.
    #[error(transparent)]
    Post(#[from] PostError),
    /// The device's messages are so small that a frame takes more of them than are sent at a time.
    #[error(
        "a frame takes {messages} messages of this device, which are at most {limit}: tcp:// has no such limit"
    )]
    Messages {
        /// Messages, the one that tells of it included.
        messages: usize,
        /// As allowed.
        limit: u32,
    },
    /// Work has failed.
    #[error(transparent)]
    Work(#[from] WorkError),
}
