//! Publishers whose device lacks something, or who only say so.

use pagecast_verbs::{Access, Remote, Slice};

use crate::peers::False;
use crate::raw::HELLO;
use crate::support::bytes;

const SIZE: usize = 5000;
const ABILITY: u8 = 5;

/// Whether there are immediates, how the queue pair comes up, a port, a token.
fn ability(immediates: u8, way: u8, port: u16, token: u8) -> Vec<u8> {
    [&[immediates, way][..], &port.to_le_bytes(), &[token; 16]].concat()
}

/// A publisher without immediates, a frame announced, and the place for it.
fn without_immediates() -> (False, u32, Remote) {
    let mut link = False::unmet();
    link.publisher.say(ABILITY, &ability(0, 0, 0, 0));
    link.meet();
    link.announce(1, SIZE);
    let (slot, place, _) = link.granted();
    (link, slot, place)
}

/// Sends a message.
fn send(link: &mut False, message: &[u8]) {
    let (pages, region) = link.publisher.pages(64, Access::Source);
    pages.mapping().expect("mapped").copy_from(0, message).expect("it fits");
    let from = [Slice { region: &region, offset: 0, length: message.len() as u32 }];
    link.publisher.queue.post_send(9, &from).expect("posted");
}

#[test]
fn numbers_come_as_messages_where_there_are_no_immediates() {
    let (mut link, slot, place) = without_immediates();
    let (pages, region) = link.publisher.pages(SIZE, Access::Source);
    pages.mapping().expect("mapped").copy_from(0, &bytes(1, SIZE)).expect("it fits");
    link.publisher.write(&region, SIZE as u32, place, None);
    link.steps();
    assert!(link.events.is_empty(), "bytes without a word about them are no frame");
    send(&mut link, &slot.to_le_bytes());
    link.steps();
    link.delivered(&bytes(1, SIZE));
    drop((pages, region));
    link.leaves_nothing();
}

#[test]
fn messages_that_are_no_number_of_an_open_place_end_the_link() {
    for message in [&b""[..], b"123", &77u32.to_le_bytes(), &[0; 5]] {
        let (mut link, ..) = without_immediates();
        send(&mut link, message);
        link.ends();
        assert!(link.events.is_empty(), "{message:?}");
        link.leaves_nothing();
    }
}

#[test]
fn a_number_is_told_in_the_way_that_was_agreed_on() {
    let (mut link, slot, place) = without_immediates();
    let (pages, region) = link.publisher.pages(SIZE, Access::Source);
    link.publisher.write(&region, SIZE as u32, place, Some(slot));
    let why = link.ends();
    assert!(why.contains("no number"), "{why}");
    drop((pages, region));
    link.leaves_nothing();
}

#[test]
fn abilities_are_said_once_and_before_the_hello() {
    let mut link = False::unmet();
    link.publisher.say(ABILITY, &ability(0, 0, 0, 0));
    link.publisher.say(ABILITY, &ability(0, 0, 0, 0));
    assert!(link.ends().contains("what a device can do"));
    let mut link = False::unmet();
    link.meet();
    link.publisher.say(ABILITY, &ability(1, 0, 0, 0));
    assert!(link.ends().contains("what a device can do"));
    for odd in [ability(2, 0, 0, 0), ability(0, 3, 0, 0), ability(0, 2, 0, 1), ability(0, 1, 7, 0)] {
        let mut link = False::unmet();
        link.publisher.say(ABILITY, &odd);
        assert!(link.ends().contains("what a device can do"), "{odd:?}");
    }
}

#[test]
fn a_queue_pair_that_comes_up_otherwise_is_told_apart() {
    for way in [ability(0, 1, 0, 0), ability(0, 2, 7, 1)] {
        let mut link = False::unmet();
        link.publisher.say(ABILITY, &way);
        let endpoint = link.publisher.queue.endpoint().to_bytes();
        link.publisher.say(HELLO, &endpoint);
        let why = link.ends();
        assert!(why.contains("iWARP"), "{why}");
        link.leaves_nothing();
    }
}
