//! The publisher's bridge: a subscriber of its own process that passes everything on.
//!
//! It holds few frames, each only until its last byte has left. What the remote subscriber holds is counted by a
//! window of its own; while that is closed nothing is read from the publisher, whose policy then decides.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::{Arc, Weak};
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use pagecast_ipc::socket::{ReceiveError, Seqpacket};
use pagecast_ipc::wire::limits::{MAX_PACKET, MAX_RETURNS};
use pagecast_ipc::wire::{
    FaceSet, Frame, Hello, PacketBuilder, Packets, Record, RefusalCode, ToPublisher, ToSubscriber, WireError,
    Writer,
};
use pagecast_remote::limits::{LAST_WORDS, LINGER, MAX_FRAME_BYTES, SMALL};
use pagecast_remote::window::Window;
use pagecast_remote::{FromSubscriber, LinkError, Part, Payload, PeerFault, Sender};

use super::outlet::{Outlet, RETRY, receive};
use super::staging::Staging;
use super::{Meter, Origin};
use crate::publisher::{Published, Shared};

/// Requests that wait to be passed to the publisher; more are dropped.
const MAX_REQUESTS: usize = 64;

/// What came from the publisher and waits for the window.
#[expect(clippy::large_enum_variant, reason = "most are frames; a box would be an allocation each")]
enum Item {
    Frame(Frame),
    Packet(Vec<u8>),
}

pub(super) struct Egress {
    link: Box<dyn Sender>,
    local: Seqpacket,
    shared: Weak<Shared>,
    window: Window,
    meter: Meter,
    epoch: u32,
    /// The subscriber's number, once it is let in.
    number: Option<u64>,
    backlog: VecDeque<Item>,
    outlet: Outlet,
    returns: Vec<u64>,
    /// Pages for frames whose own the link cannot read.
    staging: Staging,
    /// Whether a frame was too large.
    left_out: bool,
    /// Whether the link was given a small frame that it has not been told to send.
    small: bool,
    /// Whether the publisher has ended its side.
    hung_up: bool,
    /// Whether everything was read that it had said before.
    ended: bool,
    bytes: Vec<u8>,
}

/// The hello that a link's first packet must hold, alone.
///
/// # Errors
/// [`PeerFault`].
pub(super) fn hello(packet: &[u8]) -> Result<Hello, PeerFault> {
    let mut packets = Packets::open(packet)?;
    let first = packets.next_record()?.ok_or(PeerFault::OutOfPlace("an empty packet"))?;
    match (ToPublisher::decode(first)?, packets.next_record()?) {
        (ToPublisher::Hello(hello), None) => Ok(hello),
        _ => Err(PeerFault::OutOfPlace("something else than a hello")),
    }
}

impl Egress {
    /// A bridge for a subscriber that said `hello`; the publisher adopts its other end.
    pub(super) fn new(
        link: Box<dyn Sender>,
        mut hello: Hello,
        shared: &Arc<Shared>,
        origin: Origin,
    ) -> Option<Self> {
        let (local, publishers) = Seqpacket::pair().ok()?;
        let window = Window::new(hello.credits);
        hello.credits = Some(window.frames());
        hello.faces = FaceSet::MEMORY;
        let mut outlet = Outlet::default();
        outlet.push(packet(0, &ToPublisher::Hello(hello)));
        let meter = origin.meter.clone();
        meter.grant(window.frames());
        shared.adopt(publishers, origin);
        Some(Self {
            link,
            local,
            shared: Arc::downgrade(shared),
            window,
            meter,
            epoch: 0,
            number: None,
            backlog: VecDeque::new(),
            outlet,
            returns: Vec::new(),
            staging: Staging::default(),
            left_out: false,
            small: false,
            hung_up: false,
            ended: false,
            bytes: vec![0; MAX_PACKET],
        })
    }

    /// Runs until one of the two sides ends.
    pub(super) fn run(mut self) -> Result<(), LinkError> {
        loop {
            let step = self.step();
            self.meter.set(self.link.figures(), self.window.held());
            if let Err(error) = step {
                if let LinkError::Peer(fault) = &error {
                    self.cut_off(fault);
                }
                return Err(error);
            }
            if self.ended {
                self.say_good_bye();
                return Ok(());
            }
            self.wait();
        }
    }

    fn step(&mut self) -> Result<(), LinkError> {
        let mut said = Vec::new();
        let received = self.link.receive(&mut said);
        for FromSubscriber::Packet(packet) in said {
            self.take_upstream(&packet)?;
        }
        received?;
        loop {
            let moved = self.pass_on();
            // Small frames that are here already leave together.
            if self.small && self.wants_more() && self.take_local()? {
                continue;
            }
            self.small = false;
            let was_busy = self.link.is_busy();
            self.link.flush(&mut self.returns)?;
            self.give_back();
            self.hung_up |= !self.outlet.flush(&self.local);
            // What has left made room, and nobody will say so.
            if (moved || was_busy) && !self.backlog.is_empty() && !self.link.is_busy() {
                continue;
            }
            if !self.wants_more() || !self.take_local()? {
                return Ok(());
            }
        }
    }

    /// Whether the publisher may say more.
    fn wants_more(&self) -> bool {
        !self.ended && (self.hung_up || (self.backlog.is_empty() && !self.link.is_busy()))
    }

    fn wait(&mut self) {
        let now = Instant::now();
        let mut until = self.link.next_look();
        if !self.outlet.is_empty() {
            until = until.min(now + RETRY);
        }
        let listen = if self.wants_more() { PollFlags::POLLIN } else { PollFlags::empty() };
        let mut fds = self.link.poll_fds().into_iter().collect::<Vec<_>>();
        fds.push(PollFd::new(self.local.as_fd(), listen));
        let left = until.saturating_duration_since(now).as_micros().div_ceil(1000).min(1000);
        let _ = poll(&mut fds, PollTimeout::from(left as u16));
        let ended = PollFlags::POLLHUP | PollFlags::POLLERR;
        let local = fds.last().and_then(PollFd::revents).unwrap_or(PollFlags::empty());
        self.hung_up |= local.intersects(ended);
    }

    /// Reads one packet of the publisher; `false` if there is none now.
    fn take_local(&mut self) -> Result<bool, LinkError> {
        let mut bytes = std::mem::take(&mut self.bytes);
        let received = receive(&self.local, &mut bytes);
        let taken = match received {
            Ok(length) => self.take_packet(&bytes[..length]).map(|()| true),
            Err(ReceiveError::Empty) => Ok(false),
            Err(_) => {
                self.ended = true;
                Ok(false)
            }
        };
        self.bytes = bytes;
        Ok(taken?)
    }

    /// Cuts a packet into frames and what stands between them.
    fn take_packet(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        let mut packets = Packets::open(bytes)?;
        self.epoch = packets.epoch();
        let mut between = PacketBuilder::default();
        while let Some(record) = packets.next_record()? {
            match ToSubscriber::decode(record)? {
                ToSubscriber::Frame(frame) => {
                    self.keep(&mut between);
                    // What the publisher has taken back cannot be sent.
                    if !self.hung_up {
                        self.backlog.push_back(Item::Frame(frame));
                    }
                }
                ToSubscriber::Welcome(mut welcome) => {
                    self.number = Some(welcome.subscriber);
                    if welcome.credits > 0 {
                        welcome.credits = self.window.frames();
                    }
                    between.push(&encoded(&ToSubscriber::Welcome(welcome)));
                }
                // Buffers are found in this process, and the other end has its own.
                ToSubscriber::Announce(_) | ToSubscriber::Retire(_) => {}
                _ => between.push(&raw(record)),
            }
        }
        self.keep(&mut between);
        Ok(())
    }

    fn keep(&mut self, between: &mut PacketBuilder) {
        if !between.is_empty() {
            self.backlog.push_back(Item::Packet(between.bytes(self.epoch)));
            between.clear();
        }
    }

    /// Gives the link what waits, as far as it and the window take it; whether it took something.
    fn pass_on(&mut self) -> bool {
        let before = self.backlog.len();
        self.pass_on_all();
        self.backlog.len() < before
    }

    fn pass_on_all(&mut self) {
        if self.hung_up {
            self.backlog.retain(|item| matches!(item, Item::Packet(_)));
        }
        while let Some(item) = self.backlog.front() {
            let takes = match item {
                Item::Frame(frame) => self.window.has_room(frame.size()) && !self.link.is_busy(),
                Item::Packet(_) => self.ended || !self.link.is_busy(),
            };
            if !takes {
                return;
            }
            match self.backlog.pop_front() {
                Some(Item::Packet(packet)) => self.link.send_packet(&packet),
                Some(Item::Frame(frame)) => self.send_frame(frame),
                None => return,
            }
        }
    }

    fn send_frame(&mut self, mut frame: Frame) {
        let Some(published) = self.shared.upgrade().and_then(|shared| shared.published(frame.id)) else {
            return; // taken back: the end of the link is on its way
        };
        if frame.size() > MAX_FRAME_BYTES {
            self.leave_out(&frame);
            return;
        }
        let Some(payload) = self.payload(&published) else { return self.returns.push(frame.id) };
        // Where the bytes lie here is nobody's business there.
        for segment in &mut frame.segments {
            (segment.buffer, segment.offset) = (0, 0);
        }
        self.window.sent(frame.id, frame.size());
        self.small = frame.size() <= SMALL;
        let (id, message) = (frame.id, ToSubscriber::Frame(frame));
        let mut packet = PacketBuilder::default();
        packet.push(&encoded(&message));
        self.link.send_frame(id, &packet.bytes(self.epoch), payload);
    }

    /// Where the link finds the frame's bytes; nowhere, if they cannot be had.
    fn payload(&mut self, published: &Arc<Published>) -> Option<Payload> {
        let frame = &published.frame;
        if !frame.segments().iter().all(|segment| self.link.reaches(&segment.buffer)) {
            return self.copied(frame);
        }
        let parts = frame.segments().iter();
        let parts = parts.filter_map(|s| Part::new(s.buffer.clone(), s.offset, s.length)).collect();
        // A frame that came over a link is somebody else's, who may take it back.
        let still_valid = frame.is_received().then(|| {
            let published = published.clone();
            Box::new(move || published.frame.is_still_valid()) as Box<dyn Fn() -> bool + Send>
        });
        Some(Payload { parts, hold: Box::new(published.clone()), still_valid })
    }

    /// The same bytes in pages that the link can read.
    fn copied(&mut self, frame: &crate::Frame) -> Option<Payload> {
        match self.staging.copy(frame) {
            Ok(lease) => {
                self.meter.count_copied();
                let parts = Part::new(lease.buffer().clone(), 0, frame.size()).into_iter().collect();
                Some(Payload { parts, hold: Box::new(lease), still_valid: None })
            }
            Err(error) => {
                tracing::warn!(%error, "a frame could not be copied for another host, which misses it");
                None
            }
        }
    }

    /// A frame too large for any link is the publisher's again; that is said once.
    fn leave_out(&mut self, frame: &Frame) {
        self.returns.push(frame.id);
        if !std::mem::replace(&mut self.left_out, true) {
            let (size, limit) = (frame.size(), MAX_FRAME_BYTES);
            tracing::warn!(size, limit, "frames are too large for links to other hosts, which miss them");
        }
    }

    /// Frames that have left are the publisher's again.
    fn give_back(&mut self) {
        for some in self.returns.chunks(MAX_RETURNS) {
            self.outlet.push(packet(self.epoch, &ToPublisher::Return(some.to_vec())));
        }
        self.returns.clear();
    }

    fn take_upstream(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        let mut packets = Packets::open(bytes)?;
        if packets.epoch() != self.epoch {
            return Ok(()); // of an older life
        }
        while let Some(record) = packets.next_record()? {
            match ToPublisher::decode(record)? {
                ToPublisher::Return(frames) => {
                    frames.into_iter().try_for_each(|frame| self.window.returned(frame))?;
                }
                ToPublisher::Hello(_) => return Err(PeerFault::OutOfPlace("a second hello").into()),
                ToPublisher::Seen(_) => return Err(PeerFault::OutOfPlace("a buffer on a remote link").into()),
                // Who asks faster than it is answered is not read for that.
                message if self.outlet.len() < MAX_REQUESTS => {
                    self.outlet.push(packet(self.epoch, &message));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The other end broke the protocol: the publisher is told, and so is it.
    fn cut_off(&mut self, fault: &PeerFault) {
        let text = fault.to_string();
        self.link.send_packet(&refusal(RefusalCode::Fault, text.clone(), self.epoch));
        if let (Some(shared), Some(number)) = (self.shared.upgrade(), self.number) {
            shared.cut_off(number, text);
        }
        self.say_good_bye();
    }

    /// Sees to it, for a limited time, that what was sent arrives: a connection that is closed while the other
    /// end still speaks loses what is under way.
    fn say_good_bye(&mut self) {
        self.pass_on();
        let last = Instant::now() + LAST_WORDS;
        let (mut unsent, mut deadline) = (u64::MAX, Instant::now());
        loop {
            self.link.finish();
            let mut ignored = Vec::new();
            if self.link.flush(&mut self.returns).is_err() || self.link.receive(&mut ignored).is_err() {
                return;
            }
            // A slow network may have much under way.
            let now = Instant::now();
            let left = self.link.unsent();
            if left < unsent {
                (unsent, deadline) = (left, now + LINGER);
            }
            let left = deadline.min(last).saturating_duration_since(now).min(LINGER / 10);
            if left.is_zero() {
                return;
            }
            let mut fds = self.link.poll_fds().into_iter().collect::<Vec<_>>();
            let _ = poll(&mut fds, PollTimeout::from(left.as_millis() as u16));
        }
    }
}

/// A packet that ends a link.
pub(super) fn refusal(code: RefusalCode, text: String, epoch: u32) -> Vec<u8> {
    let mut packet = PacketBuilder::default();
    packet.push(&encoded(&ToSubscriber::Refused(code, text)));
    packet.bytes(epoch)
}

pub(super) fn encoded(message: &ToSubscriber) -> Vec<u8> {
    let mut record = Vec::with_capacity(256);
    message.encode(&mut record);
    record
}

/// A packet of one message.
pub(super) fn packet(epoch: u32, message: &ToPublisher) -> Vec<u8> {
    let mut record = Vec::with_capacity(64);
    message.encode(&mut record);
    let mut packet = PacketBuilder::default();
    packet.push(&record);
    packet.bytes(epoch)
}

/// A record as it came.
pub(super) fn raw(record: Record<'_>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8 + record.body.len());
    bytes.put_u16(record.kind);
    bytes.put_u16(0);
    bytes.put_blob(record.body);
    bytes
}
