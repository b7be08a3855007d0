//! A connection, from its first step to its end.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;

use super::id::{Event, Id, parameters};
use super::{Cm, MAX_PRIVATE};
use crate::ffi::*;
use crate::{CmError, ConnectError, QueuePair, State, Timing};

/// The longest single look for an address or a way.
const RESOLVE: Duration = Duration::from_secs(2);

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Not up yet.
    Coming,
    /// Up: the queue pair can send and receive.
    Ready,
    /// The other end has ended it, or the device is gone.
    Ended,
}

/// What is waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Address,
    Route,
    Answer,
    /// We have granted it, the other end has not said that it is up.
    Granted,
    Up,
    Over,
}

/// A connection that RDMA-CM makes for a queue pair. Dropping it ends the connection.
pub struct Connection {
    id: Id,
    peer: SocketAddr,
    stage: Stage,
    private: ArrayVec<u8, MAX_PRIVATE>,
    timing: Timing,
    until: Instant,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Connection {
    /// Begins a connection from an address of ours to who listens at `to`, who gets `private` with it. It is up when
    /// [`step`](Self::step) says so, within `limit`.
    ///
    /// # Errors
    /// [`CmError::PrivateData`], [`CmError::NoDevice`], or that a call failed.
    pub fn open(
        cm: &Cm,
        (own, to): (IpAddr, SocketAddr),
        private: &[u8],
        timing: Timing,
        limit: Duration,
    ) -> Result<Self, CmError> {
        let length = private.len();
        let private = private.try_into().map_err(|_| CmError::PrivateData { length })?;
        let id = Id::new(cm)?;
        id.resolve(own, to, limit.min(RESOLVE))?;
        let (timing, until) = (timing.capped(), Instant::now() + limit);
        Ok(Self { id, peer: to, stage: Stage::Address, private, timing, until })
    }

    pub(super) fn accepted(
        id: Id,
        peer: SocketAddr,
        queue: &mut QueuePair,
        timing: Timing,
        limit: Duration,
    ) -> Result<Self, CmError> {
        let (private, timing) = (ArrayVec::new(), timing.capped());
        let connection =
            Self { id, peer, stage: Stage::Granted, private, timing, until: Instant::now() + limit };
        connection.check(queue)?;
        // An iWARP driver does this by itself.
        if queue.is_told_its_peer() {
            connection.bring_up(queue)?;
        }
        connection.id.accept(&mut parameters(queue.number(), &[], timing))?;
        Ok(connection)
    }

    /// Readable when [`step`](Self::step) has something to do.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.id.fd()
    }

    /// When [`step`](Self::step) gives up, while it is not up.
    pub fn deadline(&self) -> Option<Instant> {
        (self.standing() == Standing::Coming).then_some(self.until)
    }

    /// Goes on as far as it can now, always with the same queue pair. It never waits.
    ///
    /// # Errors
    /// [`CmError`]: it does not come up. The queue pair is in error then.
    pub fn step(&mut self, queue: &mut QueuePair) -> Result<Standing, CmError> {
        self.go_on(queue).inspect_err(|_| {
            self.stage = Stage::Over;
            queue.set_error();
        })
    }

    fn go_on(&mut self, queue: &mut QueuePair) -> Result<Standing, CmError> {
        while let Some(event) = self.id.next_event()? {
            self.happened(&event, queue)?;
        }
        match self.standing() {
            Standing::Coming if Instant::now() >= self.until => Err(CmError::TimedOut(self.peer)),
            standing => Ok(standing),
        }
    }

    fn standing(&self) -> Standing {
        match self.stage {
            Stage::Up => Standing::Ready,
            Stage::Over => Standing::Ended,
            _ => Standing::Coming,
        }
    }

    fn happened(&mut self, event: &Event, queue: &mut QueuePair) -> Result<(), CmError> {
        let failed = |what| Err(CmError::Unreachable { to: self.peer, what, status: event.status });
        self.stage = match (self.stage, event.kind) {
            (_, RDMA_CM_EVENT_ADDR_ERROR) => return failed("its address was not found"),
            (_, RDMA_CM_EVENT_ROUTE_ERROR) => return failed("no way to it was found"),
            (_, RDMA_CM_EVENT_UNREACHABLE) => return failed("it does not answer"),
            (_, RDMA_CM_EVENT_CONNECT_ERROR) => return failed("the connection failed"),
            (_, RDMA_CM_EVENT_REJECTED) => return Err(CmError::Refused(self.peer)),
            (Stage::Address, RDMA_CM_EVENT_ADDR_RESOLVED) => {
                self.id.resolve_route(RESOLVE)?;
                Stage::Route
            }
            (Stage::Route, RDMA_CM_EVENT_ROUTE_RESOLVED) => {
                self.check(queue)?;
                self.id.connect(&mut parameters(queue.number(), &self.private, self.timing))?;
                Stage::Answer
            }
            // The queue pair is ours to bring up, before the other end may send.
            (Stage::Answer, RDMA_CM_EVENT_CONNECT_RESPONSE) => {
                self.bring_up(queue)?;
                self.id.establish()?;
                Stage::Up
            }
            (Stage::Answer | Stage::Granted, RDMA_CM_EVENT_ESTABLISHED) => {
                queue.came_up();
                Stage::Up
            }
            (_, RDMA_CM_EVENT_DISCONNECTED | RDMA_CM_EVENT_DEVICE_REMOVAL) => Stage::Over,
            (stage, _) => stage,
        };
        Ok(())
    }

    /// Whether the queue pair can be this connection's: the kernel knows it by its number on the device that RDMA-CM took.
    fn check(&self, queue: &QueuePair) -> Result<(), CmError> {
        if queue.state() != State::Init {
            return Err(ConnectError::WrongState(queue.state()).into());
        }
        let (ours, there) = (queue.device_name().to_owned(), self.id.device().unwrap_or_default());
        if ours == there { Ok(()) } else { Err(CmError::OtherDevice { ours, there }) }
    }

    /// Takes the queue pair through the states in which it receives and sends.
    fn bring_up(&self, queue: &mut QueuePair) -> Result<(), CmError> {
        for state in [IBV_QPS_RTR, IBV_QPS_RTS] {
            let (mut attr, mask) = self.id.attributes(state)?;
            queue.take_attributes(&mut attr, mask, self.timing)?;
        }
        queue.came_up();
        Ok(())
    }
}
