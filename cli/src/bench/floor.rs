//! The floor: the least that carries a frame between processes. Pages are mapped once, then there is one
//! small message per frame and consumer, and one acknowledgement. No ledger, no limits, no policies: nothing
//! that shares frames safely can be expected to cost less.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::Instant;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv, send};
use pagecast::allocators::receive;
use pagecast::ipc::socket::{ListenOptions, Listener, ReceiveError, Seqpacket};
use pagecast::{Buffer, FaceKind, Lease};

use super::consume::PATIENCE;
use super::job::{Job, Tally, fill};
use super::produce::{finish, measure};
use crate::workers::child::{Control, say};

/// Buffers that go round.
const BUFFERS: usize = 16;

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

struct Slot {
    lease: Lease,
    /// Consumers that have not acknowledged it.
    readers: u32,
}

struct Floor {
    peers: Vec<Seqpacket>,
    slots: Vec<Slot>,
}

pub(super) fn produce(job: &Job, control: &Control) -> Result<(), String> {
    let listener = Listener::bind(&job.socket, &ListenOptions::default()).map_err(text)?;
    say("ready", &());
    let mut floor = Floor { peers: Vec::new(), slots: Vec::new() };
    let pool = job.pool()?;
    for _ in 0..BUFFERS {
        floor.slots.push(Slot { lease: pool.acquire(job.bytes()).map_err(text)?, readers: 0 });
    }
    let until = Instant::now() + PATIENCE;
    while floor.peers.len() < job.contender.consumers as usize {
        match listener.accept().map_err(text)? {
            Some(peer) => floor.admit(peer)?,
            None if Instant::now() > until => return Err("not all consumers came".to_owned()),
            None => wait_readable([listener.as_fd()]),
        }
    }
    say("connected", &());
    if !control.wait_for_go() {
        return Ok(());
    }
    let mut measured = measure(job, control, |number| floor.put(job, number))?;
    measured.copied = Some(0);
    finish(measured, control);
    Ok(())
}

impl Floor {
    /// Sends all buffers to a consumer, one descriptor per message.
    fn admit(&mut self, peer: Seqpacket) -> Result<(), String> {
        for slot in &self.slots {
            let buffer = slot.lease.buffer();
            let face = buffer.face(FaceKind::Memory).ok_or("no memory face")?;
            peer.send(&(buffer.size() as u64).to_le_bytes(), &[face.fd]).map_err(text)?;
        }
        self.peers.push(peer);
        Ok(())
    }

    fn put(&mut self, job: &Job, number: u64) -> Result<(), String> {
        let until = Instant::now() + PATIENCE;
        let free = loop {
            self.take_acknowledgements()?;
            // The one used last is warmest.
            match self.slots.iter().rposition(|slot| slot.readers == 0) {
                Some(free) => break free,
                None if Instant::now() > until => return Err("acknowledgements do not come".to_owned()),
                None => wait_readable(self.peers.iter().map(AsFd::as_fd)),
            }
        };
        let slot = &mut self.slots[free];
        fill(&mut slot.lease.as_mut_slice()[..job.bytes()], number);
        slot.readers = self.peers.len() as u32;
        let message = (free as u64).to_le_bytes();
        for peer in &self.peers {
            send(peer.as_fd().as_raw_fd(), &message, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)
                .map_err(text)?;
        }
        Ok(())
    }

    fn take_acknowledgements(&mut self) -> Result<(), String> {
        let mut bytes = [0; 8];
        for peer in &self.peers {
            while let Ok(8) = recv(peer.as_fd().as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
                let at = u64::from_le_bytes(bytes) as usize;
                let slot = self.slots.get_mut(at).ok_or("a false acknowledgement")?;
                slot.readers -= 1;
            }
        }
        Ok(())
    }
}

pub(super) fn consume(job: &Job, control: &Control) -> Result<Tally, String> {
    let mut tally = Tally::new(job);
    let socket = Seqpacket::connect(&job.socket).map_err(text)?;
    let buffers = receive_buffers(&socket)?;
    say("ready", &());
    let raw = socket.as_fd().as_raw_fd();
    // The cheapest wait there is: in the call that receives.
    fcntl(&socket, FcntlArg::F_SETFL(OFlag::empty())).map_err(text)?;
    while !control.stopped() {
        let mut message = [0; 8];
        if recv(raw, &mut message, MsgFlags::empty()).map_err(text)? != 8 {
            return Ok(tally);
        }
        let buffer = buffers.get(u64::from_le_bytes(message) as usize).ok_or("a false message")?;
        let mapping = buffer.mapping().ok_or("not mapped")?;
        // SAFETY: the memory face is enforced, so only the producer can write, and it does not until the
        // acknowledgement below.
        let bytes = unsafe { mapping.slice(0, job.bytes()) }.map_err(text)?;
        let more = tally.take(bytes)?;
        send(raw, &message, MsgFlags::MSG_NOSIGNAL).map_err(text)?;
        if !more {
            return Ok(tally);
        }
    }
    Ok(tally)
}

fn receive_buffers(socket: &Seqpacket) -> Result<Vec<Arc<Buffer>>, String> {
    let mut buffers = Vec::new();
    let until = Instant::now() + PATIENCE;
    while buffers.len() < BUFFERS {
        let (mut size, mut fds) = ([0; 8], Vec::new());
        match socket.receive(&mut size, &mut fds) {
            Ok(8) if fds.len() == 1 => {
                let buffer = receive::memory(fds.remove(0), u64::from_le_bytes(size)).map_err(text)?;
                buffer.map().map_err(text)?;
                buffers.push(Arc::new(buffer));
            }
            Err(ReceiveError::Empty) if Instant::now() < until => wait_readable([socket.as_fd()]),
            other => return Err(format!("no buffers came: {other:?}")),
        }
    }
    Ok(buffers)
}

fn wait_readable<'a>(fds: impl IntoIterator<Item = std::os::fd::BorrowedFd<'a>>) {
    let mut fds: Vec<PollFd<'_>> = fds.into_iter().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
    let _ = poll(&mut fds, PollTimeout::from(100_u16));
}
