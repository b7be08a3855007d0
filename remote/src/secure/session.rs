//! TLS over a connection, without waiting.

use std::io::{self, BufRead, Write};

use arrayvec::ArrayVec;
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, ClientConnection, Error, ServerConnection};

use super::verifier::Unknown;
use super::{Fingerprint, Identity};
use crate::tcp::stream::Stream;
use crate::tcp::sys::{MAX_PIECES, PageRange, Piece};
use crate::{PeerFault, framing};

/// Bytes received at a time.
const READ: usize = 64 * 1024;
/// Bytes that are encrypted and have not left.
const MAX_UNSENT: usize = 256 * 1024;
/// Plain bytes of one record.
const RECORD: usize = 16 * 1024;
/// The first byte of a record that holds an alert or a handshake.
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
/// In clear text: a fatal alert, `insufficient_security`.
pub(crate) const TLS_ONLY: [u8; 7] = [ALERT, 3, 3, 0, 2, 2, 71];
/// In clear text: a fatal alert, `access_denied`.
pub(crate) const NOT_ADMITTED: [u8; 7] = [ALERT, 3, 3, 0, 2, 2, 49];

/// Whether a stream that begins with this is TLS.
pub(crate) fn is_tls(first: u8) -> bool {
    first == ALERT || first == HANDSHAKE
}

/// One end of an encrypted connection.
pub(crate) struct Session {
    tls: rustls::Connection,
    own: Fingerprint,
    /// Bytes as received, those that rustls has not taken from `start` to `end`.
    raw: Vec<u8>,
    start: usize,
    end: usize,
    /// Whether anything was received.
    begun: bool,
    /// Plain bytes on their way into a record.
    stage: Vec<u8>,
    fault: Option<PeerFault>,
    said_good_bye: bool,
}

impl Session {
    /// The end that was dialled.
    pub(crate) fn server(identity: &Identity) -> io::Result<Self> {
        let tls = ServerConnection::new(identity.server()).map_err(io::Error::other)?;
        Ok(Self::new(tls.into(), identity))
    }

    /// The end that dials.
    pub(crate) fn client(identity: &Identity) -> io::Result<Self> {
        // Not sent, and not looked at: certificates are known, whatever names they bear.
        let name = ServerName::try_from("pagecast").map_err(io::Error::other)?;
        let tls = ClientConnection::new(identity.client(), name).map_err(io::Error::other)?;
        Ok(Self::new(tls.into(), identity))
    }

    fn new(mut tls: rustls::Connection, identity: &Identity) -> Self {
        tls.set_buffer_limit(Some(MAX_UNSENT));
        let own = identity.fingerprint();
        Self {
            tls,
            own,
            raw: vec![0; READ],
            start: 0,
            end: 0,
            begun: false,
            stage: Vec::new(),
            fault: None,
            said_good_bye: false,
        }
    }

    /// What was received before it was known to be TLS.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.raw.truncate(self.end);
        self.raw.extend_from_slice(bytes);
        self.end = self.raw.len();
        self.raw.resize(self.end.max(READ), 0);
    }

    /// Whether it has something to send of its own, and whether it could send more.
    pub(crate) fn wants_to_send(&self, waiting: bool) -> bool {
        self.tls.wants_write() || (waiting && !self.tls.is_handshaking())
    }

    /// Encrypts and sends what fits; `None` if nothing does now. What was taken has been read.
    pub(crate) fn send(&mut self, stream: &mut Stream, pieces: &[Piece<'_>]) -> io::Result<Option<usize>> {
        self.check()?;
        let mut took = 0;
        self.flush(stream)?;
        if self.tls.is_handshaking() {
            return Ok(None);
        }
        let mut rest = Rest { pieces, skip: 0 };
        loop {
            let mut ahead = Rest { ..rest };
            self.stage.clear();
            ahead.stage(&mut self.stage)?;
            let fits = if self.stage.is_empty() { 0 } else { self.tls.writer().write(&self.stage)? };
            took += fits;
            if fits == 0 {
                return Ok((took > 0).then_some(took));
            }
            rest.advance(fits);
            self.flush(stream)?;
        }
    }

    /// Sends what is encrypted, as far as it fits.
    pub(crate) fn flush(&mut self, stream: &mut Stream) -> io::Result<()> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut Encrypted(stream)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Receives what is here, into pages first; `None` if nothing is, 0 at the end.
    pub(crate) fn receive(
        &mut self,
        stream: &mut Stream,
        pages: Option<PageRange<'_>>,
        rest: &mut [u8],
    ) -> io::Result<Option<usize>> {
        self.check()?;
        let room = pages.map_or(0, |pages| pages.length()) + rest.len();
        let mut count = 0;
        while count < room {
            match self.take(pages, rest, count)? {
                Some(0) => return Ok(Some(count)),
                Some(some) => count += some,
                None if self.feed(stream)? => {}
                None => break,
            }
        }
        Ok((count > 0).then_some(count))
    }

    /// Puts what is decrypted where a stream has it from `at` on; `None` if nothing is, 0 at the end.
    fn take(
        &mut self,
        pages: Option<PageRange<'_>>,
        rest: &mut [u8],
        at: usize,
    ) -> io::Result<Option<usize>> {
        let room = pages.map_or(0, |pages| pages.length()) + rest.len() - at;
        let plain = match self.tls.reader().into_first_chunk() {
            Ok(plain) => plain,
            // An end without a good-bye is an end: what it means is said within.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Some(0)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        let some = plain.len().min(room);
        put(&plain[..some], pages, rest, at)?;
        self.tls.reader().consume(some);
        Ok(Some(some))
    }

    /// Takes in what was received, or else what is here; `false` if nothing is.
    fn feed(&mut self, stream: &mut Stream) -> io::Result<bool> {
        if self.start == self.end {
            let Some(count) = stream.receive(None, &mut self.raw)? else { return Ok(false) };
            (self.start, self.end) = (0, count);
        }
        let mut received = &self.raw[self.start..self.end];
        if let (false, Some(first)) = (self.begun, received.first())
            && !is_tls(*first)
        {
            let is_ours = *first == framing::MAGIC[0];
            let fault = if is_ours { PeerFault::ClearText } else { PeerFault::NotPagecast };
            return Err(self.fail(stream, fault));
        }
        self.begun |= !received.is_empty();
        self.start += self.tls.read_tls(&mut received)?;
        if let Err(error) = self.tls.process_new_packets() {
            let fault = self.translated(error);
            return Err(self.fail(stream, fault));
        }
        self.flush(stream).map(|()| true)
    }

    /// Says that nothing more will be sent; `true` when it has left.
    pub(crate) fn finish(&mut self, stream: &mut Stream) -> bool {
        if !std::mem::replace(&mut self.said_good_bye, true) {
            self.tls.send_close_notify();
        }
        let failed = self.flush(stream).is_err();
        let done = failed || !self.tls.wants_write();
        if done {
            stream.finish();
        }
        done
    }

    fn check(&self) -> io::Result<()> {
        self.fault.clone().map_or(Ok(()), |fault| Err(fault.into()))
    }

    /// Ends it for good; what is wrong is told to the other end, too.
    fn fail(&mut self, stream: &mut Stream, fault: PeerFault) -> io::Error {
        self.fault = Some(fault.clone());
        let _ = self.flush(stream);
        stream.part();
        fault.into()
    }

    fn translated(&self, error: Error) -> PeerFault {
        use AlertDescription::{
            AccessDenied, BadCertificate, CertificateRequired, CertificateUnknown, InsufficientSecurity,
            UnknownCA,
        };
        match error {
            Error::InvalidCertificate(CertificateError::Other(other)) => {
                match other.0.downcast_ref::<Unknown>() {
                    Some(Unknown { fingerprint, place }) => {
                        PeerFault::Untrusted { fingerprint: *fingerprint, place: place.clone() }
                    }
                    None => PeerFault::Encryption(other.to_string()),
                }
            }
            Error::InvalidCertificate(CertificateError::BadSignature) => PeerFault::WrongKey,
            Error::AlertReceived(BadCertificate | CertificateRequired | CertificateUnknown | UnknownCA) => {
                PeerFault::NotTrustedThere(self.own)
            }
            Error::AlertReceived(AccessDenied) => PeerFault::NotAdmitted,
            Error::AlertReceived(InsufficientSecurity) => PeerFault::Tls,
            error => PeerFault::Encryption(error.to_string()),
        }
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("own", &self.own).finish_non_exhaustive()
    }
}

/// Puts bytes where a stream has them from `at` on: pages first, then the rest.
fn put(bytes: &[u8], pages: Option<PageRange<'_>>, rest: &mut [u8], at: usize) -> io::Result<()> {
    let paged = pages.map_or(0, |pages| pages.length());
    let here = bytes.len().min(paged.saturating_sub(at));
    let (first, second) = bytes.split_at(here);
    if let Some(pages) = pages
        && !first.is_empty()
    {
        pages.copy_from(at, first)?;
    }
    let start = (at + here).saturating_sub(paged);
    rest[start..start + second.len()].copy_from_slice(second);
    Ok(())
}

/// What is left of pieces.
struct Rest<'a> {
    pieces: &'a [Piece<'a>],
    /// Bytes of the first that are done.
    skip: usize,
}

impl Rest<'_> {
    fn advance(&mut self, mut count: usize) {
        while let Some(first) = self.pieces.first() {
            let left = first.length() - self.skip;
            if count < left {
                self.skip += count;
                return;
            }
            count -= left;
            self.skip = 0;
            self.pieces = &self.pieces[1..];
        }
    }

    /// Copies what fits one record.
    fn stage(&mut self, stage: &mut Vec<u8>) -> io::Result<()> {
        while let Some(first) = self.pieces.first() {
            let some = (first.length() - self.skip).min(RECORD - stage.len());
            if some == 0 && stage.len() == RECORD {
                return Ok(());
            }
            let start = stage.len();
            stage.resize(start + some, 0);
            first.copy_to(self.skip, &mut stage[start..])?;
            self.advance(some);
        }
        Ok(())
    }
}

/// Writes of what is encrypted.
struct Encrypted<'a>(&'a mut Stream);

impl Write for Encrypted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(&[Piece::Bytes(bytes)])?.ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }

    fn write_vectored(&mut self, pieces: &[io::IoSlice<'_>]) -> io::Result<usize> {
        let pieces = pieces.iter().take(MAX_PIECES).map(|bytes| Piece::Bytes(bytes));
        let pieces: ArrayVec<Piece<'_>, MAX_PIECES> = pieces.collect();
        self.0.send(&pieces)?.ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
