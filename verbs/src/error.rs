//! What can go wrong, with the remedy in the message.

use std::net::{IpAddr, SocketAddr};

use nix::errno::Errno;

use crate::cm::MAX_PRIVATE;
use crate::table::package;

/// Why there are no verbs in this process.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The library is not installed.
    #[error("{library} cannot be loaded ({why}); install {}", package(library))]
    NoLibrary {
        /// What was looked for.
        library: String,
        /// What the loader said.
        why: String,
    },
    /// A library without a function that is needed.
    #[error("{library} has no `{symbol}`; rdma-core 32 or newer is needed ({})", package(library))]
    TooOld {
        /// What was loaded.
        library: String,
        /// What it lacks.
        symbol: &'static str,
    },
}

/// Why a device cannot be used.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// No device at all.
    #[error(
        "there is no RDMA device here: `rdma link` lists them; `rdma link add rxe0 type rxe netdev eth0` makes one in software"
    )]
    NoDevice,
    /// No device of that name.
    #[error("there is no RDMA device `{0}`; `rdma link` lists them")]
    NoSuchDevice(String),
    /// No port has that address.
    #[error(
        "no RDMA port has a RoCEv2 entry for {0}, nor is it an iWARP device's; `rdma link` and `ip addr` show which interfaces have one"
    )]
    NoGid(IpAddr),
    /// The port is down.
    #[error("port {port} of {device} is not active ({state:?}); `ip link set … up`, or look at the cable")]
    PortDown {
        /// The device.
        device: String,
        /// The port.
        port: u8,
        /// What it is.
        state: crate::PortState,
    },
    /// More than the device has.
    #[error("{want} {what} asked for, {device} has {limit}")]
    OverLimit {
        /// The device.
        device: String,
        /// Of what.
        what: &'static str,
        /// What was asked for.
        want: u64,
        /// What it has.
        limit: u64,
    },
    /// The completion queue is smaller than receive and send queue together.
    #[error(
        "a completion queue of {have} entries cannot hold {need}: the receive queue and the whole send queue"
    )]
    CompletionQueueTooSmall {
        /// Its size.
        have: u32,
        /// Both queues.
        need: u32,
    },
    /// The device is gone: unplugged, or its driver was unloaded.
    #[error("the RDMA device is gone ({call}: {errno})")]
    Removed {
        /// The call.
        call: &'static str,
        /// What it said.
        errno: Errno,
    },
    /// Not allowed to use the device.
    #[error("{call}: {errno}; this user may not open /dev/infiniband/uverbs*")]
    NotPermitted {
        /// The call.
        call: &'static str,
        /// What it said.
        errno: Errno,
    },
    /// Any other failed call.
    #[error("{call} failed: {errno}")]
    System {
        /// The call.
        call: &'static str,
        /// What it said.
        errno: Errno,
    },
}

impl DeviceError {
    pub(crate) fn from_errno(call: &'static str, errno: Errno) -> Self {
        match errno {
            Errno::EIO | Errno::ENODEV | Errno::ENXIO => Self::Removed { call, errno },
            Errno::EACCES | Errno::EPERM => Self::NotPermitted { call, errno },
            errno => Self::System { call, errno },
        }
    }

    /// For a call that set `errno`.
    pub(crate) fn last(call: &'static str) -> Self {
        Self::from_errno(call, Errno::last())
    }

    /// For a call that returns an errno.
    pub(crate) fn check(call: &'static str, returned: i32) -> Result<(), Self> {
        match returned {
            0 => Ok(()),
            -1 => Err(Self::last(call)),
            code => Err(Self::from_errno(call, Errno::from_raw(code.abs()))),
        }
    }
}

/// Why pages were not registered.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// No bytes.
    #[error("a memory region needs at least one byte")]
    ZeroSize,
    /// More than the device registers at once.
    #[error("{size} bytes are more than the {limit} that the device registers at once")]
    TooLarge {
        /// What was asked for.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// `RLIMIT_MEMLOCK` forbids it.
    #[error(
        "{size} bytes beside the {pinned} that are pinned already are more than the {limit} that this process may lock; raise it \
         (`ulimit -l unlimited`, LimitMEMLOCK=infinity in a unit of systemd, or give CAP_IPC_LOCK)"
    )]
    MemoryLock {
        /// What was asked for, in whole pages.
        size: u64,
        /// What is pinned.
        pinned: u64,
        /// The soft limit.
        limit: u64,
    },
    /// ENOMEM although the limit allows it.
    #[error("no memory to register {size} bytes (or not enough of RLIMIT_MEMLOCK in this user namespace)")]
    OutOfMemory {
        /// What was asked for.
        size: u64,
    },
    /// EFAULT: pages that cannot be pinned, or not with this access.
    #[error(
        "these pages cannot be registered for this access: not mapped, read-only, or a device's (EFAULT)"
    )]
    BadPages,
    /// The device, its driver or libibverbs registers no dma-bufs.
    #[error("the device registers no dma-bufs ({0})")]
    NoDmaBuf(Errno),
    /// Any other failure.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// Why work was not posted. Nothing of it was, unless it says so.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    /// The queue has not got so many free places: poll completions first.
    #[error("{need} places of the queue needed, {free} free")]
    Full {
        /// What is needed.
        need: usize,
        /// What is there.
        free: usize,
    },
    /// The slice ends behind its region.
    #[error("bytes {offset}..{offset}+{length} lie outside a region of {size} bytes")]
    OutOfBounds {
        /// Where it starts.
        offset: u64,
        /// Its length.
        length: u64,
        /// The region's length.
        size: u64,
    },
    /// More than the port sends as one message.
    #[error("a message of {length} bytes, the port sends at most {limit}")]
    TooLong {
        /// The message.
        length: u64,
        /// The limit.
        limit: u64,
    },
    /// More pieces than one request may have.
    #[error("{pieces} pieces, one request has at most {limit}")]
    TooManyPieces {
        /// The pieces.
        pieces: usize,
        /// The limit.
        limit: usize,
    },
    /// The region belongs to another protection domain.
    #[error("the memory region belongs to another protection domain")]
    ForeignRegion,
    /// Registered for sending only.
    #[error("the memory region is not registered for receiving")]
    NotWritable,
    /// An immediate over a device without them.
    #[error("the device has no immediates")]
    NoImmediates,
    /// The queue pair is not in the state for it.
    #[error("the queue pair is in state {0:?}")]
    WrongState(crate::State),
    /// The device refused. If `taken` is not 0, that many requests were taken and the queue pair was put into error.
    #[error("the device refused the work after {taken} requests: {source}")]
    Refused {
        /// Requests that were taken before.
        taken: usize,
        /// Why.
        source: DeviceError,
    },
}

/// Why a queue pair was not connected.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// What the peer sent is no endpoint.
    #[error("the peer's endpoint is not valid: {0}")]
    Peer(&'static str),
    /// Ours is not in the state for it.
    #[error("the queue pair is in state {0:?}")]
    WrongState(crate::State),
    /// The device refused.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// Why there is no connection by RDMA-CM.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum CmError {
    /// librdmacm is not there.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The kernel's part of it is not there.
    #[error("this kernel has no RDMA-CM: `modprobe rdma_ucm`, and /dev/infiniband/rdma_cm must be there")]
    NoManager,
    /// The address is no RDMA device's.
    #[error("no RDMA device has the address {0}, says RDMA-CM; `rdma link` and `ip addr` show which have")]
    NoDevice(IpAddr),
    /// The queue pair belongs to another device than the address.
    #[error(
        "the address belongs to the device {there}, and the queue pair to {ours}: an interface should have one RDMA device"
    )]
    OtherDevice {
        /// The queue pair's.
        ours: String,
        /// The address's.
        there: String,
    },
    /// More private data than fits.
    #[error("{length} bytes of private data, a connection carries {MAX_PRIVATE}")]
    PrivateData {
        /// What was given.
        length: usize,
    },
    /// The peer cannot be reached.
    #[error("{to} cannot be reached by RDMA ({what}, {status})")]
    Unreachable {
        /// Whither.
        to: SocketAddr,
        /// What failed.
        what: &'static str,
        /// What the kernel says.
        status: i32,
    },
    /// The peer refused.
    #[error("{0} refused the RDMA connection")]
    Refused(SocketAddr),
    /// It took too long.
    #[error("no RDMA connection with {0} in time")]
    TimedOut(SocketAddr),
    /// The queue pair cannot be connected.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A call failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
}
