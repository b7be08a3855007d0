//! Two queue pairs over a real kernel's soft-RoCE: what the fake cannot show.
//!
//! It needs two RDMA devices with the addresses 10.77.0.1 and 10.77.0.2, as the testbed has them; elsewhere each test is skipped.

#[path = "../common/cases.rs"]
mod cases;
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/devices.rs"]
mod devices;
#[path = "../common/pages.rs"]
mod pages;
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{completion, pair, remote, send_frame};
use pagecast_verbs::{Access, Completion, Fault, MemoryRegion, Timing, Verbs, WorkError, counters};
use pages::{BLOCK, FRAME};
use support::{regions_seen_from_outside, testbed};

cases::conformance!(testbed);

#[test]
fn stamped_frames_arrive_whole_with_their_immediate_and_the_hardware_counted_them() {
    let Some(scene) = testbed() else { return };
    let (mut a, mut b) = pair(&scene, Timing::default());
    let before = counters::read(a.device.name(), 1).unwrap();
    const FRAMES: u32 = 20;
    cases::send_and_check(&mut a, &mut b, FRAMES);
    let packets = counters::read(a.device.name(), 1).unwrap()["sent_pkts"] - before["sent_pkts"];
    let mtu = a.queue.endpoint().mtu.min(b.queue.endpoint().mtu).bytes() as u64;
    assert!(packets >= FRAMES as u64 * FRAME as u64 / mtu, "{packets} packets of {mtu} bytes");
}

#[test]
fn registrations_are_the_same_before_and_after_and_none_is_made_while_streaming() {
    let Some(scene) = testbed() else { return };
    let before = regions_seen_from_outside();
    {
        let (mut a, mut b) = pair(&scene, Timing::default());
        let (source, target) = (a.register(FRAME, Access::Source), b.register(FRAME, Access::Receive));
        let mut seen = regions_seen_from_outside();
        assert_eq!(seen.len(), before.len() + 2, "{seen:?}");
        seen.retain(|region| !before.contains(region));
        assert!(seen.iter().all(|region| region.length == FRAME as u64), "{seen:?}");
        for frame in 0..5 {
            b.queue.post_recv(0, &[]).unwrap();
            send_frame(&mut a, &source.0, remote(&target.0), FRAME, frame);
            completion(&mut b).outcome.unwrap();
            assert_eq!(regions_seen_from_outside().len(), before.len() + 2);
        }
    }
    assert_eq!(regions_seen_from_outside(), before);
}

#[test]
fn a_peer_that_is_gone_in_mid_flight_flushes_the_rest() {
    let Some(scene) = testbed() else { return };
    let (mut a, b) = pair(&scene, Timing::default());
    let (source, target) = (a.register(FRAME, Access::Source), b.register(FRAME, Access::Receive));
    let to = remote(&target.0);
    let target = (target.0, b);
    for frame in 0..4 {
        send_frame(&mut a, &source.0, to, BLOCK, frame);
    }
    // the regions of the work are kept, whoever else lets go of them
    let watch = Arc::downgrade(&source.0);
    drop((source, target));
    assert!(watch.upgrade().is_some());
    let mut ended: Vec<Completion> = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(60);
    while a.queue.in_flight() > 0 {
        assert!(Instant::now() < deadline, "{} in flight", a.queue.in_flight());
        a.queue.wait(&mut ended, deadline).unwrap();
    }
    let errors: Vec<WorkError> = ended.into_iter().filter_map(|ended| ended.outcome.err()).collect();
    assert_eq!(errors[0].fault(), Fault::Peer, "{errors:?}");
    assert!(errors[1..].iter().all(|error| *error == WorkError::Flushed), "{errors:?}");
    assert!(errors.len() > 1, "the rest was flushed");
    assert!(watch.upgrade().is_none(), "the last completion lets go");
}

#[test]
fn dma_bufs_are_refused_in_words() {
    let Some(scene) = testbed() else { return };
    let (a, _b) = pair(&scene, Timing::default());
    let fd = std::fs::File::open("/dev/null").unwrap();
    let keeper = Arc::new(());
    let result = MemoryRegion::register_dma_buf(
        a.domain(),
        std::os::fd::AsFd::as_fd(&fd),
        0,
        4096,
        Access::Source,
        keeper.clone(),
    );
    let error = result.unwrap_err();
    assert!(error.to_string().contains("dma-buf"), "{error}");
    assert_eq!(Arc::strong_count(&keeper), 1);
}

#[test]
fn ports_and_addresses_are_found() {
    let Some(scene) = testbed() else { return };
    let (device, gid) = scene.verbs.device_for(support::ADDRESSES[0]).unwrap();
    assert_ne!(gid.index, 0, "the first entry is the link-local one");
    assert_eq!(gid.address(), support::ADDRESSES[0]);
    let port = device.port(gid.port).unwrap();
    assert!(port.max_message >= 1 << 30, "{port:?}");
    assert!(device.attributes().unwrap().max_pieces >= 2);
    assert_eq!(device.next_event().unwrap(), None);
    scene.verbs.device_for("192.0.2.1".parse().unwrap()).unwrap_err();
    Verbs::open().unwrap().open_device("none").unwrap_err();
}
