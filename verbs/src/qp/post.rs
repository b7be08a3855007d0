//! Posting work.

use std::sync::Arc;

use arrayvec::ArrayVec;

use super::flight::{Entry, Flight, Held};
use super::{MAX_PIECES, QueuePair, State};
use crate::ffi::*;
use crate::table::inline;
use crate::{Access, DeviceError, MemoryRegion, PostError, Transport};

/// Bytes of a region.
#[derive(Clone, Copy, Debug)]
pub struct Slice<'a> {
    /// The region.
    pub region: &'a Arc<MemoryRegion>,
    /// Where in it.
    pub offset: u64,
    /// How many.
    pub length: u32,
}

/// Where a peer lets us write.
#[derive(Clone, Copy)]
pub struct Remote {
    /// The address, as the peer's device knows it.
    pub address: u64,
    /// The key.
    pub rkey: u32,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote").finish_non_exhaustive()
    }
}

/// Slices that are written one after the other to one place at the peer.
#[derive(Clone, Copy, Debug)]
pub struct Write<'a> {
    /// What, at most [`MAX_PIECES`].
    pub from: &'a [Slice<'a>],
    /// Whither.
    pub to: Remote,
}

/// How the peer learns that what was written before is whole.
#[derive(Clone, Copy, Debug)]
pub enum Doorbell<'a> {
    /// A last write, with a value that completes a receive there.
    Immediate {
        /// The write; it may be of no bytes.
        write: Write<'a>,
        /// The value.
        value: u32,
    },
    /// A message into a receive: for devices without immediates.
    Send {
        /// The message.
        from: &'a [Slice<'a>],
    },
}

/// Scatter-gather lists and requests of one post.
#[derive(Default)]
pub(super) struct Scratch {
    requests: Vec<ibv_send_wr>,
    pieces: Vec<ibv_sge>,
    /// How many of the pieces each request has.
    counts: Vec<usize>,
    held: Vec<Held>,
}

// SAFETY: its pointers are written before each use and stale after it; nothing is reached through them in between.
unsafe impl Send for Scratch {}

impl Scratch {
    fn clear(&mut self) {
        self.requests.clear();
        self.pieces.clear();
        self.counts.clear();
        self.held.clear();
    }

    /// Links the requests, now that the vectors move no more.
    fn link(&mut self) -> *mut ibv_send_wr {
        let mut at = 0;
        for (request, count) in self.requests.iter_mut().zip(&self.counts) {
            request.num_sge = *count as i32;
            request.sg_list = self.pieces[at..].as_mut_ptr();
            at += count;
        }
        let (first, count) = (self.requests.as_mut_ptr(), self.requests.len());
        for (index, request) in self.requests.iter_mut().enumerate() {
            request.next =
                if index + 1 < count { first.wrapping_add(index + 1) } else { std::ptr::null_mut() };
        }
        first
    }

    /// How many requests stand before that one. A driver that names none may have taken all.
    fn before(&self, request: *const ibv_send_wr) -> usize {
        self.requests.iter().position(|ours| std::ptr::eq(ours, request)).unwrap_or(self.requests.len())
    }
}

impl QueuePair {
    /// Posts a write without a completion of its own: its memory is free again when a later doorbell has completed.
    pub fn post_write(&mut self, token: u64, write: &Write<'_>) -> Result<(), PostError> {
        self.begin(1)?;
        // a queue of nothing but unreported writes would never empty
        let due = self.send.len() + 1 - self.reported_back() >= (self.depth.send as usize / 2).max(1);
        self.add(IBV_WR_RDMA_WRITE, if due { IBV_SEND_SIGNALED } else { 0 }, write.from, Some(write.to), 0)?;
        self.submit(token, false)?;
        if due {
            self.signalled_at = self.send.len();
        }
        Ok(())
    }

    /// Posts all of a frame at once: writes that are not reported, then the doorbell, whose completion carries `token` and
    /// frees the memory of all of them.
    pub fn post_frame(
        &mut self,
        token: u64,
        payload: &[Write<'_>],
        doorbell: Doorbell<'_>,
    ) -> Result<(), PostError> {
        self.begin(payload.len() + 1)?;
        for write in payload {
            self.add(IBV_WR_RDMA_WRITE, 0, write.from, Some(write.to), 0)?;
        }
        let flags = IBV_SEND_SIGNALED | IBV_SEND_SOLICITED;
        match doorbell {
            Doorbell::Immediate { .. } if !self.device().has_immediates() => {
                return Err(PostError::NoImmediates);
            }
            Doorbell::Immediate { write, value } => {
                self.add(IBV_WR_RDMA_WRITE_WITH_IMM, flags, write.from, Some(write.to), value.to_be())?;
            }
            Doorbell::Send { from } => self.add(IBV_WR_SEND, flags, from, None, 0)?,
        }
        self.submit(token, true)?;
        self.signalled_at = self.send.len();
        Ok(())
    }

    /// Posts writes, the last of them with a completion, which carries `token`: then all of them were read here and are
    /// there. The peer is not told.
    pub fn post_writes(&mut self, token: u64, writes: &[Write<'_>]) -> Result<(), PostError> {
        self.begin(writes.len())?;
        for (at, write) in writes.iter().enumerate() {
            let flags = if at + 1 == writes.len() { IBV_SEND_SIGNALED } else { 0 };
            self.add(IBV_WR_RDMA_WRITE, flags, write.from, Some(write.to), 0)?;
        }
        if writes.is_empty() {
            return Ok(());
        }
        self.submit(token, true)?;
        self.signalled_at = self.send.len();
        Ok(())
    }

    /// Posts a message. Its completion carries `token`.
    pub fn post_send(&mut self, token: u64, from: &[Slice<'_>]) -> Result<(), PostError> {
        self.post_frame(token, &[], Doorbell::Send { from })
    }

    /// Posts a receive. One without slices takes immediates and messages of no bytes.
    pub fn post_recv(&mut self, token: u64, into: &[Slice<'_>]) -> Result<(), PostError> {
        if self.state == State::Error {
            return Err(PostError::WrongState(self.state));
        }
        room(&self.receive, 1)?;
        let (mut pieces, mut held) = (ArrayVec::<ibv_sge, MAX_PIECES>::new(), Held::new());
        self.check_pieces(into)?;
        for slice in into {
            if slice.region.access() == Access::Source {
                return Err(PostError::NotWritable);
            }
            pieces.push(self.piece(slice)?);
            held.push(slice.region.clone());
        }
        let mut request = ibv_recv_wr {
            wr_id: self.receive.next_id(0),
            next: std::ptr::null_mut(),
            sg_list: pieces.as_mut_ptr(),
            num_sge: pieces.len() as i32,
        };
        self.receive.push(Entry { token, reported: true, _held: held });
        // SAFETY: request and pieces live during the call; the regions are kept by the flight table until their completion was
        // polled or the QP was destroyed.
        let code = unsafe { inline::post_recv(self.qp.as_ptr(), &mut request) };
        DeviceError::check("ibv_post_recv", code).map_err(|source| {
            self.receive.withdraw(1);
            PostError::Refused { taken: 0, source }
        })
    }

    fn device(&self) -> &crate::Device {
        self.domain.device()
    }

    /// How many of the newest sends no signalled one follows.
    fn reported_back(&self) -> usize {
        self.signalled_at.min(self.send.len())
    }

    fn begin(&mut self, requests: usize) -> Result<(), PostError> {
        if self.state != State::Ready {
            return Err(PostError::WrongState(self.state));
        }
        room(&self.send, requests)?;
        self.scratch.clear();
        Ok(())
    }

    fn add(
        &mut self,
        opcode: u32,
        send_flags: u32,
        from: &[Slice<'_>],
        to: Option<Remote>,
        imm_data: u32,
    ) -> Result<(), PostError> {
        self.check_pieces(from)?;
        let length: u64 = from.iter().map(|slice| u64::from(slice.length)).sum();
        if length > self.max_message.into() {
            return Err(PostError::TooLong { length, limit: self.max_message.into() });
        }
        let mut held = Held::new();
        for slice in from {
            let piece = self.piece(slice)?;
            self.scratch.pieces.push(piece);
            held.push(slice.region.clone());
        }
        let to = to.unwrap_or(Remote { address: 0, rkey: 0 });
        let wr_id = self.send.next_id(self.scratch.requests.len());
        // Work that an iWARP device is not asked about may still be read when later work is done: soft-iWARP hands the pages
        // themselves to TCP, which sends from them until the other end has them.
        let asked = if self.device().transport() == Transport::Iwarp { IBV_SEND_SIGNALED } else { 0 };
        let send_flags = send_flags | asked;
        let mut request = ibv_send_wr::NONE;
        (request.wr_id, request.opcode, request.send_flags, request.imm_data) =
            (wr_id, opcode, send_flags, imm_data);
        (request.remote_addr, request.rkey) = (to.address, to.rkey);
        self.scratch.requests.push(request);
        self.scratch.counts.push(from.len());
        self.scratch.held.push(held);
        Ok(())
    }

    /// Hands the requests to the device, the last of them with `token`.
    fn submit(&mut self, token: u64, reported: bool) -> Result<(), PostError> {
        let count = self.scratch.requests.len();
        let first = self.scratch.link();
        for (index, held) in self.scratch.held.drain(..).enumerate() {
            self.send.push(Entry { token, reported: reported && index + 1 == count, _held: held });
        }
        let mut bad = std::ptr::null_mut();
        // SAFETY: requests and pieces live in `scratch` during the call; the regions are kept by the flight table until a
        // completion that follows them was polled or the QP was destroyed.
        let code = unsafe { inline::post_send(self.qp.as_ptr(), first, &mut bad) };
        let Err(source) = DeviceError::check("ibv_post_send", code) else { return Ok(()) };
        let taken = self.scratch.before(bad);
        self.send.withdraw(count - taken);
        if taken > 0 {
            // half a frame without its doorbell: nothing may follow it
            self.set_error();
        }
        Err(PostError::Refused { taken, source })
    }

    fn check_pieces(&self, pieces: &[Slice<'_>]) -> Result<(), PostError> {
        match pieces.len() {
            pieces if pieces > self.depth.pieces as usize => {
                Err(PostError::TooManyPieces { pieces, limit: self.depth.pieces as usize })
            }
            _ => Ok(()),
        }
    }

    fn piece(&self, slice: &Slice<'_>) -> Result<ibv_sge, PostError> {
        let region = slice.region;
        if !Arc::ptr_eq(region.domain(), &self.domain) {
            return Err(PostError::ForeignRegion);
        }
        let (offset, length, size) = (slice.offset, u64::from(slice.length), region.length());
        if offset.checked_add(length).is_none_or(|end| end > size) {
            return Err(PostError::OutOfBounds { offset, length, size });
        }
        Ok(ibv_sge { addr: region.address() + offset, length: slice.length, lkey: region.lkey() })
    }
}

fn room(flight: &Flight, need: usize) -> Result<(), PostError> {
    let free = flight.free();
    if need > free { Err(PostError::Full { need, free }) } else { Ok(()) }
}
