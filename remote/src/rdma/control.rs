//! The connection that carries everything but bytes of frames.
//!
//! Each direction begins with a preamble. Then come messages: a length of four bytes, a kind, a body.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::time::Instant;

use nix::poll::PollFd;
use pagecast_ipc::wire::limits::MAX_PACKET;
use pagecast_verbs::ENDPOINT_BYTES;

use crate::limits::{DEAD, MAX_BYTES_WAITING};
use crate::link::{LinkFigures, begin};
use crate::pulse::{Beat, Pulse, Role};
use crate::tcp::{Channel, Piece};
use crate::{LinkError, PeerFault};

/// The first bytes of each direction.
pub(crate) const MAGIC: [u8; 4] = *b"PGCV";
const VERSION: u16 = 1;
const PREAMBLE: usize = 8;
/// Length and kind.
const HEADER: usize = 5;
/// Bytes read at a time.
const READ: usize = 16 * 1024;

/// Bytes of a [`Grant`].
const GRANT: usize = 24;
const BEAT: usize = 24;

/// A place for the bytes of a frame.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Grant {
    /// The number of the place, and of the frame that it is for; the immediate.
    pub(super) slot: u32,
    pub(super) rkey: u32,
    pub(super) address: u64,
    pub(super) length: u64,
}

impl std::fmt::Debug for Grant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Keys are secrets.
        f.debug_struct("Grant")
            .field("slot", &self.slot)
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

/// What the other end says.
pub(super) enum Message {
    /// Its queue pair; once, and first.
    Hello([u8; ENDPOINT_BYTES]),
    Packet(Vec<u8>),
    Grant(Grant),
}

const HELLO_KIND: u8 = 1;
const PACKET_KIND: u8 = 2;
const GRANT_KIND: u8 = 3;
const BEAT_KIND: u8 = 4;

/// One end of it.
pub(super) struct Control {
    channel: Channel,
    role: Role,
    pulse: Pulse,
    greeted: bool,
    input: VecDeque<u8>,
    output: VecDeque<u8>,
    /// Bytes of it up to the end of a heartbeat.
    beat_waits: usize,
    finishing: bool,
    finished: bool,
    ended: bool,
}

impl Control {
    pub(super) fn new(channel: Channel, role: Role) -> Self {
        let mut output = VecDeque::from(MAGIC);
        output.extend(VERSION.to_le_bytes());
        output.extend([0; 2]);
        let (pulse, input) = (begin(role), VecDeque::new());
        Self {
            channel,
            role,
            pulse,
            greeted: false,
            input,
            output,
            beat_waits: 0,
            finishing: false,
            finished: false,
            ended: false,
        }
    }

    /// The address of the other end.
    pub(super) fn peer_ip(&self) -> Result<IpAddr, LinkError> {
        Ok(self.channel.peer()?.ip())
    }

    pub(super) fn poll_fd(&self, read: bool) -> PollFd<'_> {
        let interest = self.channel.interest(read && !self.ended, !self.output.is_empty());
        PollFd::new(self.channel.fd(), interest)
    }

    pub(super) fn next_look(&self) -> Instant {
        self.pulse.next_look()
    }

    /// Bytes that have not arrived at the peer's host.
    pub(super) fn unsent(&self) -> u64 {
        self.output.len() as u64 + self.channel.unsent()
    }

    /// What is known of the link, over which went `payload` besides.
    pub(super) fn figures(&self, payload: u64) -> LinkFigures {
        let carried = match self.role {
            Role::Answers => self.channel.sent(),
            Role::Asks => self.channel.received(),
        };
        let (round_trip, clock) = (self.pulse.round_trip(), self.pulse.clock(Instant::now()));
        LinkFigures { round_trip, clock, wire_bytes: carried + payload, chosen: None }
    }

    pub(super) fn is_busy(&self) -> bool {
        self.output.len() >= MAX_BYTES_WAITING
    }

    /// Whether the other end has said that nothing more comes.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether the other end may be taken for alive. Who does not read cannot say that nothing is there.
    pub(super) fn alive(&mut self, reading: bool) -> Result<(), LinkError> {
        if !reading {
            self.pulse.heard(Instant::now());
        }
        if self.pulse.is_dead(Instant::now()) { Err(LinkError::Silent(DEAD.as_secs())) } else { Ok(()) }
    }

    fn push(&mut self, kind: u8, body: &[u8]) {
        self.output.extend((body.len() as u32).to_le_bytes());
        self.output.push_back(kind);
        self.output.extend(body);
    }

    pub(super) fn hello(&mut self, endpoint: &[u8; ENDPOINT_BYTES]) {
        self.push(HELLO_KIND, endpoint);
    }

    pub(super) fn packet(&mut self, packet: &[u8]) {
        self.push(PACKET_KIND, packet);
    }

    pub(super) fn grant(&mut self, grant: &Grant) {
        let mut body = [0; GRANT];
        body[..4].copy_from_slice(&grant.slot.to_le_bytes());
        body[4..8].copy_from_slice(&grant.rkey.to_le_bytes());
        body[8..16].copy_from_slice(&grant.address.to_le_bytes());
        body[16..].copy_from_slice(&grant.length.to_le_bytes());
        self.push(GRANT_KIND, &body);
    }

    fn beat(&mut self, beat: &Beat) {
        let mut body = [0; BEAT];
        for (at, value) in [beat.sent, beat.echo, beat.kept].into_iter().enumerate() {
            body[at * 8..at * 8 + 8].copy_from_slice(&value.to_le_bytes());
        }
        self.push(BEAT_KIND, &body);
        // One at a time, however often a peer that does not read asks for an answer.
        self.beat_waits = self.output.len();
    }

    /// Sends what fits.
    pub(super) fn flush(&mut self) -> Result<(), LinkError> {
        if !self.finishing
            && let Some(beat) = self.pulse.due(Instant::now())
            && self.beat_waits == 0
        {
            self.beat(&beat);
        }
        while !self.output.is_empty() {
            let (first, second) = self.output.as_slices();
            match self.channel.send(&[Piece::Bytes(first), Piece::Bytes(second)]) {
                Ok(Some(count)) => {
                    self.output.drain(..count);
                    self.beat_waits = self.beat_waits.saturating_sub(count);
                }
                Ok(None) => return Ok(()),
                // What it had said before it went is still to be read.
                Err(_) => {
                    self.output.clear();
                    self.ended = self.ended || self.input.is_empty();
                    return Ok(());
                }
            }
        }
        // Fails only where the peer is gone already: see above.
        let _ = self.channel.flush();
        if self.finishing && !self.finished {
            self.finished = self.channel.finish();
        }
        Ok(())
    }

    /// Nothing more will be said. `true` when all is.
    pub(super) fn finish(&mut self) -> bool {
        self.finishing = true;
        self.finished
    }

    /// The next message, if it is here.
    pub(super) fn next(&mut self) -> Result<Option<Message>, LinkError> {
        loop {
            match self.take()? {
                Some(message) => {
                    self.pulse.calm(Instant::now());
                    return Ok(Some(message));
                }
                None if !self.read()? => {
                    self.pulse.calm(Instant::now());
                    return Ok(None);
                }
                None => {}
            }
        }
    }

    /// Reads once; whether something came.
    fn read(&mut self) -> Result<bool, LinkError> {
        let mut bytes = [0; READ];
        match self.channel.receive(None, &mut bytes) {
            Ok(Some(0)) => {
                self.ended = true;
                Ok(false)
            }
            Ok(Some(count)) => {
                self.pulse.heard(Instant::now());
                self.input.extend(&bytes[..count]);
                Ok(true)
            }
            Ok(None) => Ok(false),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                self.ended = true;
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn take(&mut self) -> Result<Option<Message>, LinkError> {
        if !self.greeted && !self.greet()? {
            return Ok(None);
        }
        while let Some((kind, length)) = self.header()? {
            if self.input.len() < HEADER + length {
                return Ok(None);
            }
            self.input.drain(..HEADER);
            let body: Vec<u8> = self.input.drain(..length).collect();
            if let Some(message) = self.message(kind, body)? {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    fn greet(&mut self) -> Result<bool, PeerFault> {
        let seen = self.input.len().min(MAGIC.len());
        if !self.input.iter().take(seen).eq(&MAGIC[..seen]) {
            return Err(PeerFault::NotPagecast);
        }
        if self.input.len() < PREAMBLE {
            return Ok(false);
        }
        let theirs = u16::from_le_bytes([self.input[4], self.input[5]]);
        if theirs != VERSION {
            return Err(PeerFault::Version { theirs, ours: VERSION });
        }
        self.input.drain(..PREAMBLE);
        self.greeted = true;
        Ok(true)
    }

    /// Kind and length of the next message, checked.
    fn header(&self) -> Result<Option<(u8, usize)>, PeerFault> {
        if self.input.len() < HEADER {
            return Ok(None);
        }
        let byte = |at: usize| self.input[at];
        let length = u32::from_le_bytes([byte(0), byte(1), byte(2), byte(3)]) as usize;
        let right = match byte(4) {
            HELLO_KIND => length == ENDPOINT_BYTES,
            PACKET_KIND if length > MAX_PACKET => {
                let (value, limit) = (length as u64, MAX_PACKET as u64);
                return Err(PeerFault::OverLimit { what: "packet", value, limit });
            }
            PACKET_KIND => true,
            GRANT_KIND => length == GRANT,
            BEAT_KIND => length == BEAT,
            _ => false,
        };
        if right { Ok(Some((byte(4), length))) } else { Err(PeerFault::OutOfPlace("an unknown message")) }
    }

    /// `None` for a heartbeat, which is taken note of here.
    fn message(&mut self, kind: u8, body: Vec<u8>) -> Result<Option<Message>, PeerFault> {
        let word = |at: usize| body[at..at + 4].try_into().map_or(0, u32::from_le_bytes);
        let long = |at: usize| body[at..at + 8].try_into().map_or(0, u64::from_le_bytes);
        Ok(Some(match kind {
            HELLO_KIND => {
                let endpoint = body[..].try_into().map_err(|_| PeerFault::OutOfPlace("a hello"))?;
                Message::Hello(endpoint)
            }
            GRANT_KIND => {
                Message::Grant(Grant { slot: word(0), rkey: word(4), address: long(8), length: long(16) })
            }
            BEAT_KIND => {
                self.pulse.took(Beat { sent: long(0), echo: long(8), kept: long(16) }, Instant::now())?;
                return Ok(None);
            }
            _ => Message::Packet(body),
        }))
    }
}
