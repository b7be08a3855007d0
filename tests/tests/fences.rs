//! Fences: frames that a device still writes, and pages that one still reads. The kernel's virtual GPU (vgem) makes fences
//! that signal when the test says so; where it is not, each test is skipped.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pagecast::allocators::DmaHeapBacking;
use pagecast::allocators::dma_buf::Direction;
use pagecast::{
    BackingChoice, Description, FaceKind, FaceSet, Fence, FenceError, Frame, Lease, Message, Pool,
    PoolOptions, Publisher, PublisherOptions, RecvError, Subscriber, SubscriberOptions,
};
use pagecast_tests::importer::{Importer, Work};
use pagecast_tests::{Place, eventually, skip};

const SIZE: usize = 10_000;
const PATIENCE: Option<Duration> = Some(Duration::from_secs(30));

/// A device, for one test at a time: its ends of work have a limit of ten seconds.
struct Device {
    importer: Importer,
    place: Place,
    _alone: MutexGuard<'static, ()>,
}

fn device() -> Option<Device> {
    static ONE: Mutex<()> = Mutex::new(());
    let alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let found = Importer::open().and_then(|importer| match DmaHeapBacking::open("system") {
        Ok(_) => Ok(importer),
        Err(error) => Err(error.to_string()),
    });
    found.map_err(|why| skip(&why)).ok().map(|importer| Device {
        importer,
        place: Place::new(),
        _alone: alone,
    })
}

impl Device {
    /// Work on pages of its own, and the fence of it.
    fn work(&self) -> (Work, Fence) {
        let own = pool(BackingChoice::DmaHeap("system".to_owned())).acquire(1).expect("a buffer");
        let fd = own.buffer().face(FaceKind::DmaBuf).expect("a dma-buf").fd;
        let work = self.importer.begin_work(self.importer.import(fd));
        (work, Fence::of_dma_buf(fd, Direction::Read).expect("a fence"))
    }

    fn publisher(&self, pool: &Pool) -> (Publisher, String, String) {
        let uri = format!("{} tcp://127.0.0.1:0", self.place.uri("a"));
        let options = PublisherOptions { live: true, ..PublisherOptions::default() };
        let publisher = Publisher::open(&uri, options).expect("a publisher");
        publisher.set_pool(pool);
        let uris = publisher.info().uri;
        let (local, tcp) = uris.split_once(' ').expect("two addresses");
        (publisher, local.to_owned(), tcp.to_owned())
    }
}

fn pool(backing: BackingChoice) -> Pool {
    Pool::new(PoolOptions { backing, ..PoolOptions::default() })
}

fn filled(pool: &Pool, number: u64) -> Lease {
    let mut lease = pool.acquire(SIZE).expect("a buffer");
    lease.as_mut_slice()[..SIZE].fill(number as u8);
    lease
}

fn frame(lease: Lease, number: u64, fence: Option<&Fence>) -> Frame {
    let description = Description { offset: Some(number), ..Description::default() };
    let builder = Frame::builder().describe(description).lease(lease, SIZE);
    let fenced = fence.cloned().into_iter().fold(builder, |builder, fence| builder.acquire_fence(fence));
    fenced.build().expect("a frame")
}

fn subscriber(uri: &str, faces: FaceSet) -> Subscriber {
    let options = SubscriberOptions { faces, ..SubscriberOptions::default() };
    let subscriber = Subscriber::open(uri, options).expect("a subscriber");
    assert!(matches!(subscriber.recv(PATIENCE), Ok(Message::Connected(_))));
    subscriber
}

/// The next frame; `None` if there is none now.
fn next(subscriber: &Subscriber, limit: Option<Duration>) -> Option<Frame> {
    loop {
        match subscriber.recv(limit) {
            Ok(Message::Frame(frame)) => return Some(frame),
            Ok(_) => {}
            Err(RecvError::Timeout) => return None,
            Err(error) => panic!("{error}"),
        }
    }
}

fn number(frame: &Frame) -> u64 {
    let number = frame.description().offset.expect("a number");
    assert!(frame.to_vec().expect("bytes").iter().all(|byte| *byte == number as u8), "frame {number}");
    number
}

#[test]
fn who_can_wait_gets_the_frame_at_once_and_all_others_when_the_device_is_done() {
    let Some(device) = device() else { return };
    // Pages with both faces.
    let pool = pool(BackingChoice::Memfd);
    let (publisher, local, tcp) = device.publisher(&pool);
    let reader = subscriber(&local, FaceSet::MEMORY);
    let importer = subscriber(&local, FaceSet::DMA_BUF);
    let remote = subscriber(&tcp, FaceSet::MEMORY);
    publisher.publish(&frame(filled(&pool, 0), 0, None)).expect("published");
    let all = [&reader, &importer, &remote];
    assert!(all.iter().all(|subscriber| number(&next(subscriber, PATIENCE).expect("a frame")) == 0));

    let (work, fence) = device.work();
    assert!(!fence.has_signalled());
    publisher.publish(&frame(filled(&pool, 1), 1, Some(&fence))).expect("published");
    publisher.publish(&frame(filled(&pool, 2), 2, None)).expect("published");
    let early = next(&importer, PATIENCE).expect("a frame");
    let acquire = early.acquire_fences().expect("fences");
    assert_eq!(acquire.len(), 1);
    assert!(!acquire[0].has_signalled(), "it came before the device was done");
    assert_eq!(acquire[0].wait(Duration::from_millis(10)), Err(nix::errno::Errno::ETIMEDOUT));
    for subscriber in [&reader, &remote] {
        assert!(next(subscriber, Some(Duration::from_millis(100))).is_none(), "and the others nothing");
    }
    device.importer.finish(work);
    assert_eq!(acquire[0].wait(Duration::from_secs(5)), Ok(()));
    assert_eq!(number(&early), 1);
    for subscriber in [&reader, &remote] {
        let got = [(); 2].map(|()| number(&next(subscriber, PATIENCE).expect("a frame")));
        assert_eq!(got, [1, 2], "in order");
    }
    let info = publisher.info();
    assert!(info.subscribers.iter().all(|s| s.frames == 3 && s.dropped == 0), "{info:?}");
}

#[test]
fn a_fence_that_never_signals_costs_that_frame_only() {
    let Some(device) = device() else { return };
    let pool = pool(BackingChoice::Memfd);
    let (publisher, local, tcp) = device.publisher(&pool);
    let (reader, remote) = (subscriber(&local, FaceSet::MEMORY), subscriber(&tcp, FaceSet::MEMORY));
    let importer = subscriber(&local, FaceSet::DMA_BUF);
    let (_work, fence) = device.work();
    let begun = Instant::now();
    let lease = filled(&pool, 1);
    let pages = lease.buffer().identity();
    publisher.publish(&frame(lease, 1, Some(&fence))).expect("published");
    publisher.publish(&frame(filled(&pool, 2), 2, None)).expect("published");
    assert!(begun.elapsed() < Duration::from_secs(5), "publishing does not wait");
    let stuck = next(&importer, PATIENCE).expect("a frame");
    assert!(stuck.read().is_err() || fence.has_signalled(), "it says that it was not written");
    for subscriber in [&reader, &remote] {
        assert_eq!(number(&next(subscriber, PATIENCE).expect("a frame")), 2);
    }
    let info = publisher.info();
    let lost =
        |faces: &str| info.subscribers.iter().filter(|s| s.faces == [faces]).map(|s| s.dropped).sum::<u64>();
    assert_eq!((lost("memory"), lost("dma-buf")), (2, 0), "{info:?}");
    // As long as the device may write, nobody else does.
    if !fence.has_signalled() {
        drop(stuck);
        drop(next(&importer, Some(Duration::ZERO)));
        let other = filled(&pool, 3);
        assert!(other.buffer().identity() != pages || fence.has_signalled(), "pages of a device at work");
    }
}

#[test]
fn pages_rest_until_the_reading_device_is_done() {
    let Some(device) = device() else { return };
    let pool = pool(BackingChoice::DmaHeap("system".to_owned()));
    let (publisher, local, _) = device.publisher(&pool);
    let importer = subscriber(&local, FaceSet::DMA_BUF);
    // Without a fence the pages that came back last are the next.
    publisher.publish(&frame(filled(&pool, 0), 0, None)).expect("published");
    let pages = hand_back(&pool, &importer, &publisher, None);
    let (work, fence) = device.work();
    let next_pages = |number| {
        let lease = filled(&pool, number);
        (lease.buffer().identity(), lease)
    };
    let (same, lease) = next_pages(1);
    assert_eq!(same, pages, "a control: they are free");
    publisher.publish(&frame(lease, 1, None)).expect("published");
    hand_back(&pool, &importer, &publisher, Some(&fence));
    let (other, lease) = next_pages(2);
    assert!(other != pages || fence.has_signalled(), "a device reads them");
    drop(lease);
    device.importer.finish(work);
    eventually("they are free again", || {
        let leases: Vec<_> = (0..2).map(|_| pool.acquire(SIZE).expect("a buffer")).collect();
        leases.iter().any(|lease| lease.buffer().identity() == pages)
    });
}

/// The importer takes a frame and lets it go, perhaps before its device is done; returns whose pages it had, when the
/// publisher has them back.
fn hand_back(
    pool: &Pool,
    importer: &Subscriber,
    publisher: &Publisher,
    fence: Option<&Fence>,
) -> Option<(u64, u64)> {
    let frame = next(importer, PATIENCE).expect("a frame");
    let pages = frame.segments()[0].buffer.identity();
    if let Some(fence) = fence {
        frame.release_fence(fence).expect("a release fence");
    }
    drop(frame);
    eventually("it was given back", || {
        assert!(next(importer, Some(Duration::ZERO)).is_none());
        pool.reclaim();
        publisher.info().publisher.held == 0
    });
    pages
}

#[test]
fn what_carries_no_fence_says_so() {
    let place = Place::new();
    let plain = pool(BackingChoice::Memfd);
    let publisher = Publisher::open(&place.uri("a"), PublisherOptions::default()).expect("a publisher");
    let reader = subscriber(&place.uri("a"), FaceSet::MEMORY);
    publisher.publish(&frame(filled(&plain, 0), 0, None)).expect("published");
    let received = next(&reader, PATIENCE).expect("a frame");
    assert_eq!(received.acquire_fences().err(), Some(FenceError::NotDmaBuf));
    let null = std::fs::File::open("/dev/null").expect("a file");
    assert!(Fence::new(null.into()).is_err(), "not a sync_file");
    let Some(device) = device() else { return };
    let (work, fence) = device.work();
    assert_eq!(received.release_fence(&fence).err(), Some(FenceError::NotDmaBuf));
    let again = std::os::fd::AsFd::as_fd(&fence).try_clone_to_owned().expect("dup");
    assert!(!Fence::new(again).expect("a sync_file").has_signalled());
    device.importer.finish(work);
    assert!(fence.has_signalled());
}
