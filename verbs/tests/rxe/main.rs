//! Two queue pairs over a real kernel's soft-RoCE: what the fake cannot show.
//!
//! It needs two RDMA devices with the addresses 10.77.0.1 and 10.77.0.2, as the testbed has them; elsewhere each test is skipped.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use pagecast_verbs::{
    Access, Completion, Doorbell, Fault, MemoryRegion, Remote, Side, Slice, State, Timing, Verbs, WorkError,
    Write, counters,
};
use support::{BLOCK, End, Pages, alone, check, completion, pair, regions_seen_from_outside, stamp, testbed};

/// Bytes of a frame here: 16 blocks.
const FRAME: usize = 16 * BLOCK;

fn remote(region: &MemoryRegion) -> Remote {
    Remote { address: region.address(), rkey: region.rkey() }
}

/// Sends all of `from` to `to`, in writes of `step` bytes, and a doorbell with `value`.
fn send_frame(end: &mut End, from: &Arc<MemoryRegion>, to: Remote, step: usize, value: u32) {
    let slices: Vec<[Slice<'_>; 1]> = (0..from.length())
        .step_by(step)
        .map(|offset| [Slice { region: from, offset, length: step as u32 }])
        .collect();
    let writes: Vec<Write<'_>> = slices
        .iter()
        .map(|slice| Write { from: slice, to: Remote { address: to.address + slice[0].offset, ..to } })
        .collect();
    let doorbell = Doorbell::Immediate { write: Write { from: &[], to }, value };
    end.queue.post_frame(value.into(), &writes, doorbell).unwrap();
}

#[test]
fn stamped_frames_arrive_whole_with_their_immediate_and_the_hardware_counted_them() {
    let _alone = alone();
    let Some(verbs) = testbed() else { return };
    let (mut a, mut b) = pair(&verbs, Timing::default());
    let before = counters::read(a.device.name(), 1).unwrap();
    let (source, target) = (a.register(FRAME, Access::Source), b.register(FRAME, Access::Receive));
    const FRAMES: u32 = 20;
    for frame in 0..FRAMES {
        stamp(&source.1, frame);
        b.queue.post_recv(frame.into(), &[]).unwrap();
        send_frame(&mut a, &source.0, remote(&target.0), 4 * BLOCK, frame);
        let got = completion(&mut b);
        assert_eq!((got.token, got.side), (frame.into(), Side::Receive));
        assert_eq!(got.outcome.unwrap().immediate, Some(frame));
        check(&target.1, frame).unwrap();
        let sent = completion(&mut a);
        assert_eq!((sent.token, sent.side), (frame.into(), Side::Send));
        sent.outcome.unwrap();
    }
    assert_eq!((a.queue.in_flight(), b.queue.in_flight()), (0, 0));
    let packets = counters::read(a.device.name(), 1).unwrap()["sent_pkts"] - before["sent_pkts"];
    let mtu = a.queue.endpoint().mtu.min(b.queue.endpoint().mtu).bytes() as u64;
    assert!(packets >= FRAMES as u64 * FRAME as u64 / mtu, "{packets} packets of {mtu} bytes");
}

#[test]
fn a_wrong_byte_is_noticed() {
    let _alone = alone();
    let Some(verbs) = testbed() else { return };
    let (mut a, mut b) = pair(&verbs, Timing::default());
    let (source, target) = (a.register(FRAME, Access::Source), b.register(FRAME, Access::Receive));
    stamp(&source.1, 1);
    source.1.write(FRAME - 1, 0xee);
    b.queue.post_recv(0, &[]).unwrap();
    send_frame(&mut a, &source.0, remote(&target.0), FRAME, 1);
    completion(&mut b).outcome.unwrap();
    check(&target.1, 1).unwrap_err();
}

#[test]
fn messages_fill_posted_receives() {
    let _alone = alone();
    let Some(verbs) = testbed() else { return };
    let (mut a, mut b) = pair(&verbs, Timing::default());
    let (source, target) = (a.register(BLOCK, Access::Source), b.register(BLOCK, Access::Local));
    stamp(&source.1, 9);
    let into = [Slice { region: &target.0, offset: 0, length: BLOCK as u32 }];
    b.queue.post_recv(5, &into).unwrap();
    // gathered from two pieces
    let half = BLOCK as u32 / 2;
    let pieces = [0, half].map(|offset| Slice { region: &source.0, offset: offset.into(), length: half });
    a.queue.post_send(6, &pieces).unwrap();
    let got = completion(&mut b);
    assert_eq!(got.token, 5);
    assert_eq!(got.outcome.unwrap().bytes as usize, BLOCK);
    check(&target.1, 9).unwrap();
}

#[test]
fn unreported_writes_empty_the_queue_by_themselves() {
    let _alone = alone();
    let Some(verbs) = testbed() else { return };
    let (mut a, b) = pair(&verbs, Timing::default());
    let (source, target) = (a.register(BLOCK, Access::Source), b.register(BLOCK, Access::Receive));
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut posted = 0;
    while posted < 10 * a.queue.depth().send {
        assert!(Instant::now() < deadline, "{posted} posted");
        let from = [Slice { region: &source.0, offset: 0, length: 64 }];
        if a.queue.free_sends() > 0 {
            a.queue.post_write(0, &Write { from: &from, to: remote(&target.0) }).unwrap();
            posted += 1;
        }
        a.queue.poll(&mut Vec::new()).unwrap();
    }
}

#[test]
fn registrations_are_the_same_before_and_after_and_none_is_made_while_streaming() {
    let _alone = alone();
    let Some(verbs) = testbed() else { return };
    let before = regions_seen_from_outside();
    {
        let (mut a, mut b) = pair(&verbs, Timing::default());
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
fn a_peer_without_a_receive_is_an_error_within_seconds() {
    let _alone = alone();
    let Some(verbs) = testbed() else { return };
    let (mut a, b) = pair(&verbs, Timing::default());
    let (source, target) = (a.register(BLOCK, Access::Source), b.register(BLOCK, Access::Receive));
    send_frame(&mut a, &source.0, remote(&target.0), BLOCK, 1);
    let error = failure(&mut a);
    assert_eq!(error, WorkError::NoReceive);
    assert_eq!((error.fault(), a.queue.state()), (Fault::Peer, State::Error));
}

/// The first completion that failed, and not because of another.
fn failure(end: &mut End) -> WorkError {
    loop {
        if let Err(error) = completion(end).outcome {
            return error;
        }
    }
}

#[test]
fn a_peer_that_is_gone_in_mid_flight_flushes_the_rest() {
    let _alone = alone();
    let Some(verbs) = testbed() else { return };
    let (mut a, b) = pair(&verbs, Timing::default());
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
fn a_peer_that_died_shows_though_endless_retries_were_asked_for() {
    let _alone = alone();
    let Some(verbs) = testbed() else { return };
    let (mut a, mut b) = pair(&verbs, Timing { retry: 7, rnr_retry: 7, ..Timing::default() });
    let (source, target) = (a.register(FRAME, Access::Source), b.register(FRAME, Access::Receive));
    let to = remote(&target.0);
    b.queue.post_recv(0, &[]).unwrap();
    send_frame(&mut a, &source.0, to, BLOCK, 1);
    completion(&mut a).outcome.unwrap();
    drop(b);
    send_frame(&mut a, &source.0, to, BLOCK, 2);
    assert_eq!(failure(&mut a), WorkError::NoAnswer);
}

#[test]
fn a_wrong_key_or_address_is_the_senders_end() {
    let _alone = alone();
    let Some(verbs) = testbed() else { return };
    for wrong in [0, 1, 2] {
        let (mut a, mut b) = pair(&verbs, Timing::default());
        let (source, target) = (a.register(BLOCK, Access::Source), b.register(BLOCK, Access::Receive));
        stamp(&target.1, 3);
        let mut to = remote(&target.0);
        match wrong {
            0 => to.rkey ^= 0x5500,
            1 => to.address += 1,
            _ => to.rkey = b.register(BLOCK, Access::Source).0.rkey(),
        }
        b.queue.post_recv(0, &[]).unwrap();
        send_frame(&mut a, &source.0, to, BLOCK, 1);
        assert_eq!(failure(&mut a), WorkError::RemoteAccess, "case {wrong}");
        check(&target.1, 3).unwrap();
    }
}

#[test]
fn closing_sees_every_receive_come_back() {
    let _alone = alone();
    let Some(verbs) = testbed() else { return };
    let (a, mut b) = pair(&verbs, Timing::default());
    for token in 0..b.queue.depth().receive {
        b.queue.post_recv(token.into(), &[]).unwrap();
    }
    b.queue.post_recv(0, &[]).unwrap_err();
    let deadline = Instant::now() + Duration::from_secs(30);
    assert_eq!(b.queue.close(deadline).unseen, 0);
    assert_eq!(a.queue.close(deadline).unseen, 0);
}

#[test]
fn a_wait_ends_at_its_deadline() {
    let _alone = alone();
    let Some(verbs) = testbed() else { return };
    let (mut a, _b) = pair(&verbs, Timing::default());
    let start = Instant::now();
    let count = a.queue.wait(&mut Vec::new(), start + Duration::from_millis(300)).unwrap();
    assert_eq!(count, 0);
    assert!(start.elapsed() >= Duration::from_millis(300));
}

#[test]
fn dma_bufs_are_refused_in_words() {
    let _alone = alone();
    let Some(verbs) = testbed() else { return };
    let (a, _b) = pair(&verbs, Timing::default());
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
    let _alone = alone();
    let Some(verbs) = testbed() else { return };
    let (device, gid) = verbs.device_for(support::ADDRESSES[0]).unwrap();
    assert_ne!(gid.index, 0, "the first entry is the link-local one");
    assert_eq!(gid.address(), support::ADDRESSES[0]);
    let port = device.port(gid.port).unwrap();
    assert!(port.max_message >= 1 << 30, "{port:?}");
    assert!(device.attributes().unwrap().max_pieces >= 2);
    assert!(device.next_event().unwrap().is_none_or(|_| true));
    verbs.device_for("192.0.2.1".parse().unwrap()).unwrap_err();
    Verbs::open().unwrap().open_device("none").unwrap_err();
    let _unused = Pages::new(1);
}
