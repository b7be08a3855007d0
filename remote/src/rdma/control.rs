//! The connection that carries everything but bytes of frames.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::time::Instant;

use nix::poll::PollFd;
use pagecast_verbs::ENDPOINT_BYTES;

use super::wire::{self, Ability, Grant, Message, Splitter};
use crate::LinkError;
use crate::limits::{DEAD, MAX_BYTES_WAITING};
use crate::link::{LinkFigures, begin};
use crate::pulse::{Pulse, Role};
use crate::tcp::{Channel, Piece};

/// Bytes read at a time.
const READ: usize = 16 * 1024;

/// What the other end says, heartbeats apart.
pub(super) enum Said {
    /// Its queue pair; once, and first.
    Hello([u8; ENDPOINT_BYTES]),
    Packet(Vec<u8>),
    Grant(Grant),
    /// What its device can do; at most once, before the hello.
    Ability(Ability),
}

/// One end of it.
pub(super) struct Control {
    channel: Channel,
    role: Role,
    pulse: Pulse,
    splitter: Splitter,
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
        let output = VecDeque::from(wire::preamble());
        let (pulse, input) = (begin(role), VecDeque::new());
        Self {
            channel,
            role,
            pulse,
            splitter: Splitter::default(),
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

    pub(super) fn say(&mut self, message: &Message<'_>) {
        message.encode(&mut self.output);
    }

    /// Sends what fits.
    pub(super) fn flush(&mut self) -> Result<(), LinkError> {
        if !self.finishing
            && let Some(beat) = self.pulse.due(Instant::now())
            && self.beat_waits == 0
        {
            self.say(&Message::Beat(beat));
            // One at a time, however often a peer that does not read asks for an answer.
            self.beat_waits = self.output.len();
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
    pub(super) fn next(&mut self) -> Result<Option<Said>, LinkError> {
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

    fn take(&mut self) -> Result<Option<Said>, LinkError> {
        while let Some((message, length)) = self.splitter.cut(self.input.make_contiguous())? {
            let said = match message {
                Message::Hello(endpoint) => Some(Said::Hello(endpoint)),
                Message::Packet(packet) => Some(Said::Packet(packet.to_vec())),
                Message::Grant(grant) => Some(Said::Grant(grant)),
                Message::Ability(ability) => Some(Said::Ability(ability)),
                Message::Beat(beat) => {
                    self.pulse.took(beat, Instant::now())?;
                    None
                }
            };
            self.input.drain(..length);
            if said.is_some() {
                return Ok(said);
            }
        }
        Ok(None)
    }
}
