//! What connections by RDMA-CM must do.

use std::time::{Duration, Instant};

use pagecast_verbs::{
    Access, CmError, ConnectError, Doorbell, Fault, Listener, MAX_PRIVATE, Side, Slice, Standing, State,
    Timing, Write,
};

use crate::common::{LONG, Scene, completion, ends, remote};
use crate::pages::{BLOCK, FRAME, check, stamp};
use crate::support::{Connected, TOKEN, call, connected, failure, listener, pause, request, try_call, until};

/// Sends a stamped frame and a message behind it, overwrites the source as soon as it has left, and gives what is there.
fn send(pair: &mut Connected, frame: u32, spoil: bool) -> Result<(), usize> {
    let (source, target) = (pair.a.register(FRAME, Access::Source), pair.b.register(FRAME, Access::Receive));
    let (number, into) = (pair.a.register(64, Access::Source), pair.b.register(64, Access::Local));
    stamp(&source.1, frame);
    number.1.write(0, frame as u8);
    if spoil {
        source.1.write(FRAME - 1, 0xee);
    }
    let slot = [Slice { region: &into.0, offset: 0, length: 4 }];
    pair.b.queue.post_recv(frame.into(), &slot).unwrap();
    let slices: Vec<_> = (0..FRAME)
        .step_by(4 * BLOCK)
        .map(|at| [Slice { region: &source.0, offset: at as u64, length: 4 * BLOCK as u32 }])
        .collect();
    let mut to = remote(&target.0);
    let writes: Vec<_> = slices
        .iter()
        .map(|from| {
            let write = Write { from, to };
            to.address += u64::from(from[0].length);
            write
        })
        .collect();
    let from = [Slice { region: &number.0, offset: 0, length: 4 }];
    pair.a.queue.post_frame(frame.into(), &writes, Doorbell::Send { from: &from }).unwrap();
    let sent = completion(&mut pair.a);
    assert_eq!((sent.token, sent.side), (frame.into(), Side::Send));
    sent.outcome.unwrap();
    stamp(&source.1, frame + 100);
    let got = completion(&mut pair.b);
    assert_eq!((got.token, got.side), (frame.into(), Side::Receive));
    let done = got.outcome.unwrap();
    assert_eq!((done.bytes, done.immediate, into.1.read(0)), (4, None, frame as u8));
    assert_eq!((pair.a.queue.in_flight(), pair.b.queue.in_flight()), (0, 0));
    check(&target.1, frame)
}

pub(crate) fn frames_arrive_whole_and_their_source_is_free_when_they_have_left(scene: &Scene) {
    let mut pair = connected(scene);
    for frame in 0..20 {
        send(&mut pair, frame, false).unwrap();
    }
}

pub(crate) fn a_wrong_byte_is_noticed(scene: &Scene) {
    send(&mut connected(scene), 1, true).unwrap_err();
}

pub(crate) fn a_stranger_is_refused_and_the_one_with_the_token_gets_in(scene: &Scene) {
    let (cm, listener) = listener(scene);
    let [mut a, mut b] = ends(scene);
    for stranger in [&b""[..], &TOKEN[..15], b"another token..."] {
        let [mut end, _] = ends(scene);
        let mut caller = call(scene, &cm, listener.port(), stranger);
        let asked = request(&listener, &mut caller, &mut end);
        assert!(!asked.private_data().starts_with(&TOKEN));
        drop(asked);
        let error = failure(&mut caller, &mut end);
        assert!(matches!(error, CmError::Refused(_)), "{error}");
        assert_eq!(end.queue.state(), State::Error);
    }
    let mut at_a = call(scene, &cm, listener.port(), &TOKEN);
    let request = request(&listener, &mut at_a, &mut a);
    let at_b = request.accept(&mut b.queue, Timing::default(), LONG).unwrap();
    drop(listener);
    let mut pair = Connected { a, b, at_a, at_b };
    crate::support::come_up(&mut pair);
    send(&mut pair, 7, false).unwrap();
}

pub(crate) fn whatever_a_stranger_sends_along_arrives_as_it_is(scene: &Scene) {
    let (cm, listener) = listener(scene);
    for length in [0, 1, 16, 17, 55, MAX_PRIVATE] {
        let [mut end, _] = ends(scene);
        let sent: Vec<u8> = (0..length).map(|at| (at * 37 + length) as u8 | 1).collect();
        let mut caller = call(scene, &cm, listener.port(), &sent);
        let request = request(&listener, &mut caller, &mut end);
        let (got, filled) = request.private_data().split_at(length);
        assert_eq!(got, sent);
        assert!(filled.iter().all(|byte| *byte == 0), "{filled:?}");
    }
}

pub(crate) fn more_private_data_than_fits_is_not_sent(scene: &Scene) {
    let cm = scene.verbs.cm().unwrap();
    let error = try_call(scene, &cm, 1, &[0; MAX_PRIVATE + 1], LONG).unwrap_err();
    assert!(matches!(error, CmError::PrivateData { length: 57 }), "{error}");
}

pub(crate) fn where_nobody_listens_the_caller_is_told(scene: &Scene) {
    let (cm, listener) = listener(scene);
    let (port, [mut end, _]) = (listener.port(), ends(scene));
    drop(listener);
    let mut caller = call(scene, &cm, port, &TOKEN);
    let error = failure(&mut caller, &mut end);
    let text = error.to_string();
    let told = matches!(error, CmError::Refused(_) | CmError::Unreachable { .. } | CmError::Device(_));
    assert!(told, "{text}");
    assert_eq!(caller.step(&mut end.queue).unwrap(), Standing::Ended);
}

pub(crate) fn a_call_that_nobody_answers_ends_in_time(scene: &Scene) {
    let (cm, listener) = listener(scene);
    let [mut end, _] = ends(scene);
    let (begun, limit) = (Instant::now(), Duration::from_millis(1500));
    let mut caller = try_call(scene, &cm, listener.port(), &TOKEN, limit).unwrap();
    assert!(caller.deadline().is_some());
    let error = failure(&mut caller, &mut end);
    assert!(matches!(error, CmError::TimedOut(_)), "{error}");
    assert!(begun.elapsed() >= limit);
    drop(caller);
    // it had come, and is gone
    while let Some(request) = listener.next_request().unwrap() {
        let [_, mut b] = ends(scene);
        let mut late = match request.accept(&mut b.queue, Timing::default(), Duration::from_millis(500)) {
            Ok(late) => late,
            Err(_) => continue,
        };
        let deadline = Instant::now() + LONG;
        while !matches!(late.step(&mut b.queue), Err(_) | Ok(Standing::Ended)) {
            assert!(Instant::now() < deadline, "it seems up");
            pause(&[late.fd()]);
        }
    }
}

pub(crate) fn the_end_of_one_end_is_seen_by_the_other(scene: &Scene) {
    let mut pair = connected(scene);
    send(&mut pair, 3, false).unwrap();
    let into = pair.b.register(64, Access::Local);
    pair.b.queue.post_recv(9, &[Slice { region: &into.0, offset: 0, length: 4 }]).unwrap();
    let Connected { a, mut b, at_a, mut at_b } = pair;
    drop((a, at_a));
    until(&mut at_b, &mut b, Standing::Ended);
    b.queue.set_error();
    let error = completion(&mut b).outcome.unwrap_err();
    assert_eq!(error.fault(), Fault::Flushed);
}

pub(crate) fn a_queue_pair_of_another_device_is_not_connected(scene: &Scene) {
    let (cm, listener) = listener(scene);
    let [mut a, mut b] = ends(scene);
    let mut wrong = call(scene, &cm, listener.port(), &TOKEN);
    let error = failure(&mut wrong, &mut b);
    assert!(matches!(error, CmError::OtherDevice { .. }), "{error}");
    let mut right = call(scene, &cm, listener.port(), &TOKEN);
    let request = request(&listener, &mut right, &mut a);
    let [mut other, _] = ends(scene);
    let error = request.accept(&mut other.queue, Timing::default(), LONG).unwrap_err();
    assert!(matches!(error, CmError::OtherDevice { .. }), "{error}");
    assert!(matches!(failure(&mut right, &mut a), CmError::Refused(_)));
}

pub(crate) fn a_queue_pair_is_connected_once(scene: &Scene) {
    let (cm, listener) = listener(scene);
    let mut pair = connected(scene);
    let mut again = call(scene, &cm, listener.port(), &TOKEN);
    let error = failure(&mut again, &mut pair.a);
    assert!(matches!(error, CmError::Connect(ConnectError::WrongState(State::Ready))), "{error}");
}

pub(crate) fn an_address_without_a_device_is_named(scene: &Scene) {
    let cm = scene.verbs.cm().unwrap();
    for address in ["127.0.0.1", "192.0.2.1"] {
        let address = address.parse().unwrap();
        let error = Listener::new(&cm, address).unwrap_err();
        assert!(matches!(error, CmError::NoDevice(named) if named == address), "{error}");
        cm.device_of(address).unwrap_err();
    }
}

/// Nothing is left of those who went, and nobody waits for them.
pub(crate) fn many_come_and_go(scene: &Scene) {
    let files = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    drop(connected(scene));
    let before = files();
    for _ in 0..20 {
        drop(connected(scene));
    }
    // other tests of this process open files at the same time
    assert!(files() < before + 40, "{} files, {before} before", files());
}
