//! The connection under a link: in clear text, or encrypted.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::BorrowedFd;

use nix::poll::PollFlags;

use super::stream::Stream;
use super::sys::{PageRange, Piece};
use crate::secure::{Dialled, Identity, NOT_ADMITTED, Security, Session, TLS_ONLY, is_tls};
use crate::{PeerFault, framing};

/// What moves bytes, without waiting.
#[derive(Debug)]
pub struct Channel {
    stream: Stream,
    speech: Speech,
    /// Received, and looked at, but not taken.
    ahead: Vec<u8>,
}

/// What is spoken.
#[derive(Debug)]
enum Speech {
    /// Who came shows it by its first byte, and nothing is said before.
    Unknown {
        identity: Option<Identity>,
        clear_text: bool,
        outsider: bool,
    },
    Clear {
        heard: bool,
    },
    Tls(Box<Session>),
}

impl Channel {
    /// A connection in clear text, whatever it leads to.
    ///
    /// # Errors
    /// If the system does not let it be set up.
    pub fn clear(stream: TcpStream) -> io::Result<Self> {
        Self::new(stream, Speech::Clear { heard: false })
    }

    /// A connection that was dialled.
    ///
    /// # Errors
    /// If it cannot be set up.
    pub fn dialled(stream: TcpStream, security: &Security) -> io::Result<Self> {
        let speech = match security.to_dial() {
            Dialled::Clear => Speech::Clear { heard: false },
            Dialled::Tls(identity) => Speech::Tls(Box::new(Session::client(&identity)?)),
        };
        Self::new(stream, speech)
    }

    /// A connection from somebody at `peer`, who decides between what is allowed.
    ///
    /// # Errors
    /// If it cannot be set up.
    pub fn accepted(stream: TcpStream, peer: SocketAddr, security: &Security) -> io::Result<Self> {
        let identity = security.identity().cloned();
        let clear_text = security.clear_text_with(peer.ip());
        Self::new(stream, Speech::Unknown { identity, clear_text, outsider: false })
    }

    /// The same, of somebody who may not come: TLS is not begun with it.
    pub fn of_outsider(mut self) -> Self {
        if let Speech::Unknown { outsider, .. } = &mut self.speech {
            *outsider = true;
        }
        self
    }

    fn new(stream: TcpStream, speech: Speech) -> io::Result<Self> {
        Ok(Self { stream: Stream::new(stream)?, speech, ahead: Vec::new() })
    }

    /// Where the other end is.
    ///
    /// # Errors
    /// If the system does not know.
    pub fn peer(&self) -> io::Result<SocketAddr> {
        self.stream.peer()
    }

    /// Where this end is.
    ///
    /// # Errors
    /// If the system does not know.
    pub fn local(&self) -> io::Result<SocketAddr> {
        self.stream.local()
    }

    /// Sends what fits; `None` if nothing does now.
    pub(crate) fn send(&mut self, pieces: &[Piece<'_>]) -> io::Result<Option<usize>> {
        match &mut self.speech {
            Speech::Unknown { .. } => Ok(None),
            Speech::Clear { .. } => self.stream.send(pieces),
            Speech::Tls(session) => session.send(&mut self.stream, pieces),
        }
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
        self.receive_more(pages, rest)
    }

    fn receive_more(&mut self, pages: Option<PageRange<'_>>, rest: &mut [u8]) -> io::Result<Option<usize>> {
        match &mut self.speech {
            Speech::Unknown { .. } => self.receive_first(rest),
            Speech::Tls(session) => session.receive(&mut self.stream, pages, rest),
            Speech::Clear { heard } => {
                let received = self.stream.receive(pages, rest)?;
                let first = rest.first().filter(|_| received.is_some_and(|count| count > 0));
                if !std::mem::replace(heard, *heard || first.is_some()) && first.is_some_and(|b| is_tls(*b)) {
                    return Err(PeerFault::Tls.into());
                }
                Ok(received)
            }
        }
    }

    /// The next `count` bytes, which stay to be received; no byte behind them is read. `None` while they are not all
    /// here.
    pub(crate) fn peek(&mut self, count: usize) -> io::Result<Option<&[u8]>> {
        while self.ahead.len() < count {
            let mut bytes = vec![0; count - self.ahead.len()];
            let Some(read) = self.receive_more(None, &mut bytes)? else { return Ok(None) };
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.ahead.extend_from_slice(&bytes[..read]);
        }
        Ok(Some(&self.ahead[..count]))
    }

    /// Takes so many of the bytes that were [peeked](Self::peek) at.
    pub(crate) fn skip(&mut self, count: usize) {
        self.ahead.drain(..count.min(self.ahead.len()));
    }

    /// Bytes that were sent, as they are on the wire.
    pub(crate) fn sent(&self) -> u64 {
        self.stream.sent()
    }

    /// Bytes that were received, as they were on the wire.
    pub(crate) fn received(&self) -> u64 {
        self.stream.received()
    }

    /// Bytes that were sent and have not arrived.
    pub(crate) fn unsent(&self) -> u64 {
        self.stream.unsent()
    }

    /// Receives the first bytes of somebody who came, which show what it speaks.
    fn receive_first(&mut self, rest: &mut [u8]) -> io::Result<Option<usize>> {
        let Some(count) = self.stream.receive(None, rest)? else { return Ok(None) };
        let (Some(first), Speech::Unknown { identity, clear_text, outsider }) =
            (rest[..count].first(), &self.speech)
        else {
            return Ok(Some(count));
        };
        match (is_tls(*first), identity) {
            (true, Some(_)) if *outsider => Err(self.refuse(PeerFault::NotAdmitted, &NOT_ADMITTED)),
            (true, Some(identity)) => {
                let mut session = Session::server(identity)?;
                session.push(&rest[..count]);
                self.speech = Speech::Tls(Box::new(session));
                self.receive_more(None, rest)
            }
            (true, None) => Err(self.refuse(PeerFault::Tls, &framing::preamble())),
            (false, _) if *clear_text => {
                self.speech = Speech::Clear { heard: true };
                Ok(Some(count))
            }
            (false, _) if *first == framing::MAGIC[0] => Err(self.refuse(PeerFault::ClearText, &TLS_ONLY)),
            (false, _) => Err(PeerFault::NotPagecast.into()),
        }
    }

    /// Ends it with a word that shows the other end what is spoken here.
    fn refuse(&mut self, fault: PeerFault, word: &[u8]) -> io::Error {
        // A new connection has room for so little.
        let _ = self.stream.send(&[Piece::Bytes(word)]);
        self.stream.part();
        fault.into()
    }

    /// Sends what it keeps back itself.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        match &mut self.speech {
            Speech::Tls(session) => session.flush(&mut self.stream),
            _ => Ok(()),
        }
    }

    /// Says that nothing more will be sent; `true` when that has left.
    pub(crate) fn finish(&mut self) -> bool {
        if let Speech::Tls(session) = &mut self.speech {
            return session.finish(&mut self.stream);
        }
        self.stream.finish();
        true
    }

    /// What to wait for, if its owner reads, and has something to send.
    pub(crate) fn interest(&self, reads: bool, sends: bool) -> PollFlags {
        let sends = match &self.speech {
            Speech::Unknown { .. } => false,
            Speech::Clear { .. } => sends,
            Speech::Tls(session) => session.wants_to_send(sends),
        };
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::POLLIN, reads);
        flags.set(PollFlags::POLLOUT, sends);
        flags
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.stream.fd()
    }
}
