//! What devices do seldom.

use std::os::fd::AsFd;
use std::sync::Arc;

use nix::sys::memfd::{MFdFlags, memfd_create};
use pagecast_verbs::fake::{Inject, status};
use pagecast_verbs::{
    Access, DeviceError, Doorbell, Fault, MemoryRegion, PostError, RegisterError, Slice, State, Timing,
    WorkError, Write,
};

use crate::common::{completion, pair, remote, send_frame};
use crate::pages::{BLOCK, FRAME, Pages};
use crate::support::{assert_clean, world};

#[test]
fn refused_registrations_name_what_is_wrong_and_let_the_memory_go() {
    let (fake, scene) = world();
    let (a, _b) = pair(&scene, Timing::default());
    for (errno, needle) in [
        (libc::ENOMEM, "RLIMIT_MEMLOCK"),
        (libc::EFAULT, "EFAULT"),
        (libc::EIO, "is gone"),
        (libc::EINVAL, "EINVAL"),
    ] {
        fake.inject(Inject::Register(errno));
        let pages = Arc::new(Pages::new(BLOCK));
        let error = MemoryRegion::register(a.domain(), pages.clone(), Access::Source).unwrap_err();
        assert!(error.to_string().contains(needle), "{error}");
        assert_eq!(Arc::strong_count(&pages), 1);
    }
    assert_eq!(fake.registrations(), 0);
}

#[test]
fn a_registered_dma_buf_is_sent_from_without_a_mapping() {
    let (fake, scene) = world();
    let (mut a, mut b) = pair(&scene, Timing::default());
    let fd = memfd_create("stands for a dma-buf", MFdFlags::MFD_CLOEXEC).unwrap();
    let file = std::fs::File::from(fd);
    file.set_len(2 * BLOCK as u64).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"camera", BLOCK as u64 + 5).unwrap();
    let keeper = Arc::new(());
    let (offset, length) = (BLOCK as u64, BLOCK as u64);
    let region = MemoryRegion::register_dma_buf(
        a.domain(),
        file.as_fd(),
        offset,
        length,
        Access::Source,
        keeper.clone(),
    )
    .unwrap();
    assert_eq!((region.address(), region.length()), (0, length));
    let (target, pages) = b.register(BLOCK, Access::Receive);
    b.queue.post_recv(0, &[]).unwrap();
    send_frame(&mut a, &region, remote(&target), BLOCK, 1);
    completion(&mut b).outcome.unwrap();
    completion(&mut a).outcome.unwrap();
    assert_eq!((0..6).map(|at| pages.read(5 + at)).collect::<Vec<_>>(), b"camera");
    assert_eq!(Arc::strong_count(&keeper), 2);
    drop(region);
    assert_eq!(Arc::strong_count(&keeper), 1);

    fake.inject(Inject::RegisterDmaBuf(libc::EOPNOTSUPP));
    let result = MemoryRegion::register_dma_buf(a.domain(), file.as_fd(), 0, length, Access::Source, keeper);
    assert!(matches!(result, Err(RegisterError::NoDmaBuf(_))), "{result:?}");
}

#[test]
fn a_post_refused_at_once_leaves_the_queue_pair_as_it_was() {
    let (fake, scene) = world();
    let (mut a, mut b) = pair(&scene, Timing::default());
    let (source, target) = (a.register(FRAME, Access::Source), b.register(FRAME, Access::Receive));
    fake.inject(Inject::Post { taken: 0, errno: libc::ENOMEM });
    let doorbell = Doorbell::Send { from: &[] };
    let refused = a.queue.post_frame(0, &[], doorbell).unwrap_err();
    assert!(matches!(refused, PostError::Refused { taken: 0, .. }), "{refused}");
    assert_eq!((a.queue.state(), a.queue.in_flight()), (State::Ready, 0));
    b.queue.post_recv(0, &[]).unwrap();
    send_frame(&mut a, &source.0, remote(&target.0), BLOCK, 1);
    completion(&mut a).outcome.unwrap();
}

#[test]
fn half_a_frame_taken_ends_the_queue_pair_and_keeps_that_half() {
    let (fake, scene) = world();
    let (mut a, mut b) = pair(&scene, Timing::default());
    let (source, target) = (a.register(FRAME, Access::Source), b.register(FRAME, Access::Receive));
    b.queue.post_recv(0, &[]).unwrap();
    fake.hold();
    fake.inject(Inject::Post { taken: 2, errno: libc::ENOMEM });
    let from = [Slice { region: &source.0, offset: 0, length: 64 }];
    let write = Write { from: &from, to: remote(&target.0) };
    let doorbell = Doorbell::Immediate { write, value: 1 };
    let refused = a.queue.post_frame(9, &[write, write, write], doorbell).unwrap_err();
    assert!(matches!(refused, PostError::Refused { taken: 2, .. }), "{refused}");
    assert_eq!((a.queue.state(), a.queue.in_flight()), (State::Error, 2));
    let watch = Arc::downgrade(&source.0);
    drop(source);
    fake.step(1);
    assert_eq!(completion(&mut a).outcome, Err(WorkError::Flushed));
    assert!(watch.upgrade().is_some());
    fake.release();
    completion(&mut a).outcome.unwrap_err();
    assert!(watch.upgrade().is_none());
    let mut seen = Vec::new();
    b.queue.poll(&mut seen).unwrap();
    assert!(seen.is_empty(), "half a frame is never reported");
    drop((a, b, target));
    assert_clean(&fake);
}

#[test]
fn failed_work_is_somebodys_fault() {
    let cases = [
        (status::RETRY_EXCEEDED, WorkError::NoAnswer, Fault::Peer),
        (status::RNR_RETRY_EXCEEDED, WorkError::NoReceive, Fault::Peer),
        (
            status::LOCAL_PROTECTION,
            WorkError::Local { status: status::LOCAL_PROTECTION, vendor: 0 },
            Fault::Local,
        ),
        (status::FATAL, WorkError::Device { status: status::FATAL, vendor: 0 }, Fault::Device),
        (999, WorkError::Device { status: 999, vendor: 0 }, Fault::Device),
    ];
    for (status, expected, fault) in cases {
        let (fake, scene) = world();
        let (mut a, mut b) = pair(&scene, Timing::default());
        b.queue.post_recv(0, &[]).unwrap();
        fake.inject(Inject::Work(status));
        a.queue.post_send(3, &[]).unwrap();
        let ended = completion(&mut a);
        assert_eq!((ended.token, ended.outcome), (3, Err(expected)));
        assert_eq!((expected.fault(), a.queue.state()), (fault, State::Error));
        assert!(matches!(a.queue.post_send(4, &[]), Err(PostError::WrongState(State::Error))));
    }
}

#[test]
fn a_message_longer_than_the_receive_is_the_senders_fault() {
    let (_fake, scene) = world();
    let (mut a, mut b) = pair(&scene, Timing::default());
    let (source, target) = (a.register(BLOCK, Access::Source), b.register(BLOCK, Access::Local));
    b.queue.post_recv(0, &[Slice { region: &target.0, offset: 0, length: 63 }]).unwrap();
    a.queue.post_send(0, &[Slice { region: &source.0, offset: 0, length: 64 }]).unwrap();
    let error = completion(&mut b).outcome.unwrap_err();
    assert_eq!((error, error.fault()), (WorkError::MessageTooLong, Fault::Peer));
    assert_eq!(completion(&mut a).outcome, Err(WorkError::RemoteRefused));
}

#[test]
fn a_completion_of_nothing_is_the_devices_fault() {
    let (fake, scene) = world();
    let (mut a, mut b) = pair(&scene, Timing::default());
    b.queue.post_recv(0, &[]).unwrap();
    fake.inject(Inject::StrayCompletion);
    a.queue.post_send(0, &[]).unwrap();
    let error = a.queue.poll(&mut Vec::new()).unwrap_err();
    assert!(matches!(error, DeviceError::System { errno: nix::errno::Errno::EPROTO, .. }), "{error}");
}
