//! Who is at the other end, as the kernel knows it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};

use super::seqpacket::SocketError;
use super::sys;

/// The peer's identity at the moment it connected (or, seen from its side, began to listen).
///
/// A process that passes its end on to another keeps its own name on it: the connection acts for the
/// one who opened it.
#[derive(Debug)]
pub struct PeerCredentials {
    /// Process id, 0 when the peer lives in a pid namespace that is not visible from here.
    pub pid: i32,
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Supplementary groups; empty where the kernel does not tell.
    pub groups: Vec<u32>,
    /// A descriptor that becomes readable when the process ends, where the kernel has one.
    pub pidfd: Option<OwnedFd>,
}

impl PeerCredentials {
    /// Whether the peer is in group `gid`, by its own or by a supplementary group.
    pub fn in_group(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.contains(&gid)
    }

    pub(super) fn of(socket: BorrowedFd<'_>) -> Result<Self, SocketError> {
        let peer = getsockopt(&socket, sockopt::PeerCredentials)
            .map_err(|errno| SocketError::Io { what: "SO_PEERCRED", errno })?;
        Ok(Self {
            pid: peer.pid(),
            uid: peer.uid(),
            gid: peer.gid(),
            groups: sys::peer_groups(socket).unwrap_or_default(),
            pidfd: pidfd(socket, peer.pid()),
        })
    }
}

/// The peer's pidfd: by the socket (Linux 6.5), else by its number. The number could have been given to
/// another process meanwhile; a connection that is still open after pidfd_open makes that unlikely.
fn pidfd(socket: BorrowedFd<'_>, pid: i32) -> Option<OwnedFd> {
    if let Ok(pidfd) = getsockopt(&socket, sockopt::PeerPidfd) {
        return Some(pidfd);
    }
    let pidfd = if pid > 0 { sys::pidfd_open(pid).ok()? } else { return None };
    let mut poll_fds = [PollFd::new(socket, PollFlags::empty())];
    let hung_up = poll(&mut poll_fds, PollTimeout::ZERO).ok()? > 0
        || poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO).ok()? > 0;
    if hung_up { None } else { Some(pidfd) }
}
