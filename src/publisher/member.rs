//! The publisher's end of one Unix link: what this subscriber has been told, and how it is told more.

use std::collections::HashSet;
use std::io::IoSlice;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Instant;

use pagecast_allocators::{Buffer, FaceKind};
use pagecast_ipc::socket::{PeerCredentials, SendError, Seqpacket};
use pagecast_ipc::wire::{
    Announce, Clock, Face, FaceSet, Hello, PacketBuilder, Packets, ToPublisher, ToSubscriber, WireError,
};

use super::core::{Outgoing, Published};
use crate::frame::{Progress, Segment};
use crate::remote::Origin;
use crate::stream::Stream;

/// Descriptors sent with one packet.
const FDS_PER_PACKET: usize = 16;

/// A subscriber's link and what has gone over it.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) socket: Arc<Seqpacket>,
    pub(super) peer: Arc<PeerCredentials>,
    pub(super) name: String,
    pub(super) credits_asked: Option<u32>,
    pub(super) faces: FaceSet,
    /// Where it is, if a bridge to another host serves it: that finds buffers in this process.
    pub(super) origin: Option<Origin>,
    pub(super) connected: Instant,
    pub(super) bytes: u64,
    /// Whether the service thread is woken by what it sends.
    pub(super) watched: bool,
    epoch: u32,
    most_unseen: u64,
    known: HashSet<u64>,
    announced: u64,
    seen: u64,
    stream: Option<Arc<Stream>>,
    clock: u64,
    /// Control messages on their way out.
    packet: PacketBuilder,
    record: Vec<u8>,
    /// Frames and events on their way out.
    batch: PacketBuilder,
    batch_bytes: u64,
    /// When the last batch went out.
    pub(super) last_sent: Instant,
    /// Whether small frames wait for company.
    pub(super) delayed: bool,
    /// Whether a frame waits for a device, which this subscriber cannot do itself.
    pub(super) fenced: bool,
}

/// What stands in the way of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// Nothing can be sent now; later.
    Later,
    /// The subscriber is gone.
    Gone,
    /// No face of a buffer is for this subscriber.
    NoFace,
    /// The device that fills the frame took too long.
    Late,
}

impl From<SendError> for Obstacle {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Full | SendError::TooManyInFlight => Obstacle::Later,
            _ => Obstacle::Gone,
        }
    }
}

impl Member {
    pub(super) fn new(
        socket: Seqpacket,
        peer: PeerCredentials,
        origin: Option<Origin>,
        hello: &Hello,
        faces: FaceSet,
        epoch: u32,
        most_unseen: u64,
    ) -> Self {
        Self {
            socket: Arc::new(socket),
            peer: Arc::new(peer),
            name: hello.name.clone(),
            credits_asked: hello.credits,
            faces,
            origin,
            connected: Instant::now(),
            bytes: 0,
            watched: false,
            epoch,
            most_unseen,
            known: HashSet::new(),
            announced: 0,
            seen: 0,
            stream: None,
            clock: 0,
            packet: PacketBuilder::default(),
            record: Vec::new(),
            batch: PacketBuilder::default(),
            batch_bytes: 0,
            last_sent: Instant::now(),
            delayed: false,
            fenced: false,
        }
    }

    /// Makes ready for a frame or event: sends whatever it needs to be understood. `false` if something
    /// stands in the batch that must go before it.
    pub(super) fn make_ready(
        &mut self,
        outgoing: &Outgoing<'_>,
        clock: Option<(u64, Clock)>,
    ) -> Result<bool, Obstacle> {
        match outgoing.frame.map(|published| self.progress(published)) {
            Some(Progress::Late) => return Err(Obstacle::Late),
            Some(Progress::Pending) if !self.batch.is_empty() => return Ok(false),
            Some(Progress::Pending) => {
                self.fenced = true;
                return Err(Obstacle::Later);
            }
            _ => {}
        }
        let fits = self.batch.fits(outgoing.record.len());
        let up_to_date = self.knows(outgoing.stream, clock);
        let announced = outgoing.frame.is_none_or(|published| self.knows_buffers(published));
        if fits && up_to_date && announced {
            return Ok(true);
        }
        if !self.batch.is_empty() {
            return Ok(false);
        }
        self.prepare(outgoing.stream, clock)?;
        if let Some(published) = outgoing.frame {
            self.announce(published)?;
        }
        Ok(true)
    }

    /// Appends a frame or event to the batch; see [`Member::make_ready`] and [`Member::send_batch`].
    pub(super) fn append(&mut self, outgoing: &Outgoing<'_>) {
        self.batch.push(outgoing.record);
        self.batch_bytes += outgoing.frame.map_or(0, |published| published.frame.size() as u64);
    }

    /// Sends the batch, which is empty afterwards in any case.
    pub(super) fn send_batch(&mut self) -> Result<(), Obstacle> {
        let bytes = std::mem::take(&mut self.batch_bytes);
        if self.batch.is_empty() {
            return Ok(());
        }
        let header = self.batch.header(self.epoch);
        let parts = [IoSlice::new(&header), IoSlice::new(self.batch.body())];
        let sent = self.socket.send_vectored(&parts, &[]);
        self.batch.clear();
        sent?;
        self.bytes += bytes;
        self.last_sent = Instant::now();
        Ok(())
    }

    /// Empties the batch unsent.
    pub(super) fn forget_batch(&mut self) {
        self.batch.clear();
        self.batch_bytes = 0;
    }

    /// How far the frame is for this subscriber: who has its dma-bufs can wait for devices itself.
    fn progress(&self, published: &Published) -> Progress {
        let by_itself = |segment: &Segment| {
            let face = face_for(&segment.buffer, self.faces);
            matches!(face, Some((Face::DmaBuf, _)))
        };
        match published.frame.progress() {
            Progress::Done => Progress::Done,
            _ if self.origin.is_none()
                && published.frame.fences_travel()
                && published.frame.segments().iter().all(by_itself) =>
            {
                Progress::Done
            }
            waiting => waiting,
        }
    }

    fn knows(&self, stream: &Arc<Stream>, clock: Option<(u64, Clock)>) -> bool {
        self.knows_stream(stream) && clock.is_none_or(|(serial, _)| serial == self.clock)
    }

    /// Whether it was told all values of the stream at this point.
    pub(super) fn knows_stream(&self, stream: &Arc<Stream>) -> bool {
        self.stream.as_ref().is_some_and(|known| Arc::ptr_eq(known, stream))
    }

    fn knows_buffers(&self, published: &Published) -> bool {
        published.frame.segments().iter().all(|segment| self.known.contains(&segment.buffer.id().get()))
    }

    /// Brings the subscriber up to this point of the stream: sticky values and the clock.
    pub(super) fn prepare(
        &mut self,
        stream: &Arc<Stream>,
        clock: Option<(u64, Clock)>,
    ) -> Result<(), Obstacle> {
        if !self.knows_stream(stream) {
            self.tell_stream(stream)?;
        }
        if let Some((serial, clock)) = clock
            && serial != self.clock
        {
            self.push(&ToSubscriber::Clock(clock), &[])?;
            self.flush(&[])?;
            self.clock = serial;
        }
        Ok(())
    }

    /// Tells the values that it does not know. They may be more than a socket takes at once: what it took is known.
    fn tell_stream(&mut self, stream: &Arc<Stream>) -> Result<(), Obstacle> {
        let known = self.stream.clone().unwrap_or_default();
        let changed: Vec<_> = stream.changed_since(Some(&known)).cloned().collect();
        let mut rest = changed.as_slice();
        while !rest.is_empty() {
            let mut taken = 0;
            for sticky in rest {
                self.record.clear();
                ToSubscriber::Sticky((**sticky).clone()).encode(&mut self.record);
                if taken > 0 && !self.packet.fits(self.record.len()) {
                    break;
                }
                self.packet.push(&self.record);
                taken += 1;
            }
            if let Err(obstacle) = self.flush(&[]) {
                let mut known = Stream::clone(&known);
                changed[..changed.len() - rest.len()].iter().for_each(|sticky| known.set(sticky.clone()));
                self.stream = Some(Arc::new(known));
                return Err(obstacle);
            }
            rest = &rest[taken..];
        }
        self.stream = Some(stream.clone());
        Ok(())
    }

    /// Announces the frame's buffers that this subscriber does not know, with their descriptors.
    fn announce(&mut self, published: &Published) -> Result<(), Obstacle> {
        if self.knows_buffers(published) {
            return Ok(());
        }
        if self.origin.is_some() {
            self.known.extend(published.frame.segments().iter().map(|segment| segment.buffer.id().get()));
            return Ok(());
        }
        let segments = published.frame.segments();
        let mut new: Vec<&Arc<Buffer>> = Vec::new();
        for segment in segments {
            let id = segment.buffer.id();
            if !self.known.contains(&id.get()) && !new.iter().any(|buffer| buffer.id() == id) {
                new.push(&segment.buffer);
            }
        }
        // All of them or none: what was begun would go out with whatever is said next.
        let faces: Option<Vec<_>> = new.iter().map(|buffer| face_for(buffer, self.faces)).collect();
        let new: Vec<_> = new.into_iter().zip(faces.ok_or(Obstacle::NoFace)?).collect();
        // A frame of many new buffers goes when nothing else is under way.
        let unseen = self.announced - self.seen;
        if unseen > 0 && unseen + new.len() as u64 > self.most_unseen {
            return Err(Obstacle::Later);
        }
        for some in new.chunks(FDS_PER_PACKET) {
            let mut fds: Vec<BorrowedFd<'_>> = Vec::with_capacity(some.len());
            for (buffer, (face, fd)) in some.iter().copied() {
                if face == Face::DmaBuf {
                    buffer.mark_in_devices();
                }
                let (buffer, size) = (buffer.id().get(), buffer.size() as u64);
                self.push(&ToSubscriber::Announce(Announce { buffer, size, face }), &[])?;
                fds.push(fd);
            }
            self.flush(&fds)?;
            self.announced += some.len() as u64;
            self.known.extend(some.iter().map(|(buffer, _)| buffer.id().get()));
        }
        Ok(())
    }

    /// Tells of buffers that no frame will refer to any more. Those that cannot be told now are told later.
    pub(super) fn retire(&mut self, is_gone: impl Fn(u64) -> bool) -> Result<(), Obstacle> {
        let gone: Vec<u64> = self.known.iter().copied().filter(|buffer| is_gone(*buffer)).collect();
        if self.origin.is_some() {
            self.known.retain(|buffer| !gone.contains(buffer));
            return Ok(());
        }
        for buffer in gone {
            self.push(&ToSubscriber::Retire(buffer), &[])?;
            self.flush(&[])?;
            self.known.remove(&buffer);
        }
        Ok(())
    }

    /// The buffers it knows.
    pub(super) fn known(&self) -> usize {
        self.known.len()
    }

    /// Sends one message by itself.
    pub(super) fn tell(&mut self, message: &ToSubscriber) -> Result<(), Obstacle> {
        self.push(message, &[])?;
        self.flush(&[])
    }

    fn push(&mut self, message: &ToSubscriber, fds: &[BorrowedFd<'_>]) -> Result<(), Obstacle> {
        self.record.clear();
        message.encode(&mut self.record);
        if !self.packet.fits(self.record.len()) {
            self.flush(fds)?;
        }
        self.packet.push(&self.record);
        Ok(())
    }

    fn flush(&mut self, fds: &[BorrowedFd<'_>]) -> Result<(), Obstacle> {
        if self.packet.is_empty() {
            return Ok(());
        }
        let header = self.packet.header(self.epoch);
        let parts = [IoSlice::new(&header), IoSlice::new(self.packet.body())];
        let sent = self.socket.send_vectored(&parts, fds);
        self.packet.clear();
        Ok(sent?)
    }

    /// The messages of one packet, with what they say of announced buffers taken note of.
    ///
    /// # Errors
    /// [`WireError`]: cut it off.
    pub(super) fn open(&mut self, bytes: &[u8]) -> Result<Vec<ToPublisher>, WireError> {
        let mut packets = Packets::open(bytes)?;
        let mut messages = Vec::with_capacity(1);
        if packets.epoch() != self.epoch {
            return Ok(messages);
        }
        while let Some(record) = packets.next_record()? {
            match ToPublisher::decode(record)? {
                ToPublisher::Seen(seen) if seen < self.seen || seen > self.announced => {
                    return Err(WireError::Invalid { field: "buffers seen", value: seen });
                }
                ToPublisher::Seen(seen) => self.seen = seen,
                ToPublisher::Hello(_) => {
                    return Err(WireError::Invalid { field: "a second hello", value: 0 });
                }
                message => messages.push(message),
            }
        }
        Ok(messages)
    }
}

/// The face of a buffer that goes to a subscriber which may have `faces`.
fn face_for(buffer: &Buffer, faces: FaceSet) -> Option<(Face, BorrowedFd<'_>)> {
    let memory = faces.contains(FaceSet::MEMORY).then(|| buffer.face(FaceKind::Memory)).flatten();
    let dma_buf = faces.contains(FaceSet::DMA_BUF).then(|| buffer.face(FaceKind::DmaBuf)).flatten();
    match (memory, dma_buf) {
        // Who asks for dma-bufs imports them; others get the face that they cannot write.
        (_, Some(face)) => Some((Face::DmaBuf, face.fd)),
        (Some(face), None) => Some((Face::Memory, face.fd)),
        (None, None) => None,
    }
}
