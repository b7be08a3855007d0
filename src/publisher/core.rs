//! The publisher's state: books, links and stream, all behind one lock.
//!
//! The lock is held over system calls that cannot wait (every socket is non-blocking), and never over
//! anybody else's code: frames that become free are dropped, and callbacks run, after it is released.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use pagecast_allocators::Buffer;
use pagecast_ipc::budget::Share;
use pagecast_ipc::fanout::{Admission, Fanout};
use pagecast_ipc::ledger::SubscriberId;
use pagecast_ipc::socket::Seqpacket;
use pagecast_ipc::wire::limits::{MAX_BUFFERS, MAX_PACKET};
use pagecast_ipc::wire::{self, Clock, Event, RefusalCode, ToSubscriber};

use super::fault::Faults;
use super::info::Pages;
use super::member::{Member, Obstacle};
use super::options::{PublisherOptions, SMALL};
use super::quarantine::Quarantine;
use crate::clock::monotonic_ns;
use crate::frame::Frame;
use crate::rate::RateMeter;
use crate::stream::Stream;

/// How long small frames may wait for company, so that thousands a second need not be a message each.
pub(super) const COMPANY: Duration = Duration::from_millis(1);

/// Of the frames that the limit allows, one in so many may be in quarantine.
const QUARANTINE_PART: u32 = 4;

/// A frame with its message, which is the same for every subscriber.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) frame: Frame,
    pub(super) stream: Arc<Stream>,
    pub(super) record: Vec<u8>,
}

/// An event with its message.
#[derive(Debug)]
pub(super) struct Announced {
    pub(super) stream: Arc<Stream>,
    pub(super) record: Vec<u8>,
}

/// A message and what must be known before it.
pub(super) struct Outgoing<'a> {
    pub(super) stream: &'a Arc<Stream>,
    pub(super) record: &'a [u8],
    pub(super) frame: Option<&'a Published>,
}

/// Why a subscriber is no longer served.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Departure {
    /// It left, or its process ended.
    Left,
    /// It broke the protocol.
    Fault(String),
    /// Buffers came that have no face it can use.
    NoFace,
    /// It held frames, or the producer, for too long.
    Evicted,
    /// The publisher ended.
    Closed,
}

/// A subscriber that is no longer served.
#[derive(Debug)]
pub(super) struct Departed {
    pub(super) id: SubscriberId,
    pub(super) why: Departure,
    pub(super) socket: Arc<Seqpacket>,
}

/// What happened while the lock was held, to be acted on after.
#[derive(Debug, Default)]
pub(super) struct Aftermath {
    pub(super) freed: Vec<Arc<Published>>,
    pub(super) departed: Vec<Departed>,
    pub(super) requests: Vec<(SubscriberId, Event)>,
    /// Whether a producer that waits must look again.
    pub(super) room: bool,
}

impl Aftermath {
    /// Whether destructors or callbacks will be called.
    pub(super) fn is_code(&self) -> bool {
        !self.freed.is_empty() || !self.departed.is_empty() || !self.requests.is_empty()
    }
}

/// Counters over the publisher's life.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) frames: u64,
    pub(super) bytes: u64,
    pub(super) dropped: u64,
    pub(super) evicted: u64,
    pub(super) faults: u64,
    pub(super) reclaimed: u64,
    pub(super) admitted: u64,
}

pub(super) struct Core {
    pub(super) options: PublisherOptions,
    pub(super) books: Fanout<Arc<Published>, Arc<Announced>>,
    pub(super) members: BTreeMap<SubscriberId, Member>,
    pub(super) stream: Arc<Stream>,
    pub(super) clock: Option<(u64, Clock)>,
    pub(super) totals: Totals,
    pub(super) rate: RateMeter,
    pub(super) epoch: u32,
    pub(super) closing: bool,
    /// Whether a producer waits until somebody has room.
    pub(super) awaited: bool,
    pub(super) after: Aftermath,
    pub(super) last_pages: Option<Pages>,
    pub(super) faults: Faults,
    frame_bytes: u64,
    /// Buffers that a frame consists of; each takes a descriptor, here and at every subscriber.
    frame_buffers: u64,
    descriptors: u64,
    upstream: u32,
    /// Frames that there are at most, where that is known otherwise than by their size.
    most: Option<u32>,
    buffers: HashMap<u64, Weak<Buffer>>,
    quarantine: Quarantine,
    /// Frames in quarantine when shares were last given out.
    quarantine_counted: usize,
    pub(super) packet: Vec<u8>,
}

impl Core {
    pub(super) fn new(options: PublisherOptions, epoch: u32, descriptors: u64) -> Self {
        let capacity = u32::MAX / 2; // until the size of a frame is known
        Self {
            books: Fanout::new(options.rules(), capacity),
            options,
            members: BTreeMap::new(),
            stream: Arc::default(),
            clock: None,
            totals: Totals::default(),
            rate: RateMeter::default(),
            epoch,
            closing: false,
            awaited: false,
            after: Aftermath::default(),
            last_pages: None,
            faults: Faults::chosen(),
            frame_bytes: 0,
            frame_buffers: 1,
            descriptors,
            upstream: 0,
            most: None,
            buffers: HashMap::new(),
            quarantine: Quarantine::default(),
            quarantine_counted: 0,
            packet: vec![0; MAX_PACKET],
        }
    }

    /// Whether a frame of this stream time may go out now; returned frames are looked at first.
    pub(super) fn admission(&mut self, at: Duration) -> Admission {
        self.drain_all();
        self.books.admission(Instant::now(), at)
    }

    /// Somebody may have room again. A producer that waits for that sees only what it takes in itself.
    pub(super) fn made_room(&mut self) {
        self.after.room |= std::mem::take(&mut self.awaited);
    }

    /// Enters the frame in the books and sends it to whoever has a credit.
    pub(super) fn publish(&mut self, frame: Frame, at: Duration) {
        self.size_up(&frame);
        let now = Instant::now();
        let published = self.encode(frame);
        self.totals.frames += 1;
        self.totals.bytes += published.frame.size() as u64;
        self.rate.tick(now);
        let small = published.frame.size() as u64 <= SMALL;
        self.books.publish(Arc::new(published), now, at);
        if small {
            self.pump_small();
        } else {
            self.pump_all();
        }
    }

    fn encode(&self, frame: Frame) -> Published {
        let description = frame.description();
        let mut times = description.times;
        times.published = Some(monotonic_ns());
        let segments = frame.segments().iter().map(|segment| wire::Segment {
            buffer: segment.buffer.id().get(),
            offset: segment.offset as u64,
            length: segment.length as u64,
        });
        let message = ToSubscriber::Frame(wire::Frame {
            id: self.books.ledger().newest().0 + 1,
            flags: description.flags,
            times,
            offset: description.offset,
            offset_end: description.offset_end,
            width: description.width,
            height: description.height,
            segments: segments.collect(),
            planes: description.planes.clone(),
            metas: description.metas.clone(),
        });
        let mut record = Vec::with_capacity(192);
        message.encode(&mut record);
        Published { frame, stream: self.stream.clone(), record }
    }

    /// Appends an event to everybody's mailbox and sends what can be sent.
    pub(super) fn event(&mut self, event: Event) {
        let mut record = Vec::new();
        ToSubscriber::Event(event).encode(&mut record);
        self.books.push_event(&Arc::new(Announced { stream: self.stream.clone(), record }));
        self.drain_all();
        self.pump_all();
    }

    /// Brings everybody to this point of the stream at once, where nothing waits before it, as far as sockets take it.
    pub(super) fn spread_stream(&mut self) {
        for id in self.ids() {
            let (stream, clock) = (self.stream.clone(), self.clock);
            let Some(member) = self.members.get_mut(&id) else { continue };
            if !self.books.has_mail(id) && !member.knows_stream(&stream) {
                let prepared = member.prepare(&stream, clock);
                self.settle(id, prepared);
            }
        }
    }

    /// A frame of another size changes how many the limit allows.
    fn size_up(&mut self, frame: &Frame) {
        let (mut bytes, mut buffers) = (0, 0);
        for (at, segment) in frame.segments().iter().enumerate() {
            let id = segment.buffer.id();
            if !frame.segments()[..at].iter().any(|earlier| earlier.buffer.id() == id) {
                bytes += segment.buffer.size() as u64;
                buffers += 1;
            }
            let known = self.buffers.len();
            self.buffers.entry(id.get()).or_insert_with(|| Arc::downgrade(&segment.buffer));
            self.last_pages = Some(Pages::of(&segment.buffer));
            if self.buffers.len() != known {
                self.sweep();
            }
        }
        if bytes > self.frame_bytes || buffers > self.frame_buffers {
            self.frame_bytes = bytes.max(self.frame_bytes);
            self.frame_buffers = buffers.max(self.frame_buffers);
            self.share_out();
        }
    }

    /// Frames are of another kind from here on; their size is learned anew.
    pub(super) fn forget_size(&mut self) {
        self.frame_bytes = 0;
        self.frame_buffers = 1;
    }

    /// The share for a subscriber that asks for so many credits; a bridge to another host holds what it sends.
    pub(super) fn share(&self, credits: Option<u32>, bridge: bool) -> Share {
        match bridge {
            true => self.options.bridge_share(credits, self.frame_bytes),
            false => self.options.share(credits, self.frame_bytes),
        }
    }

    /// How many buffers upstream keeps to itself.
    pub(super) fn set_upstream(&mut self, buffers: u32) {
        self.upstream = buffers;
        self.share_out();
    }

    /// There are at most so many frames, whatever the limit of bytes would allow.
    pub(super) fn set_most_frames(&mut self, frames: Option<u32>) {
        self.most = frames;
        self.share_out();
    }

    fn share_out(&mut self) {
        if self.frame_bytes == 0 && self.most.is_none() {
            return;
        }
        self.made_room();
        let all = self.most_frames();
        self.quarantine_counted = self.quarantine.len();
        let quarantined = self.quarantine_counted as u32;
        let kept = self.options.reserve.saturating_add(self.upstream).saturating_add(quarantined);
        self.books.set_capacity(all.saturating_sub(kept));
        for id in self.ids() {
            let Some(member) = self.members.get(&id) else { continue };
            let share = self.share(member.credits_asked, member.origin.is_some());
            self.books.ask(id, share);
        }
    }

    /// Frames that the limit of bytes, half of our descriptors and the protocol's limit of buffers allow.
    fn most_frames(&self) -> u32 {
        let by_bytes = self.options.limit / self.frame_bytes.max(1);
        let buffers = (self.descriptors / 2).min(MAX_BUFFERS as u64 * 7 / 8);
        let known = self.most.map_or(u64::MAX, u64::from);
        by_bytes.min(buffers / self.frame_buffers.max(1)).min(known).max(1) as u32
    }

    /// Tells subscribers of buffers that are gone.
    pub(super) fn sweep(&mut self) {
        let before = self.buffers.len();
        self.buffers.retain(|_, buffer| buffer.strong_count() > 0);
        if self.buffers.len() == before {
            return;
        }
        for id in self.ids() {
            let Some(member) = self.members.get_mut(&id) else { continue };
            let told = member.retire(|buffer| !self.buffers.contains_key(&buffer));
            let too_many = member.known() > MAX_BUFFERS;
            self.settle(id, if too_many { Err(Obstacle::Gone) } else { told });
        }
    }

    pub(super) fn settle(&mut self, id: SubscriberId, sent: Result<(), Obstacle>) {
        match sent {
            Ok(()) | Err(Obstacle::Later | Obstacle::Late) => {}
            // What it returned before it went is still read; a fault is told from a farewell there.
            Err(Obstacle::Gone) => {
                self.drain(id);
                self.remove(id, Departure::Left);
            }
            Err(Obstacle::NoFace) => {
                self.remove(id, Departure::NoFace);
            }
        }
    }

    /// Tells a subscriber why its link ends.
    fn refuse(&mut self, id: SubscriberId, code: RefusalCode, text: &str) {
        if let Some(member) = self.members.get_mut(&id) {
            let _ = member.tell(&ToSubscriber::Refused(code, text.to_owned()));
        }
    }

    /// Cuts a subscriber off: first the link, then what it held is taken back.
    pub(super) fn remove(&mut self, id: SubscriberId, why: Departure) {
        match &why {
            Departure::Fault(text) => self.refuse(id, RefusalCode::Fault, text),
            Departure::NoFace => {
                self.refuse(id, RefusalCode::Face, "it cannot use the faces these buffers have");
            }
            Departure::Evicted => self.refuse(id, RefusalCode::Evicted, "frames were held for too long"),
            Departure::Closed => self.refuse(id, RefusalCode::Closing, "the publisher ends"),
            Departure::Left => {}
        }
        let Some(member) = self.members.remove(&id) else { return };
        self.made_room();
        member.socket.shutdown();
        self.totals.dropped += self.books.counters(id).map_or(0, |counters| counters.dropped);
        self.totals.evicted += u64::from(why == Departure::Evicted);
        self.totals.faults += u64::from(matches!(why, Departure::Fault(_)));
        self.keep_from_reuse(id, &member, &why);
        if !self.faults.keep_rows {
            self.totals.reclaimed += self.books.leave(id) as u64;
        }
        self.end_quarantines();
        self.after.departed.push(Departed { id, why, socket: member.socket });
    }

    /// Somebody who is cut off alive may go on reading: with `quarantine`, or when we end, its pages are
    /// not written again while it lives.
    fn keep_from_reuse(&mut self, id: SubscriberId, member: &Member, why: &Departure) {
        let spare = match why {
            Departure::Left => false,
            // It has a claim of its own on what it is sending.
            _ if member.origin.is_some() => false,
            Departure::Closed => true,
            _ => self.options.quarantine,
        };
        if !spare {
            return;
        }
        let ledger = self.books.ledger();
        let held = ledger.held(id).iter().filter_map(|held| ledger.resource(held.frame).cloned());
        let frames: Vec<_> = held.collect();
        let process = member.peer.pidfd.as_ref().and_then(|fd| fd.try_clone().ok());
        match process {
            Some(process) if *why != Departure::Closed => {
                self.quarantine.keep(process, frames);
            }
            _ => {
                let segments = frames.iter().flat_map(|published| published.frame.segments());
                segments.for_each(|segment| segment.buffer.mark_spent());
            }
        }
    }

    /// Cuts off who is overdue, and ends quarantines.
    pub(super) fn police(&mut self) {
        for id in self.books.overdue(Instant::now()) {
            self.drain(id);
        }
        for id in self.books.overdue(Instant::now()) {
            self.remove(id, Departure::Evicted);
        }
        self.end_quarantines();
    }

    /// Ends quarantines whose process is gone, or that are too many. What stays there counts against what
    /// subscribers may have together: the producer always has its own.
    fn end_quarantines(&mut self) {
        let limit = self.most_frames() / QUARANTINE_PART;
        self.after.freed.extend(self.quarantine.release(limit as usize));
        if self.quarantine.len() != self.quarantine_counted {
            self.share_out();
        }
    }

    /// Frames kept from reuse because their holder was cut off alive.
    pub(super) fn quarantined(&self) -> usize {
        self.quarantine.len()
    }

    /// What must happen once the lock is released.
    pub(super) fn aftermath(&mut self) -> Aftermath {
        let mut after = std::mem::take(&mut self.after);
        after.freed.extend(self.books.take_freed());
        after
    }

    /// The sockets of these subscribers.
    pub(super) fn sockets(&self, ids: &[SubscriberId]) -> Vec<Arc<Seqpacket>> {
        ids.iter().filter_map(|id| self.members.get(id)).map(|member| member.socket.clone()).collect()
    }

    pub(super) fn ids(&self) -> Vec<SubscriberId> {
        self.members.keys().copied().collect()
    }
}
