//! What is kept alive, and how long.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pagecast_verbs::fake::Inject;
use pagecast_verbs::{Access, Side, State, Timing, WorkError};

use crate::common::{completion, pair, remote, send_frame};
use crate::pages::{BLOCK, FRAME};
use crate::support::{assert_clean, world};

#[test]
fn a_region_in_flight_outlives_everybody_elses_interest() {
    let (fake, scene) = world();
    let (mut a, mut b) = pair(&scene, Timing::default());
    let ((source, pages), target) = (a.register(FRAME, Access::Source), b.register(FRAME, Access::Receive));
    b.queue.post_recv(0, &[]).unwrap();
    fake.hold();
    send_frame(&mut a, &source, remote(&target.0), BLOCK, 1);
    let (region, memory) = (Arc::downgrade(&source), Arc::downgrade(&pages));
    drop((source, pages));
    fake.step(8);
    assert!(region.upgrade().is_some() && memory.upgrade().is_some(), "half of it is done");
    fake.release();
    assert!(region.upgrade().is_some(), "done, but not polled");
    completion(&mut a).outcome.unwrap();
    assert!(region.upgrade().is_none() && memory.upgrade().is_none());
    drop((a, b, target));
    assert_clean(&fake);
}

#[test]
fn after_an_error_a_region_is_kept_until_its_last_flush_was_polled() {
    for receives_first in [false, true] {
        let (fake, scene) = world();
        fake.flush_receives_first(receives_first);
        let (mut a, b) = pair(&scene, Timing::default());
        let ((source, pages), target) =
            (a.register(FRAME, Access::Source), b.register(FRAME, Access::Receive));
        let (local, _) = a.register(BLOCK, Access::Local);
        fake.hold();
        let into = [pagecast_verbs::Slice { region: &local, offset: 0, length: 64 }];
        a.queue.post_recv(77, &into).unwrap();
        send_frame(&mut a, &source, remote(&target.0), BLOCK, 1);
        a.queue.set_error();
        let watch = [Arc::downgrade(&source), Arc::downgrade(&local)];
        drop((source, pages, local));
        let mut ended = Vec::new();
        a.queue.poll(&mut ended).unwrap();
        assert!(ended.is_empty() && watch.iter().all(|region| region.upgrade().is_some()));
        fake.step(1);
        a.queue.poll(&mut ended).unwrap();
        let first = if receives_first { Side::Receive } else { Side::Send };
        assert_eq!((ended.len(), ended[0].side), (1, first));
        assert!(watch[0].upgrade().is_some());
        fake.release();
        a.queue.poll(&mut ended).unwrap();
        assert_eq!(ended.len(), 1 + 17, "every request comes back, asked for or not");
        assert!(ended.iter().all(|ended| ended.outcome == Err(WorkError::Flushed)));
        assert!(watch.iter().all(|region| region.upgrade().is_none()));
        drop((a, b, target, scene));
        assert_clean(&fake);
    }
}

#[test]
fn a_dropped_queue_pair_is_destroyed_before_what_it_used() {
    let (fake, scene) = world();
    let (mut a, b) = pair(&scene, Timing::default());
    let (source, target) = (a.register(FRAME, Access::Source), b.register(FRAME, Access::Receive));
    fake.hold();
    send_frame(&mut a, &source.0, remote(&target.0), BLOCK, 1);
    // everything else goes first: the queue pair alone keeps region, domain and device
    drop((source, target, b, scene));
    let pagecast = a.queue;
    drop((a.device, fake.registrations()));
    assert_eq!(fake.registrations(), 1);
    drop(pagecast);
    assert_eq!(fake.violations(), Vec::<String>::new());
    assert_eq!(fake.registrations(), 0);
}

#[test]
fn a_queue_pair_that_cannot_be_destroyed_keeps_its_memory_for_ever() {
    let (fake, scene) = world();
    let (mut a, b) = pair(&scene, Timing::default());
    let (source, target) = (a.register(FRAME, Access::Source), b.register(FRAME, Access::Receive));
    fake.hold();
    send_frame(&mut a, &source.0, remote(&target.0), BLOCK, 1);
    let memory = Arc::downgrade(&source.1);
    drop(source);
    fake.inject(Inject::DestroyQueuePair(libc::EBUSY));
    drop(a);
    assert!(memory.upgrade().is_some(), "the device may still read it");
    assert_eq!(fake.violations(), Vec::<String>::new());
}

#[test]
fn a_removed_device_is_told_apart_and_closing_does_not_hang() {
    let (fake, scene) = world();
    let (mut a, mut b) = pair(&scene, Timing::default());
    let (source, target) = (a.register(FRAME, Access::Source), b.register(FRAME, Access::Receive));
    fake.hold();
    send_frame(&mut a, &source.0, remote(&target.0), BLOCK, 1);
    fake.remove(0);
    assert_eq!(a.device.next_event().unwrap(), Some(pagecast_verbs::Event::DeviceFailed));
    assert_eq!(a.device.next_event().unwrap(), None);
    let refused = a.queue.post_send(0, &[]).unwrap_err();
    assert!(refused.to_string().contains("the RDMA device is gone"), "{refused}");
    let Err(gone) = scene.verbs.device_for(scene.addresses[0]) else { panic!("found") };
    assert!(gone.to_string().contains("127.0.0.1"), "{gone}");
    let closed = a.queue.close(Instant::now() + Duration::from_millis(50));
    assert_eq!(closed.unseen, 17);
    // the peer finds out when it sends
    fake.release();
    send_frame(&mut b, &target.0, remote(&target.0), BLOCK, 1);
    assert_eq!(completion(&mut b).outcome, Err(WorkError::NoAnswer));
    assert_eq!(b.queue.state(), State::Error);
    drop((b, source, target, a.device, scene));
    assert_eq!(fake.violations(), Vec::<String>::new());
    assert_eq!(fake.registrations(), 0);
}
