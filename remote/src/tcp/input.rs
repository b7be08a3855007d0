//! What has been received and not been looked at.

use std::time::Instant;

use super::channel::Channel;
use super::sys::PageRange;
use crate::LinkError;
use crate::framing::{Cut, Item, Splitter};
use crate::link::Part;
use crate::pulse::Pulse;

/// Bytes read ahead where frames are small: many fit one read.
const FAR: usize = 16 * 1024;
/// Bytes read ahead where they are not: what is read ahead of a frame must be copied into its pages.
const NEAR: usize = 512;

/// Bytes of a frame that are read in a row: who reads all of a large one at a slow pace would send no heartbeat meanwhile.
pub(super) const TURN: usize = 32 << 20;

/// Bytes ahead of where the owner is.
#[derive(Debug)]
pub(super) struct Input {
    splitter: Splitter,
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes from `start` that the next item needs.
    need: usize,
    ahead: usize,
}

impl Input {
    pub(super) fn new() -> Self {
        Self { splitter: Splitter::default(), bytes: Vec::new(), start: 0, end: 0, need: 1, ahead: FAR }
    }

    /// The next packet, if it is here whole; reads if it is not. Heartbeats are taken note of.
    pub(super) fn packet(
        &mut self,
        channel: &mut Channel,
        pulse: &mut Pulse,
    ) -> Result<Option<&[u8]>, LinkError> {
        loop {
            if self.end - self.start < self.need {
                if !self.read(channel, pulse)? {
                    pulse.calm(Instant::now());
                    return Ok(None);
                }
                continue;
            }
            let (start, end) = (self.start, self.end);
            match self.splitter.cut(&self.bytes[start..end])? {
                Cut::Need(need) => self.need = need,
                Cut::Item(Item::Beat(beat), length) => {
                    pulse.took(beat, Instant::now())?;
                    self.start += length;
                    self.need = 1;
                }
                Cut::Item(Item::Packet(packet), length) => {
                    pulse.calm(Instant::now());
                    let packet = start + length - packet.len()..start + length;
                    self.start = packet.end;
                    self.need = 1;
                    return Ok(Some(&self.bytes[packet]));
                }
            }
        }
    }

    /// Fills `part` from `filled` on with what is here, reading until nothing is, or about [`TURN`] bytes were; returns how far
    /// it is filled.
    pub(super) fn fill(
        &mut self,
        channel: &mut Channel,
        pulse: &mut Pulse,
        part: &Part,
        mut filled: usize,
    ) -> Result<usize, LinkError> {
        let no_pages = |error: &dyn std::fmt::Display| LinkError::NoPages(error.to_string());
        let mapping = part.buffer().mapping().ok_or_else(|| no_pages(&"pages that are not mapped"))?;
        let here = (self.end - self.start).min(part.length() - filled);
        let bytes = &self.bytes[self.start..self.start + here];
        mapping.copy_from(part.offset() + filled, bytes).map_err(|error| no_pages(&error))?;
        self.start += here;
        filled += here;
        self.ahead = if part.length() > FAR { NEAR } else { FAR };
        let end = part.length().min(filled.saturating_add(TURN));
        while filled < end {
            let (at, left) = (part.offset() + filled, part.length() - filled);
            let range = PageRange::new(mapping, at, left).ok_or_else(|| no_pages(&"pages out of bounds"))?;
            // All that was ahead is used up: what follows the frame goes there.
            self.make_room(self.ahead);
            let Some(count) = channel.receive(Some(range), &mut self.bytes[..self.ahead])? else { break };
            self.heard(count, pulse)?;
            filled += count.min(left);
            self.end = count - count.min(left);
        }
        Ok(filled)
    }

    fn read(&mut self, channel: &mut Channel, pulse: &mut Pulse) -> Result<bool, LinkError> {
        let missing = self.need.saturating_sub(self.end - self.start);
        self.make_room(missing.max(self.ahead));
        let room = self.end + missing.max(self.ahead);
        let Some(count) = channel.receive(None, &mut self.bytes[self.end..room])? else { return Ok(false) };
        self.heard(count, pulse)?;
        self.end += count;
        Ok(true)
    }

    fn heard(&self, count: usize, pulse: &mut Pulse) -> Result<(), LinkError> {
        if count == 0 {
            return Err(LinkError::Closed);
        }
        pulse.heard(Instant::now());
        Ok(())
    }

    /// Moves what is here to the front, and makes room for so many bytes behind it.
    fn make_room(&mut self, room: usize) {
        self.bytes.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.bytes.len() < self.end + room {
            self.bytes.resize(self.end + room, 0);
        }
    }
}
