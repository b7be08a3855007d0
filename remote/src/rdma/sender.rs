//! The publisher's end.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use pagecast_allocators::Buffer;
use pagecast_verbs::{
    Access, Doorbell, ENDPOINT_BYTES, MemoryRegion, PostError, ProtectionDomain, RegisterError, Remote,
    Slice, Verbs, Write,
};

use super::RdmaError;
use super::bell::{Bell, Numbers};
use super::control::{Control, Said};
use super::domain::Sources;
use super::link::{DEPTH, Pair};
use super::places::Granted;
use super::wire::{Grant, Message};
use crate::limits::{MAX_FRAMES_UNDER_WAY, MAX_IN_A_ROW, STALLED};
use crate::link::{FromSubscriber, LinkFigures, Payload, PollFds, Sender};
use crate::pulse::Role;
use crate::tcp::Channel;
use crate::{LinkError, PeerFault};

/// A frame that has not left in whole.
struct Leaving {
    frame: u64,
    size: u64,
    payload: Payload,
    grant: Option<Grant>,
    stage: Stage,
    /// When the device was last given something of it.
    posted: Option<Instant>,
}

/// How far a frame is. Pages that may be taken back are written first, and it is asked whether they still are the frame
/// before the peer is told of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing of it was given to the device.
    Waiting,
    /// Its bytes are being written, and the peer is not told.
    Writing,
    /// Its bytes are there, and were right: the peer may be told.
    Written,
    /// All of it was given to the device.
    Ringing,
}

impl Leaving {
    /// What is given to the device next, if anything is.
    fn next(&self) -> Option<(&Grant, Stage)> {
        match (self.stage, &self.grant, &self.payload.still_valid) {
            (Stage::Waiting, Some(grant), None) => Some((grant, Stage::Ringing)),
            (Stage::Waiting, Some(grant), Some(_)) => Some((grant, Stage::Writing)),
            (Stage::Written, Some(grant), _) => Some((grant, Stage::Ringing)),
            _ => None,
        }
    }
}

/// Sends frames by RDMA.
pub struct RdmaSender {
    // Before the frames: nothing reads them any more when they are dropped.
    pair: Pair,
    frames: VecDeque<Leaving>,
    control: Control,
    sources: Arc<Sources>,
    places: Granted,
    /// Where numbers of places are sent from, if they do not go as immediates.
    numbers: Option<Numbers>,
    /// Frames without bytes, which have left.
    empty: Vec<u64>,
    /// Bytes of frames that have left.
    written: u64,
    more: bool,
}

impl std::fmt::Debug for RdmaSender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RdmaSender").field("queue", &self.pair.queue).finish_non_exhaustive()
    }
}

impl RdmaSender {
    /// The publisher's end of a link whose control connection is `channel`.
    ///
    /// # Errors
    /// If the system or the device does not let it be set up.
    pub fn new(channel: Channel, sources: &Arc<Sources>) -> Result<Self, LinkError> {
        let pair = Pair::new(sources.domain(), sources.gid())?.meeting(sources.meeting());
        let mut control = Control::new(channel, Role::Answers);
        pair.greet(&mut control, sources.immediates());
        Ok(Self {
            pair,
            frames: VecDeque::new(),
            control,
            sources: sources.clone(),
            places: Granted::default(),
            numbers: None,
            empty: Vec::new(),
            written: 0,
            more: false,
        })
    }

    /// The same, through the device that has the connection's own address. `register` is told of the domain that frames
    /// will be read through, before the first.
    ///
    /// # Errors
    /// If there is no such device, or it does not let it be set up.
    pub fn open(
        channel: Channel,
        verbs: &Verbs,
        register: impl FnOnce(&Arc<ProtectionDomain>) -> Result<(), RegisterError>,
    ) -> Result<Self, LinkError> {
        let sources = Sources::new(verbs, channel.local()?.ip())?;
        register(sources.domain()).map_err(RdmaError::from)?;
        Self::new(channel, &sources)
    }

    /// Gives places to frames that have none, in their order.
    fn place(&mut self) -> Result<(), PeerFault> {
        for frame in self.frames.iter_mut().filter(|frame| frame.grant.is_none()) {
            frame.grant = self.places.take(frame.size)?;
            if frame.grant.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// Posts what has a place.
    fn post(&mut self) -> Result<(), LinkError> {
        self.place()?;
        if !self.pair.is_up()? {
            return Ok(());
        }
        for frame in &mut self.frames {
            let Some((grant, stage)) = frame.next() else { continue };
            let bytes = if frame.stage == Stage::Waiting { Some(&frame.payload) } else { None };
            let rings = stage == Stage::Ringing;
            let bell = if rings { Some(&self.numbers) } else { None };
            match write(&mut self.pair, &self.sources, frame.frame, bytes, bell, grant) {
                Ok(()) => (frame.stage, frame.posted) = (stage, Some(Instant::now())),
                Err(LinkError::Rdma(RdmaError::Post(PostError::Full { .. }))) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The subscriber's hello is here.
    fn meet(&mut self, endpoint: &[u8; ENDPOINT_BYTES]) -> Result<(), LinkError> {
        if self.pair.bell(self.sources.immediates()) == Bell::Message && self.numbers.is_none() {
            self.numbers = Some(Numbers::new(self.sources.domain(), Access::Source)?);
        }
        self.pair.meet(endpoint, self.control.peer_ip()?)
    }

    fn complete(&mut self, done: &mut Vec<u64>) -> Result<(), LinkError> {
        for ended in self.pair.completions()? {
            ended.outcome.map_err(RdmaError::from)?;
            let Some(at) = self.frames.iter().position(|frame| frame.frame == ended.token) else { continue };
            let frame = &mut self.frames[at];
            match (frame.stage, &frame.payload.still_valid) {
                (Stage::Writing, Some(valid)) if !valid() => return Err(LinkError::TakenBack),
                (Stage::Writing, _) => frame.stage = Stage::Written,
                _ => {
                    self.written += self.frames.remove(at).map_or(0, |frame| frame.size);
                    done.push(ended.token);
                }
            }
        }
        Ok(())
    }
}

/// Writes a frame's bytes, if there are any to write, one after another in messages that the port sends, and rings if there is
/// a bell: with a number from there, or with an immediate.
fn write(
    pair: &mut Pair,
    sources: &Sources,
    frame: u64,
    payload: Option<&Payload>,
    bell: Option<&Option<Numbers>>,
    grant: &Grant,
) -> Result<(), LinkError> {
    let largest = u64::from(pair.queue.max_message());
    let parts = payload.map(|payload| &payload.parts[..]).unwrap_or_default();
    let mut regions: Vec<Arc<MemoryRegion>> = Vec::with_capacity(parts.len());
    for part in parts {
        regions.push(sources.region(part.buffer())?);
    }
    let mut slices = Vec::with_capacity(parts.len());
    for (part, region) in parts.iter().zip(&regions) {
        let (mut offset, end) = (part.offset() as u64, (part.offset() + part.length()) as u64);
        while offset < end {
            let length = (end - offset).min(largest);
            slices.push([Slice { region, offset, length: length as u32 }]);
            offset += length;
        }
    }
    let (messages, limit) = (slices.len() + 1, DEPTH.send);
    if messages > limit as usize {
        return Err(RdmaError::Messages { messages, limit }.into());
    }
    let mut to = Remote { address: grant.address, rkey: grant.rkey };
    let mut writes = Vec::with_capacity(slices.len());
    for from in &slices {
        writes.push(Write { from, to });
        to.address = to.address.wrapping_add(from[0].length.into());
    }
    let posted = match bell {
        None => pair.queue.post_writes(frame, &writes),
        Some(None) => {
            let last = Write { from: &[], to: Remote { address: grant.address, rkey: grant.rkey } };
            pair.queue.post_frame(frame, &writes, Doorbell::Immediate { write: last, value: grant.slot })
        }
        Some(Some(numbers)) => {
            numbers.write(grant.slot, grant.slot)?;
            let from = [numbers.slice(grant.slot)];
            pair.queue.post_frame(frame, &writes, Doorbell::Send { from: &from })
        }
    };
    Ok(posted.map_err(RdmaError::from)?)
}

impl Sender for RdmaSender {
    fn poll_fds(&self) -> PollFds<'_> {
        [self.control.poll_fd(true)].into_iter().chain(self.pair.poll_fds()).collect()
    }

    fn next_look(&self) -> Instant {
        match self.more || !self.empty.is_empty() {
            true => Instant::now(),
            false => self.pair.next_look(self.control.next_look()),
        }
    }

    fn is_busy(&self) -> bool {
        self.frames.len() + self.empty.len() >= MAX_FRAMES_UNDER_WAY || self.control.is_busy()
    }

    fn send_packet(&mut self, packet: &[u8]) {
        self.control.say(&Message::Packet(packet));
    }

    fn reaches(&self, buffer: &Buffer) -> bool {
        self.sources.reaches(buffer)
    }

    fn send_frame(&mut self, frame: u64, packet: &[u8], payload: Payload) {
        self.control.say(&Message::Packet(packet));
        let size = payload.parts.iter().map(|part| part.length() as u64).sum();
        match size {
            0 => self.empty.push(frame),
            size => {
                let stage = Stage::Waiting;
                self.frames.push_back(Leaving { frame, size, payload, grant: None, stage, posted: None });
            }
        }
    }

    fn flush(&mut self, done: &mut Vec<u64>) -> Result<(), LinkError> {
        done.append(&mut self.empty);
        self.control.flush()?;
        if self.control.has_ended() {
            return Ok(());
        }
        self.complete(done)?;
        self.post()?;
        // A device gives up by itself long before; one that does not must not hold the publisher for ever.
        let oldest = self.frames.front().and_then(|frame| frame.posted);
        match oldest.is_some_and(|posted| posted.elapsed() > STALLED) {
            true => Err(LinkError::Silent(STALLED.as_secs())),
            false => Ok(()),
        }
    }

    fn receive(&mut self, events: &mut Vec<FromSubscriber>) -> Result<(), LinkError> {
        self.more = false;
        for _ in 0..MAX_IN_A_ROW {
            match self.control.next()? {
                Some(Said::Packet(packet)) => events.push(FromSubscriber::Packet(packet)),
                Some(Said::Hello(endpoint)) => self.meet(&endpoint)?,
                Some(Said::Ability(ability)) => self.pair.can(ability)?,
                Some(Said::Grant(grant)) => {
                    self.places.push(grant)?;
                    self.post()?;
                }
                None if self.control.has_ended() => return Err(LinkError::Closed),
                None => return self.control.alive(true),
            }
        }
        self.more = true;
        Ok(())
    }

    fn finish(&mut self) -> bool {
        self.frames.is_empty() && self.empty.is_empty() && self.control.finish()
    }

    fn figures(&self) -> LinkFigures {
        self.control.figures(self.written)
    }

    fn unsent(&self) -> u64 {
        self.frames.iter().map(|frame| frame.size).sum::<u64>() + self.control.unsent()
    }
}
