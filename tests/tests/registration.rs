//! The `mr` face: a pool registered with an RDMA device serves local subscribers, importers and the device from the same
//! pages.
//!
//! It needs the testbed's two RDMA devices; elsewhere each test is skipped.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::sync::Arc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pagecast::verbs::{
    Access, Completion, CompletionQueue, Depth, Doorbell, MemoryRegion, ProtectionDomain, QueuePair, Remote,
    Slice, Timing, Verbs, Write,
};
use pagecast::{
    BackingChoice, FaceKind, FaceSet, Frame, Lease, Message, Pool, PoolOptions, Publisher, PublisherOptions,
    Subscriber, SubscriberOptions,
};
use pagecast_tests::importer::{Importer, kernel_says};
use pagecast_tests::peers::Peer;
use pagecast_tests::{PAGE, Place, check, proc, skip, stamped};

const PEER: &str = env!("CARGO_BIN_EXE_pagecast-peer");

const ADDRESSES: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1)), IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2))];
const DEPTH: Depth = Depth { send: 16, receive: 16, pieces: 4 };
const PATIENCE: Duration = Duration::from_secs(60);
/// A frame of some blocks and a bit.
const SIZE: usize = 5 * 65536 + 1000;

/// One test at a time: they count registrations of the whole machine.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn testbed() -> Option<Verbs> {
    let found = Verbs::open().map_err(|error| error.to_string()).and_then(|verbs| {
        let both = ADDRESSES.iter().try_for_each(|address| verbs.device_for(*address).map(drop));
        both.map(|()| verbs).map_err(|error| error.to_string())
    });
    found.map_err(|why| skip(&why)).ok()
}

/// Address and length of all registrations of this process, as the kernel tells them.
fn seen_from_outside() -> Vec<u64> {
    let output = Command::new("rdma").args(["resource", "show", "mr"]).output().expect("rdma");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    let length =
        |line: &str| line.split_whitespace().skip_while(|word| *word != "mrlen").nth(1)?.parse().ok();
    let mut lengths: Vec<u64> = text.lines().filter_map(length).collect();
    lengths.sort_unstable();
    lengths
}

struct End {
    queue: QueuePair,
    domain: Arc<ProtectionDomain>,
}

fn pair(verbs: &Verbs) -> [End; 2] {
    let mut ends = ADDRESSES.map(|address| {
        let (device, gid) = verbs.device_for(address).expect("a device");
        let domain = ProtectionDomain::new(&device).expect("a domain");
        let completions = CompletionQueue::new(&device, DEPTH.completions()).expect("a completion queue");
        let queue = QueuePair::new(&domain, completions, &gid, DEPTH).expect("a queue pair");
        End { queue, domain }
    });
    let [at_a, at_b] = [ends[0].queue.endpoint(), ends[1].queue.endpoint()];
    ends[0].queue.connect(&at_b, Timing::default()).expect("connected");
    ends[1].queue.connect(&at_a, Timing::default()).expect("connected");
    ends
}

fn completion(end: &mut End) -> Completion {
    let (deadline, mut seen) = (Instant::now() + PATIENCE, Vec::new());
    while seen.is_empty() {
        assert!(Instant::now() < deadline, "nothing completed");
        end.queue.wait(&mut seen, deadline).expect("a completion queue");
    }
    seen.remove(0)
}

/// Frames to another device of this machine, which finds them in its own memory.
struct Crossing {
    sender: End,
    receiver: End,
    landing: Lease,
    to: Remote,
    _region: Arc<MemoryRegion>,
}

impl Crossing {
    fn new(verbs: &Verbs) -> Self {
        let [sender, receiver] = pair(verbs);
        let target = Pool::new(PoolOptions { limit: 1 << 20, ..PoolOptions::default() });
        target.register(&receiver.domain, Access::Receive).expect("registered");
        let landing = target.acquire(SIZE).expect("a buffer");
        let part = pagecast::registration::part(landing.buffer(), &receiver.domain, 0, SIZE);
        let part = part.expect("registered");
        let to = Remote { address: part.address, rkey: part.region.rkey() };
        Self { sender, receiver, landing, to, _region: part.region }
    }

    /// Writes a frame over, straight from its pages, and returns what arrived.
    fn send(&mut self, frame: &Frame, number: u64) -> Vec<u8> {
        let parts = frame.registered(&self.sender.domain).expect("every frame is registered");
        assert_eq!(parts.len(), 1);
        assert_eq!((parts[0].length, parts[0].region.access()), (SIZE as u64, Access::Source));
        self.receiver.queue.post_recv(number, &[]).expect("a receive");
        let slice = [Slice { region: &parts[0].region, offset: 0, length: SIZE as u32 }];
        let write = Write { from: &slice, to: self.to };
        let bell = Doorbell::Immediate { write: Write { from: &[], to: self.to }, value: number as u32 };
        self.sender.queue.post_frame(number, &[write], bell).expect("posted");
        let got = completion(&mut self.receiver).outcome.expect("received");
        assert_eq!(got.immediate, Some(number as u32));
        completion(&mut self.sender).outcome.expect("sent");
        let mut bytes = vec![0; SIZE];
        self.landing.buffer().mapping().expect("mapped").copy_to(0, &mut bytes).expect("copied");
        bytes
    }
}

#[test]
fn local_subscribers_and_a_device_read_the_same_pages() {
    let _alone = alone();
    let Some(verbs) = testbed() else { return };
    let mut crossing = Crossing::new(&verbs);
    let place = Place::new();
    let pool = Pool::new(PoolOptions { limit: 64 << 20, ..PoolOptions::default() });
    pool.populate(SIZE, 2).expect("buffers");
    pool.register(&crossing.sender.domain, Access::Source).expect("registered");
    let uri = place.uri("a");
    let publisher = Publisher::open(&uri, PublisherOptions { live: false, ..PublisherOptions::default() });
    let publisher = publisher.expect("a publisher");
    publisher.set_pool(&pool);
    let local = Subscriber::open(&uri, SubscriberOptions::default()).expect("a subscriber");
    assert!(matches!(local.recv(Some(PATIENCE)), Ok(Message::Connected(_))));
    let mut constant = None;
    for number in 0..40 {
        let frame = stamped(&pool, number, SIZE);
        publisher.publish(&frame).expect("published");
        let arrived = crossing.send(&frame, number);
        let received = local.next_frame(Some(PATIENCE)).expect("a frame");
        assert_eq!(check(&received), Ok(number));
        assert_eq!(arrived, frame.to_vec().expect("bytes"), "frame {number} by RDMA");
        if number >= 8 {
            let now = (seen_from_outside(), pool.figures().registrations);
            assert_eq!(constant.get_or_insert_with(|| now.clone()), &now, "registrations while frames flow");
        }
    }
    let info = publisher.info().publisher;
    assert_eq!(info.registrations, pool.figures().buffers as u64);
}

/// What all of this is for: one pool of huge pages, a process that may only read, a device that imports, and another
/// host's device, all at the same time and all of the same pages.
#[test]
fn a_reader_an_importer_and_a_remote_device_share_one_pool() {
    let _alone = alone();
    let Some(verbs) = testbed() else { return };
    let importer = Importer::open().expect("an importer");
    let mut crossing = Crossing::new(&verbs);
    let place = Place::new();
    let uri = place.uri("a");
    let pool =
        Pool::new(PoolOptions { backing: BackingChoice::Hugetlb, limit: 32 << 20, ..PoolOptions::default() });
    pool.register(&crossing.sender.domain, Access::Source).expect("registered");
    let options = PublisherOptions { live: false, block_deadline: None, ..PublisherOptions::default() };
    let publisher = Publisher::open(&uri, options).expect("a publisher");
    publisher.set_pool(&pool);
    let reader = Peer::start(PEER, &["subscriber", &uri]);
    reader.expect("connected");
    let devices = SubscriberOptions { faces: FaceSet::DMA_BUF, ..SubscriberOptions::default() };
    let devices = Subscriber::open(&uri, devices).expect("a subscriber");
    assert!(matches!(devices.recv(Some(PATIENCE)), Ok(Message::Connected(_))));
    let mut imported = BTreeSet::new();
    for number in 0..40 {
        let frame = stamped(&pool, number, SIZE);
        publisher.publish(&frame).expect("published");
        let arrived = crossing.send(&frame, number);
        assert_eq!(arrived, frame.to_vec().expect("bytes"), "frame {number} by RDMA");
        let received = devices.next_frame(Some(PATIENCE)).expect("a frame");
        assert_eq!(check(&received), Ok(number), "by the dma-buf");
        reader.try_follow(number + 1).expect("the reader has checked it");
        let theirs = &received.segments()[0].buffer;
        if imported.insert(theirs.id()) {
            let face = theirs.face(FaceKind::DmaBuf).expect("a dma-buf face");
            importer.import(face.fd);
            let (_, inode) = theirs.identity().expect("an inode");
            assert!(kernel_says(inode).contains("vgem"), "{}", kernel_says(inode));
        }
        same_pages(&frame, &received, reader.pid(), &crossing.sender.domain);
    }
    let told = publisher.info().publisher;
    assert_eq!((told.backing.as_deref(), told.fallbacks.len()), (Some("hugetlb"), 0));
    assert_eq!(told.registrations, pool.figures().buffers as u64);
    // And who reads cannot write, by whatever way.
    let writer = Peer::start(PEER, &["writer", &uri, &format!("publisher={}", std::process::id())]);
    let mut number = 40;
    while !writer.has_said("tried") {
        publisher.publish(&stamped(&pool, number, SIZE)).expect("published");
        assert_eq!(check(&devices.next_frame(Some(PATIENCE)).expect("a frame")), Ok(number));
        number += 1;
        std::thread::sleep(Duration::from_millis(20));
        assert!(number < 2000, "the writer says nothing");
    }
    assert_eq!(writer.expect("wrote"), "[]");
}

/// The publisher's mapping, the dma-buf, the reader's mapping and what the device was given are the same pages.
fn same_pages(sent: &Frame, by_dma_buf: &Frame, reader: i32, domain: &Arc<ProtectionDomain>) {
    let me = std::process::id() as i32;
    let start = |frame: &Frame| frame.segments()[0].buffer.mapping().expect("mapped").as_ptr() as u64;
    let own = proc::page_frames(me, start(sent), SIZE);
    assert!(own.iter().all(|frame| *frame != 0), "root is told page frame numbers: {own:?}");
    // The kernel shows nobody the page frames of a dma-buf's mapping: what is written here must appear there.
    assert_ne!(start(sent), start(by_dma_buf), "two mappings");
    let (here, there) = (&sent.segments()[0].buffer, &by_dma_buf.segments()[0].buffer);
    for page in (0..SIZE / PAGE).map(|page| page * PAGE) {
        let mark = (page as u64 ^ start(sent)).to_le_bytes();
        here.mapping().expect("mapped").copy_from(page + 64, &mark).expect("written");
        let mut seen = [0; 8];
        there.mapping().expect("mapped").copy_to(page + 64, &mut seen).expect("read");
        assert_eq!(seen, mark, "page at {page} by the dma-buf");
    }
    let (_, inode) = sent.segments()[0].buffer.identity().expect("an inode");
    let theirs = proc::mapped_at(reader, inode).expect("mapped by the reader");
    assert_eq!(proc::page_frames(reader, theirs, SIZE), own, "in the reader's process");
    let part = &sent.registered(domain).expect("registered")[0];
    assert_eq!(part.address, start(sent), "what the device was given");
}

#[test]
fn buffers_are_registered_once_and_registrations_go_with_them() {
    let _alone = alone();
    let Some(verbs) = testbed() else { return };
    let before = seen_from_outside();
    let (device, _) = verbs.device_for(ADDRESSES[0]).expect("a device");
    let domain = ProtectionDomain::new(&device).expect("a domain");
    let pool = Pool::new(PoolOptions { limit: 64 << 20, ..PoolOptions::default() });
    pool.populate(SIZE, 3).expect("buffers");
    pool.register(&domain, Access::Source).expect("registered");
    assert_eq!(pool.figures().registrations, 3);
    pool.register(&domain, Access::Source).expect("registered");
    assert_eq!(pool.figures().registrations, 3, "again is not twice");
    // One more than there were: registered before it is filled.
    let leases: Vec<_> = (0..4).map(|_| pool.acquire(SIZE).expect("a buffer")).collect();
    assert_eq!(pool.figures().registrations, 4);
    let grown = seen_from_outside();
    let class = leases[0].buffer().size() as u64;
    assert_eq!(grown.len(), before.len() + 4);
    assert!(grown.iter().filter(|length| **length == class).count() >= 4, "{grown:?}, buffers of {class}");
    // Who has the region keeps it, and its pages, past the buffer.
    let part = pagecast::registration::part(leases[0].buffer(), &domain, 64, 100).expect("registered");
    assert_eq!(part.address, part.region.address() + 64);
    assert!(pagecast::registration::part(leases[0].buffer(), &domain, SIZE, usize::MAX).is_none());
    let other = ProtectionDomain::new(&device).expect("a domain");
    assert!(pagecast::registration::part(leases[0].buffer(), &other, 0, 1).is_none(), "another domain");
    drop(leases);
    pool.trim();
    assert_eq!(pool.figures().registrations, 0);
    assert_eq!(seen_from_outside().len(), before.len() + 1, "the one that somebody has");
    drop(part);
    assert_eq!(seen_from_outside(), before);
}

#[test]
fn a_pool_that_was_not_registered_says_so() {
    let _alone = alone();
    let Some(verbs) = testbed() else { return };
    let (device, _) = verbs.device_for(ADDRESSES[0]).expect("a device");
    let domain = ProtectionDomain::new(&device).expect("a domain");
    let pool = Pool::new(PoolOptions::default());
    let frame = stamped(&pool, 1, SIZE);
    assert!(frame.registered(&domain).is_none());
    pool.register(&domain, Access::Source).expect("registered");
    drop(frame);
    assert!(
        stamped(&pool, 2, SIZE).registered(&domain).is_some(),
        "one that was in use is registered when it is next"
    );
}
