//! What waits to be sent, in order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use arrayvec::ArrayVec;
use pagecast_allocators::Buffer;
use pagecast_allocators::dma_buf::{self, CpuAccess, Direction};
use pagecast_ipc::wire::limits::MAX_SEGMENTS;

use super::channel::Channel;
use super::sys::{MAX_PIECES, PageRange, Piece};
use crate::LinkError;
use crate::framing::{self, BEAT, LENGTH};
use crate::limits::{MAX_BYTES_WAITING, MAX_FRAMES_UNDER_WAY, SMALL_PER_FRAME};
use crate::link::{Part, Payload};
use crate::pulse::Pulse;
use crate::window::weight;

/// Packets are put together up to so many bytes.
const COALESCED: usize = 4096;

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "most are frames; a box would be an allocation each")]
enum Chunk {
    Bytes(Vec<u8>),
    Beat([u8; BEAT]),
    /// The bytes of a frame.
    Payload {
        frame: u64,
        // Before the pages that it is about.
        _access: Access,
        payload: Payload,
        weight: u32,
        part: usize,
        last: Last,
    },
}

/// The last byte of a frame.
#[derive(Debug)]
enum Last {
    /// Goes with the others.
    Among,
    /// Is kept back until it is known that the others were right.
    KeptBack(Part),
    /// May go.
    Free([u8; 1]),
}

/// A queue that empties into a channel.
#[derive(Debug)]
pub(super) struct Output {
    chunks: VecDeque<Chunk>,
    /// Bytes of the first chunk, or of its current part, that have left.
    sent: usize,
    /// What the frames that have not left count.
    weight: u32,
    bytes: usize,
    /// Whether a heartbeat waits.
    beats: bool,
    finishing: bool,
    finished: bool,
}

impl Output {
    /// A queue that begins with the preamble.
    pub(super) fn new() -> Self {
        let preamble = framing::preamble().to_vec();
        let bytes = preamble.len();
        let chunks = VecDeque::from([Chunk::Bytes(preamble)]);
        Self { chunks, sent: 0, weight: 0, bytes, beats: false, finishing: false, finished: false }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    pub(super) fn is_busy(&self) -> bool {
        self.weight >= MAX_FRAMES_UNDER_WAY as u32 * SMALL_PER_FRAME || self.bytes >= MAX_BYTES_WAITING
    }

    /// Bytes that have not left.
    pub(super) fn left(&self) -> u64 {
        let bytes = |chunk: &Chunk| match chunk {
            Chunk::Bytes(bytes) => bytes.len(),
            Chunk::Beat(bytes) => bytes.len(),
            Chunk::Payload { payload, part, .. } => {
                payload.parts[*part..].iter().map(Part::length).sum::<usize>() + 1
            }
        };
        self.chunks.iter().map(bytes).sum::<usize>().saturating_sub(self.sent) as u64
    }

    pub(super) fn push_packet(&mut self, packet: &[u8]) {
        let length = (packet.len() as u32).to_le_bytes();
        self.bytes += LENGTH + packet.len();
        // Small packets in a row are one piece.
        if let Some(Chunk::Bytes(bytes)) = self.chunks.back_mut()
            && bytes.len() < COALESCED
        {
            bytes.extend_from_slice(&length);
            bytes.extend_from_slice(packet);
            return;
        }
        let mut bytes = Vec::with_capacity(LENGTH + packet.len());
        bytes.extend_from_slice(&length);
        bytes.extend_from_slice(packet);
        self.chunks.push_back(Chunk::Bytes(bytes));
    }

    pub(super) fn push_frame(&mut self, frame: u64, packet: &[u8], mut payload: Payload) {
        self.push_packet(packet);
        let weight = weight(payload.parts.iter().map(|part| part.length() as u64).sum());
        self.weight += weight;
        let access = Access::begin(&payload);
        let kept_back = match payload.still_valid {
            Some(_) => payload.parts.iter_mut().rev().find_map(Part::cut_last),
            None => None,
        };
        let last = kept_back.map_or(Last::Among, Last::KeptBack);
        self.chunks.push_back(Chunk::Payload { frame, _access: access, payload, weight, part: 0, last });
    }

    /// Nothing more will be pushed. `true` when all has left and that was said.
    pub(super) fn finish(&mut self) -> bool {
        self.finishing = true;
        self.finished
    }

    /// Sends what can be sent. Frames that have left are appended to `done`.
    pub(super) fn flush(
        &mut self,
        channel: &mut Channel,
        pulse: &mut Pulse,
        done: &mut Vec<u64>,
    ) -> Result<(), LinkError> {
        if !self.finishing
            && let Some(beat) = pulse.due(Instant::now())
            && !self.beats
        {
            // One at a time, however often a peer that does not read asks for an answer.
            self.beats = true;
            self.bytes += BEAT;
            self.chunks.push_back(Chunk::Beat(framing::beat(&beat)));
        }
        while !self.chunks.is_empty() {
            self.release_last()?;
            let sent = {
                // Nothing but an end without bytes may be left of what was there.
                let pieces = self.pieces()?;
                if pieces.is_empty() { Some(0) } else { channel.send(&pieces)? }
            };
            let Some(sent) = sent else { return Ok(()) };
            self.advance(sent, done);
        }
        channel.flush()?;
        if self.finishing && !self.finished {
            self.finished = channel.finish();
        }
        Ok(())
    }

    /// All but the last byte of a frame has been read: if it was right, the last may go.
    fn release_last(&mut self) -> Result<(), LinkError> {
        let Some(Chunk::Payload { payload, part, last, .. }) = self.chunks.front_mut() else { return Ok(()) };
        let Last::KeptBack(byte) = last else { return Ok(()) };
        if payload.parts[*part..].iter().any(|part| part.length() > 0) {
            return Ok(());
        }
        let mut copy = [0];
        let no_pages = |error: &dyn std::fmt::Display| LinkError::NoPages(error.to_string());
        let mapping = byte.buffer().map().map_err(|error| no_pages(&error))?;
        mapping.copy_to(byte.offset(), &mut copy).map_err(|error| no_pages(&error))?;
        if payload.still_valid.as_ref().is_some_and(|valid| !valid()) {
            return Err(LinkError::TakenBack);
        }
        *last = Last::Free(copy);
        Ok(())
    }

    fn pieces(&self) -> Result<ArrayVec<Piece<'_>, MAX_PIECES>, LinkError> {
        let mut pieces = ArrayVec::new();
        let mut skip = self.sent;
        for chunk in &self.chunks {
            match chunk {
                _ if pieces.is_full() => break,
                Chunk::Bytes(bytes) => pieces.push(Piece::Bytes(&bytes[skip..])),
                Chunk::Beat(bytes) => pieces.push(Piece::Bytes(&bytes[skip..])),
                Chunk::Payload { payload, part, last, .. } => {
                    for part in &payload.parts[*part..] {
                        if pieces.is_full() {
                            break;
                        }
                        pieces.push(Piece::Pages(range(part, skip)?));
                        skip = 0;
                    }
                    match last {
                        Last::Among => {}
                        Last::KeptBack(_) => break,
                        Last::Free(_) if pieces.is_full() => break,
                        Last::Free(byte) => pieces.push(Piece::Bytes(byte)),
                    }
                }
            }
            skip = 0;
        }
        Ok(pieces)
    }

    /// So many bytes have left.
    fn advance(&mut self, mut count: usize, done: &mut Vec<u64>) {
        while let Some(chunk) = self.chunks.front_mut() {
            match chunk {
                Chunk::Bytes(bytes) => {
                    if !step(&mut self.sent, &mut count, bytes.len()) {
                        return;
                    }
                    self.bytes -= bytes.len();
                }
                Chunk::Beat(bytes) => {
                    if !step(&mut self.sent, &mut count, bytes.len()) {
                        return;
                    }
                    self.bytes -= bytes.len();
                    self.beats = false;
                }
                Chunk::Payload { frame, payload, weight, part, last, .. } => {
                    while let Some(current) = payload.parts.get(*part) {
                        if !step(&mut self.sent, &mut count, current.length()) {
                            return;
                        }
                        *part += 1;
                    }
                    match last {
                        Last::KeptBack(_) => return,
                        Last::Free(_) if !step(&mut self.sent, &mut count, 1) => return,
                        _ => {}
                    }
                    done.push(*frame);
                    self.weight -= *weight;
                }
            }
            self.chunks.pop_front();
        }
    }
}

/// Counts `count` off what is left of `length`; whether that is all of it.
fn step(sent: &mut usize, count: &mut usize, length: usize) -> bool {
    let left = length - *sent;
    if *count < left {
        *sent += *count;
        *count = 0;
        return false;
    }
    *count -= left;
    *sent = 0;
    true
}

fn range(part: &Part, skip: usize) -> Result<PageRange<'_>, LinkError> {
    let mapping = part.buffer().map().map_err(|error| LinkError::NoPages(error.to_string()))?;
    let range = PageRange::new(mapping, part.offset() + skip, part.length() - skip);
    range.ok_or_else(|| LinkError::NoPages("a frame reaches past its buffer".to_owned()))
}

/// The CPU's access to a frame's pages: what devices wrote is made visible until this is dropped, also if the link ends
/// before the frame has left. Of ordinary memory nothing is asked.
#[derive(Debug)]
struct Access(ArrayVec<Arc<Buffer>, MAX_SEGMENTS>);

impl Access {
    fn begin(payload: &Payload) -> Self {
        let begun = |buffer: &&Arc<Buffer>| {
            let access = buffer.mapped_dma_buf().and_then(|fd| CpuAccess::begin(fd, Direction::Read).ok());
            access.map(CpuAccess::keep_open).is_some()
        };
        Self(payload.parts.iter().map(Part::buffer).filter(begun).cloned().collect())
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        for fd in self.0.iter().filter_map(|buffer| buffer.mapped_dma_buf()) {
            let _ = dma_buf::end_access(fd, Direction::Read);
        }
    }
}
