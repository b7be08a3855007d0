//! The subscriber's end.

use std::time::Instant;

use pagecast_ipc::wire;

use super::channel::Channel;
use super::input::{Input, TURN};
use super::output::Output;
use super::sender::{alive, poll_fd};
use crate::LinkError;
use crate::framing::{Kind, kind_of};
use crate::limits::MAX_IN_A_ROW;
use crate::link::{FromPublisher, LinkFigures, Pages, PollFds, Receiver, Room, begin};
use crate::pulse::{Pulse, Role};

/// A frame whose bytes are on their way.
#[derive(Debug)]
struct Coming {
    epoch: u32,
    frame: wire::Frame,
    room: Option<Room>,
    filled: usize,
}

/// Receives frames from a TCP connection.
#[derive(Debug)]
pub struct TcpReceiver {
    channel: Channel,
    output: Output,
    input: Input,
    pulse: Pulse,
    coming: Option<Coming>,
    /// Whether a frame waits for pages.
    starved: bool,
    /// Whether more may be here than was asked for.
    more: bool,
    done: Vec<u64>,
}

impl TcpReceiver {
    /// The subscriber's end of a connection.
    pub fn new(channel: Channel) -> Self {
        Self {
            channel,
            output: Output::new(),
            input: Input::new(),
            pulse: begin(Role::Asks),
            coming: None,
            starved: false,
            more: false,
            done: Vec::new(),
        }
    }

    /// The next message, if it is here whole.
    fn next(&mut self, pages: &mut dyn Pages) -> Result<Option<FromPublisher>, LinkError> {
        if self.coming.is_none() {
            let Some(packet) = self.input.packet(&mut self.channel, &mut self.pulse)? else {
                return Ok(None);
            };
            match kind_of(packet)? {
                Kind::Plain => return Ok(Some(FromPublisher::Packet(packet.to_vec()))),
                Kind::Frame { epoch, frame } => {
                    self.coming = Some(Coming { epoch, frame, room: None, filled: 0 });
                }
            }
        }
        self.fill(pages)
    }

    fn fill(&mut self, pages: &mut dyn Pages) -> Result<Option<FromPublisher>, LinkError> {
        let Some(coming) = &mut self.coming else { return Ok(None) };
        if !coming.frame.segments.is_empty() {
            let size = coming.frame.size() as usize;
            if coming.room.is_none() {
                coming.room = pages.take(size)?;
            }
            let Some(room) = &coming.room else {
                self.starved = true;
                return Ok(None);
            };
            let (channel, pulse) = (&mut self.channel, &mut self.pulse);
            let filled = coming.filled;
            coming.filled =
                self.input.fill(channel, pulse, &room.part, filled).map_err(|error| match error {
                    LinkError::Closed | LinkError::Io(_) => LinkError::MidFrame { filled, size },
                    other => other,
                })?;
            if coming.filled < size {
                // What stopped for others' sake goes on at once.
                self.more = coming.filled - filled >= TURN;
                return Ok(None);
            }
        }
        let whole = self.coming.take();
        Ok(whole.map(|Coming { epoch, frame, room, .. }| FromPublisher::Frame { epoch, frame, room }))
    }
}

impl Receiver for TcpReceiver {
    fn poll_fds(&self) -> PollFds<'_> {
        [poll_fd(&self.channel, &self.output, !self.starved)].into_iter().collect()
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

    fn flush(&mut self) -> Result<(), LinkError> {
        self.output.flush(&mut self.channel, &mut self.pulse, &mut self.done)
    }

    fn receive(&mut self, pages: &mut dyn Pages, events: &mut Vec<FromPublisher>) -> Result<(), LinkError> {
        self.more = false;
        self.starved = false;
        for _ in 0..MAX_IN_A_ROW {
            match self.next(pages)? {
                Some(event) => events.push(event),
                // Who does not read cannot say that nothing is there.
                None if self.starved => {
                    self.pulse.heard(Instant::now());
                    return Ok(());
                }
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
        LinkFigures { round_trip, clock, wire_bytes: self.channel.received(), chosen: None }
    }
}
