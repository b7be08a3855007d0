//! The sending half of a bridge's local socket: what cannot be sent now waits, in order.

use std::collections::VecDeque;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use pagecast_allocators::{Buffer, FaceKind};
use pagecast_ipc::socket::{SendError, Seqpacket};

/// How soon a full socket is tried again: it says that it has room far too late.
pub(super) const RETRY: Duration = Duration::from_millis(5);
/// Descriptors under way that the other end has not taken in.
const MAX_UNSEEN: u64 = 8;

struct Waiting {
    packet: Vec<u8>,
    /// The buffer whose memory face goes along.
    face: Option<Arc<Buffer>>,
}

#[derive(Default)]
pub(super) struct Outlet {
    waiting: VecDeque<Waiting>,
    announced: u64,
    seen: u64,
}

impl Outlet {
    pub(super) fn push(&mut self, packet: Vec<u8>) {
        self.waiting.push_back(Waiting { packet, face: None });
    }

    /// A packet that announces this buffer, whose descriptor goes with it.
    pub(super) fn push_announce(&mut self, packet: Vec<u8>, buffer: Arc<Buffer>) {
        self.waiting.push_back(Waiting { packet, face: Some(buffer) });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether the other end has taken in all buffers that were announced.
    pub(super) fn all_seen(&self) -> bool {
        self.announced == self.seen
    }

    /// The other end has taken in so many buffers in all.
    pub(super) fn saw(&mut self, buffers: u64) {
        self.seen = buffers.min(self.announced);
    }

    /// Sends what can be sent; `false` if the other end is gone.
    pub(super) fn flush(&mut self, socket: &Seqpacket) -> bool {
        while let Some(first) = self.waiting.front() {
            let fd: Option<BorrowedFd<'_>> =
                first.face.as_ref().and_then(|buffer| buffer.face(FaceKind::Memory)).map(|face| face.fd);
            if fd.is_some() && self.announced - self.seen >= MAX_UNSEEN {
                return true;
            }
            match socket.send(&first.packet, fd.as_slice()) {
                Ok(()) => self.announced += u64::from(fd.is_some()),
                Err(SendError::Full | SendError::TooManyInFlight) => return true,
                Err(_) => return false,
            }
            self.waiting.pop_front();
        }
        true
    }
}

/// Reads the next packet into `bytes`; descriptors have no business here and are closed.
pub(super) fn receive(
    socket: &Seqpacket,
    bytes: &mut [u8],
) -> Result<usize, pagecast_ipc::socket::ReceiveError> {
    let mut fds: Vec<OwnedFd> = Vec::new();
    socket.receive(bytes, &mut fds)
}
