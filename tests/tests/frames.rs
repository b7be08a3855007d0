//! What a frame is to those who embed the library: planes, owners, publishing again.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::sys::stat::fstat;
use pagecast::allocators::MemfdBacking;
use pagecast::ipc::wire::limits::{MAX_EVENT_BYTES, MAX_STICKIES};
use pagecast::publisher::PublishError;
use pagecast::{
    Description, Frame, FrameError, Message, Meta, PageSize, Plane, Policy, Pool, PoolError, PoolOptions,
    Publisher, PublisherOptions, Subscriber, SubscriberOptions, Times,
};
use pagecast_tests::{Place, check, eventually, stamped};

const SIZE: usize = 64 * 1024;
const LIMIT: Option<Duration> = Some(Duration::from_secs(30));

fn inode(frame: &Frame) -> (u64, u64) {
    let stat = fstat(frame.planes()[0].fd.as_fd()).expect("fstat");
    (stat.st_dev, stat.st_ino)
}

#[test]
fn a_received_frame_is_published_again_in_the_same_pages() {
    let place = Place::new();
    let (first, second) = (place.uri("first"), place.uri("second"));
    let pool = Pool::new(PoolOptions::default());
    let source = Publisher::open(&first, PublisherOptions::default()).expect("publisher");
    let relay = Publisher::open(&second, PublisherOptions::default()).expect("publisher");
    let inner = Subscriber::open(&first, SubscriberOptions::default()).expect("subscriber");
    let outer = Subscriber::open(&second, SubscriberOptions::default()).expect("subscriber");
    for subscriber in [&inner, &outer] {
        subscriber.recv(LIMIT).expect("connected");
    }
    for number in 0..100 {
        let original = stamped(&pool, number, SIZE);
        let pages = inode(&original);
        source.publish(&original).expect("published");
        drop(original);
        relay.publish(&inner.next_frame(LIMIT).expect("frame")).expect("published again");
        let seen = outer.next_frame(LIMIT).expect("frame");
        assert_eq!(check(&seen), Ok(number));
        assert_eq!(inode(&seen), pages, "the pages that were written");
    }
    assert!(pool.figures().buffers < 16, "the relay gives frames back: {:?}", pool.figures());
}

#[test]
fn the_owner_is_told_when_the_last_holder_let_go() {
    let place = Place::new();
    let uri = place.uri("a");
    let pool = Pool::new(PoolOptions::default());
    let publisher = Publisher::open(&uri, PublisherOptions::default()).expect("publisher");
    let holders: Vec<_> = (0..2)
        .map(|_| {
            let subscriber = Subscriber::open(&uri, SubscriberOptions::default()).expect("subscriber");
            subscriber.recv(LIMIT).expect("connected");
            subscriber
        })
        .collect();
    publisher.set_attentive(true);
    let released = Arc::new(AtomicUsize::new(0));
    let count = released.clone();
    let lease = pool.acquire(SIZE).expect("buffer");
    let frame = Frame::builder().lease(lease, SIZE).on_last_release(move || {
        count.fetch_add(1, Ordering::SeqCst);
    });
    publisher.publish(&frame.build().expect("frame")).expect("published");
    let frames: Vec<_> = holders.iter().map(|holder| holder.next_frame(LIMIT).expect("frame")).collect();
    let mut frames = frames.into_iter();
    let flush = |holder: &Subscriber| drop(holder.next_frame(Some(Duration::ZERO)));
    drop(frames.next());
    holders.iter().for_each(flush);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(released.load(Ordering::SeqCst), 0, "one still holds it");
    drop(frames.next());
    holders.iter().for_each(flush);
    eventually("the owner is told", || released.load(Ordering::SeqCst) == 1);
}

/// What is called when a frame comes back may publish, also while the publisher waits for who is slow.
#[test]
fn the_owner_may_publish_when_it_is_told() {
    let place = Place::new();
    let uri = place.uri("a");
    let pool = Pool::new(PoolOptions::default());
    let options = PublisherOptions {
        policy: Policy::Block,
        credits: Some(1),
        mailbox: Some(1),
        block_deadline: None,
        ..PublisherOptions::default()
    };
    let publisher = Arc::new(Publisher::open(&uri, options).expect("publisher"));
    let subscriber = Subscriber::open(&uri, SubscriberOptions::default()).expect("subscriber");
    subscriber.recv(LIMIT).expect("connected");
    let (again, another) = (Arc::downgrade(&publisher), stamped(&pool, 3, SIZE));
    let is_told = Arc::new(AtomicUsize::new(0));
    let tells = is_told.clone();
    let told = move || {
        tells.store(1, Ordering::SeqCst);
        again.upgrade().expect("it publishes").publish(&another).expect("published by the owner");
    };
    let first = stamped(&pool, 0, SIZE);
    let first = Frame::builder().segment(first.segments()[0].buffer.clone(), 0, SIZE).owner(first);
    let description = Description { offset: Some(0), ..Description::default() };
    let first = first.describe(description).on_last_release(told).build().expect("frame");
    let frames = [first, stamped(&pool, 1, SIZE), stamped(&pool, 2, SIZE)];
    let (publishes, (done, is_done)) = (publisher.clone(), std::sync::mpsc::channel());
    std::thread::spawn(move || {
        // The third waits for room, which the first makes.
        for frame in frames {
            publishes.publish(&frame).expect("published");
        }
        let _ = done.send(());
    });
    let next = || check(&subscriber.next_frame(LIMIT).expect("a frame"));
    assert_eq!(next(), Ok(0));
    // It goes back at once, and the next is not: the owner finds no room.
    eventually("the owner is told", || is_told.load(Ordering::SeqCst) == 1);
    std::thread::sleep(Duration::from_millis(20));
    let mut numbers = [(); 3].map(|()| next());
    numbers.sort();
    assert_eq!(numbers, [1, 2, 3].map(Ok));
    is_done.recv_timeout(LIMIT.expect("a limit")).expect("the publisher goes on");
}

#[test]
fn everything_said_of_a_frame_arrives() {
    let place = Place::new();
    let uri = place.uri("a");
    let pool = Pool::new(PoolOptions::default());
    let publisher = Publisher::open(&uri, PublisherOptions::default()).expect("publisher");
    publisher.set_caps("video/x-raw, format=NV12, width=64, height=48").expect("caps");
    let subscriber = Subscriber::open(&uri, SubscriberOptions::default()).expect("subscriber");
    subscriber.recv(LIMIT).expect("connected");
    let description = Description {
        times: Times { pts: Some(1), dts: Some(2), duration: Some(3), running: Some(4), ..Times::default() },
        width: 64,
        height: 48,
        planes: [Plane { offset: 0, stride: 128 }, Plane { offset: 10_000, stride: -128 }]
            .into_iter()
            .collect(),
        metas: vec![Meta { name: "test".to_owned(), data: vec![1, 2, 3] }],
        ..Description::default()
    };
    // Two segments in two buffers; the second plane begins in the second segment.
    let frame = Frame::builder()
        .describe(description.clone())
        .lease(pool.acquire(8192).expect("buffer"), 8192)
        .lease(pool.acquire(8192).expect("buffer"), 8192)
        .build()
        .expect("frame");
    publisher.publish(&frame).expect("published");
    let received = subscriber.next_frame(LIMIT).expect("frame");
    let mut said = received.description().clone();
    assert!(said.times.published.take().is_some());
    assert_eq!(said, description);
    assert_eq!(received.caps(), Some("video/x-raw, format=NV12, width=64, height=48"));
    assert!(received.age().is_some_and(|age| age < Duration::from_secs(60)));
    let planes = received.planes();
    assert_eq!((planes[0].offset, planes[0].stride), (0, 128));
    assert_eq!((planes[1].offset, planes[1].stride), (10_000 - 8192, -128));
    assert_ne!(
        fstat(planes[0].fd).expect("fstat").st_ino,
        fstat(planes[1].fd).expect("fstat").st_ino,
        "each plane behind the descriptor of its own segment"
    );
}

/// All that a stream may say of itself is more than a socket takes at once.
#[test]
fn as_many_and_as_large_sticky_values_as_there_may_be_arrive() {
    let place = Place::new();
    let uri = place.uri("a");
    let pool = Pool::new(PoolOptions::default());
    let publisher = Publisher::open(&uri, PublisherOptions::default()).expect("publisher");
    let value = |life: usize, number: usize| vec![(life * 100 + number) as u8; MAX_EVENT_BYTES];
    let tell = |life| {
        for number in 0..MAX_STICKIES {
            publisher.set_sticky(&format!("value-{number}"), &value(life, number)).expect("told");
        }
    };
    tell(0);
    let error = publisher.set_sticky("one-more", b"").expect_err("N + 1");
    assert!(matches!(error, PublishError::TooLarge { .. }), "{error}");
    let subscriber = Subscriber::open(&uri, SubscriberOptions::default()).expect("subscriber");
    subscriber.recv(LIMIT).expect("connected");
    let mut values = 0;
    for life in 0..2 {
        // Those of the second life come all at once to somebody who does not read.
        if life > 0 {
            tell(life);
        }
        publisher.publish(&stamped(&pool, life as u64, SIZE)).expect("published");
        loop {
            match subscriber.recv(LIMIT).expect("a message") {
                Message::Sticky(_) => values += 1,
                Message::Frame(frame) => break assert_eq!(check(&frame), Ok(life as u64)),
                other => panic!("{other:?}"),
            }
        }
        for number in 0..MAX_STICKIES {
            let known = subscriber.stream();
            assert_eq!(known.get(&format!("value-{number}")), Some(&*value(life, number)), "{life}");
        }
        assert_eq!(values, MAX_STICKIES * (life + 1), "each once");
    }
}

#[test]
fn a_frame_over_a_limit_is_refused_when_it_is_built() {
    let pool = Pool::new(PoolOptions::default());
    let buffer = pool.acquire(4096).expect("buffer").buffer().clone();
    let past = Frame::builder().segment(buffer.clone(), buffer.size() - 96, 97).build();
    assert!(matches!(past, Err(FrameError::OutOfBuffer { .. })));
    let of = |segments| (0..segments).fold(Frame::builder(), |f, _| f.segment(buffer.clone(), 0, 1)).build();
    assert!(of(16).is_ok());
    assert!(matches!(of(17), Err(FrameError::OverLimit { what: "segments", .. })));
}

#[test]
fn a_pool_keeps_its_limit_and_turns_buffers_into_other_sizes() {
    let pool = Pool::new(PoolOptions { limit: 1 << 20, ..PoolOptions::default() });
    let all: Vec<_> = (0..16).map(|_| pool.acquire(SIZE).expect("buffer")).collect();
    assert!(matches!(pool.acquire(SIZE), Err(PoolError::Exhausted { .. })), "N + 1");
    assert!(matches!(pool.acquire(2 << 20), Err(PoolError::LargerThanPool { .. })));
    drop(all);
    let larger = pool.acquire(1 << 20).expect("the small ones make room");
    assert_eq!(pool.figures().total, 1 << 20);
    drop(larger);
    assert_eq!(pool.populate(SIZE, 100).expect("some"), 16);
    pool.trim();
    assert_eq!((pool.figures().total, pool.figures().buffers), (0, 0));
}

/// A pool whose buffers have whole pages of so many bytes, as on machines with such pages.
fn pool_of_pages(bytes: usize, limit: u64) -> Pool {
    let pages = PageSize::new(bytes).expect("no smaller than the machine's");
    let options = PoolOptions { limit, ..PoolOptions::default() };
    Pool::with_backing(Box::new(MemfdBacking::with_pages(pages)), options)
}

#[test]
fn small_buffers_are_counted_and_used_again_whatever_the_pages() {
    for page in [PageSize::of_machine().bytes(), 64 * 1024] {
        let pool = pool_of_pages(page, 8 * page as u64);
        for _ in 0..20 {
            for size in [1, page / 3, page] {
                let lease = pool.acquire(size).expect("a buffer");
                assert_eq!(lease.buffer().size(), pool.footprint(size), "{size} of {page}");
            }
        }
        let figures = pool.figures();
        assert!(figures.allocated <= 3, "a buffer of one page for each size: {figures:?}");
        let all: Vec<_> = std::iter::from_fn(|| pool.acquire(page - 1).ok()).collect();
        assert_eq!((all.len(), pool.figures().total), (8, 8 * page as u64), "the limit, in pages of {page}");
    }
}

#[test]
fn frames_of_larger_pages_arrive_whole() {
    let place = Place::new();
    let pool = pool_of_pages(64 * 1024, 64 << 20);
    let publisher = Publisher::open(&place.uri("a"), PublisherOptions::default()).expect("publisher");
    publisher.set_pool(&pool);
    let subscriber = Subscriber::open(&place.uri("a"), SubscriberOptions::default()).expect("subscriber");
    subscriber.recv(LIMIT).expect("connected");
    for (number, size) in [1000, 65_535, 65_536, 65_537, 1_000_000].into_iter().enumerate() {
        publisher.publish(&stamped(&pool, number as u64, size)).expect("published");
        let frame = subscriber.next_frame(LIMIT).expect("frame");
        assert_eq!((check(&frame), frame.size()), (Ok(number as u64), size));
        assert_eq!(frame.segments()[0].buffer.size() % (64 * 1024), 0);
    }
}
