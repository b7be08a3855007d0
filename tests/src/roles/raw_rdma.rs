//! `raw-rdma`: the subscriber's end of an RDMA link, by hand, that does not do all of what it should.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pagecast::ipc::socket::Uri;
use pagecast::ipc::wire::{Hello, Packets, Role, ToPublisher, ToSubscriber};
use pagecast::verbs::{
    Access, Completion, CompletionQueue, Depth, ENDPOINT_BYTES, Endpoint, MemoryRegion, ProtectionDomain,
    QueuePair, Timing, Verbs,
};
use pagecast::{BackingChoice, Lease, Pool, PoolOptions};
use pagecast_remote::registration;
use socket2::{Domain, Socket, Type};

use super::raw::packet;
use super::{Options, say, stay};
use crate::peers::PATIENCE;

const DEPTH: Depth = Depth { send: 16, receive: 16, pieces: 1 };
const PREAMBLE: [u8; 8] = *b"PGCV\x01\0\0\0";
const HELLO: u8 = 1;
const PACKET: u8 = 2;
const GRANT: u8 = 3;

/// Options: `receives` (posted, 8 unless told), `grants=false` (no frame gets a place),
/// `key` (added to that of the place). It says `granted` for each place, `written` for each frame, and `closed` and the
/// milliseconds since its first frame was announced, 0 if none was, when the publisher has ended the link.
pub(super) fn run(uri: &str, options: &Options) {
    let mut end = End::new(connect(&uri.parse().expect("an address")), options);
    end.run();
    say(&format!("closed {}", end.began.map_or(0, |began| began.elapsed().as_millis().max(1))));
    stay();
}

fn connect(uri: &Uri) -> TcpStream {
    let (host, port) = uri.host().expect("host and port");
    let address = SocketAddr::new(host.parse().expect("an address"), port);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::new(uri.from.expect("where from"), 0).into()).expect("an address of this host");
    socket.connect(&address.into()).expect("a connection");
    socket.into()
}

struct End {
    // Before the pages that are written.
    queue: QueuePair,
    region: Arc<MemoryRegion>,
    _pages: Lease,
    control: TcpStream,
    grants: bool,
    key: u32,
    slot: u32,
    began: Option<Instant>,
}

impl End {
    fn new(control: TcpStream, options: &Options) -> Self {
        let verbs = Verbs::open().expect("verbs");
        let own: SocketAddr = control.local_addr().expect("an address");
        let (device, gid) = verbs.device_for(own.ip()).expect("a device");
        let domain = ProtectionDomain::new(&device).expect("a domain");
        let completions = CompletionQueue::new(&device, DEPTH.completions()).expect("a queue");
        let mut queue = QueuePair::new(&domain, completions, &gid, DEPTH).expect("a pair");
        for _ in 0..options.get("receives").unwrap_or(8) {
            queue.post_recv(0, &[]).expect("a receive");
        }
        let pool = Pool::new(PoolOptions { backing: BackingChoice::Memfd, ..PoolOptions::default() });
        let pages = pool.acquire(1 << 20).expect("pages");
        let mapping = pages.buffer().share_mapping().expect("a mapping");
        let region = registration::register(&domain, mapping, Access::Receive).expect("a region");
        let (grants, key) = (options.get("grants").unwrap_or(true), options.get("key").unwrap_or(0));
        control.set_read_timeout(Some(Duration::from_millis(20))).expect("a limit");
        Self { queue, region, _pages: pages, control, grants, key, slot: 0, began: None }
    }

    /// Until the publisher has ended the link.
    fn run(&mut self) {
        let _ = self.control.write_all(&PREAMBLE);
        self.say(HELLO, &self.queue.endpoint().to_bytes());
        self.say(PACKET, &packet(0, &[ToPublisher::Hello(Hello::new(Role::Subscriber, "raw"))]));
        let (mut input, mut bytes) = (Vec::new(), [0; 4096]);
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            match self.control.read(&mut bytes) {
                Ok(0) => return,
                Ok(count) => input.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
            self.hear(&mut input);
            self.complete();
        }
        say("kept");
    }

    fn say(&mut self, kind: u8, body: &[u8]) {
        let mut message = (body.len() as u32).to_le_bytes().to_vec();
        message.push(kind);
        message.extend_from_slice(body);
        // Who is gone is noticed by what is read.
        let _ = self.control.write_all(&message);
    }

    /// Acts on all whole messages of `input`.
    fn hear(&mut self, input: &mut Vec<u8>) {
        if input.starts_with(&PREAMBLE) {
            input.drain(..PREAMBLE.len());
        }
        while input.len() >= 5 && !input.starts_with(&PREAMBLE[..4]) {
            let length = u32::from_le_bytes(input[..4].try_into().expect("a length")) as usize;
            let kind = input[4];
            if input.len() < 5 + length {
                return;
            }
            let body: Vec<u8> = input.drain(..5 + length).skip(5).collect();
            match kind {
                HELLO => {
                    let endpoint: &[u8; ENDPOINT_BYTES] = body[..].try_into().expect("an end");
                    let endpoint = Endpoint::from_bytes(endpoint).expect("an end");
                    self.queue.connect(&endpoint, Timing::default()).expect("a connection");
                }
                PACKET => self.packet(&body),
                _ => {}
            }
        }
    }

    fn packet(&mut self, body: &[u8]) {
        let mut packets = Packets::open(body).expect("a packet");
        while let Some(record) = packets.next_record().expect("a record") {
            if let ToSubscriber::Frame(frame) = ToSubscriber::decode(record).expect("a message") {
                self.began.get_or_insert_with(Instant::now);
                self.grant(frame.size());
            }
        }
    }

    fn grant(&mut self, size: u64) {
        if !self.grants {
            return;
        }
        self.slot += 1;
        let mut body = self.slot.to_le_bytes().to_vec();
        body.extend(self.region.rkey().wrapping_add(self.key).to_le_bytes());
        body.extend(self.region.address().to_le_bytes());
        body.extend(size.to_le_bytes());
        self.say(GRANT, &body);
        say("granted");
    }

    fn complete(&mut self) {
        let mut done: Vec<Completion> = Vec::new();
        self.queue.poll(&mut done).expect("completions");
        for completion in done {
            match completion.outcome {
                Ok(_) => say("written"),
                Err(error) => say(&format!("failed {error}")),
            }
        }
    }
}
