//! One connection: whole messages, with descriptors where needed.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, Shutdown, SockFlag, SockType, connect, getsockopt, sendmsg,
    setsockopt, shutdown, socket, socketpair, sockopt,
};

use super::path::{PathTooLong, address};
use super::peer::PeerCredentials;
use super::sys;

/// Descriptors that the kernel takes in one message (`SCM_MAX_FD`).
pub const MAX_FDS_PER_SEND: usize = 253;

/// Descriptors that [`Seqpacket::receive`] accepts in one message: two faces for each of the 16
/// segments that a frame may have.
pub const MAX_FDS_PER_MESSAGE: usize = 32;

/// `ECONNRESET` is reported once for each end that closes; more in a row is no state of a socket.
const MAX_RESETS: usize = 4;

/// Why a socket could not be made, connected or set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    /// Nothing exists at the path.
    #[error("nothing is at {}: is the publisher running, and is the name right?", path.display())]
    NotFound {
        /// The path.
        path: PathBuf,
    },
    /// The path exists, but nobody listens there.
    #[error("nobody listens at {}: its publisher has ended, or is just starting", path.display())]
    Refused {
        /// The path.
        path: PathBuf,
    },
    /// The publisher is alive, but its queue of new connections is full: try again.
    #[error("the publisher at {} has too many connections waiting: try again", path.display())]
    Backlog {
        /// The path.
        path: PathBuf,
    },
    /// This user may not connect there.
    #[error("no permission to connect to {}: its owner must widen the socket's permissions", path.display())]
    Permission {
        /// The path.
        path: PathBuf,
    },
    /// The path is a socket of another kind (of shmsink or unixfdsink, say).
    #[error("the socket at {} is not one of a publisher (it is no SOCK_SEQPACKET)", path.display())]
    WrongType {
        /// The path.
        path: PathBuf,
    },
    /// The path is too long for a socket.
    #[error(transparent)]
    PathTooLong(#[from] PathTooLong),
    /// The path is empty or holds a zero byte.
    #[error("{path:?} is not the path of a socket")]
    BadPath {
        /// The path.
        path: PathBuf,
    },
    /// No descriptor is left, in this process or on this machine.
    #[error("no file descriptor is left ({errno}): close some, or raise the limit (ulimit -n)")]
    OutOfFds {
        /// `EMFILE` or `ENFILE`.
        errno: Errno,
    },
    /// Anything else.
    #[error("{what}: {errno}")]
    Io {
        /// The call that failed.
        what: &'static str,
        /// Its error.
        errno: Errno,
    },
}

/// Why a message was not sent. It was not sent in part: it is still the caller's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The peer's queue is full. Try again when the peer has been heard from: `POLLOUT` comes far
    /// too late.
    #[error("the peer's queue is full")]
    Full,
    /// Too many descriptors of this user are under way in sockets: try again later.
    #[error("too many file descriptors of this user are in flight (see ulimit -n)")]
    TooManyInFlight,
    /// The message is larger than the socket's send buffer.
    #[error("the message is larger than the socket's buffer")]
    TooLarge,
    /// The peer has closed, or shut down its reading side.
    #[error("the peer has closed the connection")]
    Closed,
    /// A message without bytes would look like the end of the connection.
    #[error("an empty message cannot be sent")]
    EmptyMessage,
    /// More than [`MAX_FDS_PER_SEND`] descriptors.
    #[error("{0} file descriptors in one message, the kernel takes {MAX_FDS_PER_SEND}")]
    TooManyFds(usize),
    /// Anything else.
    #[error("sendmsg: {0}")]
    Io(Errno),
}

/// Why no message was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// No message waits.
    #[error("no message waits")]
    Empty,
    /// The peer has closed, and every message was read.
    #[error("the peer has closed the connection")]
    Closed,
    /// The message was larger than the buffer; it is lost, and its descriptors are closed.
    #[error("the message is larger than the {0} bytes it was to be read into")]
    Truncated(usize),
    /// Descriptors were lost (this process has none left, most likely); the rest is closed.
    #[error("file descriptors of a message were lost: {0} arrived (is the limit reached? see ulimit -n)")]
    FdsTruncated(usize),
    /// The peer sent more than [`MAX_FDS_PER_MESSAGE`] descriptors; all are closed.
    #[error("a message carries more than {MAX_FDS_PER_MESSAGE} file descriptors")]
    TooManyFds,
    /// Anything else.
    #[error("recvmsg: {0}")]
    Io(Errno),
}

/// A socket's buffers, as the kernel counts them: with its own overhead per message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BufferSizes {
    /// `SO_SNDBUF`: what may be under way to the peer.
    pub send: usize,
    /// `SO_RCVBUF`: without meaning for a Unix socket, but reported.
    pub receive: usize,
}

/// A connected, non-blocking `SOCK_SEQPACKET` socket.
#[derive(Debug)]
pub struct Seqpacket {
    fd: OwnedFd,
}

impl Seqpacket {
    /// Two sockets that are connected to each other.
    pub fn pair() -> Result<(Self, Self), SocketError> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (a, b) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)
            .map_err(|errno| creation_error("socketpair", errno))?;
        Ok((Self { fd: a }, Self { fd: b }))
    }

    /// Connects to the listener at `path`, without waiting.
    pub fn connect(path: &Path) -> Result<Self, SocketError> {
        let address = address(path)?.ok_or_else(|| SocketError::BadPath { path: path.to_path_buf() })?;
        let fd = new_socket()?;
        connect(fd.as_raw_fd(), &address).map_err(|errno| connect_error(path, errno))?;
        Ok(Self { fd })
    }

    pub(super) fn from_accepted(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Asks for buffers of these sizes and says what they are now: the kernel doubles what is asked
    /// for, and without privilege holds it below `net.core.wmem_max`.
    pub fn set_buffers(&self, send: usize, receive: usize) -> Result<BufferSizes, SocketError> {
        // The kernel takes a C int and doubles it.
        const LARGEST: usize = (i32::MAX / 2) as usize;
        let (send, receive) = (send.min(LARGEST), receive.min(LARGEST));
        if setsockopt(&self.fd, sockopt::SndBufForce, &send).is_err() {
            setsockopt(&self.fd, sockopt::SndBuf, &send).map_err(|errno| io("SO_SNDBUF", errno))?;
        }
        if setsockopt(&self.fd, sockopt::RcvBufForce, &receive).is_err() {
            setsockopt(&self.fd, sockopt::RcvBuf, &receive).map_err(|errno| io("SO_RCVBUF", errno))?;
        }
        self.buffers()
    }

    /// The buffers' sizes.
    pub fn buffers(&self) -> Result<BufferSizes, SocketError> {
        let send = getsockopt(&self.fd, sockopt::SndBuf).map_err(|errno| io("SO_SNDBUF", errno))?;
        let receive = getsockopt(&self.fd, sockopt::RcvBuf).map_err(|errno| io("SO_RCVBUF", errno))?;
        Ok(BufferSizes { send, receive })
    }

    /// Sends one message with copies of `fds`, or nothing at all.
    pub fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), SendError> {
        self.send_vectored(&[IoSlice::new(bytes)], fds)
    }

    /// As [`send`](Self::send), the message in several parts.
    pub fn send_vectored(&self, parts: &[IoSlice<'_>], fds: &[BorrowedFd<'_>]) -> Result<(), SendError> {
        if parts.iter().all(|part| part.is_empty()) {
            return Err(SendError::EmptyMessage);
        }
        if fds.len() > MAX_FDS_PER_SEND {
            return Err(SendError::TooManyFds(fds.len()));
        }
        let mut raw: [RawFd; MAX_FDS_PER_SEND];
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        let socket = self.fd.as_raw_fd();
        let sent = if fds.is_empty() {
            sendmsg::<()>(socket, parts, &[], flags, None)
        } else {
            raw = [-1; MAX_FDS_PER_SEND];
            raw.iter_mut().zip(fds).for_each(|(raw, fd)| *raw = fd.as_raw_fd());
            let rights = [ControlMessage::ScmRights(&raw[..fds.len()])];
            sendmsg::<()>(socket, parts, &rights, flags, None)
        };
        sent.map(drop).map_err(|errno| match errno {
            // EWOULDBLOCK is the same number.
            Errno::EAGAIN | Errno::ENOBUFS => SendError::Full,
            Errno::ETOOMANYREFS => SendError::TooManyInFlight,
            Errno::EMSGSIZE => SendError::TooLarge,
            Errno::EPIPE | Errno::ECONNRESET | Errno::ENOTCONN => SendError::Closed,
            errno => SendError::Io(errno),
        })
    }

    /// Receives one message into `buf` and says how long it is; its descriptors are appended to `fds`.
    /// On an error nothing is appended, and what had arrived is closed.
    ///
    /// A peer that closes while messages to it are unread makes the kernel report a reset before it
    /// hands out the peer's last messages: those are still received here, then [`ReceiveError::Closed`].
    pub fn receive(&self, buf: &mut [u8], fds: &mut Vec<OwnedFd>) -> Result<usize, ReceiveError> {
        let before = fds.len();
        let received = self.receive_once(buf, fds).and_then(|(length, flags)| {
            let arrived = fds.len() - before;
            if arrived > MAX_FDS_PER_MESSAGE {
                Err(ReceiveError::TooManyFds)
            } else if flags.contains(MsgFlags::MSG_CTRUNC) {
                Err(ReceiveError::FdsTruncated(arrived))
            } else if flags.contains(MsgFlags::MSG_TRUNC) {
                Err(ReceiveError::Truncated(buf.len()))
            } else if length == 0 {
                // The end, or an empty message, which no honest peer sends.
                Err(ReceiveError::Closed)
            } else {
                Ok(length)
            }
        });
        if received.is_err() {
            fds.truncate(before);
        }
        received
    }

    fn receive_once(
        &self,
        buf: &mut [u8],
        fds: &mut Vec<OwnedFd>,
    ) -> Result<(usize, MsgFlags), ReceiveError> {
        for _ in 0..MAX_RESETS {
            match sys::receive(self.fd.as_fd(), buf, fds) {
                Ok(received) => return Ok(received),
                Err(Errno::EAGAIN) => return Err(ReceiveError::Empty),
                Err(Errno::ENOTCONN) => return Err(ReceiveError::Closed),
                Err(Errno::ECONNRESET | Errno::EINTR) => {}
                Err(errno) => return Err(ReceiveError::Io(errno)),
            }
        }
        Err(ReceiveError::Io(Errno::ECONNRESET))
    }

    /// Says to the peer that nothing more will be sent; it can still send.
    pub fn shutdown_write(&self) {
        self.shut(Shutdown::Write);
    }

    /// Ends both directions; what the peer sent before can still be received.
    pub fn shutdown(&self) {
        self.shut(Shutdown::Both);
    }

    fn shut(&self, how: Shutdown) {
        // Fails only when the peer has closed already, which is what is wanted.
        let _ = shutdown(self.fd.as_raw_fd(), how);
    }

    /// Who is at the other end.
    pub fn peer(&self) -> Result<PeerCredentials, SocketError> {
        PeerCredentials::of(self.fd.as_fd())
    }
}

impl AsFd for Seqpacket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A new socket of the only kind used here.
pub(super) fn new_socket() -> Result<OwnedFd, SocketError> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)
        .map_err(|errno| creation_error("socket", errno))
}

fn io(what: &'static str, errno: Errno) -> SocketError {
    SocketError::Io { what, errno }
}

fn creation_error(what: &'static str, errno: Errno) -> SocketError {
    match errno {
        Errno::EMFILE | Errno::ENFILE => SocketError::OutOfFds { errno },
        errno => io(what, errno),
    }
}

fn connect_error(path: &Path, errno: Errno) -> SocketError {
    let path = path.to_path_buf();
    match errno {
        Errno::ENOENT | Errno::ENOTDIR => SocketError::NotFound { path },
        Errno::ECONNREFUSED => SocketError::Refused { path },
        Errno::EAGAIN => SocketError::Backlog { path },
        Errno::EACCES | Errno::EPERM => SocketError::Permission { path },
        Errno::EPROTOTYPE => SocketError::WrongType { path },
        errno => io("connect", errno),
    }
}
