//! What goes out to subscribers and what they say: batches, returns, requests.

use std::sync::Arc;
use std::time::Instant;

use pagecast_ipc::fanout::Delivery;
use pagecast_ipc::ledger::{FrameId, SubscriberId};
use pagecast_ipc::socket::ReceiveError;
use pagecast_ipc::wire::ToPublisher;

use super::core::{Announced, COMPANY, Core, Departure, Outgoing, Published};
use super::member::{Member, Obstacle};

/// How many small frames may wait for company.
const LARGEST_BATCH: usize = 32;
/// Requests of subscribers that may wait to be acted on.
const MAX_REQUESTS: usize = 64;
/// Packets, and bytes, of one subscriber that are looked at in a row: who sends faster than it is read must
/// not hold the producer.
const MAX_PACKETS_IN_A_ROW: usize = 64;
const MAX_BYTES_IN_A_ROW: usize = 256 * 1024;

type Mail = Delivery<Arc<Published>, Arc<Announced>>;

impl Core {
    /// Sends to everybody what their credits allow.
    pub(super) fn pump_all(&mut self) {
        for id in self.ids() {
            self.pump(id);
        }
    }

    /// Sends what the subscriber's credits allow, as few messages as possible.
    pub(super) fn pump(&mut self, id: SubscriberId) {
        let now = Instant::now();
        let mut unsent = Vec::new();
        if let Some(member) = self.members.get_mut(&id) {
            (member.delayed, member.fenced) = (false, false);
        }
        while let Some(delivery) = self.books.next(id, now) {
            let ready = self.make_ready(id, &delivery, &mut unsent);
            if let (Err(Obstacle::Late), Delivery::Frame(frame, _)) = (&ready, &delivery) {
                self.books.lose(id, *frame);
                continue;
            }
            if let Some(member) = self.members.get_mut(&id).filter(|_| ready.is_ok()) {
                member.append(&outgoing(&delivery));
            }
            unsent.push(delivery);
            if let Err(obstacle) = ready {
                return self.give_up(id, unsent, obstacle);
            }
        }
        match self.send_batch(id) {
            Err(obstacle) => self.give_up(id, unsent, obstacle),
            Ok(()) if self.faults.reuse_early => self.pretend_returned(id, &unsent),
            Ok(()) => {}
        }
    }

    fn pretend_returned(&mut self, id: SubscriberId, sent: &[Mail]) {
        for delivery in sent {
            if let Delivery::Frame(frame, _) = delivery {
                let _ = self.books.give_back(id, *frame);
            }
        }
    }

    fn make_ready(
        &mut self,
        id: SubscriberId,
        delivery: &Mail,
        unsent: &mut Vec<Mail>,
    ) -> Result<(), Obstacle> {
        let clock = self.clock;
        let member = self.members.get_mut(&id).ok_or(Obstacle::Gone)?;
        if !member.make_ready(&outgoing(delivery), clock)? {
            member.send_batch()?;
            unsent.clear();
            member.make_ready(&outgoing(delivery), clock)?;
        }
        Ok(())
    }

    fn send_batch(&mut self, id: SubscriberId) -> Result<(), Obstacle> {
        self.members.get_mut(&id).ok_or(Obstacle::Gone)?.send_batch()
    }

    /// What could not be sent is next again.
    fn give_up(&mut self, id: SubscriberId, unsent: Vec<Mail>, obstacle: Obstacle) {
        // What stands in the batch is among what is put back.
        if let Some(member) = self.members.get_mut(&id) {
            member.forget_batch();
        }
        for delivery in unsent.into_iter().rev() {
            self.books.undo(id, delivery);
        }
        self.settle(id, Err(obstacle));
    }

    /// Sends a small frame to those for whom it is time; others get it with those that follow.
    pub(super) fn pump_small(&mut self) {
        for id in self.ids() {
            if let Some(member) = self.members.get_mut(&id) {
                member.delayed = true;
            }
            self.pump_due(id);
        }
    }

    /// Sends what the subscriber's credits allow, unless those are small frames that may still wait for company.
    pub(super) fn pump_due(&mut self, id: SubscriberId) {
        match self.members.get(&id) {
            Some(member) if member.delayed && self.few(id) && member.last_sent.elapsed() < COMPANY => {}
            _ => self.pump(id),
        }
    }

    /// Whether what could be sent is little. Else who returns one frame would get one, again and again.
    fn few(&self, id: SubscriberId) -> bool {
        let share = self.books.share(id);
        let free = (share.credits as usize).saturating_sub(self.books.held(id));
        let batch = (share.mailbox.min(share.credits) as usize / 2).min(LARGEST_BATCH);
        (1..batch).contains(&self.books.waiting(id).min(free))
    }

    /// Whether small frames wait for company.
    pub(super) fn delays(&self) -> bool {
        self.members.values().any(|member| member.delayed)
    }

    /// Takes in what everybody who holds something has returned.
    pub(super) fn drain_all(&mut self) {
        for id in self.ids() {
            if self.books.held(id) > 0 {
                self.drain(id);
            }
        }
    }

    /// Frames that wait for subscribers or are held by them, each counted for each; `None` if nobody has to be waited for. What
    /// a bridge to another host holds has not left.
    pub(super) fn outstanding(&self) -> Option<usize> {
        let has_not_left = |id, member: &Member| member.origin.is_some() && self.books.held(id) > 0;
        let mut members = self.members.iter();
        if !members.any(|(id, member)| self.books.is_behind(*id) || has_not_left(*id, member)) {
            return None;
        }
        Some(self.members.keys().map(|id| self.books.waiting(*id) + self.books.held(*id)).sum())
    }

    /// Takes in what one subscriber has said.
    pub(super) fn drain(&mut self, id: SubscriberId) {
        let mut packet = std::mem::take(&mut self.packet);
        let mut fds = Vec::new();
        let mut bytes = 0;
        for _ in 0..MAX_PACKETS_IN_A_ROW {
            let Some(member) = self.members.get_mut(&id).filter(|_| bytes < MAX_BYTES_IN_A_ROW) else {
                break;
            };
            match member.socket.receive(&mut packet, &mut fds) {
                Ok(len) => {
                    bytes += len;
                    let messages = member.open(&packet[..len]).map_err(|error| error.to_string());
                    let taken = messages.and_then(|messages| self.take(id, messages));
                    if let Err(text) = taken {
                        self.remove(id, Departure::Fault(text));
                    }
                    // It owes nothing more: do not ask the kernel whether there is more.
                    if self.books.held(id) == 0 {
                        break;
                    }
                }
                Err(ReceiveError::Empty) => break,
                Err(ReceiveError::Closed) => self.remove(id, Departure::Left),
                Err(error) => self.remove(id, Departure::Fault(error.to_string())),
            }
            fds.clear();
        }
        self.packet = packet;
    }

    fn take(&mut self, id: SubscriberId, messages: Vec<ToPublisher>) -> Result<(), String> {
        for message in messages {
            match message {
                ToPublisher::Return(frames) => {
                    self.made_room();
                    for frame in frames {
                        match self.books.give_back(id, FrameId(frame)) {
                            Err(fault) if !self.faults.skip_return_check && !self.faults.reuse_early => {
                                return Err(fault.to_string());
                            }
                            _ => {}
                        }
                    }
                }
                ToPublisher::Request(event) => {
                    if self.after.requests.len() < MAX_REQUESTS {
                        self.after.requests.push((id, event));
                    }
                }
                ToPublisher::Bye => {
                    self.remove(id, Departure::Left);
                    return Ok(());
                }
                _ => return Err("an observer's question from a subscriber".to_owned()),
            }
        }
        Ok(())
    }
}

fn outgoing(delivery: &Mail) -> Outgoing<'_> {
    match delivery {
        Delivery::Frame(_, frame) => {
            Outgoing { stream: &frame.stream, record: &frame.record, frame: Some(frame) }
        }
        Delivery::Event(event) => Outgoing { stream: &event.stream, record: &event.record, frame: None },
    }
}
