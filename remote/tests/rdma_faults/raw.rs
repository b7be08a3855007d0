//! One end of a link that says what it likes, by the control connection and by its queue pair.

use std::io::{Read, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use pagecast_allocators::Buffer;
use pagecast_remote::registration;
use pagecast_verbs::{
    Access, CompletionQueue, Depth, Doorbell, Endpoint, MemoryRegion, ProtectionDomain, QueuePair, Remote,
    Slice, Timing, Verbs, Write,
};

use crate::ADDRESSES;
use crate::support::buffer;

const DEPTH: Depth = Depth { send: 64, receive: 32, pieces: 1 };
pub(crate) const HELLO: u8 = 1;
pub(crate) const PACKET: u8 = 2;
pub(crate) const GRANT: u8 = 3;
const BEAT: u8 = 4;

/// The end at one of the two addresses.
pub(crate) struct Raw {
    stream: TcpStream,
    domain: Arc<ProtectionDomain>,
    pub(crate) queue: QueuePair,
}

impl Raw {
    pub(crate) fn new(verbs: &Verbs, at: usize, stream: TcpStream) -> Self {
        let (device, gid) = verbs.device_for(ADDRESSES[at]).expect("a device");
        let domain = ProtectionDomain::new(&device).expect("a domain");
        let completions = CompletionQueue::new(&device, DEPTH.completions()).expect("a queue");
        let queue = QueuePair::new(&domain, completions, &gid, DEPTH).expect("a queue pair");
        stream.set_read_timeout(Some(Duration::from_millis(20))).expect("a limit");
        let mut raw = Self { stream, domain, queue };
        raw.bytes(b"PGCV\x01\0\0\0");
        raw
    }

    /// A heartbeat.
    pub(crate) fn beat(&mut self) {
        self.say(BEAT, &[1; 24]);
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("heard");
    }

    pub(crate) fn say(&mut self, kind: u8, body: &[u8]) {
        let length = (body.len() as u32).to_le_bytes();
        self.bytes(&[&length[..], &[kind], body].concat());
    }

    pub(crate) fn hang_up(&mut self) {
        self.stream.shutdown(std::net::Shutdown::Both).expect("shut down");
    }

    /// A place for a frame.
    pub(crate) fn grant(&mut self, slot: u32, to: Remote, length: u64) {
        let numbers = [&slot.to_le_bytes()[..], &to.rkey.to_le_bytes(), &to.address.to_le_bytes()].concat();
        self.say(GRANT, &[&numbers[..], &length.to_le_bytes()].concat());
    }

    /// Hears the next message that is no heartbeat, with `step` of the other end in between.
    pub(crate) fn hear(&mut self, mut step: impl FnMut()) -> (u8, Vec<u8>) {
        loop {
            let header = self.exactly(5, &mut step);
            let length = u32::from_le_bytes(header[..4].try_into().expect("four bytes")) as usize;
            let body = self.exactly(length, &mut step);
            if header[4] != BEAT {
                return (header[4], body);
            }
        }
    }

    fn exactly(&mut self, count: usize, step: &mut impl FnMut()) -> Vec<u8> {
        let mut bytes = vec![0; count];
        let mut here = 0;
        while here < count {
            step();
            match self.stream.read(&mut bytes[here..]) {
                Ok(0) => panic!("the other end has gone"),
                Ok(more) => here += more,
                Err(_) => {}
            }
        }
        bytes
    }

    /// Says and hears preamble and hello, and connects.
    pub(crate) fn meet(&mut self, mut step: impl FnMut()) {
        self.say(HELLO, &self.queue.endpoint().to_bytes());
        assert_eq!(self.exactly(8, &mut step)[..4], *b"PGCV");
        let (kind, body) = self.hear(&mut step);
        assert_eq!(kind, HELLO);
        let endpoint = Endpoint::from_bytes(body[..].try_into().expect("its length")).expect("an endpoint");
        self.queue.connect(&endpoint, Timing::default()).expect("connected");
    }

    /// Pages of its own, with that access.
    pub(crate) fn pages(&self, size: usize, access: Access) -> (Arc<Buffer>, Arc<MemoryRegion>) {
        let buffer = buffer(size);
        let mapping = buffer.share_mapping().expect("mapped");
        let region = registration::register(&self.domain, mapping, access).expect("registered");
        (buffer, region)
    }

    /// Writes `from` to there, and rings with `slot` if there is one.
    pub(crate) fn write(&mut self, from: &Arc<MemoryRegion>, length: u32, to: Remote, slot: Option<u32>) {
        let slice = [Slice { region: from, offset: 0, length }];
        let write = Write { from: &slice, to };
        let ring = Write { from: &[], to };
        let posted = match slot {
            Some(value) => self.queue.post_frame(1, &[write], Doorbell::Immediate { write: ring, value }),
            None => self.queue.post_write(1, &write),
        };
        posted.expect("posted");
    }
}
