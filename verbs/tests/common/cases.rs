//! What every filler of the table and every device must do.

use std::time::{Duration, Instant};

use pagecast_verbs::{Access, Fault, Side, Slice, State, Timing, WorkError, Write};

use crate::common::{End, Scene, completion, failure, pair, remote, send_frame};
use crate::pages::{BLOCK, FRAME, check, stamp};

/// A test of each case, with a scene from `$scene` or none where the machine has none.
macro_rules! conformance {
    ($scene:path: $($case:ident)*) => {
        $(#[test]
        fn $case() {
            if let Some(scene) = $scene() {
                $crate::cases::$case(&scene);
            }
        })*
    };
    ($scene:path) => {
        $crate::cases::conformance! { $scene:
            frames_arrive_whole_with_their_immediates
            a_wrong_byte_is_noticed
            messages_fill_posted_receives
            unreported_writes_empty_the_queue_by_themselves
            a_peer_without_a_receive_is_an_error_within_seconds
            a_peer_that_died_shows_though_endless_retries_were_asked_for
            a_wrong_key_or_address_is_the_senders_end
            closing_sees_every_receive_come_back
            a_wait_ends_at_its_deadline
        }
    };
}
pub(crate) use conformance;

pub(crate) fn frames_arrive_whole_with_their_immediates(scene: &Scene) {
    let (mut a, mut b) = pair(scene, Timing::default());
    send_and_check(&mut a, &mut b, 10);
}

/// Sends so many stamped frames, each checked with its immediate.
pub(crate) fn send_and_check(a: &mut End, b: &mut End, frames: u32) {
    let (source, target) = (a.register(FRAME, Access::Source), b.register(FRAME, Access::Receive));
    for frame in 0..frames {
        stamp(&source.1, frame);
        b.queue.post_recv(frame.into(), &[]).unwrap();
        send_frame(a, &source.0, remote(&target.0), 4 * BLOCK, frame);
        let got = completion(b);
        assert_eq!((got.token, got.side), (frame.into(), Side::Receive));
        assert_eq!(got.outcome.unwrap().immediate, Some(frame));
        check(&target.1, frame).unwrap();
        let sent = completion(a);
        assert_eq!((sent.token, sent.side), (frame.into(), Side::Send));
        sent.outcome.unwrap();
    }
    assert_eq!((a.queue.in_flight(), b.queue.in_flight()), (0, 0));
}

pub(crate) fn a_wrong_byte_is_noticed(scene: &Scene) {
    let (mut a, mut b) = pair(scene, Timing::default());
    let (source, target) = (a.register(FRAME, Access::Source), b.register(FRAME, Access::Receive));
    stamp(&source.1, 1);
    source.1.write(FRAME - 1, 0xee);
    b.queue.post_recv(0, &[]).unwrap();
    send_frame(&mut a, &source.0, remote(&target.0), FRAME, 1);
    completion(&mut b).outcome.unwrap();
    check(&target.1, 1).unwrap_err();
}

pub(crate) fn messages_fill_posted_receives(scene: &Scene) {
    let (mut a, mut b) = pair(scene, Timing::default());
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

pub(crate) fn unreported_writes_empty_the_queue_by_themselves(scene: &Scene) {
    let (mut a, b) = pair(scene, Timing::default());
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

pub(crate) fn a_peer_without_a_receive_is_an_error_within_seconds(scene: &Scene) {
    let (mut a, b) = pair(scene, Timing::default());
    let (source, target) = (a.register(BLOCK, Access::Source), b.register(BLOCK, Access::Receive));
    send_frame(&mut a, &source.0, remote(&target.0), BLOCK, 1);
    let error = failure(&mut a);
    assert_eq!(error, WorkError::NoReceive);
    assert_eq!((error.fault(), a.queue.state()), (Fault::Peer, State::Error));
}

pub(crate) fn a_peer_that_died_shows_though_endless_retries_were_asked_for(scene: &Scene) {
    let (mut a, mut b) = pair(scene, Timing { retry: 7, rnr_retry: 7, ..Timing::default() });
    let (source, target) = (a.register(FRAME, Access::Source), b.register(FRAME, Access::Receive));
    let to = remote(&target.0);
    b.queue.post_recv(0, &[]).unwrap();
    send_frame(&mut a, &source.0, to, BLOCK, 1);
    completion(&mut a).outcome.unwrap();
    drop(b);
    send_frame(&mut a, &source.0, to, BLOCK, 2);
    assert_eq!(failure(&mut a), WorkError::NoAnswer);
}

pub(crate) fn a_wrong_key_or_address_is_the_senders_end(scene: &Scene) {
    for wrong in [0, 1, 2] {
        let (mut a, mut b) = pair(scene, Timing::default());
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

pub(crate) fn closing_sees_every_receive_come_back(scene: &Scene) {
    let (a, mut b) = pair(scene, Timing::default());
    for token in 0..b.queue.depth().receive {
        b.queue.post_recv(token.into(), &[]).unwrap();
    }
    b.queue.post_recv(0, &[]).unwrap_err();
    let deadline = Instant::now() + Duration::from_secs(30);
    assert_eq!(b.queue.close(deadline).unseen, 0);
    assert_eq!(a.queue.close(deadline).unseen, 0);
}

pub(crate) fn a_wait_ends_at_its_deadline(scene: &Scene) {
    let (mut a, _b) = pair(scene, Timing::default());
    let start = Instant::now();
    let count = a.queue.wait(&mut Vec::new(), start + Duration::from_millis(300)).unwrap();
    assert_eq!(count, 0);
    assert!(start.elapsed() >= Duration::from_millis(300));
}
