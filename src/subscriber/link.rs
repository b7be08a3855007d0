//! What a received frame needs of its link: to be given back, and to know whether it is still ours.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use pagecast_ipc::socket::{ReceiveError, SendError, Seqpacket};
use pagecast_ipc::wire::limits::{MAX_PACKET, MAX_RETURNS};
use pagecast_ipc::wire::{PacketBuilder, Packets, RefusalCode, ToPublisher, ToSubscriber};

/// How long a publisher whose link hung up may take to be seen dead, in milliseconds.
const DEATH_NOTICE_MS: u16 = 100;

/// How a link ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Ending {
    /// It has not, or nothing was said.
    None = 0,
    /// The publisher said good-bye; it does not reuse what is still held.
    Closed = 1,
    /// The publisher cut us off.
    CutOff = 2,
}

/// One life of a link, shared by the receiver and the frames that came over it.
#[derive(Debug)]
pub(crate) struct LinkState {
    socket: Seqpacket,
    epoch: u32,
    process: Option<OwnedFd>,
    ending: AtomicU8,
    receiving: AtomicBool,
    batch: usize,
    own_pages: bool,
    outbox: Mutex<Outbox>,
    /// Packets that were read to learn how the link ended, for the receiver.
    backlog: Mutex<VecDeque<(Vec<u8>, Vec<OwnedFd>)>>,
}

#[derive(Debug, Default)]
struct Outbox {
    returns: Vec<u64>,
    seen: Option<u64>,
    requests: Vec<ToPublisher>,
}

impl LinkState {
    /// A quarter of the credits is returned at once when nobody receives. With `own_pages` frames are copies that
    /// a bridge in this process made.
    pub(crate) fn new(socket: Seqpacket, epoch: u32, credits: u32, own_pages: bool) -> Self {
        let process = socket.peer().ok().and_then(|peer| peer.pidfd);
        Self {
            socket,
            epoch,
            process,
            ending: AtomicU8::new(Ending::None as u8),
            receiving: AtomicBool::new(false),
            batch: (credits as usize / 4).max(1),
            own_pages,
            outbox: Mutex::default(),
            backlog: Mutex::default(),
        }
    }

    pub(crate) fn socket(&self) -> &Seqpacket {
        &self.socket
    }

    pub(crate) fn epoch(&self) -> u32 {
        self.epoch
    }

    pub(crate) fn end(&self, ending: Ending) {
        self.ending.store(ending as u8, Ordering::SeqCst);
    }

    /// The receiver is about to sleep: from now on whoever drops a frame sends its return itself.
    pub(crate) fn set_receiving(&self, receiving: bool) {
        self.receiving.store(receiving, Ordering::SeqCst);
    }

    /// Whether pages received over this link cannot have been reused yet.
    pub(crate) fn still_valid(&self) -> bool {
        if self.own_pages {
            return true; // only what was returned is written again
        }
        let ended = |ending: Ending| self.ending.load(Ordering::SeqCst) == ending as u8;
        if ended(Ending::None) && self.hung_up() {
            self.read_farewell();
        } else if ended(Ending::None) {
            return true;
        }
        if !ended(Ending::None) {
            return ended(Ending::Closed);
        }
        // Without a good-bye, only a dead publisher cannot write any more.
        match &self.process {
            Some(process) => {
                let mut fds = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
                poll(&mut fds, PollTimeout::from(DEATH_NOTICE_MS)).is_ok_and(|ready| ready > 0)
            }
            None => false,
        }
    }

    fn hung_up(&self) -> bool {
        let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::empty())];
        let ended = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
        poll(&mut fds, PollTimeout::ZERO).is_err() || fds[0].revents().is_none_or(|r| r.intersects(ended))
    }

    /// Receives one packet, as [`Seqpacket::receive`] does.
    pub(crate) fn receive(&self, buf: &mut [u8], fds: &mut Vec<OwnedFd>) -> Result<usize, ReceiveError> {
        let mut backlog = self.backlog();
        match backlog.pop_front() {
            None => self.socket.receive(buf, fds),
            Some((packet, descriptors)) => {
                fds.extend(descriptors);
                let room = buf.get_mut(..packet.len()).ok_or(ReceiveError::Truncated(packet.len()))?;
                room.copy_from_slice(&packet);
                Ok(packet.len())
            }
        }
    }

    /// Looks in what the publisher has sent for how the link ended; it is kept for the receiver.
    fn read_farewell(&self) {
        let mut backlog = self.backlog();
        let mut bytes = vec![0; MAX_PACKET];
        let mut fds = Vec::new();
        // What a socket can hold at its end is bounded by its buffer.
        while let Ok(len) = self.socket.receive(&mut bytes, &mut fds) {
            if let Some(code) = farewell(&bytes[..len]) {
                self.end(if code == RefusalCode::Closing { Ending::Closed } else { Ending::CutOff });
            }
            backlog.push_back((bytes[..len].to_vec(), std::mem::take(&mut fds)));
        }
    }

    /// Whether packets were read that the receiver has not had.
    pub(crate) fn has_backlog(&self) -> bool {
        !self.backlog().is_empty()
    }

    fn backlog(&self) -> MutexGuard<'_, VecDeque<(Vec<u8>, Vec<OwnedFd>)>> {
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A frame was dropped.
    fn give_back(&self, frame: u64) {
        let mut outbox = self.outbox();
        outbox.returns.push(frame);
        if self.receiving.load(Ordering::SeqCst) || outbox.returns.len() >= self.batch {
            self.send(&mut outbox);
        }
    }

    /// Asks the publisher for something.
    pub(crate) fn ask(&self, message: ToPublisher) {
        let mut outbox = self.outbox();
        if outbox.requests.len() < 64 {
            outbox.requests.push(message);
        }
        self.send(&mut outbox);
    }

    /// So many announced buffers were taken in.
    pub(crate) fn saw(&self, buffers: u64) {
        self.outbox().seen = Some(buffers);
    }

    /// Sends what is due. What cannot be sent now stays for the next call.
    pub(crate) fn flush(&self) {
        let mut outbox = self.outbox();
        if !outbox.is_empty() {
            self.send(&mut outbox);
        }
    }

    fn send(&self, outbox: &mut Outbox) {
        let mut record = Vec::with_capacity(64);
        let mut packet = PacketBuilder::default();
        let count = outbox.returns.len().min(MAX_RETURNS);
        let returns: Vec<u64> = outbox.returns[..count].to_vec();
        let returned = (count > 0).then_some(ToPublisher::Return(returns));
        let seen = outbox.seen.map(ToPublisher::Seen);
        let due = returned.iter().chain(&seen).map(|message| (0, message));
        let mut requests = 0;
        for (request, message) in due.chain(outbox.requests.iter().map(|message| (1, message))) {
            record.clear();
            message.encode(&mut record);
            if !packet.fits(record.len()) {
                break;
            }
            packet.push(&record);
            requests += request;
        }
        match self.socket.send(&packet.bytes(self.epoch), &[]) {
            Err(SendError::Full | SendError::TooManyInFlight) => {}
            // On a dead link nothing is owed any more.
            _ => {
                outbox.returns.drain(..count);
                outbox.seen = None;
                outbox.requests.drain(..requests);
            }
        }
    }

    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn farewell(bytes: &[u8]) -> Option<RefusalCode> {
    let mut packets = Packets::open(bytes).ok()?;
    while let Ok(Some(record)) = packets.next_record() {
        if let Ok(ToSubscriber::Refused(code, _)) = ToSubscriber::decode(record) {
            return Some(code);
        }
    }
    None
}

impl Outbox {
    fn is_empty(&self) -> bool {
        self.returns.is_empty() && self.seen.is_none() && self.requests.is_empty()
    }
}

/// The right to one frame; dropping it gives the frame back.
#[derive(Debug)]
pub(crate) struct Hold {
    pub(crate) link: std::sync::Arc<LinkState>,
    pub(crate) frame: u64,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.link.give_back(self.frame);
    }
}
