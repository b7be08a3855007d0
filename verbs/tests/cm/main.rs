//! Queue pairs that RDMA-CM connects, over soft-RoCE and over soft-iWARP, which has no other way up and no immediates.
//!
//! They need the testbed's devices (`testbed/run --with-siw`); elsewhere each test is skipped.

mod cases;
#[allow(dead_code, reason = "shared with the tests of other devices")]
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/devices.rs"]
mod devices;
#[path = "../common/pages.rs"]
mod pages;
mod support;

/// A test of each case over each kind of device.
macro_rules! cases {
    ($($case:ident)*) => {
        mod rxe {
            $(#[test]
            fn $case() {
                crate::support::rxe().iter().for_each(crate::cases::$case);
            })*
        }
        mod siw {
            $(#[test]
            fn $case() {
                crate::support::siw().iter().for_each(crate::cases::$case);
            })*
        }
    };
}

cases! {
    frames_arrive_whole_and_their_source_is_free_when_they_have_left
    a_wrong_byte_is_noticed
    a_stranger_is_refused_and_the_one_with_the_token_gets_in
    whatever_a_stranger_sends_along_arrives_as_it_is
    more_private_data_than_fits_is_not_sent
    where_nobody_listens_the_caller_is_told
    a_call_that_nobody_answers_ends_in_time
    the_end_of_one_end_is_seen_by_the_other
    a_queue_pair_of_another_device_is_not_connected
    a_queue_pair_is_connected_once
    an_address_without_a_device_is_named
    many_come_and_go
}

#[test]
fn an_iwarp_device_is_found_by_its_address_and_has_no_immediates() {
    let Some(scene) = support::siw() else { return };
    let (device, gid) = scene.verbs.device_for(scene.addresses[1]).unwrap();
    assert_eq!((device.name(), gid.port), ("siw1", 1));
    assert_eq!(device.transport(), pagecast_verbs::Transport::Iwarp);
    assert!(!device.has_immediates());
    scene.verbs.device_for("192.0.2.1".parse().unwrap()).unwrap_err();
}

#[test]
fn an_immediate_over_iwarp_is_refused_before_anything_of_it_is_posted() {
    let Some(scene) = support::siw() else { return };
    let mut pair = support::connected(&scene);
    let source = pair.a.register(pages::BLOCK, pagecast_verbs::Access::Source);
    let target = pair.b.register(pages::BLOCK, pagecast_verbs::Access::Receive);
    let from = [pagecast_verbs::Slice { region: &source.0, offset: 0, length: 64 }];
    let write = pagecast_verbs::Write { from: &from, to: common::remote(&target.0) };
    let bell = pagecast_verbs::Doorbell::Immediate { write, value: 1 };
    let refused = pair.a.queue.post_frame(0, &[write], bell);
    assert!(matches!(refused, Err(pagecast_verbs::PostError::NoImmediates)), "{refused:?}");
    assert_eq!(pair.a.queue.in_flight(), 0);
}
