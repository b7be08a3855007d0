//! An end for somebody who may not stay.

use std::time::Instant;

use super::control::Control;
use super::wire::Message;
use crate::LinkError;
use crate::limits::MAX_IN_A_ROW;
use crate::link::{FromSubscriber, LinkFigures, Payload, PollFds, Sender};
use crate::pulse::Role;
use crate::tcp::Channel;

/// The publisher's end of a link that takes nothing of a device. It sends words, what comes is not looked at, and frames do
/// not leave.
pub struct RdmaWords {
    control: Control,
}

impl std::fmt::Debug for RdmaWords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RdmaWords").finish_non_exhaustive()
    }
}

impl RdmaWords {
    /// That of a link whose control connection is `channel`.
    pub fn new(channel: Channel) -> Self {
        Self { control: Control::new(channel, Role::Answers) }
    }
}

impl Sender for RdmaWords {
    fn poll_fds(&self) -> PollFds<'_> {
        [self.control.poll_fd(true)].into_iter().collect()
    }

    fn next_look(&self) -> Instant {
        self.control.next_look()
    }

    fn is_busy(&self) -> bool {
        self.control.is_busy()
    }

    fn send_packet(&mut self, packet: &[u8]) {
        self.control.say(&Message::Packet(packet));
    }

    fn send_frame(&mut self, _: u64, _: &[u8], _: Payload) {}

    fn flush(&mut self, _: &mut Vec<u64>) -> Result<(), LinkError> {
        self.control.flush()
    }

    fn receive(&mut self, _: &mut Vec<FromSubscriber>) -> Result<(), LinkError> {
        for _ in 0..MAX_IN_A_ROW {
            if self.control.next()?.is_none() {
                return if self.control.has_ended() { Err(LinkError::Closed) } else { Ok(()) };
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> bool {
        self.control.finish()
    }

    fn figures(&self) -> LinkFigures {
        self.control.figures(0)
    }

    fn unsent(&self) -> u64 {
        self.control.unsent()
    }
}
