//! The publisher's end.

use std::time::Instant;

use nix::poll::PollFd;

use super::channel::Channel;
use super::input::Input;
use super::output::Output;
use crate::LinkError;
use crate::limits::{DEAD, MAX_IN_A_ROW};
use crate::link::{FromSubscriber, LinkFigures, Payload, PollFds, Sender, begin};
use crate::pulse::{Pulse, Role};

/// Sends frames over a TCP connection.
#[derive(Debug)]
pub struct TcpSender {
    channel: Channel,
    output: Output,
    input: Input,
    pulse: Pulse,
    /// Whether more may be here than was asked for.
    more: bool,
}

impl TcpSender {
    /// The publisher's end of a connection.
    pub fn new(channel: Channel) -> Self {
        let (output, input) = (Output::new(), Input::new());
        Self { channel, output, input, pulse: begin(Role::Answers), more: false }
    }
}

impl Sender for TcpSender {
    fn poll_fds(&self) -> PollFds<'_> {
        [poll_fd(&self.channel, &self.output, true)].into_iter().collect()
    }

    fn next_look(&self) -> Instant {
        if self.more { Instant::now() } else { self.pulse.next_look() }
    }

    fn is_busy(&self) -> bool {
        self.output.is_busy()
    }

    fn send_packet(&mut self, packet: &[u8]) {
        self.output.push_packet(packet);
    }

    fn send_frame(&mut self, frame: u64, packet: &[u8], payload: Payload) {
        self.output.push_frame(frame, packet, payload);
    }

    fn flush(&mut self, done: &mut Vec<u64>) -> Result<(), LinkError> {
        self.output.flush(&mut self.channel, &mut self.pulse, done)
    }

    fn receive(&mut self, events: &mut Vec<FromSubscriber>) -> Result<(), LinkError> {
        self.more = false;
        for _ in 0..MAX_IN_A_ROW {
            match self.input.packet(&mut self.channel, &mut self.pulse)? {
                Some(packet) => events.push(FromSubscriber::Packet(packet.to_vec())),
                None => return alive(&mut self.pulse),
            }
        }
        self.more = true;
        Ok(())
    }

    fn finish(&mut self) -> bool {
        self.output.finish()
    }

    fn figures(&self) -> LinkFigures {
        let (round_trip, clock) = (self.pulse.round_trip(), self.pulse.clock(Instant::now()));
        LinkFigures { round_trip, clock, wire_bytes: self.channel.sent(), chosen: None }
    }

    fn unsent(&self) -> u64 {
        self.output.left() + self.channel.unsent()
    }
}

pub(super) fn poll_fd<'a>(channel: &'a Channel, output: &Output, read: bool) -> PollFd<'a> {
    PollFd::new(channel.fd(), channel.interest(read, !output.is_empty()))
}

/// Whether the peer may be taken for alive when all that is here was read.
pub(super) fn alive(pulse: &mut Pulse) -> Result<(), LinkError> {
    match pulse.is_dead(Instant::now()) {
        true => Err(LinkError::Silent(DEAD.as_secs())),
        false => Ok(()),
    }
}
