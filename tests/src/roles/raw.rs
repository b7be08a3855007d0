//! A subscriber that does by hand, and only as far as it is told, what the library does.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use pagecast::ipc::socket::{ReceiveError, SendError, Seqpacket, SocketError};
use pagecast::ipc::wire::limits::MAX_PACKET;
use pagecast::ipc::wire::{
    Hello, PacketBuilder, Packets, RefusalCode, Role, ToPublisher, ToSubscriber, Welcome,
};

use super::{Options, say, stay};
use crate::peers::PATIENCE;

/// One end of a link. Nothing is checked, and nothing is done by itself.
#[derive(Debug)]
pub struct Raw {
    /// The socket.
    pub socket: Seqpacket,
    /// The epoch of later packets.
    pub epoch: u32,
    /// Buffers announced so far.
    pub announced: u64,
    /// Descriptors received so far.
    pub fds: Vec<OwnedFd>,
    /// How the publisher ended the link, if it said so.
    pub refused: Option<RefusalCode>,
    frames: VecDeque<u64>,
}

impl Raw {
    /// Connects to the publisher at `unix:/path`.
    ///
    /// # Panics
    /// If nobody is there.
    pub fn connect(uri: &str) -> Self {
        let path = Path::new(uri.trim_start_matches("unix:"));
        let deadline = Instant::now() + PATIENCE;
        let socket = loop {
            match Seqpacket::connect(path) {
                Ok(socket) => break socket,
                Err(SocketError::Backlog { .. }) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) => panic!("{error}"),
            }
        };
        Self::of(socket)
    }

    /// An end of a link that stands.
    pub fn of(socket: Seqpacket) -> Self {
        let (fds, frames) = (Vec::new(), VecDeque::new());
        Self { socket, epoch: 0, announced: 0, fds, refused: None, frames }
    }

    /// Connects and says hello, until it is welcome.
    ///
    /// # Panics
    /// If it is not.
    pub fn join(uri: &str) -> Self {
        let mut raw = Self::connect(uri);
        raw.say(&[ToPublisher::Hello(Hello::new(Role::Subscriber, "raw"))]);
        assert!(raw.welcome().is_some(), "not welcome: {:?}", raw.refused);
        raw
    }

    /// Waits for the welcome.
    pub fn welcome(&mut self) -> Option<Welcome> {
        loop {
            for message in self.receive()? {
                if let ToSubscriber::Welcome(welcome) = message {
                    return Some(welcome);
                }
            }
        }
    }

    /// Sends messages in one packet; `false` if the link has ended.
    pub fn say(&mut self, messages: &[ToPublisher]) -> bool {
        let bytes = packet(self.epoch, messages);
        self.send(&bytes, &[])
    }

    /// Sends bytes, waiting while the socket is full; `false` if the link has ended.
    pub fn send(&mut self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> bool {
        loop {
            match self.socket.send(bytes, fds) {
                Ok(()) => return true,
                Err(SendError::Full | SendError::TooManyInFlight) => {
                    std::thread::sleep(Duration::from_micros(200));
                }
                Err(_) => return false,
            }
        }
    }

    /// Waits for a packet and takes note of what is in it; `None` at the link's end.
    ///
    /// # Panics
    /// If nothing comes.
    pub fn receive(&mut self) -> Option<Vec<ToSubscriber>> {
        let mut bytes = vec![0; MAX_PACKET];
        loop {
            match self.socket.receive(&mut bytes, &mut self.fds) {
                Ok(len) => return Some(self.note(&bytes[..len])),
                Err(ReceiveError::Empty) => assert!(self.readable(PATIENCE), "nothing comes"),
                Err(_) => return None,
            }
        }
    }

    fn note(&mut self, bytes: &[u8]) -> Vec<ToSubscriber> {
        let mut packets = Packets::open(bytes).expect("a packet");
        self.epoch = packets.epoch();
        let mut messages = Vec::new();
        while let Some(record) = packets.next_record().expect("a record") {
            let message = ToSubscriber::decode(record).expect("a message");
            match &message {
                ToSubscriber::Announce(_) => self.announced += 1,
                ToSubscriber::Frame(frame) => self.frames.push_back(frame.id),
                ToSubscriber::Refused(code, _) => self.refused = Some(*code),
                _ => {}
            }
            messages.push(message);
        }
        messages
    }

    /// Waits for the next frame, and returns its number; it is ours from then on.
    ///
    /// # Panics
    /// If there is none.
    pub fn frame(&mut self) -> u64 {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return frame;
            }
            self.receive().expect("a frame");
            let seen = self.announced;
            self.say(&[ToPublisher::Seen(seen)]);
        }
    }

    /// Whether something can be read within `timeout`.
    pub fn readable(&self, timeout: Duration) -> bool {
        let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(timeout.as_millis() as i32).expect("a time-out");
        poll(&mut fds, timeout).is_ok_and(|ready| ready > 0)
    }

    /// Waits until the publisher has ended the link, and returns how it said so.
    pub fn cut(&mut self) -> Option<RefusalCode> {
        while self.receive().is_some() {}
        self.refused
    }
}

/// One packet of these messages.
pub(super) fn packet(epoch: u32, messages: &[ToPublisher]) -> Vec<u8> {
    let mut packet = PacketBuilder::default();
    for message in messages {
        let mut record = Vec::new();
        message.encode(&mut record);
        packet.push(&record);
    }
    packet.bytes(epoch)
}

/// `prey`: goes as far as `phase` says, says `at`, and waits to be killed.
pub(super) fn run_prey(uri: &str, options: &Options) {
    let phase: u32 = options.get("phase").expect("a phase");
    let mut raw = Raw::connect(uri);
    if phase > 0 {
        raw.say(&[ToPublisher::Hello(Hello::new(Role::Subscriber, "prey"))]);
    }
    if phase > 1 {
        raw.welcome();
    }
    // Between descriptors and their acknowledgement.
    while phase == 3 && raw.announced == 0 && raw.receive().is_some() {}
    if phase == 4 {
        raw.frame();
    }
    say("at");
    if phase < 5 {
        stay();
    }
    loop {
        let frame = raw.frame();
        raw.say(&[ToPublisher::Return(vec![frame])]);
    }
}

/// `hog`: has as many descriptors on their way as the kernel lets its user have, and says `full`.
pub(super) fn run_hog() {
    let file = std::fs::File::open("/dev/null").expect("a file");
    let mut pairs = Vec::new();
    loop {
        let pair = Seqpacket::pair().expect("a pair");
        match pair.0.send(b"x", &[file.as_fd(); 100]) {
            Ok(()) => pairs.push(pair),
            Err(SendError::TooManyInFlight) => break,
            Err(error) => panic!("{error}"),
        }
    }
    say(&format!("full {}", pairs.len() * 100));
    stay();
}
