//! Each backing by each transport, byte for byte, and what the CPU tells the drivers. It needs the testbed's devices;
//! elsewhere each test is skipped.

use std::sync::Mutex;
use std::time::Duration;

use nix::sys::stat::fstat;
use pagecast::allocators::dma_buf::{self, CpuAccess, Direction};
use pagecast::allocators::receive;
use pagecast::ipc::wire::RefusalCode;
use pagecast::remote::AllowList;
use pagecast::{
    BackingChoice, Description, DrmFourcc, DrmModifier, FaceSet, Frame, Message, PictureError, Plane, Pool,
    PoolOptions, Publisher, PublisherOptions, RecvError, RemoteOptions, Subscriber, SubscriberOptions,
};
use pagecast_tests::importer::{Importer, kernel_says};
use pagecast_tests::peers::Peer;
use pagecast_tests::scene::Scene;
use pagecast_tests::testbed::{OTHER, OWN, testbed};
use pagecast_tests::tracing::{Calls, Trace};
use pagecast_tests::{Place, eventually, spoilt};

const PEER: &str = env!("CARGO_BIN_EXE_pagecast-peer");
/// Not a whole number of pages.
const SIZE: usize = 300_001;
const FRAMES: u64 = 40;
const PATIENCE: Option<Duration> = Some(Duration::from_secs(30));
const NETWORKS: &str = "networks=10.77.0.0/24";

fn options(backing: &str, size: usize) -> Vec<String> {
    let (backing, size) = (format!("backing={backing}"), format!("size={size}"));
    let others = ["policy=block", "block_deadline=60000", NETWORKS, "insecure=true"];
    [backing, size].into_iter().chain(others.map(str::to_owned)).collect()
}

/// One publisher, and a subscriber by each transport.
fn matrix(backing: &str, faces: &[&str], copied_for_rdma: bool) {
    let Some(_testbed) = testbed() else { return };
    let place = Place::new();
    let uri = format!("{} tcp://{OWN}:0 rdma://{OWN}:0", place.uri("a"));
    let options = options(backing, SIZE);
    let mut arguments = vec!["publisher", &uri];
    arguments.extend(options.iter().map(String::as_str));
    let mut publisher = Peer::start(PEER, &arguments);
    let addresses = publisher.expect("ready");
    let join = |address: &str| {
        let from = if address.starts_with("unix:") { String::new() } else { format!("?from={OTHER}") };
        let address = format!("{address}{from}");
        let peer = Peer::start(PEER, &["subscriber", &address, "insecure=true", "dma_bufs=true"]);
        peer.expect("connected");
        peer
    };
    let peers: Vec<Peer> = addresses.split_whitespace().map(join).collect();
    assert_eq!(peers.len(), 3, "{addresses}");
    publisher.say(&format!("publish {FRAMES}"));
    publisher.expect("published");
    for peer in &peers {
        peer.try_follow(FRAMES).unwrap_or_else(|error| panic!("{error}"));
    }
    publisher.say("info");
    let info: pagecast::Info = serde_json::from_str(&publisher.expect("info")).expect("figures");
    let kind = backing.split(':').next().unwrap_or_default();
    assert_eq!(info.publisher.backing.as_deref(), Some(kind), "{info:?}");
    assert_eq!(info.publisher.faces, faces, "{info:?}");
    assert_eq!(info.publisher.fallbacks, Vec::<String>::new());
    let by = |transport: &str| info.subscribers.iter().find(|s| s.transport == transport).expect(transport);
    let all = ["unix", "tcp", "rdma"].map(by);
    assert!(all.iter().all(|s| s.frames == FRAMES && s.dropped == 0), "{info:?}");
    let copies = if copied_for_rdma { FRAMES } else { 0 };
    assert_eq!(all.map(|subscriber| subscriber.copied), [0, 0, copies], "{info:?}");
}

#[test]
fn memfd_by_each_transport() {
    matrix("memfd", &["memory", "dma-buf"], false);
}

#[test]
fn hugetlb_by_each_transport() {
    matrix("hugetlb", &["memory", "dma-buf"], false);
}

#[test]
fn dma_heap_by_each_transport() {
    // Soft RDMA registers no dma-bufs, and pages of a heap cannot be pinned.
    matrix("dma-heap:system", &["dma-buf"], true);
}

#[test]
fn drm_dumb_by_each_transport() {
    matrix("drm-dumb", &["dma-buf"], true);
}

#[test]
fn a_wrong_page_of_a_device_is_found_by_all() {
    let Some(_testbed) = testbed() else { return };
    let place = Place::new();
    let networks = AllowList::parse("10.77.0.0/24").expect("a network");
    let remote = RemoteOptions { networks, insecure: true, ..RemoteOptions::default() };
    let uri = format!("{} rdma://{OWN}:0", place.uri("a"));
    let options = PublisherOptions { remote, ..PublisherOptions::default() };
    let publisher = Publisher::open(&uri, options).expect("a publisher");
    let backing = BackingChoice::DmaHeap("system".to_owned());
    let pool = Pool::new(PoolOptions { backing, ..PoolOptions::default() });
    publisher.set_pool(&pool);
    let addresses = publisher.info().uri;
    let [local, rdma] = addresses.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{addresses}") };
    let rdma = format!("{rdma}?from={OTHER}");
    let peers = [local, &rdma].map(|uri| {
        let peer = Peer::start(PEER, &["subscriber", uri, "insecure=true", "dma_bufs=true"]);
        peer.expect("connected");
        peer
    });
    publisher.publish(&spoilt(&pool, 0, SIZE, 70)).expect("published");
    for peer in &peers {
        let complaint = peer.expect("bad");
        assert!(complaint.contains("page 70"), "{complaint}");
    }
}

/// System calls of the publisher and of a subscriber for each frame.
fn calls(what: Calls, backing: &str, size: usize) -> [usize; 2] {
    let options = options(backing, size);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let mut scene = Scene::at(PEER, Place::new(), &options, "");
    let uri = scene.uri.clone();
    // Pages of a memfd are mapped by their memory face.
    scene.admit(&uri, &[if backing == "memfd" { "dma_bufs=false" } else { "dma_bufs=true" }]);
    scene.publish(16);
    // A new buffer takes calls of its own.
    let mut quiet = || {
        let before = scene.info().publisher.pool_total;
        let trace = Trace::begin(what);
        scene.publish(FRAMES);
        let count = [scene.publisher.pid(), scene.healthy[0].pid()].map(|pid| trace.count(pid));
        drop(trace);
        (scene.info().publisher.pool_total == before).then_some(count)
    };
    let count = (0..20).find_map(|_| quiet()).expect("frames without a new buffer");
    count.map(|count| {
        assert_eq!(count % FRAMES as usize, 0, "{backing}: {count} in {FRAMES} frames of {size} bytes");
        count / FRAMES as usize
    })
}

#[test]
fn the_cpu_says_when_it_touches_pages_of_a_device() {
    let Some(_testbed) = testbed() else { return };
    // One beginning and one end each.
    for (backing, expected) in [("dma-heap", 2), ("drm-dumb", 2), ("memfd", 0)] {
        assert_eq!(calls(Calls::DmaBufSync, backing, SIZE), [expected, expected], "{backing}");
    }
}

#[test]
fn large_frames_take_no_more_system_calls_than_small_ones() {
    let Some(_testbed) = testbed() else { return };
    for (backing, expected) in [("dma-heap", 2), ("memfd", 0)] {
        for size in [70_000, 1_300_000] {
            // Of the subscriber's calls some are for the copy that it looks at.
            let [publisher, _] = calls(Calls::Pages, backing, size);
            assert_eq!(publisher, expected, "{backing}, {size} bytes");
        }
    }
}

/// A picture as a camera's driver has it: planes behind each other in one buffer, or each in one of its own, none of them
/// at its beginning.
#[test]
fn planes_in_one_and_in_several_dma_bufs_are_where_they_are_said_to_be() {
    let Some(_testbed) = testbed() else { return };
    const BEFORE: usize = 8192;
    const PLANES: [usize; 2] = [64 * 48, 64 * 24];
    let place = Place::new();
    let uri = place.uri("a");
    let publisher = Publisher::open(&uri, PublisherOptions::default()).expect("a publisher");
    publisher.set_caps("video/x-raw, format=(string)NV12, width=(int)64, height=(int)48").expect("caps");
    let backing = BackingChoice::DmaHeap("system".to_owned());
    let pool = Pool::new(PoolOptions { backing, ..PoolOptions::default() });
    publisher.set_pool(&pool);
    let any = SubscriberOptions { faces: FaceSet::all(), ..SubscriberOptions::default() };
    let subscriber = Subscriber::open(&uri, any).expect("a subscriber");
    subscriber.recv(PATIENCE).expect("connected");
    let importer = Importer::open().expect("a device that imports");
    for (buffers, together) in [(1, true), (2, false)] {
        let mut leases: Vec<_> = (0..buffers).map(|_| pool.acquire(64 << 10).expect("a buffer")).collect();
        let mut builder = Frame::builder();
        for (at, length) in PLANES.into_iter().enumerate() {
            let (lease, start) =
                if together { (0, BEFORE + at * PLANES[0]) } else { (at, BEFORE * (at + 1)) };
            let lease = &mut leases[lease];
            lease.write(start, &vec![7 + at as u8; length]).expect("written");
            lease.end_writing();
            builder = builder.segment(lease.buffer().clone(), start, length);
        }
        let planes = [Plane { offset: 0, stride: 64 }, Plane { offset: PLANES[0] as u64, stride: 64 }];
        let planes = planes.into_iter().collect();
        let description = Description { width: 64, height: 48, planes, ..Description::default() };
        let ours =
            leases.iter().map(|lease| lease.buffer().identity().expect("an inode")).collect::<Vec<_>>();
        let frame = builder.describe(description).owner(Mutex::new(leases)).build().expect("a frame");
        publisher.publish(&frame).expect("published");
        let received = subscriber.next_frame(PATIENCE).expect("a frame");
        let picture = received.picture().expect("a picture");
        assert_eq!((picture.width, picture.height, picture.planes.len()), (64, 48, 2));
        assert_eq!((picture.fourcc, picture.modifier), (DrmFourcc::Nv12, DrmModifier::Linear));
        for (at, plane) in picture.planes.iter().enumerate() {
            let stat = fstat(plane.fd).expect("fstat");
            assert_eq!((stat.st_dev, stat.st_ino), ours[if together { 0 } else { at }]);
            assert_eq!(plane.stride, 64);
            importer.import(plane.fd);
            assert!(kernel_says(stat.st_ino).contains("vgem"), "{}", kernel_says(stat.st_ino));
            // As an importer would, without a word from us on where the bytes are.
            let size = dma_buf::size(plane.fd).expect("a size");
            let whole =
                receive::dma_buf(plane.fd.try_clone_to_owned().expect("dup"), size).expect("a dma-buf");
            let mut bytes = vec![0; PLANES[at] + 1];
            let _access = CpuAccess::begin(plane.fd, Direction::Read).expect("access");
            whole.map().expect("mapped").copy_to(plane.offset as usize, &mut bytes).expect("bytes");
            let (within, behind) = bytes.split_at(PLANES[at]);
            assert!(within.iter().all(|byte| *byte == 7 + at as u8), "plane {at}");
            assert_ne!(behind, [7 + at as u8], "the plane ends there");
        }
        assert_eq!(received.to_vec().expect("bytes").len(), PLANES.iter().sum::<usize>());
    }
}

#[test]
fn who_asks_for_no_dma_buf_is_told_that_the_picture_needs_one() {
    let place = Place::new();
    let uri = place.uri("a");
    let publisher = Publisher::open(&uri, PublisherOptions::default()).expect("a publisher");
    let pool = Pool::new(PoolOptions { backing: BackingChoice::Memfd, ..PoolOptions::default() });
    let subscriber = Subscriber::open(&uri, SubscriberOptions::default()).expect("a subscriber");
    subscriber.recv(PATIENCE).expect("connected");
    let ask = |caps: &str, planes: &[Plane], size: usize| {
        publisher.set_caps(caps).expect("caps");
        let planes = planes.iter().copied().collect();
        let description = Description { width: 64, height: 48, planes, ..Description::default() };
        let builder =
            Frame::builder().describe(description).lease(pool.acquire(size).expect("a buffer"), size);
        let other = pool.acquire(size).expect("a buffer");
        publisher.publish(&builder.lease(other, size).build().expect("a frame")).expect("published");
        loop {
            if let Message::Frame(frame) = subscriber.recv(PATIENCE).expect("a message") {
                return frame.picture().map(drop).expect_err("no picture");
            }
        }
    };
    let plane = |offset| Plane { offset, stride: 64 };
    let (gray, whole) = ("video/x-raw, format=GRAY8", [plane(0), plane(4096)]);
    assert_eq!(ask(gray, &whole, 4096), PictureError::NotDmaBuf);
    assert_eq!(ask(gray, &[], 4096), PictureError::NoLayout);
    assert_eq!(ask(gray, &[plane(64)], 4096), PictureError::Split(0));
    assert!(matches!(ask("video/x-raw, format=v210", &whole, 4096), PictureError::Unknown(_)));
    assert!(matches!(ask("application/x-test", &whole, 4096), PictureError::NoFormat { .. }));
}

/// A frame of two buffers, of which one has no face that was asked for: the link ends with that word, and with nothing of the
/// other buffer.
#[test]
fn who_has_no_face_for_one_of_two_buffers_is_told_and_asks_for_all() {
    let Some(_testbed) = testbed() else { return };
    let place = Place::new();
    let uri = place.uri("a");
    let publisher = Publisher::open(&uri, PublisherOptions::default()).expect("a publisher");
    let pools = ["memfd", "dma-heap:system"].map(|backing| {
        let backing = backing.parse().expect("a backing");
        Pool::new(PoolOptions { backing, ..PoolOptions::default() })
    });
    let frame = || {
        let leases = pools.iter().map(|pool| pool.acquire(SIZE).expect("a buffer"));
        leases.fold(Frame::builder(), |frame, lease| frame.lease(lease, SIZE)).build().expect("a frame")
    };
    for any_face in [false, true] {
        let options = SubscriberOptions { any_face, ..SubscriberOptions::default() };
        let subscriber = Subscriber::open(&uri, options).expect("a subscriber");
        assert!(matches!(subscriber.recv(PATIENCE), Ok(Message::Connected(_))));
        let mut told = None;
        eventually("it is told, or gets a frame", || {
            publisher.publish(&frame()).expect("published");
            told = Some(subscriber.recv(Some(Duration::from_millis(20))));
            matches!(told, Some(Ok(Message::Frame(_)) | Err(RecvError::Refused { .. } | RecvError::Fault(_))))
        });
        match told {
            Some(Ok(Message::Frame(frame))) if any_face => assert_eq!(frame.segments().len(), 2),
            Some(Err(RecvError::Refused { code: RefusalCode::Face, .. })) if !any_face => {}
            other => panic!("{other:?}, where any face will do: {any_face}"),
        }
    }
}

#[test]
fn devices_that_are_not_there_are_named() {
    let place = Place::new();
    let pool = |backing: &str| {
        let backing = backing.parse().expect("a backing");
        Pool::new(PoolOptions { backing, ..PoolOptions::default() })
    };
    let no_heap = pool("dma-heap:nowhere").check().expect_err("no such heap").to_string();
    assert!(no_heap.contains("nowhere"), "{no_heap}");
    let path = place.path().join("card9");
    let no_card = pool(&format!("drm-dumb:{}", path.display())).acquire(1).expect_err("no such card");
    assert!(no_card.to_string().contains("card9"), "{no_card}");
    for wrong in ["dma-heap:", "drm-dumb:", "memfd:2", "heap", ""] {
        assert!(wrong.parse::<BackingChoice>().is_err(), "{wrong}");
    }
    for right in ["auto", "memfd", "hugetlb", "dma-heap:linux,cma", "drm-dumb", "drm-dumb:/dev/dri/card1"] {
        assert_eq!(right.parse::<BackingChoice>().map(|choice| choice.to_string()).as_deref(), Ok(right));
    }
}
