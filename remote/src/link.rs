//! The two ends of a remote link, whatever carries it.
//!
//! An end belongs to one thread, which waits for [`Sender::poll_fds`] until [`Sender::next_look`] and then
//! calls `flush` and `receive`; neither waits. A packet is a whole one of [`pagecast_ipc::wire`], header
//! included.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use nix::poll::PollFd;
use nix::time::{ClockId, clock_gettime};
use pagecast_allocators::Buffer;
use pagecast_ipc::wire;
use pagecast_ipc::wire::limits::MAX_SEGMENTS;

use crate::LinkError;
use crate::clock::Estimate;
use crate::opening::Choice;
use crate::pulse::{Pulse, Role, RoundTrip};

/// What an end waits for.
pub type PollFds<'a> = ArrayVec<PollFd<'a>, 4>;

/// A part of a buffer, within its bounds.
#[derive(Clone, Debug)]
pub struct Part {
    buffer: Arc<Buffer>,
    offset: usize,
    length: usize,
}

impl Part {
    /// `length` bytes at `offset`; `None` if the buffer does not have them.
    pub fn new(buffer: Arc<Buffer>, offset: usize, length: usize) -> Option<Self> {
        let end = offset.checked_add(length)?;
        (end <= buffer.size()).then_some(Self { buffer, offset, length })
    }

    /// The buffer.
    pub fn buffer(&self) -> &Arc<Buffer> {
        &self.buffer
    }

    /// Where it begins, in bytes.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Its length in bytes.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Leaves its first bytes.
    pub(crate) fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }

    /// Cuts off its last byte; `None` if it has none.
    pub(crate) fn cut_last(&mut self) -> Option<Self> {
        self.length = self.length.checked_sub(1)?;
        Some(Self { buffer: self.buffer.clone(), offset: self.offset + self.length, length: 1 })
    }
}

/// The bytes of one frame, and whatever keeps them from changing.
pub struct Payload {
    /// Where they are.
    pub parts: ArrayVec<Part, MAX_SEGMENTS>,
    /// Dropped, after the parts, when the transfer is complete.
    pub hold: Box<dyn Any + Send>,
    /// Whether what was read of the pages until now is the frame. It is asked when all was read and before the
    /// last of it leaves: pages that are somebody else's may have been taken back.
    pub still_valid: Option<Box<dyn Fn() -> bool + Send>>,
}

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Payload").field("parts", &self.parts).finish_non_exhaustive()
    }
}

/// A place for the bytes of one frame, exclusively its owner's.
pub struct Room {
    /// Where they go; as long as was asked for.
    pub part: Part,
    /// Dropped, after the part, when nobody needs the frame any more.
    pub hold: Box<dyn Any + Send>,
}

impl std::fmt::Debug for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Room").field("part", &self.part).finish_non_exhaustive()
    }
}

/// Where frames that arrive are put.
pub trait Pages {
    /// Room for a frame of `size` bytes; `None` if there is none now, but there will be.
    ///
    /// # Errors
    /// [`LinkError::NoPages`] if there cannot be any.
    fn take(&mut self, size: usize) -> Result<Option<Room>, LinkError>;
}

/// What a subscriber's end has sent.
#[derive(Debug)]
pub enum FromSubscriber {
    /// Records.
    Packet(Vec<u8>),
}

/// What a publisher's end has sent.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "most are frames; a box would be an allocation each")]
pub enum FromPublisher {
    /// Records, none of them a frame.
    Packet(Vec<u8>),
    /// A frame whose last byte has arrived.
    Frame {
        /// The publisher's life that it belongs to.
        epoch: u32,
        /// Its description. Of its segments only the lengths are of use: they lie one after another.
        frame: wire::Frame,
        /// Where its bytes are; `None` if it has no segments.
        room: Option<Room>,
    },
}

/// What an end knows of its link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkFigures {
    /// How long a message takes there and back; `None` before it was measured.
    pub round_trip: Option<RoundTrip>,
    /// How the other host's `CLOCK_MONOTONIC` stands now; `None` before that is known.
    pub clock: Option<Estimate>,
    /// Bytes that went over the wire in the direction of the frames, all framing included.
    pub wire_bytes: u64,
    /// What was chosen to carry it, where there was a choice.
    pub chosen: Option<Choice>,
}

/// The publisher's end of one link.
pub trait Sender: Send {
    /// What to wait for.
    fn poll_fds(&self) -> PollFds<'_>;
    /// When to look again, even if nothing happens.
    fn next_look(&self) -> Instant;
    /// Whether it takes nothing over now, because earlier things have not left.
    fn is_busy(&self) -> bool;
    /// Takes over records, none of them a frame.
    fn send_packet(&mut self, packet: &[u8]);
    /// Whether it can read these pages where they are. What it cannot must be copied to others before it is sent.
    fn reaches(&self, _buffer: &Buffer) -> bool {
        true
    }
    /// Takes over a frame: a packet with its record alone, and its bytes.
    fn send_frame(&mut self, frame: u64, packet: &[u8], payload: Payload);
    /// Sends what can be sent; frames that have left in whole are appended to `done`, and their payload is
    /// dropped.
    ///
    /// # Errors
    /// [`LinkError`]: the link is at its end.
    fn flush(&mut self, done: &mut Vec<u64>) -> Result<(), LinkError>;
    /// Receives what is here.
    ///
    /// # Errors
    /// [`LinkError`]: the link is at its end. What came before it is in `events`.
    fn receive(&mut self, events: &mut Vec<FromSubscriber>) -> Result<(), LinkError>;
    /// Nothing will be taken over any more: says so to the peer once all is sent. `true` when it is said.
    fn finish(&mut self) -> bool;
    /// What is known of it now.
    fn figures(&self) -> LinkFigures;
    /// Bytes, about, that were taken over and have not arrived at the peer's host.
    fn unsent(&self) -> u64;
}

/// The subscriber's end of one link.
pub trait Receiver: Send {
    /// What to wait for.
    fn poll_fds(&self) -> PollFds<'_>;
    /// When to look again, even if nothing happens.
    fn next_look(&self) -> Instant;
    /// Whether it takes nothing over now, because earlier things have not left.
    fn is_busy(&self) -> bool;
    /// Takes over records.
    fn send_packet(&mut self, packet: &[u8]);
    /// Sends what can be sent.
    ///
    /// # Errors
    /// [`LinkError`]: the link is at its end.
    fn flush(&mut self) -> Result<(), LinkError>;
    /// Receives what is here.
    ///
    /// # Errors
    /// [`LinkError`]: the link is at its end. What came before it is in `events`.
    fn receive(&mut self, pages: &mut dyn Pages, events: &mut Vec<FromPublisher>) -> Result<(), LinkError>;
    /// Nothing will be taken over any more: says so to the peer once all is sent. `true` when it is said.
    fn finish(&mut self) -> bool;
    /// What is known of it now.
    fn figures(&self) -> LinkFigures;
}

/// The pulse of an end whose link begins now.
pub(crate) fn begin(role: Role) -> Pulse {
    // Both are the same clock, but are not read in one go.
    const CLOSE: Duration = Duration::from_micros(2);
    let mut tries = 0;
    loop {
        let now = Instant::now();
        let clock = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
        tries += 1;
        if now.elapsed() < CLOSE || tries == 100 {
            return Pulse::new(role, now, u64::try_from(clock.as_nanos()).unwrap_or(u64::MAX));
        }
    }
}
