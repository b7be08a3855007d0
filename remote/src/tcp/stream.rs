//! A socket that does not wait, and counts.

use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::socket::{setsockopt, sockopt};

use super::sys::{self, PageRange, Piece};

/// Bytes read of a peer that was refused.
const FAREWELL: usize = 256 * 1024;

/// What bytes go through, as they are on the wire.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: TcpStream,
    sent: u64,
    received: u64,
}

impl Stream {
    pub(super) fn new(socket: TcpStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        // Batching is ours: a record must not wait for an acknowledgement.
        socket.set_nodelay(true)?;
        keep_caches_warm(&socket);
        Ok(Self { socket, sent: 0, received: 0 })
    }

    /// Sends what fits; `None` if nothing does now.
    pub(crate) fn send(&mut self, pieces: &[Piece<'_>]) -> io::Result<Option<usize>> {
        let sent = retried(|| sys::send(self.socket.as_fd(), pieces))?;
        self.sent += sent.unwrap_or(0) as u64;
        Ok(sent)
    }

    /// Receives what is here, into pages first; `None` if nothing is, 0 at the end.
    pub(crate) fn receive(
        &mut self,
        pages: Option<PageRange<'_>>,
        rest: &mut [u8],
    ) -> io::Result<Option<usize>> {
        let received = retried(|| sys::receive(self.socket.as_fd(), pages, rest))?;
        self.received += received.unwrap_or(0) as u64;
        Ok(received)
    }

    /// Says that nothing more will be sent.
    pub(crate) fn finish(&self) {
        // Fails only where the peer is gone already.
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Ends it so that the last that was sent arrives: bytes that nobody read would take it back.
    pub(crate) fn part(&mut self) {
        self.finish();
        let (mut bytes, mut left) = ([0; 4096], FAREWELL);
        while let (1.., Ok(Some(count @ 1..))) = (left, self.receive(None, &mut bytes)) {
            left = left.saturating_sub(count);
        }
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Bytes that were sent and have not arrived.
    pub(super) fn unsent(&self) -> u64 {
        sys::unsent(self.socket.as_fd())
    }

    pub(super) fn peer(&self) -> io::Result<SocketAddr> {
        self.socket.peer_addr()
    }

    pub(super) fn local(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Bytes that may wait in the kernel for a peer on this host. What the system would let wait there, megabytes, falls
/// out of the caches before it is read: that costs half as much again, and buys nothing where there is no way to go.
const NEAR_SEND_BUFFER: usize = 512 * 1024;

/// Over a real network the system's own choice, which grows with the way, is the right one.
fn keep_caches_warm(socket: &TcpStream) {
    if let (Ok(ours), Ok(theirs)) = (socket.local_addr(), socket.peer_addr())
        && is_near(ours.ip(), theirs.ip())
    {
        // A system that refuses costs time, no more.
        let _ = setsockopt(socket, sockopt::SndBuf, &NEAR_SEND_BUFFER);
    }
}

/// Whether both are addresses of this host.
fn is_near(ours: IpAddr, theirs: IpAddr) -> bool {
    ours == theirs || theirs.to_canonical().is_loopback()
}

fn retried(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<Option<usize>> {
    loop {
        match call() {
            Ok(count) => return Ok(Some(count)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use nix::sys::socket::getsockopt;

    use super::*;

    #[test]
    fn little_waits_in_the_kernel_for_a_peer_on_this_host() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let stream = Stream::new(stream).unwrap();
        let most = std::fs::read_to_string("/proc/sys/net/core/wmem_max").unwrap();
        let most: usize = most.trim().parse().unwrap();
        // The kernel doubles what it is asked for; its own choice would be another, and grow.
        let room = getsockopt(&stream.socket, sockopt::SndBuf).unwrap();
        assert_eq!(room, 2 * NEAR_SEND_BUFFER.min(most));
    }

    #[test]
    fn only_addresses_of_this_host_are_near() {
        let is_near = |ours: &str, theirs: &str| is_near(ours.parse().unwrap(), theirs.parse().unwrap());
        assert!(is_near("127.0.0.1", "127.0.0.2") && is_near("::1", "::1"));
        assert!(is_near("::ffff:127.0.0.1", "::ffff:127.0.0.1") && is_near("192.0.2.1", "192.0.2.1"));
        assert!(!is_near("192.0.2.1", "192.0.2.2") && !is_near("fe80::1", "fe80::2"));
    }
}
