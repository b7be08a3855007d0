//! One life of a link, from the subscriber's side: what comes in is checked and becomes frames.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use arrayvec::ArrayVec;
use pagecast_allocators::{Buffer, receive};
use pagecast_ipc::socket::{ReceiveError, Seqpacket};
use pagecast_ipc::wire::limits::{MAX_BUFFERS, MAX_PACKET, MAX_STICKIES};
use pagecast_ipc::wire::{self, Announce, Face, Packets, RefusalCode, ToSubscriber};

use super::link::{Ending, Hold, LinkState};
use super::{Message, RecvError};
use crate::frame::{Description, Frame, Segment};
use crate::stream::Stream;

/// Packets read before the caller's time and wishes are looked at again.
const MAX_PACKETS_IN_A_ROW: usize = 1024;
/// Messages among which the newest frame is looked for.
const MAX_INBOX: usize = 1024;

/// What a publisher did that it must not.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublisherFault {
    /// Bytes that mean nothing.
    #[error(transparent)]
    Wire(#[from] wire::WireError),
    /// A buffer that cannot be what it was announced as.
    #[error("buffer {buffer}: {source}")]
    Buffer {
        /// Its number.
        buffer: u64,
        /// What is wrong.
        source: pagecast_allocators::ImportError,
    },
    /// A buffer without descriptor, or a descriptor without buffer.
    #[error("{announced} buffers were announced with {descriptors} descriptors")]
    Descriptors {
        /// Records.
        announced: usize,
        /// Descriptors.
        descriptors: usize,
    },
    /// A frame that refers to what was not announced, or reaches past it.
    #[error("frame {frame} refers to bytes that are not in an announced buffer")]
    Segment {
        /// Its number.
        frame: u64,
    },
    /// A frame that comes twice, or after a later one.
    #[error("frame {frame} came after frame {after}: numbers must rise")]
    Number {
        /// Its number.
        frame: u64,
        /// That of the frame before it.
        after: u64,
    },
    /// More of something than the protocol allows.
    #[error("more than {limit} {what}")]
    TooMany {
        /// What.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
    /// A message that has no place here.
    #[error("{0} is out of place")]
    OutOfPlace(&'static str),
}

/// A connection on which the publisher has said welcome.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) link: Arc<LinkState>,
    buffers: HashMap<u64, Arc<Buffer>>,
    taken_in: u64,
    /// The last frame's number.
    last: Option<u64>,
    stream: Arc<Stream>,
    inbox: VecDeque<Message>,
    /// Why nothing more is read, told when the inbox is empty.
    ended: Option<RecvError>,
    info: Vec<u8>,
    packet: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl Connection {
    /// `own_pages`: the frames are copies that nobody can take back.
    pub(super) fn new(socket: Seqpacket, epoch: u32, credits: u32, own_pages: bool) -> Self {
        let link = Arc::new(LinkState::new(socket, epoch, credits, own_pages));
        Self {
            link,
            buffers: HashMap::new(),
            taken_in: 0,
            last: None,
            stream: Arc::default(),
            inbox: VecDeque::new(),
            ended: None,
            info: Vec::new(),
            packet: vec![0; MAX_PACKET],
            fds: Vec::new(),
        }
    }

    /// Whether nothing is here that was read already.
    pub(super) fn is_idle(&self) -> bool {
        self.inbox.is_empty() && self.ended.is_none() && !self.link.has_backlog()
    }

    pub(super) fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// The next message that is here already, reading one packet if need be.
    pub(super) fn next(&mut self) -> Result<Option<Message>, RecvError> {
        for _ in 0..MAX_PACKETS_IN_A_ROW {
            if let Some(message) = self.inbox.pop_front() {
                return Ok(Some(message));
            }
            if !self.read_packet()? {
                break;
            }
        }
        Ok(self.inbox.pop_front())
    }

    /// As [`Connection::next`], but of the frames that are here only the newest is returned.
    pub(super) fn next_latest(&mut self) -> Result<Option<Message>, RecvError> {
        for _ in 0..MAX_PACKETS_IN_A_ROW {
            if self.inbox.len() >= MAX_INBOX || !self.read_packet()? {
                break;
            }
        }
        let frames = self.inbox.iter().filter(|message| matches!(message, Message::Frame(_))).count();
        let mut stale = frames.saturating_sub(1);
        self.inbox.retain(|message| {
            let drop = stale > 0 && matches!(message, Message::Frame(_));
            stale -= usize::from(drop);
            !drop
        });
        Ok(self.inbox.pop_front())
    }

    /// Takes one packet into the inbox; `false` if there is none now. What came before the end is not lost.
    fn read_packet(&mut self) -> Result<bool, RecvError> {
        if self.ended.is_none() {
            match self.read_one() {
                Ok(read) => return Ok(read),
                Err(error) => self.ended = Some(error),
            }
        }
        match self.inbox.is_empty() {
            true => Err(self.ended.take().unwrap_or(RecvError::Closed)),
            false => Ok(false),
        }
    }

    fn read_one(&mut self) -> Result<bool, RecvError> {
        self.fds.clear();
        let len = match self.link.receive(&mut self.packet, &mut self.fds) {
            Ok(len) => len,
            Err(ReceiveError::Empty) => return Ok(false),
            Err(ReceiveError::Closed) => return Err(RecvError::Closed),
            Err(error) => return Err(RecvError::Socket(error)),
        };
        let packet = std::mem::take(&mut self.packet);
        let taken = self.take_packet(&packet[..len]);
        self.packet = packet;
        taken.map(|()| true)
    }

    fn take_packet(&mut self, bytes: &[u8]) -> Result<(), RecvError> {
        let mut packets = Packets::open(bytes).map_err(PublisherFault::from)?;
        if packets.epoch() != self.link.epoch() {
            return Ok(()); // of an older life
        }
        let descriptors = self.fds.len();
        let mut fds = std::mem::take(&mut self.fds).into_iter();
        let mut announced = 0;
        while let Some(record) = packets.next_record().map_err(PublisherFault::from)? {
            let message = ToSubscriber::decode(record).map_err(PublisherFault::from)?;
            if let ToSubscriber::Announce(announce) = message {
                announced += 1;
                let fd = fds.next().ok_or(PublisherFault::Descriptors { announced, descriptors })?;
                self.announce(announce, fd)?;
            } else {
                self.take(message)?;
            }
        }
        if announced != descriptors {
            return Err(PublisherFault::Descriptors { announced, descriptors }.into());
        }
        Ok(())
    }

    fn announce(&mut self, announce: Announce, fd: OwnedFd) -> Result<(), RecvError> {
        let Announce { buffer, size, face } = announce;
        if self.buffers.len() >= MAX_BUFFERS {
            return Err(PublisherFault::TooMany { what: "buffers", limit: MAX_BUFFERS }.into());
        }
        let received = match face {
            Face::DmaBuf => receive::dma_buf(fd, size),
            _ => receive::memory(fd, size),
        };
        let received = received.map_err(|source| PublisherFault::Buffer { buffer, source })?;
        if self.buffers.insert(buffer, Arc::new(received)).is_some() {
            return Err(PublisherFault::OutOfPlace("a buffer announced twice").into());
        }
        self.taken_in += 1;
        self.link.saw(self.taken_in);
        Ok(())
    }

    fn take(&mut self, message: ToSubscriber) -> Result<(), RecvError> {
        match message {
            ToSubscriber::Frame(frame) => {
                if let Some(after) = self.last.replace(frame.id).filter(|last| frame.id <= *last) {
                    return Err(PublisherFault::Number { frame: frame.id, after }.into());
                }
                let frame = self.frame(frame)?;
                self.inbox.push_back(Message::Frame(frame));
            }
            ToSubscriber::Sticky(sticky) => {
                if let Some(stream) = self.stream.with(&sticky.name, &sticky.data) {
                    self.stream = Arc::new(stream);
                }
                if self.stream.len() > MAX_STICKIES {
                    let what = "sticky values";
                    return Err(PublisherFault::TooMany { what, limit: MAX_STICKIES }.into());
                }
                self.inbox.push_back(Message::Sticky(sticky));
            }
            ToSubscriber::Event(event) => self.inbox.push_back(Message::Event(event)),
            ToSubscriber::Clock(clock) => self.inbox.push_back(Message::Clock(clock)),
            ToSubscriber::Retire(buffer) => drop(self.buffers.remove(&buffer)),
            ToSubscriber::Refused(code, text) => return Err(self.refused(code, text)),
            ToSubscriber::Info(part, last) => self.info_part(part, last)?,
            ToSubscriber::Welcome(_) => return Err(PublisherFault::OutOfPlace("a second welcome").into()),
            _ => {}
        }
        Ok(())
    }

    fn refused(&self, code: RefusalCode, text: String) -> RecvError {
        self.link.end(if code == RefusalCode::Closing { Ending::Closed } else { Ending::CutOff });
        RecvError::Refused { code, text }
    }

    fn info_part(&mut self, part: Vec<u8>, last: bool) -> Result<(), RecvError> {
        const LIMIT: usize = 4 << 20;
        if self.info.len() + part.len() > LIMIT {
            return Err(PublisherFault::TooMany { what: "bytes of information", limit: LIMIT }.into());
        }
        self.info.extend(part);
        if last {
            self.inbox.push_back(Message::Info(std::mem::take(&mut self.info)));
        }
        Ok(())
    }

    fn frame(&self, frame: wire::Frame) -> Result<Frame, RecvError> {
        let hold = Hold { link: self.link.clone(), frame: frame.id };
        let mut segments = ArrayVec::new();
        for segment in &frame.segments {
            let fault = PublisherFault::Segment { frame: frame.id };
            let Some(buffer) = self.buffers.get(&segment.buffer) else { return Err(fault.into()) };
            let end = segment.offset.saturating_add(segment.length);
            if end > buffer.size() as u64 {
                return Err(fault.into());
            }
            let (offset, length) = (segment.offset as usize, segment.length as usize);
            segments.push(Segment { buffer: buffer.clone(), offset, length });
        }
        let description = Description {
            flags: frame.flags,
            times: frame.times,
            offset: frame.offset,
            offset_end: frame.offset_end,
            width: frame.width,
            height: frame.height,
            planes: frame.planes,
            metas: frame.metas,
        };
        let (stream, link) = (self.stream.clone(), self.link.clone());
        Ok(Frame::received(frame.id, description, segments, stream, link, hold))
    }
}
