//! What the devices do with posted work.

use super::Inject;
use super::model::{Key, Model, Receive, Region, Work};
use crate::ffi::*;

/// How a request fails: what its sender is told, and what the peer is.
struct Failure {
    status: u32,
    /// For the peer's receive, if one was taken.
    peer: Option<(Receive, u32)>,
    /// Whether the peer's queue pair ends too.
    peer_ends: bool,
}

impl From<u32> for Failure {
    fn from(status: u32) -> Self {
        Self { status, peer: None, peer_ends: false }
    }
}

impl Model {
    /// Does what can be done now.
    pub(super) fn run(&mut self, number: u32) {
        if !self.held {
            while self.one(number) {}
        }
    }

    pub(super) fn step(&mut self, count: usize) {
        let numbers: Vec<u32> = self.pairs.keys().copied().collect();
        for number in numbers {
            (0..count).take_while(|_| self.one(number)).count();
        }
    }

    pub(super) fn release(&mut self) {
        self.held = false;
        let numbers: Vec<u32> = self.pairs.keys().copied().collect();
        numbers.into_iter().for_each(|number| self.run(number));
    }

    /// Puts a queue pair into error.
    pub(super) fn fail(&mut self, number: u32) {
        if let Some(pair) = self.pairs.get_mut(&number) {
            pair.state = IBV_QPS_ERR;
            self.run(number);
        }
    }

    /// Ends one request. Whether there may be more.
    fn one(&mut self, number: u32) -> bool {
        let Some(pair) = self.pairs.get_mut(&number) else { return false };
        if self.devices[pair.device].removed {
            return false;
        }
        match pair.state {
            IBV_QPS_ERR => self.flush(number),
            IBV_QPS_RTS => match pair.sends.pop_front() {
                Some(work) => {
                    self.send(number, &work);
                    true
                }
                None => false,
            },
            _ => false,
        }
    }

    /// Reports one request as flushed.
    fn flush(&mut self, number: u32) -> bool {
        let receives_first = self.receives_first;
        let Some(pair) = self.pairs.get_mut(&number) else { return false };
        let send = |pair: &mut super::model::Pair| pair.sends.pop_front().map(|work| work.id);
        let receive = |pair: &mut super::model::Pair| pair.receives.pop_front().map(|receive| receive.id);
        let id = if receives_first {
            receive(pair).or_else(|| send(pair))
        } else {
            send(pair).or_else(|| receive(pair))
        };
        let Some(wr_id) = id else { return false };
        let queue = pair.queue;
        self.complete(
            queue,
            ibv_wc { wr_id, status: IBV_WC_WR_FLUSH_ERR, qp_num: number, ..Default::default() },
        );
        true
    }

    fn send(&mut self, number: u32, work: &Work) {
        if self.fault(|fault| matches!(fault, Inject::StrayCompletion).then_some(())).is_some() {
            let queue = self.pairs[&number].queue;
            self.complete(queue, ibv_wc { wr_id: 1 << 40, qp_num: number, ..Default::default() });
        }
        let injected = self.fault(|fault| match fault {
            Inject::Work(status) => Some(*status),
            _ => None,
        });
        let result = match injected {
            Some(status) => Err(status.into()),
            None => self.carry_out(number, work),
        };
        let (queue, peer) = (self.pairs[&number].queue, self.pairs[&number].peer);
        let wc = ibv_wc { wr_id: work.id, qp_num: number, ..Default::default() };
        let Err(failure) = result else {
            if work.signalled {
                self.complete(queue, wc);
            }
            return;
        };
        self.complete(queue, ibv_wc { status: failure.status, ..wc });
        self.fail(number);
        if let Some((receive, status)) = failure.peer
            && let Some(queue) = self.pairs.get(&peer).map(|pair| pair.queue)
        {
            self.complete(queue, ibv_wc { wr_id: receive.id, status, qp_num: peer, ..Default::default() });
        }
        if failure.peer_ends {
            self.fail(peer);
        }
    }

    fn carry_out(&mut self, number: u32, work: &Work) -> Result<(), Failure> {
        let (domain, peer) = (self.pairs[&number].domain, self.pairs[&number].peer);
        let sources = self.places(domain, &work.pieces, 0).ok_or(IBV_WC_LOC_PROT_ERR)?;
        let length: u64 = sources.iter().map(|(_, length)| *length as u64).sum();
        if length > u64::from(self.max_message) {
            return Err(IBV_WC_LOC_LEN_ERR.into());
        }
        let there =
            self.pairs.get(&peer).filter(|pair| pair.peer == number && !self.devices[pair.device].removed);
        let there = there
            .filter(|pair| matches!(pair.state, IBV_QPS_RTR | IBV_QPS_RTS))
            .ok_or(IBV_WC_RETRY_EXC_ERR)?;
        let (their_domain, their_queue) = (there.domain, there.queue);
        let refused = Failure { peer_ends: true, ..IBV_WC_REM_ACCESS_ERR.into() };
        if work.opcode != IBV_WR_SEND && length > 0 {
            let region = self.regions.get(&work.remote.1).filter(|region| region.domain == their_domain);
            let region = region.filter(|region| region.access & IBV_ACCESS_REMOTE_WRITE != 0);
            let target = region.and_then(|region| place(region, work.remote.0, length)).ok_or(refused)?;
            copy(&sources, &[(target, length as usize)]);
        }
        if work.opcode == IBV_WR_RDMA_WRITE {
            return Ok(());
        }
        let taken = self.pairs.get_mut(&peer).and_then(|pair| pair.receives.pop_front());
        let receive = taken.ok_or(IBV_WC_RNR_RETRY_EXC_ERR)?;
        if work.opcode == IBV_WR_SEND {
            let room: u64 = receive.pieces.iter().map(|piece| u64::from(piece.length)).sum();
            if room < length {
                let peer = Some((receive, IBV_WC_LOC_LEN_ERR));
                return Err(Failure { status: IBV_WC_REM_INV_REQ_ERR, peer, peer_ends: true });
            }
            let Some(targets) = self.places(their_domain, &receive.pieces, IBV_ACCESS_LOCAL_WRITE) else {
                let peer = Some((receive, IBV_WC_LOC_PROT_ERR));
                return Err(Failure { status: IBV_WC_REM_OP_ERR, peer, peer_ends: true });
            };
            copy(&sources, &targets);
        }
        let immediate = work.opcode == IBV_WR_RDMA_WRITE_WITH_IMM;
        let wc = ibv_wc {
            wr_id: receive.id,
            byte_len: length as u32,
            imm_data: work.immediate,
            wc_flags: if immediate { IBV_WC_WITH_IMM } else { 0 },
            qp_num: peer,
            ..Default::default()
        };
        self.complete(their_queue, wc);
        Ok(())
    }

    /// Where the pieces are, if all of them are registered in `domain` with `access`.
    fn places(&self, domain: Key, pieces: &[ibv_sge], access: i32) -> Option<Vec<(usize, usize)>> {
        let find = |piece: &ibv_sge| {
            let region = self.regions.get(&piece.lkey).filter(|region| region.domain == domain)?;
            let allowed = region.access & access == access;
            Some((place(region, piece.addr, piece.length.into()).filter(|_| allowed)?, piece.length as usize))
        };
        pieces.iter().map(find).collect()
    }
}

/// Where those bytes of the region are, if it has them.
fn place(region: &Region, address: u64, length: u64) -> Option<usize> {
    let offset = address.checked_sub(region.start)?;
    let fits = offset.checked_add(length).is_some_and(|end| end <= region.length);
    fits.then(|| region.base + offset as usize)
}

/// Copies as a device does: behind the back of everybody.
fn copy(from: &[(usize, usize)], to: &[(usize, usize)]) {
    let (mut targets, mut done) = (to.iter().copied(), (0, 0));
    for (mut source, mut length) in from.iter().copied() {
        while length > 0 {
            if done.1 == 0 {
                let Some(next) = targets.next() else { return };
                done = next;
                continue;
            }
            let part = length.min(done.1);
            let (from, to) = (source as *const u8, done.0 as *mut u8);
            // SAFETY: both lie in registered regions (`place`), which are mapped while they are registered; the ranges may
            // overlap, and nobody holds references to bytes that a device writes (contract of `Memory`).
            unsafe { std::ptr::copy(from, to, part) };
            (source, length, done) = (source + part, length - part, (done.0 + part, done.1 - part));
        }
    }
}
