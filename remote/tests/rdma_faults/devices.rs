//! Devices that refuse, fail, are late, or go away.

use std::net::TcpListener;
use std::sync::atomic::Ordering;

use pagecast_remote::LinkError;
use pagecast_remote::rdma::{RdmaReceiver, RdmaSender, Sources};
use pagecast_remote::tcp::Channel;
use pagecast_verbs::fake::{Call, Fake, Inject, status};

use crate::support::{self, Link};
use crate::{ADDRESSES, assert_clean, world};

const SIZE: usize = 100_000;

/// Both ends of a connection between the two addresses.
fn connection() -> [Channel; 2] {
    let listener = TcpListener::bind((ADDRESSES[0], 0)).expect("a port");
    let near = support::connect_from(ADDRESSES[1], listener.local_addr().expect("its address"));
    support::clear([listener.accept().expect("a connection").0, near])
}

fn text(end: &Option<LinkError>) -> String {
    end.as_ref().map(ToString::to_string).unwrap_or_default()
}

/// The other end of one that ended goes, too, as its owner would let it, and sees no frame.
fn ends_everywhere(mut link: Link, fake: Fake) {
    assert!(
        link.frames()
            .iter()
            .all(|(number, lengths, content)| { *content == support::bytes(*number, lengths.iter().sum()) })
    );
    let frames = link.frames().len();
    if link.sender_end.is_some() {
        link.sender = Box::new(pagecast_remote::memory::pair().expect("another end").0);
        link.until("the subscriber's end sees it", |link| link.receiver_end.is_some());
    } else {
        link.receiver = None;
        link.until("the publisher's end sees it", |link| link.sender_end.is_some());
    }
    assert_eq!(link.frames().len(), frames, "nothing is made whole by the end");
    let held = link.held.clone();
    drop(link);
    assert_eq!(held.load(Ordering::SeqCst), 0, "frames are the publisher's again");
    assert_clean(&fake);
}

#[test]
fn every_object_that_cannot_be_made_is_a_clear_error_and_leaves_nothing() {
    let calls =
        [Call::Open, Call::Domain, Call::Channel, Call::CompletionQueue, Call::QueuePair, Call::Modify];
    for errno in [libc::ENOMEM, libc::EMFILE, libc::EIO] {
        for call in calls {
            let fake = Fake::new(&ADDRESSES);
            let verbs = fake.verbs();
            let [far, near] = connection();
            fake.inject(Inject::Call(call, errno));
            let made = Sources::new(&verbs, ADDRESSES[0]).map_err(LinkError::from);
            let refused = made.and_then(|sources| RdmaSender::new(far, &sources)).expect_err("refused");
            let said = refused.to_string();
            let named = [call.name(), "is gone", "127.0.0.1"].iter().any(|word| said.contains(word));
            assert!(named, "{call:?}: {said}");
            assert_clean(&fake);
            // Of two devices the second is the right one.
            (0..if call == Call::Open { 2 } else { 1 }).for_each(|_| fake.inject(Inject::Call(call, errno)));
            RdmaReceiver::new(near, &verbs).expect_err("refused");
            assert_clean(&fake);
            let mut link = Link::new(support::rdma(&verbs, ADDRESSES, support::clear));
            link.send(1, &[SIZE]);
            link.until("the next try works", |link| link.downstream.len() == 1);
            drop(link);
            assert_clean(&fake);
        }
    }
    let (fake, mut link) = world();
    fake.inject(Inject::Call(Call::PostReceive, libc::ENOMEM));
    link.until("an end", |link| link.receiver_end.is_some());
    assert!(text(&link.receiver_end).contains("ibv_post_recv"), "{:?}", link.receiver_end);
    ends_everywhere(link, fake);
}

#[test]
fn pages_that_cannot_be_registered_end_the_link_with_the_remedy() {
    for (errno, remedy) in [(libc::ENOMEM, "RLIMIT_MEMLOCK"), (libc::EFAULT, "EFAULT")] {
        // The publisher's; or the subscriber's, of a frame that does not fit where the next should have gone.
        for size in [SIZE, 2 * SIZE] {
            let (fake, mut link) = world();
            link.send(1, &[SIZE]);
            link.until("it is there", |link| link.downstream.len() == 1);
            fake.inject(Inject::Register(errno));
            link.send(2, &[size]);
            link.until("an end", |link| link.sender_end.is_some() || link.receiver_end.is_some());
            let said = text(&link.sender_end) + &text(&link.receiver_end);
            assert!(said.contains(remedy), "{said}");
            ends_everywhere(link, fake);
        }
    }
}

#[test]
fn frames_go_in_messages_that_the_port_sends() {
    // One byte more than a whole number of messages, a whole number, one byte less; parts that are smaller than any.
    for size in [3 * 4096 + 1, 8 * 4096, 9 * 4096 - 1] {
        let fake = Fake::new(&ADDRESSES);
        fake.limit_messages(4096);
        let mut link = Link::new(support::rdma(&fake.verbs(), ADDRESSES, support::clear));
        for number in 1..20 {
            link.send(number, &[size, 1, 4096, size, 4095]);
        }
        link.until("all are there", |link| link.downstream.len() == 19 && link.done.len() == 19);
        for (number, lengths, content) in link.frames() {
            assert_eq!(lengths, [size, 1, 4096, size, 4095]);
            assert!(content == support::bytes(number, lengths.iter().sum()));
        }
        drop(link);
        assert_clean(&fake);
    }
}

/// The control: a message beyond the limit would be seen.
#[test]
fn a_message_that_is_too_large_for_the_port_fails() {
    let (fake, mut link) = world();
    link.send(1, &[SIZE]);
    link.until("it is there", |link| link.done.len() == 1 && link.downstream.len() == 1);
    fake.limit_messages(SIZE as u32 - 1);
    link.send(2, &[SIZE]);
    link.until("it ends", |link| link.sender_end.is_some());
    ends_everywhere(link, fake);
}

#[test]
fn a_frame_of_more_messages_than_the_queue_holds_ends_the_link_in_words() {
    let fake = Fake::new(&ADDRESSES);
    fake.limit_messages(64);
    let mut link = Link::new(support::rdma(&fake.verbs(), ADDRESSES, support::clear));
    // At the limit of 512 with the message that tells of it, and one more.
    link.send(1, &[511 * 64]);
    link.until("it is there", |link| link.done.len() == 1 && link.downstream.len() == 1);
    link.send(2, &[511 * 64 + 1]);
    link.until("it ends", |link| link.sender_end.is_some());
    let said = text(&link.sender_end);
    assert!(said.contains("513 messages") && said.contains("512") && said.contains("tcp://"), "{said}");
    ends_everywhere(link, fake);
}

#[test]
fn work_that_fails_ends_the_link_and_no_frame_is_made_of_it() {
    for (failure, why) in [
        (status::RNR_RETRY_EXCEEDED, ""),
        (status::RETRY_EXCEEDED, ""),
        (status::LOCAL_PROTECTION, ""),
        (status::FATAL, ""),
    ] {
        for receives_first in [false, true] {
            let (fake, mut link) = world();
            fake.flush_receives_first(receives_first);
            link.send(1, &[SIZE]);
            link.until("it is there", |link| link.downstream.len() == 1 && link.done.len() == 1);
            fake.inject(Inject::Work(failure));
            link.send(2, &[SIZE, 5, SIZE]);
            link.send(3, &[SIZE]);
            link.until("it ends", |link| link.sender_end.is_some());
            assert!(text(&link.sender_end).contains(why) && !text(&link.sender_end).is_empty());
            assert_eq!(link.done, [1], "what has not arrived has not left");
            ends_everywhere(link, fake);
        }
    }
}

#[test]
fn a_post_that_is_refused_in_the_middle_makes_no_frame() {
    for taken in 0..3 {
        let (fake, mut link) = world();
        link.send(1, &[SIZE]);
        link.until("it is there", |link| link.done.len() == 1 && link.downstream.len() == 1);
        fake.inject(Inject::Post { taken, errno: libc::ENOMEM });
        link.send(2, &[SIZE, SIZE]);
        link.until("it ends", |link| link.sender_end.is_some());
        assert_eq!(link.downstream.len(), 1);
        ends_everywhere(link, fake);
    }
}

#[test]
fn completions_that_are_late_are_waited_for() {
    let (fake, mut link) = world();
    fake.hold();
    link.send(1, &[SIZE, 70]);
    link.send(2, &[SIZE]);
    for pieces in 0..5 {
        for _ in 0..50 {
            link.step();
        }
        assert!(link.downstream.len() <= pieces, "a frame before its last byte");
        fake.step(1);
    }
    fake.release();
    link.until("both are there", |link| link.downstream.len() == 2 && link.done.len() == 2);
    link.expect_frames(&[(1, vec![SIZE, 70]), (2, vec![SIZE])]);
    drop(link);
    assert_clean(&fake);
}

/// A device that neither does its work nor says why: the frame is not held for ever.
#[test]
fn completions_that_are_lost_end_the_link_in_seconds() {
    let (fake, mut link) = world();
    fake.hold();
    link.send(1, &[SIZE]);
    link.until("it ends", |link| link.sender_end.is_some());
    assert!(matches!(link.sender_end, Some(LinkError::Silent(_))), "{:?}", link.sender_end);
    assert_eq!(link.held.load(Ordering::SeqCst), 1, "until the device has let go of it, it is not free");
    ends_everywhere(link, fake);
}

#[test]
fn a_stray_completion_is_the_devices_fault() {
    let (fake, mut link) = world();
    fake.inject(Inject::StrayCompletion);
    link.send(1, &[SIZE]);
    link.until("it ends", |link| link.sender_end.is_some());
    drop(link);
    assert_eq!(fake.violations(), Vec::<String>::new());
}

#[test]
fn a_device_that_is_taken_away_ends_its_links_idle_or_not() {
    for device in 0..2 {
        for idle in [true, false] {
            let (fake, mut link) = world();
            link.send(1, &[SIZE]);
            link.until("it is there", |link| link.downstream.len() == 1 && link.done.len() == 1);
            if !idle {
                fake.hold();
                link.send(2, &[SIZE]);
                (0..50).for_each(|_| link.step());
            }
            fake.remove(device);
            link.until("it ends", |link| link.sender_end.is_some() || link.receiver_end.is_some());
            let said = text(&link.sender_end) + &text(&link.receiver_end);
            assert!(said.contains("is gone"), "device {device}, idle {idle}: {said}");
            assert_eq!((link.done.len(), link.downstream.len()), (1, 1));
            fake.release();
            ends_everywhere(link, fake);
        }
    }
}
