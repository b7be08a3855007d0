//! The cases; each gets two ends that are joined.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pagecast_ipc::wire::{ToPublisher, ToSubscriber};
use pagecast_remote::limits::{HEARTBEAT, MAX_FRAMES_UNDER_WAY};
use pagecast_remote::{FromPublisher, FromSubscriber, LinkError};

use crate::support::{Ends, Link, event, events, packet_to_publisher, packet_to_subscriber};

pub(crate) fn packets_arrive_in_order_both_ways(ends: Ends) {
    let mut link = Link::new(ends);
    for number in 0..400 {
        link.until("there is room", |link| !link.sender.is_busy());
        link.sender.send_packet(&packet_to_subscriber(&ToSubscriber::Event(event(number))));
        link.until("there is room", |link| !link.receiver.as_ref().expect("an end").is_busy());
        let said = packet_to_publisher(&ToPublisher::Return(vec![number; number as usize]));
        link.receiver.as_mut().expect("an end").send_packet(&said);
    }
    link.until("all is there", |link| link.downstream.len() == 400 && link.upstream.len() == 400);
    assert!(events(&link.downstream).into_iter().eq((0..400).map(event)));
    for (number, FromSubscriber::Packet(packet)) in link.upstream.iter().enumerate() {
        assert_eq!(*packet, packet_to_publisher(&ToPublisher::Return(vec![number as u64; number])));
    }
}

pub(crate) fn frames_arrive_whole_and_in_order_with_packets(ends: Ends) {
    let mut link = Link::new(ends);
    for number in 0..200 {
        link.until("there is room", |link| !link.sender.is_busy());
        link.sender.send_packet(&packet_to_subscriber(&ToSubscriber::Event(event(number))));
        link.send(number, &[1 + number as usize * 997]);
    }
    link.until("all is there", |link| link.downstream.len() == 400);
    let sizes = (0..200).map(|number| (number, vec![1 + number as usize * 997])).collect::<Vec<_>>();
    link.expect_frames(&sizes);
    assert!(events(&link.downstream).into_iter().eq((0..200).map(event)));
    let is_frame = |event: &FromPublisher| matches!(event, FromPublisher::Frame { .. });
    assert!(link.downstream.iter().enumerate().all(|(at, event)| is_frame(event) == (at % 2 == 1)));
    link.until("all were reported", |link| link.done.len() == 200);
    assert!(link.done.iter().copied().eq(0..200));
}

pub(crate) fn a_frame_of_many_segments_is_one_after_another(ends: Ends) {
    let mut link = Link::new(ends);
    let lengths: Vec<usize> = (0..16).map(|at| [0, 1, 4096, 70_001][at % 4] + at).collect();
    link.send(1, &lengths);
    link.send(2, &lengths[..3]);
    link.until("both are there", |link| link.downstream.len() == 2);
    link.expect_frames(&[(1, lengths.clone()), (2, lengths[..3].to_vec())]);
}

pub(crate) fn frames_without_bytes_arrive(ends: Ends) {
    let mut link = Link::new(ends);
    let frames = [(1, vec![]), (2, vec![0]), (3, vec![0, 0]), (4, vec![0, 5, 0])];
    for (number, lengths) in &frames {
        link.until("there is room", |link| !link.sender.is_busy());
        link.send(*number, lengths);
    }
    link.until("all are there", |link| link.downstream.len() == 4 && link.done.len() == 4);
    link.expect_frames(&frames);
    assert!(matches!(link.downstream[0], FromPublisher::Frame { room: None, .. }), "it needs no pages");
}

pub(crate) fn frames_without_bytes_pass_where_pages_are_few(ends: Ends) {
    let mut link = Link::new(ends);
    link.stock.left = 3;
    let frames = [(1, vec![5000]), (2, vec![0]), (3, vec![5000])];
    for (number, lengths) in &frames {
        link.send(*number, lengths);
        link.until("it is there", |link| link.downstream.len() as u64 == *number);
        // Who makes room for frames to come has done so.
        (0..50).for_each(|_| link.step());
    }
    link.expect_frames(&frames);
}

pub(crate) fn a_large_frame_arrives_whole(ends: Ends) {
    let mut link = Link::new(ends);
    let length = (32 << 20) + 5;
    link.send(9, &[length]);
    link.until("it is there", |link| link.downstream.len() == 1);
    link.expect_frames(&[(9, vec![length])]);
}

pub(crate) fn many_small_frames_arrive(ends: Ends) {
    let mut link = Link::new(ends);
    let size = |number: u64| 1 + number as usize * 37 % 3000;
    for number in 0..2000 {
        link.until("there is room", |link| !link.sender.is_busy());
        link.send(number, &[size(number)]);
    }
    link.until("all are there", |link| link.downstream.len() == 2000);
    link.expect_frames(&(0..2000).map(|number| (number, vec![size(number)])).collect::<Vec<_>>());
}

pub(crate) fn pages_are_given_back_when_a_frame_has_left_and_not_before(ends: Ends) {
    let mut link = Link::new(ends);
    link.stock.left = 0;
    // More than the system takes in between.
    let length = 24 << 20;
    for number in 0..MAX_FRAMES_UNDER_WAY as u64 {
        assert!(!link.sender.is_busy());
        link.send(number, &[length]);
    }
    assert!(link.sender.is_busy(), "it takes over so many and no more");
    for _ in 0..50 {
        link.step();
    }
    assert_eq!((link.done.len(), link.held.load(Ordering::SeqCst)), (0, MAX_FRAMES_UNDER_WAY));
    link.stock.left = MAX_FRAMES_UNDER_WAY;
    link.until("all have left", |link| link.done.len() == MAX_FRAMES_UNDER_WAY);
    assert_eq!(link.held.load(Ordering::SeqCst), 0);
    assert!(!link.sender.is_busy());
}

pub(crate) fn without_pages_a_frame_waits_and_then_arrives(ends: Ends) {
    let mut link = Link::new(ends);
    link.stock.left = 1;
    link.send(1, &[100_000]);
    link.send(2, &[100_000]);
    link.until("the first is there", |link| link.downstream.len() == 1);
    for _ in 0..50 {
        link.step();
    }
    assert_eq!(link.downstream.len(), 1);
    link.stock.left = 1;
    link.until("the second is there", |link| link.downstream.len() == 2);
    link.expect_frames(&[(1, vec![100_000]), (2, vec![100_000])]);
}

pub(crate) fn pages_that_cannot_be_had_end_the_link(ends: Ends) {
    let mut link = Link::new(ends);
    link.stock.never = true;
    link.send(1, &[100]);
    link.until("it ends", |link| link.receiver_end.is_some());
    assert!(matches!(link.receiver_end, Some(LinkError::NoPages(_))), "{:?}", link.receiver_end);
    assert!(link.downstream.is_empty());
}

pub(crate) fn what_was_sent_before_the_end_arrives(ends: Ends) {
    let mut link = Link::new(ends);
    link.send(1, &[3_000_000]);
    link.sender.send_packet(&packet_to_subscriber(&ToSubscriber::Event(event(5))));
    link.until("all is said", |link| link.sender.finish());
    link.until("the end is seen", |link| link.receiver_end.is_some());
    assert!(matches!(link.receiver_end, Some(LinkError::Closed)), "{:?}", link.receiver_end);
    link.expect_frames(&[(1, vec![3_000_000])]);
    assert!(events(&link.downstream).into_iter().eq([event(5)]));
}

pub(crate) fn the_end_of_the_subscriber_is_seen(ends: Ends) {
    let mut link = Link::new(ends);
    let bye = packet_to_publisher(&ToPublisher::Bye);
    link.receiver.as_mut().expect("an end").send_packet(&bye);
    link.until("it is said", |link| !link.upstream.is_empty());
    link.receiver = None;
    link.until("the end is seen", |link| link.sender_end.is_some());
    assert!(matches!(link.sender_end, Some(LinkError::Closed)), "{:?}", link.sender_end);
}

pub(crate) fn an_idle_link_stays(ends: Ends) {
    let mut link = Link::new(ends);
    let until = Instant::now() + HEARTBEAT * 2 + Duration::from_millis(200);
    link.until("a while has passed", |link| {
        assert!(link.sender_end.is_none() && link.receiver_end.is_none());
        Instant::now() >= until
    });
    assert!(link.upstream.is_empty() && link.downstream.is_empty(), "heartbeats are no messages");
    link.send(1, &[10]);
    link.until("it still works", |link| link.downstream.len() == 1);
}

pub(crate) fn a_frame_that_is_taken_back_is_never_complete(ends: Ends) {
    let mut link = Link::new(ends);
    let valid = Arc::new(AtomicBool::new(true));
    link.still_valid = Some(valid.clone());
    let lengths = [vec![70_000], vec![1], vec![], vec![5, 0], vec![0], vec![9; 16]];
    for (number, lengths) in lengths.iter().enumerate() {
        link.until("there is room", |link| !link.sender.is_busy());
        link.send(number as u64, lengths);
    }
    link.until("all are there", |link| link.downstream.len() == 6);
    link.expect_frames(&lengths.iter().cloned().enumerate().map(|(n, l)| (n as u64, l)).collect::<Vec<_>>());
    link.until("all were reported", |link| link.done.len() == 6);
    link.stock.left = 0;
    link.send(7, &[24 << 20]);
    (0..20).for_each(|_| link.step());
    valid.store(false, Ordering::SeqCst);
    link.stock.left = 1;
    link.until("it ends", |link| link.sender_end.is_some());
    assert!(matches!(link.sender_end, Some(LinkError::TakenBack)), "{:?}", link.sender_end);
    link.sender = Box::new(pagecast_remote::memory::pair().expect("another end").0);
    link.until("the other end sees it", |link| link.receiver_end.is_some());
    assert_eq!(link.downstream.len(), 6);
}
