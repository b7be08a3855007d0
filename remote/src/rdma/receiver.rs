//! The subscriber's end.

use std::collections::VecDeque;
use std::time::Instant;

use pagecast_ipc::wire;
use pagecast_verbs::{Access, Done, ENDPOINT_BYTES, MemoryRegion, Verbs};

use super::RdmaError;
use super::bell::{Bell, Numbers};
use super::control::{Control, Said};
use super::domain::{Targets, cm_for};
use super::link::Pair;
use super::meeting::Meeting;
use super::places::{Granting, MAX_AHEAD, MAX_GRANTS, Place};
use super::wire::{Grant, Message};
use crate::framing::{Kind, kind_of};
use crate::limits::{LINGER, MAX_IN_A_ROW};
use crate::link::{FromPublisher, LinkFigures, Pages, Part, PollFds, Receiver, Room};
use crate::pulse::Role;
use crate::tcp::Channel;
use crate::{LinkError, PeerFault};

/// What has come, in the order in which it is handed out.
#[expect(clippy::large_enum_variant, reason = "most are frames; a box would be an allocation each")]
enum Coming {
    Packet(Vec<u8>),
    Frame { epoch: u32, frame: wire::Frame, room: Option<Room>, state: Progress },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// There are no pages for it yet.
    Starved,
    /// Its bytes are on their way to the place with that number.
    Granted(u32),
    Whole,
}

/// Receives frames by RDMA.
pub struct RdmaReceiver {
    // Before pages and registrations: nothing writes there any more when they are dropped.
    pair: Pair,
    targets: Targets,
    coming: VecDeque<Coming>,
    control: Control,
    /// Whether the device has immediates.
    immediates: bool,
    /// Whether the publisher's hello was here.
    met: bool,
    /// Where numbers of places are received, if they do not come as immediates. After the queue pair.
    numbers: Option<Numbers>,
    places: Granting<Room>,
    /// Places granted for frames that are known and not whole.
    granted: usize,
    /// Bytes of frames that were written here.
    written: u64,
    more: bool,
    /// When the connection ended with bytes still under way.
    ended: Option<Instant>,
}

impl std::fmt::Debug for RdmaReceiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RdmaReceiver").field("queue", &self.pair.queue).finish_non_exhaustive()
    }
}

impl RdmaReceiver {
    /// The subscriber's end of a link whose control connection is `channel`; the device is the one with its address.
    ///
    /// # Errors
    /// If the system or the device does not let it be set up.
    pub fn new(channel: Channel, verbs: &Verbs) -> Result<Self, LinkError> {
        let own = channel.local()?.ip();
        let (device, gid) = verbs.device_for(own).map_err(RdmaError::from)?;
        let targets = Targets::new(&device)?;
        let cm = cm_for(verbs, &device)?;
        let meeting = cm.map(|cm| Meeting::listener(cm, own)).transpose()?;
        let pair = Pair::new(targets.domain(), &gid)?.meeting(meeting);
        let immediates = device.has_immediates();
        let mut control = Control::new(channel, Role::Asks);
        pair.greet(&mut control, immediates);
        Ok(Self {
            pair,
            targets,
            immediates,
            met: false,
            numbers: None,
            coming: VecDeque::new(),
            control,
            places: Granting::default(),
            granted: 0,
            written: 0,
            more: false,
            ended: None,
        })
    }

    /// The publisher's hello is here: it may send as soon as it knows that ours is there.
    fn meet(&mut self, endpoint: &[u8; ENDPOINT_BYTES]) -> Result<(), LinkError> {
        if self.met {
            return Err(PeerFault::OutOfPlace("a second hello").into());
        }
        self.met = true;
        if self.pair.bell(self.immediates) == Bell::Message {
            self.numbers = Some(Numbers::new(self.targets.domain(), Access::Local)?);
        }
        for at in 0..MAX_GRANTS {
            self.post(at as u64)?;
        }
        self.pair.meet(endpoint, self.control.peer_ip()?)
    }

    /// Posts a receive.
    fn post(&mut self, at: u64) -> Result<(), LinkError> {
        let into = self.numbers.as_ref().map(|numbers| numbers.slice(at as u32));
        Ok(self.pair.queue.post_recv(at, into.as_slice()).map_err(RdmaError::from)?)
    }

    /// The place that a completed receive names.
    fn named(&self, at: u64, done: &Done) -> Result<u32, LinkError> {
        match (&self.numbers, done.immediate, done.bytes) {
            (None, Some(slot), _) => Ok(slot),
            (Some(numbers), None, 4) => numbers.read(at as u32),
            (None, None, _) => Err(PeerFault::OutOfPlace("a message").into()),
            (Some(_), ..) => Err(PeerFault::OutOfPlace("a message that is no number").into()),
        }
    }

    /// Whether a frame waits for pages.
    fn is_starved(&self) -> bool {
        self.coming.iter().any(|coming| matches!(coming, Coming::Frame { state: Progress::Starved, .. }))
    }

    /// Whether it reads on: what is here and not handed out has limits.
    fn reads(&self) -> bool {
        !self.is_starved() && self.granted < MAX_GRANTS && self.coming.len() < MAX_IN_A_ROW
    }

    fn packet(&mut self, packet: Vec<u8>) -> Result<(), LinkError> {
        let coming = match kind_of(&packet)? {
            Kind::Plain => Coming::Packet(packet),
            Kind::Frame { epoch, frame } => {
                let (state, room) = self.frame(&frame)?;
                Coming::Frame { epoch, frame, room, state }
            }
        };
        self.coming.push_back(coming);
        Ok(())
    }

    /// How far a frame is whose record is here, and its place, if that was granted ahead.
    fn frame(&mut self, frame: &wire::Frame) -> Result<(Progress, Option<Room>), PeerFault> {
        if frame.segments.is_empty() {
            return Ok((Progress::Whole, None));
        }
        let size = frame.size();
        if size == 0 {
            return Ok((Progress::Starved, None));
        }
        Ok(match self.places.frame(size)? {
            Place::Missing => (Progress::Starved, None),
            Place::Ahead { what: mut room, slot, filled } => {
                room.part.truncate(size as usize);
                if filled {
                    self.written += size;
                    (Progress::Whole, Some(room))
                } else {
                    self.granted += 1;
                    (Progress::Granted(slot), Some(room))
                }
            }
        })
    }

    /// Finds pages for the frame that has none.
    fn grant(&mut self, pages: &mut dyn Pages) -> Result<(), LinkError> {
        let starved = self.coming.iter_mut().rev().find_map(|coming| match coming {
            Coming::Frame { frame, room, state, .. } if *state == Progress::Starved => {
                Some((frame, room, state))
            }
            _ => None,
        });
        let Some((frame, room, state)) = starved else { return Ok(()) };
        let size = frame.size();
        *room = match pages.take(size as usize)? {
            // Places ahead may be all there is, and are for frames behind it.
            None if size == 0 => self.places.any().and_then(no_bytes_of),
            found => found,
        };
        let Some(room) = room else { return Ok(()) };
        if size == 0 {
            *state = Progress::Whole;
            return Ok(());
        }
        let region = self.targets.region(room.part.buffer())?;
        let slot = self.places.number();
        *state = Progress::Granted(slot);
        self.granted += 1;
        self.control.say(&Message::Grant(grant(slot, &region, &room.part)));
        Ok(())
    }

    /// Grants places for frames that are not known yet, a few at a time. Nobody waits for their pages.
    fn grant_ahead(&mut self, pages: &mut dyn Pages) {
        if self.is_starved() || self.places.ahead() > MAX_AHEAD / 2 {
            return;
        }
        while self.granted + self.places.ahead() < MAX_GRANTS
            && let Some(size) = self.places.wanted()
            && let Ok(Some(room)) = pages.take(size as usize)
            // When a frame needs it, it is said why it cannot be.
            && let Ok(region) = self.targets.region(room.part.buffer())
        {
            let slot = self.places.number();
            self.control.say(&Message::Grant(grant(slot, &region, &room.part)));
            self.places.granted(slot, size, room);
        }
    }

    /// Takes note of what has been written.
    fn complete(&mut self) -> Result<(), LinkError> {
        let mut arrived = Vec::new();
        for ended in self.pair.completions()? {
            let done = ended.outcome.map_err(RdmaError::from)?;
            arrived.push((ended.token, done));
        }
        for (at, done) in arrived {
            let slot = self.named(at, &done)?;
            self.post(at)?;
            // Its record may still be on its way.
            if self.places.filled(slot)? {
                continue;
            }
            let place = self.coming.iter_mut().find_map(|coming| match coming {
                Coming::Frame { state, frame, .. } if *state == Progress::Granted(slot) => {
                    Some((state, frame))
                }
                _ => None,
            });
            let (state, frame) = place.ok_or(PeerFault::OutOfPlace("an immediate"))?;
            *state = Progress::Whole;
            self.written += frame.size();
            self.granted -= 1;
        }
        Ok(())
    }

    /// Hands out what is whole, in order.
    fn hand_out(&mut self, events: &mut Vec<FromPublisher>) {
        let whole = |coming: &Coming| match coming {
            Coming::Packet(_) => true,
            Coming::Frame { state, .. } => *state == Progress::Whole,
        };
        while self.coming.front().is_some_and(whole) {
            match self.coming.pop_front() {
                Some(Coming::Packet(packet)) => events.push(FromPublisher::Packet(packet)),
                Some(Coming::Frame { epoch, frame, room, .. }) => {
                    events.push(FromPublisher::Frame { epoch, frame, room });
                }
                None => {}
            }
        }
    }

    /// The connection has ended. What was written just before it may be told a moment later.
    fn end(&mut self) -> Result<(), LinkError> {
        let Some(Coming::Frame { frame, .. }) = self.coming.front() else { return Err(LinkError::Closed) };
        let since = *self.ended.get_or_insert_with(Instant::now);
        if since.elapsed() < LINGER {
            return Ok(());
        }
        Err(LinkError::MidFrame { filled: 0, size: frame.size() as usize })
    }

    fn read(&mut self, pages: &mut dyn Pages) -> Result<(), LinkError> {
        self.grant(pages)?;
        for _ in 0..MAX_IN_A_ROW {
            if !self.reads() {
                return Ok(());
            }
            match self.control.next()? {
                Some(Said::Packet(packet)) => self.packet(packet)?,
                Some(Said::Hello(endpoint)) => self.meet(&endpoint)?,
                Some(Said::Ability(ability)) => self.pair.can(ability)?,
                Some(Said::Grant(_)) => return Err(PeerFault::OutOfPlace("a place for a frame").into()),
                None => return Ok(()),
            }
            self.grant(pages)?;
        }
        self.more = true;
        Ok(())
    }
}

/// A part without bytes, which takes nothing from whom the pages belong to.
fn no_bytes_of(room: &Room) -> Option<Room> {
    let part = Part::new(room.part.buffer().clone(), 0, 0)?;
    Some(Room { part, hold: Box::new(()) })
}

/// A place in registered pages, which begin where the buffer does.
fn grant(slot: u32, region: &MemoryRegion, part: &Part) -> Grant {
    let address = region.address() + part.offset() as u64;
    Grant { slot, rkey: region.rkey(), address, length: part.length() as u64 }
}

impl Receiver for RdmaReceiver {
    fn poll_fds(&self) -> PollFds<'_> {
        [self.control.poll_fd(self.reads())].into_iter().chain(self.pair.poll_fds()).collect()
    }

    fn next_look(&self) -> Instant {
        match self.ended {
            _ if self.more => Instant::now(),
            Some(since) => since + LINGER / 20,
            None => self.pair.next_look(self.control.next_look()),
        }
    }

    fn is_busy(&self) -> bool {
        self.control.is_busy()
    }

    fn send_packet(&mut self, packet: &[u8]) {
        self.control.say(&Message::Packet(packet));
    }

    fn flush(&mut self) -> Result<(), LinkError> {
        self.control.flush()
    }

    fn receive(&mut self, pages: &mut dyn Pages, events: &mut Vec<FromPublisher>) -> Result<(), LinkError> {
        self.more = false;
        let read = self.read(pages);
        let full = !self.reads();
        // Whatever ends the link, what is whole is handed out.
        let completed = self.complete();
        self.hand_out(events);
        // What made room lets it read on, and what it has read already wakes nobody.
        self.more |= full && self.reads();
        read?;
        self.grant_ahead(pages);
        // Places that were granted leave with what is here.
        self.control.flush()?;
        if self.control.has_ended() && self.reads() {
            return self.end();
        }
        completed?;
        self.pair.is_up()?;
        let reads = self.reads();
        self.control.alive(reads)
    }

    fn finish(&mut self) -> bool {
        self.control.finish()
    }

    fn figures(&self) -> LinkFigures {
        self.control.figures(self.written)
    }
}
