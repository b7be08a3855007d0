//! Frames with known bytes, and a driver for both ends.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollTimeout, poll};
use pagecast_allocators::{Backing, BackingChoice, Buffer, Wants, open};
use pagecast_ipc::wire::{Event, Frame, PacketBuilder, Packets, Segment, ToPublisher, ToSubscriber};
use pagecast_remote::rdma::{RdmaReceiver, RdmaSender, Sources};
use pagecast_remote::tcp::Channel;
use pagecast_remote::{
    FromPublisher, FromSubscriber, LinkError, Pages, Part, Payload, Receiver, Room, Sender,
};
use pagecast_verbs::Verbs;

pub(crate) type Ends = (Box<dyn Sender>, Box<dyn Receiver>);

pub(crate) const EPOCH: u32 = 77;
/// A test that passes never waits for it.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn buffer(size: usize) -> Arc<Buffer> {
    let backing = open(BackingChoice::Memfd);
    Arc::new(backing.allocate(size.max(1), &Wants::default()).expect("a buffer"))
}

/// The bytes of frame `number`.
pub(crate) fn bytes(number: u64, size: usize) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut bytes = vec![0; size];
    bytes.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&next().to_le_bytes()[..chunk.len()]));
    bytes
}

/// Counts itself off when it is dropped.
#[derive(Debug)]
pub(crate) struct Held(Arc<AtomicUsize>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

pub(crate) fn packet_to_subscriber(message: &ToSubscriber) -> Vec<u8> {
    let mut record = Vec::new();
    message.encode(&mut record);
    packet(&record)
}

pub(crate) fn packet_to_publisher(message: &ToPublisher) -> Vec<u8> {
    let mut record = Vec::new();
    message.encode(&mut record);
    packet(&record)
}

fn packet(record: &[u8]) -> Vec<u8> {
    let mut packet = PacketBuilder::default();
    packet.push(record);
    packet.bytes(EPOCH)
}

pub(crate) fn event(number: u64) -> Event {
    Event { name: format!("event {number}"), data: vec![number as u8; number as usize % 5000] }
}

/// Pages for frames: as many buffers as it is given.
#[derive(Debug, Default)]
pub(crate) struct Stock {
    pub(crate) left: usize,
    /// Whether there will never be any.
    pub(crate) never: bool,
}

impl Pages for Stock {
    fn take(&mut self, size: usize) -> Result<Option<Room>, LinkError> {
        if self.never {
            return Err(LinkError::NoPages("never".to_owned()));
        }
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        // Not at the start, so that offsets are told apart.
        let part = Part::new(buffer(size + 64), 64, size).expect("room");
        Ok(Some(Room { part, hold: Box::new(()) }))
    }
}

/// Every frame that came is kept, each in a buffer of its own.
fn allow_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    const NEEDED: u64 = 16_384;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    if soft < NEEDED {
        // Only root may raise the hard limit.
        let raised = setrlimit(Resource::RLIMIT_NOFILE, NEEDED, hard.max(NEEDED));
        raised.or_else(|_| setrlimit(Resource::RLIMIT_NOFILE, hard.min(NEEDED), hard)).expect("a limit");
    }
}

/// Both ends with what came out of them.
pub(crate) struct Link {
    pub(crate) sender: Box<dyn Sender>,
    pub(crate) receiver: Option<Box<dyn Receiver>>,
    pub(crate) stock: Stock,
    pub(crate) done: Vec<u64>,
    pub(crate) upstream: Vec<FromSubscriber>,
    pub(crate) downstream: Vec<FromPublisher>,
    pub(crate) held: Arc<AtomicUsize>,
    /// Whether frames that are sent are still their owner's to send, where that can change.
    pub(crate) still_valid: Option<Arc<AtomicBool>>,
    pub(crate) sender_end: Option<LinkError>,
    pub(crate) receiver_end: Option<LinkError>,
}

impl Link {
    pub(crate) fn new((sender, receiver): Ends) -> Self {
        allow_files();
        Self {
            sender,
            receiver: Some(receiver),
            stock: Stock { left: usize::MAX, never: false },
            done: Vec::new(),
            upstream: Vec::new(),
            downstream: Vec::new(),
            held: Arc::default(),
            still_valid: None,
            sender_end: None,
            receiver_end: None,
        }
    }

    /// Sends a frame whose segments have these lengths.
    pub(crate) fn send(&mut self, number: u64, lengths: &[usize]) {
        let all = bytes(number, lengths.iter().sum());
        let mut frame = Frame { id: number, ..Frame::default() };
        let still_valid = self
            .still_valid
            .clone()
            .map(|valid| Box::new(move || valid.load(Ordering::SeqCst)) as Box<dyn Fn() -> bool + Send>);
        let hold = Box::new(self.hold());
        let mut payload = Payload { parts: Default::default(), hold, still_valid };
        let mut start = 0;
        for (at, length) in lengths.iter().enumerate() {
            let offset = 3 * at;
            let buffer = buffer(offset + length);
            let mapping = buffer.mapping().expect("mapped");
            mapping.copy_from(offset, &all[start..start + length]).expect("it fits");
            payload.parts.push(Part::new(buffer, offset, *length).expect("a part"));
            frame.segments.push(Segment { buffer: 0, offset: 0, length: *length as u64 });
            start += length;
        }
        self.sender.send_frame(number, &packet_to_subscriber(&ToSubscriber::Frame(frame)), payload);
    }

    fn hold(&self) -> Held {
        self.held.fetch_add(1, Ordering::SeqCst);
        Held(self.held.clone())
    }

    /// One round at both ends.
    pub(crate) fn step(&mut self) {
        if self.sender_end.is_none() {
            let flushed = self.sender.flush(&mut self.done);
            let received = flushed.and_then(|()| self.sender.receive(&mut self.upstream));
            self.sender_end = received.err();
        }
        if let Some(receiver) = &mut self.receiver
            && self.receiver_end.is_none()
        {
            let flushed = receiver.flush();
            let received = flushed.and_then(|()| receiver.receive(&mut self.stock, &mut self.downstream));
            self.receiver_end = received.err();
        }
    }

    /// Goes on until something is true.
    pub(crate) fn until(&mut self, what: &str, mut is_true: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.step();
            if is_true(self) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "did not come true: {what}; ends {:?} {:?}",
                self.sender_end,
                self.receiver_end
            );
            let mut fds = self.sender.poll_fds().into_iter().collect::<Vec<_>>();
            fds.extend(self.receiver.iter().flat_map(|receiver| receiver.poll_fds()));
            let _ = poll(&mut fds, PollTimeout::from(5_u8));
        }
    }

    /// The frames that came, with their bytes.
    pub(crate) fn frames(&self) -> Vec<(u64, Vec<usize>, Vec<u8>)> {
        self.downstream
            .iter()
            .filter_map(|event| match event {
                FromPublisher::Frame { epoch, frame, room } => {
                    assert_eq!(*epoch, EPOCH);
                    let lengths = frame.segments.iter().map(|segment| segment.length as usize).collect();
                    Some((frame.id, lengths, room.as_ref().map(content).unwrap_or_default()))
                }
                FromPublisher::Packet(_) => None,
            })
            .collect()
    }

    /// Checks that these frames came, in this order.
    pub(crate) fn expect_frames(&self, expected: &[(u64, Vec<usize>)]) {
        let frames = self.frames();
        assert_eq!(frames.len(), expected.len());
        for ((number, lengths, content), (wanted, wanted_lengths)) in frames.iter().zip(expected) {
            assert_eq!((number, lengths), (wanted, wanted_lengths));
            assert!(*content == bytes(*number, lengths.iter().sum()), "frame {number} is not its own");
        }
    }
}

fn content(room: &Room) -> Vec<u8> {
    let mut bytes = vec![0; room.part.length()];
    let mapping = room.part.buffer().mapping().expect("mapped");
    mapping.copy_to(room.part.offset(), &mut bytes).expect("within it");
    bytes
}

/// The events in packets of a publisher.
pub(crate) fn events(packets: &[FromPublisher]) -> Vec<Event> {
    let mut events = Vec::new();
    for packet in packets {
        let FromPublisher::Packet(packet) = packet else { continue };
        let mut packets = Packets::open(packet).expect("a packet");
        while let Some(record) = packets.next_record().expect("a record") {
            match ToSubscriber::decode(record) {
                Ok(ToSubscriber::Event(event)) => events.push(event),
                other => panic!("no event: {other:?}"),
            }
        }
    }
    events
}

/// Says what is not tested here, on a line of its own, past libtest's capture.
pub(crate) fn skip(why: &str) {
    assert!(std::env::var_os("PAGECAST_TESTBED").is_none(), "the testbed must not skip: {why}");
    let thread = std::thread::current();
    let line = format!("\nSKIP: {}: {why}\n", thread.name().unwrap_or("?"));
    std::io::stdout().write_all(line.as_bytes()).expect("written");
}

/// A connection that leaves from `own`.
pub(crate) fn connect_from(own: IpAddr, to: SocketAddr) -> TcpStream {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket};
    let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
    bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(own, 0))).expect("an address of its own");
    connect(fd.as_raw_fd(), &SockaddrStorage::from(to)).expect("a connection");
    fd.into()
}

/// Both ends of a connection in clear text.
pub(crate) fn clear(streams: [TcpStream; 2]) -> [Channel; 2] {
    streams.map(|stream| Channel::clear(stream).expect("an end"))
}

/// Both ends of a link over RDMA, from the first to the second address.
pub(crate) fn rdma(
    verbs: &Verbs,
    addresses: [IpAddr; 2],
    channels: fn([TcpStream; 2]) -> [Channel; 2],
) -> Ends {
    let listener = TcpListener::bind((addresses[0], 0)).expect("a port");
    let near = connect_from(addresses[1], listener.local_addr().expect("its address"));
    let (far, _) = listener.accept().expect("a connection");
    let [far, near] = channels([far, near]);
    let sources = Sources::new(verbs, addresses[0]).expect("a device");
    let sender = RdmaSender::new(far, &sources).expect("an end");
    (Box::new(sender), Box::new(RdmaReceiver::new(near, verbs).expect("an end")))
}
