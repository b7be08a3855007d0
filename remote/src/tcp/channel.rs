//! The connection under a link, in clear text.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

use super::sys::{self, PageRange, Piece};

/// What moves bytes, without waiting.
#[derive(Debug)]
pub(super) struct Channel(TcpStream);

impl Channel {
    pub(super) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        // Batching is ours: a record must not wait for an acknowledgement.
        stream.set_nodelay(true)?;
        Ok(Self(stream))
    }

    /// Sends what fits; `None` if nothing does now.
    pub(super) fn send(&mut self, pieces: &[Piece<'_>]) -> io::Result<Option<usize>> {
        retried(|| sys::send(self.0.as_fd(), pieces))
    }

    /// Receives what is here, into pages first; `None` if nothing is, 0 at the end.
    pub(super) fn receive(
        &mut self,
        pages: Option<PageRange<'_>>,
        rest: &mut [u8],
    ) -> io::Result<Option<usize>> {
        retried(|| sys::receive(self.0.as_fd(), pages, rest))
    }

    /// Says that nothing more will be sent.
    pub(super) fn finish(&mut self) {
        // Fails only where the peer is gone already.
        let _ = self.0.shutdown(Shutdown::Write);
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
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
