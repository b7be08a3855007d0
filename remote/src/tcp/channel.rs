//! The connection under a link, in clear text.

use std::io;
use std::net::{IpAddr, Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

use super::sys::{self, PageRange, Piece};

/// What moves bytes, without waiting.
#[derive(Debug)]
pub(crate) struct Channel {
    stream: TcpStream,
    sent: u64,
    received: u64,
    /// Received, and looked at, but not taken.
    ahead: Vec<u8>,
}

impl Channel {
    pub(crate) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        // Batching is ours: a record must not wait for an acknowledgement.
        stream.set_nodelay(true)?;
        Ok(Self { stream, sent: 0, received: 0, ahead: Vec::new() })
    }

    /// Sends what fits; `None` if nothing does now.
    pub(crate) fn send(&mut self, pieces: &[Piece<'_>]) -> io::Result<Option<usize>> {
        let sent = retried(|| sys::send(self.stream.as_fd(), pieces))?;
        self.sent += sent.unwrap_or(0) as u64;
        Ok(sent)
    }

    /// Receives what is here, into pages first; `None` if nothing is, 0 at the end.
    pub(crate) fn receive(
        &mut self,
        pages: Option<PageRange<'_>>,
        rest: &mut [u8],
    ) -> io::Result<Option<usize>> {
        if !self.ahead.is_empty() && pages.is_none() {
            let count = self.ahead.len().min(rest.len());
            rest[..count].copy_from_slice(&self.ahead[..count]);
            self.ahead.drain(..count);
            return Ok(Some(count));
        }
        let received = retried(|| sys::receive(self.stream.as_fd(), pages, rest))?;
        self.received += received.unwrap_or(0) as u64;
        Ok(received)
    }

    /// The next `count` bytes, which stay to be received; no byte behind them is read. `None` while they are not all
    /// here.
    pub(crate) fn peek(&mut self, count: usize) -> io::Result<Option<&[u8]>> {
        while self.ahead.len() < count {
            let mut bytes = vec![0; count - self.ahead.len()];
            let Some(read) = retried(|| sys::receive(self.stream.as_fd(), None, &mut bytes))? else {
                return Ok(None);
            };
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.received += read as u64;
            self.ahead.extend_from_slice(&bytes[..read]);
        }
        Ok(Some(&self.ahead[..count]))
    }

    /// Takes so many of the bytes that were [peeked](Self::peek) at.
    pub(crate) fn skip(&mut self, count: usize) {
        self.ahead.drain(..count.min(self.ahead.len()));
    }

    /// The address of this end.
    pub(crate) fn local_ip(&self) -> io::Result<IpAddr> {
        Ok(self.stream.local_addr()?.ip())
    }

    /// The address of the other end.
    pub(crate) fn peer_ip(&self) -> io::Result<IpAddr> {
        Ok(self.stream.peer_addr()?.ip())
    }

    /// Bytes that were sent, as they are on the wire.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// Bytes that were received, as they were on the wire.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Bytes that were sent and have not arrived.
    pub(crate) fn unsent(&self) -> u64 {
        sys::unsent(self.stream.as_fd())
    }

    /// Says that nothing more will be sent.
    pub(crate) fn finish(&mut self) {
        // Fails only where the peer is gone already.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
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
