//! Limits, at N and N + 1, and what must be refused.

use std::sync::Arc;

use pagecast_verbs::{
    Access, Cm, CompletionQueue, ConnectError, Depth, DeviceError, Doorbell, LoadError, MAX_PIECES,
    MemoryRegion, PostError, ProtectionDomain, QueuePair, RegisterError, Slice, Timing, Verbs, Write,
};

use crate::common::{pair, remote};
use crate::pages::{BLOCK, Pages};
use crate::support::world;

#[test]
fn the_entry_of_an_address_is_never_just_the_first() {
    let (fake, scene) = world();
    for (index, address) in scene.addresses.into_iter().enumerate() {
        let (device, gid) = scene.verbs.device_for(address).unwrap();
        assert!(device.name().ends_with(&format!("-{index}")));
        assert_eq!((gid.index, gid.address()), (2, address));
        assert_eq!(device.gids(1).unwrap().len(), 2, "unused places are left out");
    }
    let missing = scene.verbs.device_for("192.0.2.1".parse().unwrap()).unwrap_err();
    assert!(matches!(missing, DeviceError::NoGid(_)));
    assert_eq!(scene.verbs.devices().unwrap().len(), 2);
    drop(fake);
    assert!(scene.verbs.devices().unwrap().is_empty());
}

#[test]
fn a_missing_library_names_the_package() {
    // SAFETY: neither is a library with initialisers of its own to worry about.
    let missing = unsafe { Verbs::load_from("libpagecast-none.so.1") }.unwrap_err();
    assert!(matches!(missing, LoadError::NoLibrary { .. }));
    assert!(missing.to_string().contains("install libibverbs1"), "{missing}");
    // SAFETY: as above; the C library is loaded already.
    let other = unsafe { Verbs::load_from("libc.so.6") }.unwrap_err();
    assert!(matches!(other, LoadError::TooOld { .. }));
    assert!(other.to_string().contains("ibv_get_device_list"), "{other}");
}

#[test]
fn without_librdmacm_all_else_is_there() {
    let (_fake, scene) = world();
    let none = scene.verbs.cm().unwrap_err();
    assert!(none.to_string().contains("install librdmacm1"), "{none}");
    // SAFETY: as above.
    let missing = unsafe { Cm::load_from(&scene.verbs, "libpagecast-none.so.1") }.unwrap_err();
    assert!(matches!(missing, LoadError::NoLibrary { .. }));
    // SAFETY: as above.
    let other = unsafe { Cm::load_from(&scene.verbs, "libc.so.6") }.unwrap_err();
    assert!(other.to_string().contains("rdma_create_event_channel"), "{other}");
    scene.verbs.device_for(scene.addresses[0]).unwrap();
}

#[test]
fn immediates_can_be_done_without() {
    let (_fake, scene) = world();
    let (device, _) = scene.verbs.device_for(scene.addresses[0]).unwrap();
    assert!(device.has_immediates());
    let (device, _) = scene.verbs.clone().without_immediates().device_for(scene.addresses[0]).unwrap();
    assert!(!device.has_immediates());
}

#[test]
fn a_completion_queue_holds_both_queues() {
    let (_fake, scene) = world();
    let (device, gid) = scene.verbs.device_for(scene.addresses[0]).unwrap();
    let domain = ProtectionDomain::new(&device).unwrap();
    let depth = Depth { send: 8, receive: 4, pieces: 1 };
    let queue = |capacity| CompletionQueue::new(&device, capacity).unwrap();
    QueuePair::new(&domain, queue(12), &gid, depth).unwrap();
    let error = QueuePair::new(&domain, queue(11), &gid, depth).unwrap_err();
    assert!(matches!(error, DeviceError::CompletionQueueTooSmall { have: 11, need: 12 }), "{error}");
    assert!(CompletionQueue::new(&device, 2048).is_ok());
    for capacity in [0, 2049] {
        assert!(matches!(CompletionQueue::new(&device, capacity), Err(DeviceError::OverLimit { .. })));
    }
}

#[test]
fn depths_stay_within_the_devices() {
    let (_fake, scene) = world();
    let (device, gid) = scene.verbs.device_for(scene.addresses[0]).unwrap();
    let domain = ProtectionDomain::new(&device).unwrap();
    let make = |send, receive, pieces| {
        let queue = CompletionQueue::new(&device, 2048).unwrap();
        QueuePair::new(&domain, queue, &gid, Depth { send, receive, pieces }).map(drop)
    };
    make(1024, 1024, MAX_PIECES as u32).unwrap();
    for (send, receive, pieces) in
        [(1025, 1, 1), (1, 1025, 1), (1, 1, MAX_PIECES as u32 + 1), (0, 1, 1), (1, 0, 1), (1, 1, 0)]
    {
        assert!(
            matches!(make(send, receive, pieces), Err(DeviceError::OverLimit { .. })),
            "{send} {receive} {pieces}"
        );
    }
}

#[test]
fn queues_take_their_depth_and_not_one_more() {
    let (fake, scene) = world();
    let (mut a, _b) = pair(&scene, Timing::default());
    fake.hold();
    let depth = a.queue.depth();
    for token in 0..depth.receive {
        a.queue.post_recv(token.into(), &[]).unwrap();
    }
    assert!(matches!(a.queue.post_recv(0, &[]), Err(PostError::Full { need: 1, free: 0 })));
    for token in 0..depth.send {
        a.queue.post_send(token.into(), &[]).unwrap();
    }
    assert!(matches!(a.queue.post_send(0, &[]), Err(PostError::Full { need: 1, free: 0 })));
    a.queue.set_error();
    fake.release();
    let mut ended = Vec::new();
    a.queue.poll(&mut ended).unwrap();
    assert_eq!(ended.len() as u32, depth.completions());
    assert_eq!(fake.violations(), Vec::<String>::new(), "the completion queue held them all");
}

#[test]
fn slices_stay_inside_of_their_region() {
    let (fake, scene) = world();
    let (mut a, b) = pair(&scene, Timing::default());
    fake.hold();
    let (source, target) = (a.register(BLOCK, Access::Source), b.register(BLOCK, Access::Receive));
    let mut post = |offset, length| {
        let from = [Slice { region: &source.0, offset, length }];
        a.queue.post_write(0, &Write { from: &from, to: remote(&target.0) })
    };
    let size = BLOCK as u64;
    post(0, BLOCK as u32).unwrap();
    post(size, 0).unwrap();
    for (offset, length) in [(0, BLOCK as u32 + 1), (size, 1), (u64::MAX, 1), (1, BLOCK as u32)] {
        assert!(matches!(post(offset, length), Err(PostError::OutOfBounds { .. })), "{offset} {length}");
    }
}

#[test]
fn messages_have_at_most_what_the_port_sends_and_the_pieces_asked_for() {
    let (_fake, scene) = world();
    let (mut a, _b) = pair(&scene, Timing::default());
    assert_eq!(a.queue.max_message(), 1 << 30);
    let (source, _pages) = a.register(BLOCK, Access::Source);
    let piece = Slice { region: &source, offset: 0, length: 1 };
    let limit = a.queue.depth().pieces as usize;
    a.queue.post_send(0, &vec![piece; limit]).unwrap();
    let (mut a, _b) = pair(&scene, Timing::default());
    let (source, _pages) = a.register(BLOCK, Access::Source);
    let piece = Slice { region: &source, offset: 0, length: 1 };
    let refused = a.queue.post_send(0, &vec![piece; limit + 1]).unwrap_err();
    assert!(matches!(refused, PostError::TooManyPieces { .. }), "{refused}");
    assert_eq!(a.queue.in_flight(), 0);
}

#[test]
fn regions_of_another_domain_or_for_sending_only_are_refused() {
    let (_fake, scene) = world();
    let (mut a, b) = pair(&scene, Timing::default());
    let (foreign, own) = (b.register(BLOCK, Access::Local), a.register(BLOCK, Access::Source));
    let slice = |region| [Slice { region, offset: 0, length: 8 }];
    assert!(matches!(a.queue.post_recv(0, &slice(&foreign.0)), Err(PostError::ForeignRegion)));
    let doorbell = Doorbell::Send { from: &slice(&foreign.0) };
    assert!(matches!(a.queue.post_frame(0, &[], doorbell), Err(PostError::ForeignRegion)));
    assert!(matches!(a.queue.post_recv(0, &slice(&own.0)), Err(PostError::NotWritable)));
    assert_eq!(a.queue.in_flight(), 0);
}

#[test]
fn an_empty_region_is_refused_and_keys_stay_out_of_logs() {
    let (_fake, scene) = world();
    let (a, _b) = pair(&scene, Timing::default());
    struct Nothing;
    // SAFETY: no bytes at all.
    unsafe impl pagecast_verbs::Memory for Nothing {
        fn base(&self) -> std::ptr::NonNull<u8> {
            std::ptr::NonNull::dangling()
        }
        fn len(&self) -> usize {
            0
        }
    }
    let empty = MemoryRegion::register(a.domain(), Arc::new(Nothing), Access::Source);
    assert!(matches!(empty, Err(RegisterError::ZeroSize)));
    let (region, _): (_, Arc<Pages>) = a.register(BLOCK, Access::Receive);
    let shown = format!("{region:?} {:?}", remote(&region));
    for secret in [u64::from(region.rkey()), region.address()] {
        assert!(!shown.contains(&secret.to_string()) && !shown.contains(&format!("{secret:x}")), "{shown}");
    }
}

#[test]
fn a_queue_pair_connects_once_and_posts_only_then() {
    let (_fake, scene) = world();
    let (mut a, b) = pair(&scene, Timing::default());
    let again = a.queue.connect(&b.queue.endpoint(), Timing::default()).unwrap_err();
    assert!(matches!(again, ConnectError::WrongState(_)));
    let (device, gid) = scene.verbs.device_for(scene.addresses[0]).unwrap();
    let domain = ProtectionDomain::new(&device).unwrap();
    let depth = Depth { send: 1, receive: 1, pieces: 1 };
    let mut fresh = QueuePair::new(&domain, CompletionQueue::new(&device, 2).unwrap(), &gid, depth).unwrap();
    fresh.post_recv(0, &[]).unwrap();
    assert!(matches!(fresh.post_send(0, &[]), Err(PostError::WrongState(_))));
}
