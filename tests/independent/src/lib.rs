//! A subscriber written from docs/protocol.md alone: it uses nothing of Pagecast, and is there to show that
//! the document is enough. What it does, it does simply; a program should use the library.

pub mod codec;
pub mod pages;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use sendfd::RecvWithFd;

pub use codec::{Fault, FrameRecord, Hello, Record, Welcome};
pub use pages::Pages;

/// The most descriptors that come with one packet.
const MAX_FDS: usize = 16;
/// The most frames in one return.
const MAX_RETURNS: usize = 1_024;

/// What ends a link, or keeps it from beginning.
#[derive(Debug)]
pub enum Failure {
    /// The system.
    Io(io::Error),
    /// The publisher broke the protocol.
    Fault(Fault),
    /// The publisher ends the link: code and text.
    Refused(u16, String),
    /// The socket is closed.
    Closed,
    /// Nothing came in time.
    Timeout,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Fault(fault) => fault.fmt(f),
            Self::Refused(code, text) => write!(f, "code {code}: {text}"),
            Self::Closed => f.write_str("the link is closed"),
            Self::Timeout => f.write_str("nothing came in time"),
        }
    }
}

impl std::error::Error for Failure {}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<nix::Error> for Failure {
    fn from(error: nix::Error) -> Self {
        Self::Io(error.into())
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// A frame and the pages it lies in, which stay mapped as long as it lives.
#[derive(Clone, Debug)]
pub struct Frame {
    /// What the publisher said of it.
    pub record: FrameRecord,
    /// Its segments: pages, offset, length.
    pub segments: Vec<(Arc<Pages>, u64, u64)>,
}

impl Frame {
    /// A copy of its bytes.
    pub fn bytes(&self) -> Vec<u8> {
        self.segments.iter().flat_map(|(pages, offset, length)| pages.copy(*offset, *length)).collect()
    }
}

/// What arrives, apart from what the link deals with itself.
#[derive(Clone, Debug)]
pub enum Message {
    /// A frame: to be given back.
    Frame(Frame),
    /// A buffer will not be used again.
    Retired(u64),
    /// A value that holds from here on.
    Sticky(String, Vec<u8>),
    /// Something that happens once.
    Event(String, Vec<u8>),
    /// Running time and latency.
    Clock(u64, Option<u64>, u64, Option<u64>),
    /// A part of the answer to a query.
    Info(bool, Vec<u8>),
}

/// A link to a publisher.
#[derive(Debug)]
pub struct Link {
    socket: UnixDatagram,
    epoch: u32,
    /// The publisher's answer.
    pub welcome: Welcome,
    buffers: BTreeMap<u64, Arc<Pages>>,
    announced: u64,
    waiting: VecDeque<Record>,
}

impl Link {
    /// Connects and waits for the answer.
    ///
    /// # Errors
    /// [`Failure::Refused`] if the publisher says no.
    pub fn connect(path: &Path, hello: &Hello) -> Result<Self, Failure> {
        let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
        connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
        // A sequenced packet socket is used just as a connected datagram socket is.
        let socket = UnixDatagram::from(fd);
        // Who is refused at the door may be so before it speaks: the answer is there all the same.
        if let Err(error) = socket.send(&hello.packet())
            && !is_gone(&error)
        {
            return Err(error.into());
        }
        let (epoch, records, fds) = receive(&socket, Instant::now() + Duration::from_secs(10))?;
        let mut waiting = VecDeque::from(records);
        match waiting.pop_front() {
            Some(Record::Welcome(welcome)) => {
                let (buffers, announced) = (BTreeMap::new(), 0);
                let mut link = Self { socket, epoch, welcome, buffers, announced, waiting };
                link.take_in(fds)?;
                Ok(link)
            }
            Some(Record::Refused(code, text)) => Err(Failure::Refused(code, text)),
            other => Err(Fault(format!("no answer but {other:?}")).into()),
        }
    }

    /// The next message.
    ///
    /// # Errors
    /// [`Failure::Refused`] and [`Failure::Closed`] at the link's end, [`Failure::Timeout`].
    pub fn next(&mut self, timeout: Duration) -> Result<Message, Failure> {
        let deadline = Instant::now() + timeout;
        loop {
            while let Some(record) = self.waiting.pop_front() {
                if let Some(message) = self.message(record)? {
                    return Ok(message);
                }
            }
            let (epoch, records, fds) = receive(&self.socket, deadline)?;
            if epoch == self.epoch {
                self.waiting.extend(records);
                self.take_in(fds)?;
            }
        }
    }

    /// The next frame; other messages are left out.
    ///
    /// # Errors
    /// As [`Link::next`].
    pub fn frame(&mut self, timeout: Duration) -> Result<Frame, Failure> {
        loop {
            if let Message::Frame(frame) = self.next(timeout)? {
                return Ok(frame);
            }
        }
    }

    /// Maps what a packet announced, in the order of its descriptors, and says so.
    fn take_in(&mut self, fds: Vec<OwnedFd>) -> Result<(), Failure> {
        let announced: Vec<_> = self.waiting.iter().filter_map(announce).collect();
        if announced.len() != fds.len() {
            return Err(Fault(format!("{} descriptors for {}", fds.len(), announced.len())).into());
        }
        if announced.is_empty() {
            return Ok(());
        }
        for ((buffer, size, face), fd) in announced.into_iter().zip(fds) {
            let pages = Pages::map(fd, size, face).map_err(Fault)?;
            if self.buffers.insert(buffer, Arc::new(pages)).is_some() {
                return Err(Fault(format!("buffer {buffer} was announced twice")).into());
            }
            self.announced += 1;
        }
        self.waiting.retain(|record| announce(record).is_none());
        match self.send(3, &self.announced.to_le_bytes()) {
            // Of a link that was cut meanwhile what is here already counts; its end comes behind it.
            Err(Failure::Io(error)) if is_gone(&error) => Ok(()),
            said => said,
        }
    }

    fn message(&mut self, record: Record) -> Result<Option<Message>, Failure> {
        Ok(Some(match record {
            Record::Frame(record) => Message::Frame(self.resolve(record)?),
            Record::Retire(buffer) => match self.buffers.remove(&buffer) {
                Some(_) => Message::Retired(buffer),
                None => return Err(Fault(format!("buffer {buffer} is retired, not announced")).into()),
            },
            Record::Sticky(name, value) => Message::Sticky(name, value),
            Record::Event(name, data) => Message::Event(name, data),
            Record::Clock(at, running, min, max) => Message::Clock(at, running, min, max),
            Record::Info(last, part) => Message::Info(last, part),
            Record::Refused(code, text) => return Err(Failure::Refused(code, text)),
            Record::Announce(..) => return Ok(None),
            Record::Welcome(_) => return Err(Fault("a second welcome".to_owned()).into()),
        }))
    }

    fn resolve(&self, record: FrameRecord) -> Result<Frame, Failure> {
        let segments = record.segments.iter().map(|(buffer, offset, length)| {
            let pages = self.buffers.get(buffer).filter(|pages| pages.contains(*offset, *length));
            pages.map(|pages| (pages.clone(), *offset, *length))
        });
        match segments.collect() {
            Some(segments) => Ok(Frame { record, segments }),
            None => Err(Fault(format!("frame {} lies in no announced buffer", record.id)).into()),
        }
    }

    /// Gives frames back by their numbers.
    ///
    /// # Errors
    /// If the link is gone.
    pub fn give_back(&self, frames: &[u64]) -> Result<(), Failure> {
        for frames in frames.chunks(MAX_RETURNS) {
            let mut body = (frames.len() as u16).to_le_bytes().to_vec();
            frames.iter().for_each(|id| body.extend_from_slice(&id.to_le_bytes()));
            self.send(2, &body)?;
        }
        Ok(())
    }

    /// Asks upstream for something.
    ///
    /// # Errors
    /// If the link is gone.
    pub fn request(&self, name: &str, data: &[u8]) -> Result<(), Failure> {
        self.send(4, &[codec::blob(name.as_bytes()), codec::blob(data)].concat())
    }

    /// Asks for info, as an observer; the whole answer.
    ///
    /// # Errors
    /// As [`Link::next`].
    pub fn query(&mut self, timeout: Duration) -> Result<Vec<u8>, Failure> {
        self.send(5, &[])?;
        let mut answer = Vec::new();
        loop {
            if let Message::Info(last, part) = self.next(timeout)? {
                answer.extend(part);
                if last {
                    return Ok(answer);
                }
            }
        }
    }

    /// Leaves.
    ///
    /// # Errors
    /// If the link is gone already.
    pub fn bye(self) -> Result<(), Failure> {
        self.send(6, &[])
    }

    /// Sends one record, whatever it is.
    ///
    /// # Errors
    /// If the link is gone.
    pub fn send(&self, kind: u16, body: &[u8]) -> Result<(), Failure> {
        Ok(self.socket.send(&codec::packet(self.epoch, kind, body)).map(drop)?)
    }

    /// Whether the link is cut: to be asked after a frame was read.
    pub fn is_cut(&self) -> bool {
        wait(&self.socket, PollFlags::empty(), Duration::ZERO)
            .is_ok_and(|flags| flags.intersects(PollFlags::POLLHUP | PollFlags::POLLERR))
    }

    /// Buffers that are mapped now.
    pub fn buffers(&self) -> usize {
        self.buffers.len()
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

fn announce(record: &Record) -> Option<(u64, u64, u16)> {
    match record {
        Record::Announce(buffer, size, face) => Some((*buffer, *size, *face)),
        _ => None,
    }
}

fn wait(socket: &UnixDatagram, flags: PollFlags, timeout: Duration) -> Result<PollFlags, Failure> {
    let mut fds = [PollFd::new(socket.as_fd(), flags)];
    let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
    poll(&mut fds, timeout)?;
    Ok(fds[0].revents().unwrap_or(PollFlags::empty()))
}

/// The next packet with its descriptors.
fn receive(socket: &UnixDatagram, deadline: Instant) -> Result<(u32, Vec<Record>, Vec<OwnedFd>), Failure> {
    if wait(socket, PollFlags::POLLIN, deadline.saturating_duration_since(Instant::now()))?.is_empty() {
        return Err(Failure::Timeout);
    }
    let mut packet = vec![0; codec::MAX_PACKET + 1];
    let mut raw: [RawFd; MAX_FDS] = [-1; MAX_FDS];
    let (length, count) = match socket.recv_with_fd(&mut packet, &mut raw) {
        // What came before may still be there: read until 0.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
            socket.recv_with_fd(&mut packet, &mut raw)?
        }
        other => other?,
    };
    // SAFETY: the kernel has just given us these descriptors; nobody else knows them.
    let fds: Vec<OwnedFd> = raw[..count].iter().map(|fd| unsafe { OwnedFd::from_raw_fd(*fd) }).collect();
    for fd in &fds {
        // `sendfd` does not ask for MSG_CMSG_CLOEXEC.
        fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    }
    if length == 0 {
        return Err(Failure::Closed);
    }
    let (epoch, records) = codec::parse(&packet[..length])?;
    Ok((epoch, records, fds))
}
