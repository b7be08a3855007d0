//! Waiting for connections.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::Cm;
use super::connection::Connection;
use super::id::{Id, Private};
use crate::ffi::RDMA_CM_EVENT_CONNECT_REQUEST;
use crate::{CmError, QueuePair, Timing};

/// Requests that wait at a time: the kernel refuses more.
const BACKLOG: i32 = 8;

/// Waits for connections at a free port of one address.
pub struct Listener {
    id: Id,
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener").field("port", &self.port()).finish_non_exhaustive()
    }
}

impl Listener {
    /// Waits at `address`, which must be an RDMA device's.
    ///
    /// # Errors
    /// [`CmError::NoDevice`], or that a call failed.
    pub fn new(cm: &Cm, address: IpAddr) -> Result<Self, CmError> {
        let id = Id::new(cm)?;
        id.bind(address)?;
        id.device().ok_or(CmError::NoDevice(address))?;
        id.listen(BACKLOG)?;
        Ok(Self { id })
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.id.port()
    }

    /// Readable when somebody asks.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.id.fd()
    }

    /// The next who asks, if there is one. It never waits.
    ///
    /// # Errors
    /// If a call failed.
    pub fn next_request(&self) -> Result<Option<Request>, CmError> {
        while let Some(event) = self.id.next_event()? {
            if event.kind != RDMA_CM_EVENT_CONNECT_REQUEST {
                continue;
            }
            let Some((id, private)) = event.request else { continue };
            // one without an address is no peer that could be named
            if let Some(peer) = id.peer() {
                return Ok(Some(Request { id, peer, private }));
            }
        }
        Ok(None)
    }
}

/// Somebody who asks for a connection: anybody. Dropped, it is refused.
pub struct Request {
    id: Id,
    peer: SocketAddr,
    private: Private,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Request {
    /// Who asks.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// What was sent along. Some devices fill it up with zeroes.
    pub fn private_data(&self) -> &[u8] {
        &self.private
    }

    /// Grants it, with this queue pair. Both ends are up when [`Connection::step`] says so, within `limit`.
    ///
    /// # Errors
    /// If the queue pair is connected already, is another device's, or a call failed. The request is refused then.
    pub fn accept(
        self,
        queue: &mut QueuePair,
        timing: Timing,
        limit: Duration,
    ) -> Result<Connection, CmError> {
        Connection::accepted(self.id, self.peer, queue, timing, limit)
    }
}
