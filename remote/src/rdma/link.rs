//! What both ends have: a queue pair that comes up with the peer's hello.

use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pagecast_verbs::{
    Completion, CompletionQueue, Depth, ENDPOINT_BYTES, Endpoint, Gid, ProtectionDomain, QueuePair, State,
    Timing,
};

use super::RdmaError;
use super::places::MAX_GRANTS;
use crate::{LinkError, PeerFault};

/// A frame of 1 GiB in 16 segments, in messages of 8 MiB, twice.
pub(super) const DEPTH: Depth = Depth { send: 512, receive: 2 * MAX_GRANTS as u32, pieces: 1 };

/// Pauses between looks whether the device is still there.
const ASK: Duration = Duration::from_millis(200);

/// A queue pair.
pub(crate) struct Pair {
    pub(crate) queue: QueuePair,
    ended: Vec<Completion>,
    /// When the device was last asked whether it is still there.
    asked: Instant,
}

impl Pair {
    pub(crate) fn new(domain: &Arc<ProtectionDomain>, gid: &Gid) -> Result<Self, RdmaError> {
        let completions = CompletionQueue::new(domain.device(), DEPTH.completions())?;
        let queue = QueuePair::new(domain, completions, gid, DEPTH)?;
        Ok(Self { queue, ended: Vec::new(), asked: Instant::now() })
    }

    /// The queue pair of the peer, who is at `address`, is known. What is written goes there and nowhere else; and the
    /// kernel, which may wait for seconds for a neighbour that is not there, knows that one already.
    pub(crate) fn connect(
        &mut self,
        endpoint: &[u8; ENDPOINT_BYTES],
        address: IpAddr,
    ) -> Result<(), LinkError> {
        if self.queue.state() != State::Init {
            return Err(PeerFault::OutOfPlace("a second hello").into());
        }
        let endpoint = Endpoint::from_bytes(endpoint).map_err(RdmaError::from)?;
        if Ipv6Addr::from(endpoint.gid).to_canonical() != address.to_canonical() {
            return Err(PeerFault::OutOfPlace("a queue pair of another address").into());
        }
        Ok(self.queue.connect(&endpoint, Timing::default()).map_err(RdmaError::from)?)
    }

    /// What has completed. The completion channel wakes for everything after it.
    pub(crate) fn completions(&mut self) -> Result<std::vec::Drain<'_, Completion>, LinkError> {
        // A device that is gone completes nothing. Whoever has a link looks at it once a second at least.
        if self.asked.elapsed() >= ASK {
            self.asked = Instant::now();
            let device = self.queue.completions().device();
            if device.has_failed() {
                return Err(RdmaError::Gone(device.name().to_owned()).into());
            }
        }
        self.queue.completions().arm().map_err(RdmaError::from)?;
        self.queue.poll(&mut self.ended).map_err(RdmaError::from)?;
        Ok(self.ended.drain(..))
    }

    /// Readable when something has completed.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.queue.fd()
    }
}
