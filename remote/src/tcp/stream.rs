//! A socket that does not wait, and counts.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

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
