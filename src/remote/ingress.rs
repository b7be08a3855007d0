//! The subscriber's bridge: a publisher in its own process, whose frames come from another host.
//!
//! Each frame is read into a buffer of the bridge's own pool, which the subscriber maps once, read-only. It exists
//! for the subscriber only when its last byte has arrived.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use pagecast_allocators::Buffer;
use pagecast_ipc::socket::{ReceiveError, Seqpacket};
use pagecast_ipc::wire::limits::MAX_PACKET;
use pagecast_ipc::wire::{Announce, Clock, Face, Frame, PacketBuilder, Packets, ToPublisher, ToSubscriber};
use pagecast_remote::clock::Estimate;
use pagecast_remote::limits::{LINGER, SMALL};
use pagecast_remote::window::Window;
use pagecast_remote::{FromPublisher, LinkError, Pages, Part, PeerFault, Receiver, Room};

use super::egress::packet;
use super::hub::thread;
use super::outlet::{Outlet, RETRY, receive};
use super::{Meter, times};
use crate::pool::{Lease, Pool, PoolError};

/// A buffer of so many bytes is made beside the bridge: filling its pages may take longer than a peer waits for a heartbeat.
const LARGE: usize = 64 << 20;

/// Buffers for a stream of even sizes are made before they are needed, up to so many bytes.
const AHEAD: usize = 128 << 20;

/// Room in a pool.
struct FromPool {
    pool: Pool,
    /// A large buffer that is being made.
    coming: Option<JoinHandle<Result<Lease, PoolError>>>,
    /// Frames that the subscriber may hold, and those that it does.
    window: u32,
    held: usize,
    /// The last frame's size.
    last: usize,
    /// The size for which there are buffers for all that the subscriber may hold.
    ready: usize,
    /// Buffers of which the subscriber shall know before it gets frames in them.
    fresh: Vec<Weak<Buffer>>,
}

impl FromPool {
    fn new(pool: Pool) -> Self {
        let window = Window::new(None).frames();
        Self { pool, coming: None, window, held: 0, last: 0, ready: 0, fresh: Vec::new() }
    }

    /// Two frames of one size in a row: more are likely. Their pages are made now, not one buffer at a time whenever the
    /// subscriber holds more than ever before, which would be thousands of page faults in the midst of a stream.
    fn look_ahead(&mut self, size: usize) {
        let even = std::mem::replace(&mut self.last, size) == size;
        if !even || self.ready == size || size <= SMALL as usize || size >= LARGE {
            return;
        }
        self.ready = size;
        let more = (self.window as usize).saturating_sub(self.held);
        let count = more.min(AHEAD / self.pool.footprint(size).max(1));
        // Where there is no more to be had, the stream goes on with what there is.
        let leases: Vec<Lease> = (0..count).map_while(|_| self.pool.acquire(size).ok()).collect();
        self.fresh = leases.iter().map(|lease| Arc::downgrade(lease.buffer())).collect();
    }

    /// Whether there will be room without anybody saying so.
    fn is_making(&self) -> bool {
        self.coming.is_some()
    }

    /// `None` while a large one is being made.
    fn acquire(&mut self, size: usize) -> Option<Result<Lease, PoolError>> {
        match self.coming.take() {
            Some(coming) if !coming.is_finished() => {
                self.coming = Some(coming);
                return None;
            }
            Some(coming) => match coming.join() {
                Ok(Ok(lease)) if lease.buffer().size() >= size => return Some(Ok(lease)),
                Ok(Err(error)) => return Some(Err(error)),
                _ => {}
            },
            None => {}
        }
        if size < LARGE {
            return Some(self.pool.acquire(size));
        }
        if let Some(lease) = self.pool.acquire_free(size) {
            return Some(Ok(lease));
        }
        let pool = self.pool.clone();
        match thread(move || pool.acquire(size)) {
            Ok(coming) => {
                self.coming = Some(coming);
                None
            }
            Err(_) => Some(self.pool.acquire(size)),
        }
    }
}

impl Pages for FromPool {
    fn take(&mut self, size: usize) -> Result<Option<Room>, LinkError> {
        self.look_ahead(size);
        match self.acquire(size.max(1)) {
            Some(Ok(lease)) => {
                let part = Part::new(lease.buffer().clone(), 0, size);
                Ok(part.map(|part| Room { part, hold: Box::new(lease) }))
            }
            None | Some(Err(PoolError::Exhausted { .. })) => Ok(None),
            Some(Err(error)) => Err(LinkError::NoPages(error.to_string())),
        }
    }
}

pub(super) struct Ingress {
    link: Box<dyn Receiver>,
    local: Seqpacket,
    pages: FromPool,
    outlet: Outlet,
    meter: Meter,
    /// The publisher's clock, as long as it is not known how that stands to ours.
    clock: Option<Clock>,
    /// Frames that the subscriber has not returned, with their pages.
    held: HashMap<u64, Option<Room>>,
    /// Buffers that the subscriber knows.
    known: HashMap<u64, Weak<Buffer>>,
    /// Records for one packet to the subscriber.
    batch: PacketBuilder,
    /// The publisher's life, known from its first packet.
    epoch: Option<u32>,
    /// The last frame's number.
    last: Option<u64>,
    /// Whether the subscriber has said good-bye, or is gone.
    left: bool,
    /// Whether nothing can be sent over the link any more; what has come is still received.
    mute: bool,
    /// How the link ended, told when the subscriber has all that came before.
    ended: Option<LinkError>,
    bytes: Vec<u8>,
}

impl Ingress {
    /// A bridge between a link and the socket that a subscriber has the other end of.
    pub(super) fn new(link: Box<dyn Receiver>, local: Seqpacket, pool: Pool, meter: Meter) -> Self {
        Self {
            link,
            local,
            pages: FromPool::new(pool),
            outlet: Outlet::default(),
            meter,
            clock: None,
            held: HashMap::new(),
            known: HashMap::new(),
            batch: PacketBuilder::default(),
            epoch: None,
            last: None,
            left: false,
            mute: false,
            ended: None,
            bytes: vec![0; MAX_PACKET],
        }
    }

    /// Runs until one of the two sides ends; the subscriber's end is no error.
    pub(super) fn run(&mut self) -> Result<(), LinkError> {
        loop {
            self.step()?;
            if self.left {
                self.say_good_bye();
                return Ok(());
            }
            self.wait();
        }
    }

    fn step(&mut self) -> Result<(), LinkError> {
        while !self.left && self.listens() && self.take_local()? {}
        // Who does not take in what is here gets no more.
        if self.outlet.is_empty() && self.ended.is_none() {
            self.take_remote()?;
        }
        self.announce_ahead();
        let here = self.outlet.flush(&self.local);
        // What it has said before it went is still read.
        if !here {
            while !self.left && self.take_local()? {}
        }
        if self.ended.is_none() && !self.mute {
            self.mute = self.link.flush().is_err();
        }
        if !here || self.outlet.is_empty() {
            return self.ended.take().map_or(Ok(()), Err);
        }
        Ok(())
    }

    fn take_remote(&mut self) -> Result<(), LinkError> {
        let mut events = Vec::new();
        self.pages.held = self.held.len();
        self.ended = self.link.receive(&mut self.pages, &mut events).err();
        let figures = self.link.figures();
        for event in events {
            let taken = match event {
                FromPublisher::Packet(packet) => self.pass_on(packet, figures.clock),
                FromPublisher::Frame { epoch, mut frame, room } => {
                    times::times(&mut frame.times, figures.clock);
                    self.deliver(epoch, frame, room)
                }
            };
            // What came before the fault is still passed on.
            if let Err(fault) = taken {
                self.ended = Some(fault.into());
                break;
            }
        }
        self.tell_clock(figures.clock);
        self.meter.set(figures, self.held.len());
        self.end_batch();
        Ok(())
    }

    /// Whether the link takes what the subscriber says, or there is none to take it.
    fn listens(&self) -> bool {
        self.mute || self.ended.is_some() || !self.link.is_busy()
    }

    fn wait(&mut self) {
        let now = Instant::now();
        let blocked = !self.outlet.is_empty();
        // Who does not read the link cannot tell that it is dead.
        let until = if blocked || self.pages.is_making() { now + RETRY } else { self.link.next_look() };
        let listens = self.listens();
        let mut fds = vec![PollFd::new(
            self.local.as_fd(),
            if listens { PollFlags::POLLIN } else { PollFlags::empty() },
        )];
        if !blocked {
            fds.extend(self.link.poll_fds());
        }
        let left = until.saturating_duration_since(now).as_micros().div_ceil(1000).min(1000);
        let _ = poll(&mut fds, PollTimeout::from(left as u16));
        // What it said and cannot be passed on is not waited for.
        let gone = PollFlags::POLLHUP | PollFlags::POLLERR;
        self.left |= !listens && fds[0].revents().is_some_and(|revents| revents.intersects(gone));
    }

    /// Records for the subscriber, as they came.
    fn pass_on(&mut self, packet: Vec<u8>, estimate: Option<Estimate>) -> Result<(), PeerFault> {
        self.end_batch();
        let epoch = Packets::open(&packet)?.epoch();
        if *self.epoch.get_or_insert(epoch) != epoch {
            return Ok(()); // of an older life
        }
        let (packet, clock) = times::take_clock(packet)?;
        self.clock = clock.or(self.clock);
        if !packet.is_empty() {
            self.outlet.push(packet);
        }
        self.tell_clock(estimate);
        Ok(())
    }

    /// Says the publisher's clock as soon as it is known how it stands to ours.
    fn tell_clock(&mut self, estimate: Option<Estimate>) {
        let Some(estimate) = estimate else { return };
        if let Some(clock) = self.clock.take().and_then(|clock| times::clock(clock, estimate)) {
            self.end_batch();
            self.outlet.push(times::say(clock, self.epoch.unwrap_or(0)));
        }
    }

    /// A whole frame: its pages are announced if they are new.
    fn deliver(&mut self, epoch: u32, mut frame: Frame, room: Option<Room>) -> Result<(), PeerFault> {
        if *self.epoch.get_or_insert(epoch) != epoch {
            return Ok(()); // of an older life
        }
        let id = frame.id;
        if self.last.replace(id).is_some_and(|last| id <= last) {
            return Err(PeerFault::OutOfPlace("a frame whose number does not rise"));
        }
        if let Some(room) = &room {
            let buffer = room.part.buffer();
            self.announce(buffer);
            let mut offset = room.part.offset() as u64;
            for segment in &mut frame.segments {
                (segment.buffer, segment.offset) = (buffer.id().get(), offset);
                offset += segment.length;
            }
        }
        self.held.insert(id, room);
        self.push(&ToSubscriber::Frame(frame));
        Ok(())
    }

    /// Says one of the buffers that were made ahead, when the subscriber has taken in all others: few descriptors may be
    /// under way, and those of frames come first.
    fn announce_ahead(&mut self) {
        if !self.outlet.is_empty() || !self.outlet.all_seen() {
            return;
        }
        if let Some(buffer) = self.pages.fresh.pop().and_then(|buffer| buffer.upgrade()) {
            self.announce(&buffer);
        }
    }

    fn announce(&mut self, buffer: &Arc<Buffer>) {
        let id = buffer.id().get();
        if self.known.contains_key(&id) {
            return;
        }
        let gone: Vec<u64> =
            self.known.iter().filter(|(_, b)| b.strong_count() == 0).map(|(id, _)| *id).collect();
        for id in gone {
            self.known.remove(&id);
            self.push(&ToSubscriber::Retire(id));
        }
        self.end_batch();
        self.known.insert(id, Arc::downgrade(buffer));
        let size = buffer.size() as u64;
        let announce = ToSubscriber::Announce(Announce { buffer: id, size, face: Face::Memory });
        self.push(&announce);
        let bytes = self.batch.bytes(self.epoch.unwrap_or(0));
        self.batch.clear();
        self.outlet.push_announce(bytes, buffer.clone());
    }

    fn push(&mut self, message: &ToSubscriber) {
        let mut record = Vec::with_capacity(256);
        message.encode(&mut record);
        if !self.batch.fits(record.len()) {
            self.end_batch();
        }
        self.batch.push(&record);
    }

    fn end_batch(&mut self) {
        if !self.batch.is_empty() {
            self.outlet.push(self.batch.bytes(self.epoch.unwrap_or(0)));
            self.batch.clear();
        }
    }

    /// Passes on one packet of the subscriber; `false` if there is none now.
    fn take_local(&mut self) -> Result<bool, LinkError> {
        let length = match receive(&self.local, &mut self.bytes) {
            Ok(length) => length,
            Err(ReceiveError::Empty) => return Ok(false),
            Err(_) => {
                self.left = true;
                return Ok(false);
            }
        };
        let mut packets = Packets::open(&self.bytes[..length])?;
        let epoch = packets.epoch();
        while let Some(record) = packets.next_record()? {
            let message = match ToPublisher::decode(record)? {
                ToPublisher::Seen(buffers) => {
                    self.outlet.saw(buffers);
                    continue;
                }
                ToPublisher::Return(mut frames) => {
                    // Their pages are free before the publisher knows.
                    frames.retain(|frame| self.held.remove(frame).is_some());
                    ToPublisher::Return(frames)
                }
                ToPublisher::Hello(hello) => {
                    self.pages.window = Window::new(hello.credits).frames();
                    ToPublisher::Hello(hello)
                }
                ToPublisher::Bye => {
                    self.left = true;
                    ToPublisher::Bye
                }
                message => message,
            };
            if !self.mute && self.ended.is_none() {
                self.link.send_packet(&packet(epoch, &message));
            }
        }
        Ok(true)
    }

    /// Sees to it, for a limited time, that what was said arrives.
    fn say_good_bye(&mut self) {
        let deadline = Instant::now() + LINGER;
        while !self.link.finish() && self.link.flush().is_ok() && Instant::now() < deadline {
            // It is not read any more: only what is sent counts.
            let mut fds = self.link.poll_fds().into_iter().collect::<Vec<_>>();
            fds.iter_mut().for_each(|fd| fd.set_events(PollFlags::POLLOUT));
            let _ = poll(&mut fds, PollTimeout::from(20_u8));
        }
    }
}
