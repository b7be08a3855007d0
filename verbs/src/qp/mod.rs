//! Reliable connected queue pairs.

mod connect;
mod flight;
mod post;

use std::fmt;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;

pub(crate) use connect::local_endpoint;
pub use connect::{ENDPOINT_BYTES, Endpoint, MAX_RETRY, MAX_RNR_RETRY, Timing};
pub use post::{Doorbell, Remote, Slice, Write};

use self::flight::{Flight, side_of};
use self::post::Scratch;
use crate::completion::BATCH;
use crate::ffi::*;
use crate::port::LinkLayer;
use crate::{Completion, CompletionQueue, DeviceError, Done, Gid, ProtectionDomain, Side, WorkError};

/// Pieces of one request, at most: a frame has as many segments.
pub const MAX_PIECES: usize = 16;
/// Requests in one queue, at most.
pub const MAX_DEPTH: u32 = 16_384;

/// Sizes of the queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depth {
    /// Requests in the send queue.
    pub send: u32,
    /// Requests in the receive queue.
    pub receive: u32,
    /// Pieces of one request, at most [`MAX_PIECES`].
    pub pieces: u32,
}

impl Depth {
    /// Entries that its completion queue needs: a queue pair in error reports all work, asked or not.
    pub fn completions(&self) -> u32 {
        self.send.saturating_add(self.receive)
    }
}

/// What a queue pair can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not connected; receives can be posted.
    Init,
    /// Connected.
    Ready,
    /// Nothing more: what is in flight comes back flushed.
    Error,
}

/// How a close ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Requests whose completion was not seen in time. The destroyed queue pair touches their memory no more either.
    pub unseen: usize,
}

/// One end of a reliable connection. It keeps every region that work in flight names, until that work's completion was
/// polled or the queue pair was destroyed.
pub struct QueuePair {
    qp: NonNull<ibv_qp>,
    // in the order of dropping: after the queue pair
    completions: Option<CompletionQueue>,
    send: Flight,
    receive: Flight,
    domain: Arc<ProtectionDomain>,
    gid: Gid,
    link_layer: LinkLayer,
    local: Endpoint,
    state: State,
    depth: Depth,
    max_message: u32,
    /// Length of the send queue's books just after its last signalled request.
    signalled_at: usize,
    scratch: Scratch,
}

// SAFETY: all use is through `&mut self`, and verbs are not bound to a thread.
unsafe impl Send for QueuePair {}

impl fmt::Debug for QueuePair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueuePair")
            .field("number", &self.local.number)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl QueuePair {
    /// A new one at the port of `gid`. It owns its completion queue.
    pub fn new(
        domain: &Arc<ProtectionDomain>,
        completions: CompletionQueue,
        gid: &Gid,
        depth: Depth,
    ) -> Result<Self, DeviceError> {
        let device = domain.device();
        check_depth(device, depth)?;
        let (have, need) = (completions.capacity(), depth.completions());
        if have < need {
            return Err(DeviceError::CompletionQueueTooSmall { have, need });
        }
        if !Arc::ptr_eq(device, completions.device()) {
            return Err(DeviceError::System { call: "ibv_create_qp", errno: Errno::EINVAL });
        }
        let port = device.port(gid.port)?;
        let mut attr = ibv_qp_init_attr {
            qp_context: std::ptr::null_mut(),
            send_cq: completions.as_ptr(),
            recv_cq: completions.as_ptr(),
            srq: std::ptr::null_mut(),
            cap: ibv_qp_cap {
                max_send_wr: depth.send,
                max_recv_wr: depth.receive,
                max_send_sge: depth.pieces,
                max_recv_sge: depth.pieces,
                max_inline_data: 0,
            },
            qp_type: IBV_QPT_RC,
            sq_sig_all: 0,
        };
        // SAFETY: domain and completion queue are alive, and kept by what is made here.
        let qp = unsafe { (domain.table().create_qp)(domain.pd.as_ptr(), &mut attr) };
        let qp = NonNull::new(qp).ok_or_else(|| DeviceError::last("ibv_create_qp"))?;
        // SAFETY: just made; the number does not change.
        let number = unsafe { (*qp.as_ptr()).qp_num };
        let mut pair = Self {
            qp,
            completions: Some(completions),
            send: Flight::new(Side::Send, depth.send),
            receive: Flight::new(Side::Receive, depth.receive),
            domain: domain.clone(),
            gid: *gid,
            link_layer: port.link_layer,
            local: local_endpoint(number, gid, &port),
            state: State::Init,
            depth,
            max_message: port.max_message,
            signalled_at: 0,
            scratch: Scratch::default(),
        };
        pair.initialise()?;
        Ok(pair)
    }

    /// What it can do now.
    pub fn state(&self) -> State {
        self.state
    }

    /// The sizes of its queues.
    pub fn depth(&self) -> Depth {
        self.depth
    }

    /// The name of its device.
    pub fn device_name(&self) -> &str {
        self.domain.device().name()
    }

    /// The largest message, and so the largest write.
    pub fn max_message(&self) -> u32 {
        self.max_message
    }

    /// Free places of the send queue.
    pub fn free_sends(&self) -> usize {
        self.send.free()
    }

    /// Requests whose end was not seen yet.
    pub fn in_flight(&self) -> usize {
        self.send.len() + self.receive.len()
    }

    /// Readable, once its completion queue is [armed](CompletionQueue::arm), when something completed.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.completions.as_ref().expect("taken only when dropped").fd()
    }

    /// Its completion queue, for `arm`.
    pub fn completions(&mut self) -> &mut CompletionQueue {
        self.completions.as_mut().expect("taken only when dropped")
    }

    /// Adds what has completed to `into`, and never waits. After a failure the queue pair is in error, and the rest comes
    /// back flushed.
    pub fn poll(&mut self, into: &mut Vec<Completion>) -> Result<usize, DeviceError> {
        let (before, mut batch) = (into.len(), [ibv_wc::default(); BATCH]);
        loop {
            let count = self.completions().fetch(&mut batch)?;
            for wc in &batch[..count] {
                self.ended(wc, into)?;
            }
            if count < BATCH {
                return Ok(into.len() - before);
            }
        }
    }

    /// As [`poll`](Self::poll), but waits for a completion until `deadline`: awake for at most
    /// [`MAX_SPIN`](crate::MAX_SPIN), then asleep.
    pub fn wait(&mut self, into: &mut Vec<Completion>, deadline: Instant) -> Result<usize, DeviceError> {
        let before = into.len();
        let mut queue = self.completions.take().expect("taken only when dropped");
        let mut peek = [ibv_wc::default(); BATCH];
        let mut count = 0;
        let spun = queue.spin(|queue| {
            count = queue.fetch(&mut peek)?;
            Ok::<_, DeviceError>(count > 0)
        });
        self.completions = Some(queue);
        if spun? {
            peek[..count].iter().try_for_each(|wc| self.ended(wc, into))?;
            self.poll(into)?;
        }
        while into.len() == before {
            self.completions().arm()?;
            if self.poll(into)? > 0 {
                break;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.completions().sleep(left)?;
        }
        Ok(into.len() - before)
    }

    fn ended(&mut self, wc: &ibv_wc, into: &mut Vec<Completion>) -> Result<(), DeviceError> {
        let side = side_of(wc.wr_id);
        let flight = if side == Side::Send { &mut self.send } else { &mut self.receive };
        let before = flight.len();
        // a device that reports what was not posted is broken
        let entry =
            flight.end(wc.wr_id).ok_or(DeviceError::System { call: "ibv_poll_cq", errno: Errno::EPROTO })?;
        let gone = before - flight.len();
        if side == Side::Send {
            self.signalled_at = self.signalled_at.saturating_sub(gone);
        }
        let error = WorkError::of(wc.status, wc.vendor_err, side);
        if error.is_some() {
            self.set_error();
        } else if !entry.reported {
            return Ok(());
        }
        let outcome = error.map_or_else(|| Ok(done(wc, side)), Err);
        into.push(Completion { token: entry.token, side, outcome });
        Ok(())
    }

    /// Puts it into error: nothing more is sent or received, and all that is in flight comes back.
    pub fn set_error(&mut self) {
        if self.state != State::Error {
            self.state = State::Error;
            let mut attr = ibv_qp_attr { qp_state: IBV_QPS_ERR, ..Default::default() };
            // a device that is gone refuses, and then nothing is sent either
            let _ = self.modify(&mut attr, IBV_QP_STATE);
        }
    }

    /// Ends it in order: into error, then all flushed completions until `deadline`, then destroyed. After this the memory of
    /// all its work is free.
    pub fn close(mut self, deadline: Instant) -> Closed {
        self.set_error();
        let mut ended = Vec::new();
        while self.in_flight() > 0 && Instant::now() < deadline {
            ended.clear();
            let slice = Instant::now() + Duration::from_millis(100);
            if self.wait(&mut ended, slice.min(deadline)).is_err() {
                break;
            }
        }
        Closed { unseen: self.in_flight() }
    }

    fn modify(&mut self, attr: &mut ibv_qp_attr, mask: i32) -> Result<(), DeviceError> {
        // SAFETY: the QP is alive, `attr` has C's layout.
        let code = unsafe { (self.domain.table().modify_qp)(self.qp.as_ptr(), attr, mask) };
        DeviceError::check("ibv_modify_qp", code)
    }
}

impl Drop for QueuePair {
    fn drop(&mut self) {
        // SAFETY: destroyed once, before its completion queue and before the regions of its work.
        let code = unsafe { (self.domain.table().destroy_qp)(self.qp.as_ptr()) };
        // The device may still use the memory of its work: that must be kept for ever. Removed devices report success.
        if code != 0 {
            std::mem::forget(self.completions.take());
            std::mem::forget(std::mem::replace(&mut self.send, Flight::new(Side::Send, 0)));
            std::mem::forget(std::mem::replace(&mut self.receive, Flight::new(Side::Receive, 0)));
            std::mem::forget(self.domain.clone());
        }
    }
}

fn done(wc: &ibv_wc, side: Side) -> Done {
    let received = side == Side::Receive;
    let immediate = (received && wc.wc_flags & IBV_WC_WITH_IMM != 0).then(|| u32::from_be(wc.imm_data));
    Done { bytes: if received { wc.byte_len } else { 0 }, immediate }
}

fn check_depth(device: &crate::Device, depth: Depth) -> Result<(), DeviceError> {
    let attributes = device.attributes()?;
    let over = |what, want: u32, limit: u32| {
        let device = device.name().to_owned();
        Err(DeviceError::OverLimit { device, what, want: want.into(), limit: limit.into() })
    };
    let deepest = attributes.max_depth.min(MAX_DEPTH);
    let pieces = attributes.max_pieces.min(MAX_PIECES as u32);
    match depth {
        Depth { send, .. } if send == 0 || send > deepest => over("send requests", send, deepest),
        Depth { receive, .. } if receive == 0 || receive > deepest => {
            over("receive requests", receive, deepest)
        }
        Depth { pieces: want, .. } if want == 0 || want > pieces => over("pieces of a request", want, pieces),
        _ => Ok(()),
    }
}
