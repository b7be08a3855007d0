//! Peers that grant, ring and write what they must not.

use std::net::TcpListener;

use pagecast_ipc::wire::{Frame, Segment, ToSubscriber};
use pagecast_remote::rdma::{RdmaReceiver, RdmaSender, Sources};
use pagecast_remote::tcp::Channel;
use pagecast_remote::{FromPublisher, LinkError, Part, Payload, Receiver, Sender};
use pagecast_verbs::fake::Fake;
use pagecast_verbs::{Access, Doorbell, Remote};

use crate::raw::{GRANT, HELLO, PACKET, Raw};
use crate::support::{Stock, buffer, bytes, connect_from, packet_to_subscriber};
use crate::{ADDRESSES, assert_clean};

const SIZE: usize = 5000;

/// A subscriber's end, and a publisher that says what it likes.
pub(crate) struct False {
    fake: Fake,
    pub(crate) publisher: Raw,
    receiver: RdmaReceiver,
    stock: Stock,
    pub(crate) events: Vec<FromPublisher>,
    end: Option<LinkError>,
}

impl False {
    fn new() -> Self {
        let mut meeting = Self::unmet();
        meeting.meet();
        meeting
    }

    /// One frame has come, and nothing else; its bytes are these.
    #[track_caller]
    pub(crate) fn delivered(&self, expected: &[u8]) {
        let [FromPublisher::Frame { room: Some(room), .. }] = &self.events[..] else { panic!("no frame") };
        let mut content = vec![0; expected.len()];
        let mapping = room.part.buffer().mapping().expect("mapped");
        mapping.copy_to(room.part.offset(), &mut content).expect("within it");
        assert!(content == expected);
    }

    /// Before its hello.
    pub(crate) fn unmet() -> Self {
        let fake = Fake::new(&ADDRESSES);
        let verbs = fake.verbs();
        let listener = TcpListener::bind((ADDRESSES[0], 0)).expect("a port");
        let near = connect_from(ADDRESSES[1], listener.local_addr().expect("its address"));
        let publisher = Raw::new(&verbs, 0, listener.accept().expect("a connection").0);
        let receiver = RdmaReceiver::new(Channel::clear(near).expect("an end"), &verbs).expect("an end");
        let stock = Stock { left: 9, never: false };
        Self { fake, publisher, receiver, stock, events: Vec::new(), end: None }
    }

    pub(crate) fn meet(&mut self) {
        let Self { publisher, receiver, stock, events, .. } = self;
        publisher.meet(|| turn(receiver, stock, events).expect("it stands"));
    }

    /// The record of a frame of that size.
    pub(crate) fn announce(&mut self, number: u64, size: usize) {
        let segment = Segment { buffer: 0, offset: 0, length: size as u64 };
        let frame = Frame { id: number, segments: [segment].into_iter().collect(), ..Frame::default() };
        self.publisher.say(PACKET, &packet_to_subscriber(&ToSubscriber::Frame(frame)));
    }

    /// The place that is granted: its number, where, and its length.
    pub(crate) fn granted(&mut self) -> (u32, Remote, u64) {
        let Self { publisher, receiver, stock, events, .. } = self;
        let (kind, body) = publisher.hear(|| turn(receiver, stock, events).expect("it stands"));
        assert_eq!(kind, GRANT);
        let word = |at: usize| u32::from_le_bytes(body[at..at + 4].try_into().expect("four bytes"));
        let long = |at: usize| u64::from_le_bytes(body[at..at + 8].try_into().expect("eight bytes"));
        (word(0), Remote { address: long(8), rkey: word(4) }, long(16))
    }

    /// Steps until the link ends; says why.
    pub(crate) fn ends(&mut self) -> String {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while self.end.is_none() {
            assert!(std::time::Instant::now() < deadline, "it did not end");
            self.end = turn(&mut self.receiver, &mut self.stock, &mut self.events).err();
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        self.end.as_ref().map(ToString::to_string).unwrap_or_default()
    }

    pub(crate) fn steps(&mut self) {
        for _ in 0..50 {
            turn(&mut self.receiver, &mut self.stock, &mut self.events).expect("it stands");
        }
    }

    pub(crate) fn leaves_nothing(self) {
        let Self { fake, publisher, receiver, events, .. } = self;
        drop((publisher, receiver, events));
        assert_clean(&fake);
    }
}

fn turn(
    receiver: &mut RdmaReceiver,
    stock: &mut Stock,
    events: &mut Vec<FromPublisher>,
) -> Result<(), LinkError> {
    receiver.flush()?;
    receiver.receive(stock, events)
}

/// The control of what follows: a publisher that does as it should is believed.
#[test]
fn who_writes_to_its_place_and_rings_once_delivers() {
    let mut link = False::new();
    let (pages, region) = link.publisher.pages(SIZE, Access::Source);
    pages.mapping().expect("mapped").copy_from(0, &bytes(1, SIZE)).expect("it fits");
    link.announce(1, SIZE);
    let (slot, place, length) = link.granted();
    assert_eq!(length, SIZE as u64);
    link.publisher.write(&region, SIZE as u32, place, None);
    link.steps();
    assert!(link.events.is_empty(), "bytes without a word about them are no frame");
    link.publisher.write(&region, SIZE as u32, place, Some(slot));
    link.steps();
    link.delivered(&bytes(1, SIZE));
    drop((pages, region));
    link.leaves_nothing();
}

#[test]
fn immediates_that_name_no_place_end_the_link() {
    // Before anything was granted; a number that was not granted; one that has been used; one of a frame to come, twice.
    for case in 0..4 {
        let mut link = False::new();
        let (pages, region) = link.publisher.pages(SIZE, Access::Source);
        let mut slot = 77;
        let mut place = Remote { address: 0, rkey: 0 };
        if case > 0 {
            link.announce(1, SIZE);
            let granted = link.granted();
            (slot, place) = (granted.0 + 77, granted.1);
        }
        if case == 3 {
            (slot, place, _) = link.granted();
            link.publisher.write(&region, SIZE as u32, place, Some(slot));
            link.steps();
        }
        if case == 2 {
            slot -= 77;
            link.publisher.write(&region, SIZE as u32, place, Some(slot));
            link.steps();
            assert_eq!(link.events.len(), 1);
        }
        link.publisher.write(&region, if case == 0 { 0 } else { SIZE as u32 }, place, Some(slot));
        let said = link.ends();
        assert!(said.contains("an immediate"), "{case}: {said}");
        assert_eq!(link.events.len(), usize::from(case == 2), "nothing more was made of it");
        drop((pages, region));
        link.leaves_nothing();
    }
}

#[test]
fn bytes_may_come_before_word_of_their_frame_if_they_fit() {
    for size in [SIZE, 100, SIZE + 1] {
        let mut link = False::new();
        let (pages, region) = link.publisher.pages(SIZE, Access::Source);
        pages.mapping().expect("mapped").copy_from(0, &bytes(2, SIZE)).expect("it fits");
        link.announce(1, SIZE);
        let (first, place, _) = link.granted();
        link.publisher.write(&region, SIZE as u32, place, Some(first));
        let (second, place, _) = link.granted();
        assert_eq!(second, first + 1);
        link.publisher.write(&region, size.min(SIZE) as u32, place, Some(second));
        link.steps();
        assert_eq!(link.events.len(), 1, "bytes without a word about them are no frame");
        link.announce(2, size);
        if size > SIZE {
            let said = link.ends();
            assert!(said.contains("a place that is void"), "{said}");
        } else {
            link.steps();
            let [_, FromPublisher::Frame { room: Some(room), .. }] = &link.events[..] else {
                panic!("no frame")
            };
            let mut content = vec![0; size];
            assert_eq!(room.part.length(), size);
            let mapping = room.part.buffer().mapping().expect("mapped");
            mapping.copy_to(room.part.offset(), &mut content).expect("within it");
            assert!(content == bytes(2, SIZE)[..size]);
        }
        drop((pages, region));
        link.leaves_nothing();
    }
}

#[test]
fn a_frame_that_does_not_fit_gets_a_place_that_does() {
    let mut link = False::new();
    link.announce(1, SIZE);
    let (first, _, _) = link.granted();
    link.announce(2, 3 * SIZE);
    let mut again = link.granted();
    // Those that were granted ahead are void, and come again from the one that was too small.
    while again.2 == SIZE as u64 {
        again = link.granted();
    }
    assert_eq!((again.0, again.2), (first + 1, 3 * SIZE as u64));
    assert_eq!(link.granted().0, first + 2);
    link.leaves_nothing();
}

#[test]
fn messages_without_a_number_end_the_link() {
    let mut link = False::new();
    link.publisher.queue.post_frame(1, &[], Doorbell::Send { from: &[] }).expect("posted");
    let said = link.ends();
    assert!(said.contains("a message"), "{said}");
    link.leaves_nothing();
}

#[test]
fn writes_outside_of_a_place_are_refused_and_end_the_link() {
    // Another key, before the region, past its end.
    for case in 0..3 {
        let mut link = False::new();
        let (pages, region) = link.publisher.pages(1 << 20, Access::Source);
        link.announce(1, SIZE);
        let (slot, place, _) = link.granted();
        let wrong = match case {
            0 => Remote { rkey: place.rkey + 256, ..place },
            1 => Remote { address: place.address - 4096, ..place },
            _ => Remote { address: place.address + (1 << 16), ..place },
        };
        link.publisher.write(&region, SIZE as u32, wrong, Some(slot));
        assert!(!link.ends().is_empty());
        assert!(link.events.is_empty(), "no frame was made of it");
        drop((pages, region));
        link.leaves_nothing();
    }
}

#[test]
fn words_that_have_no_place_end_the_link() {
    let place = Remote { address: 4096, rkey: 5 };
    type Lie = (&'static str, fn(&mut Raw, Remote));
    let lies: [Lie; 7] = [
        ("a place for a frame", |raw, place| raw.grant(1, place, 5)),
        ("a second hello", |raw, _| raw.say(HELLO, &raw.queue.endpoint().to_bytes())),
        ("an unknown message", |raw, _| raw.say(99, b"what")),
        ("an unknown message", |raw, _| raw.say(GRANT, b"short")),
        ("limit", |raw, _| raw.bytes(&[255, 255, 255, 127, PACKET])),
        ("", |raw, _| raw.say(PACKET, &[7; 40])),
        ("heartbeats in a row", |raw, _| (0..1000).for_each(|_| raw.beat())),
    ];
    for (why, lie) in lies {
        let mut link = False::new();
        lie(&mut link.publisher, place);
        let said = link.ends();
        assert!(said.contains(why) && said.contains("at fault"), "{said}, and not {why}");
        link.leaves_nothing();
    }
}

/// Whoever is there is asked for it by the kernel, for a second or more: a publisher would meet nobody else meanwhile. And
/// what is meant for one host must not be sent to another.
#[test]
fn a_queue_pair_of_another_address_is_not_connected_to() {
    let fake = Fake::new(&ADDRESSES);
    let verbs = fake.verbs();
    for lies in [true, false] {
        let listener = TcpListener::bind((ADDRESSES[0], 0)).expect("a port");
        let near = connect_from(ADDRESSES[1], listener.local_addr().expect("its address"));
        let sources = Sources::new(&verbs, ADDRESSES[0]).expect("a device");
        let mut sender = RdmaSender::new(
            Channel::clear(listener.accept().expect("a connection").0).expect("an end"),
            &sources,
        )
        .expect("an end");
        let mut raw = Raw::new(&verbs, 1, near);
        let mut hello = raw.queue.endpoint();
        if lies {
            hello.gid[15] += 1;
        }
        raw.say(HELLO, &hello.to_bytes());
        raw.say(PACKET, &[7; 40]);
        let mut events = Vec::new();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        let end = loop {
            let step = sender.flush(&mut Vec::new()).and_then(|()| sender.receive(&mut events));
            match step {
                Err(error) => break Some(error.to_string()),
                // The control: the right address is taken.
                Ok(()) if !events.is_empty() => break None,
                Ok(()) => assert!(std::time::Instant::now() < deadline, "neither"),
            }
        };
        assert_eq!(end.is_some(), lies, "{end:?}");
        assert!(end.is_none_or(|said| said.contains("another address") && said.contains("at fault")));
    }
}

/// A publisher's end with a frame to send, and a subscriber that says what it likes.
fn hostile(lie: impl FnOnce(&mut Raw)) -> (Fake, String, usize) {
    let fake = Fake::new(&ADDRESSES);
    let verbs = fake.verbs();
    let listener = TcpListener::bind((ADDRESSES[0], 0)).expect("a port");
    let near = connect_from(ADDRESSES[1], listener.local_addr().expect("its address"));
    let sources = Sources::new(&verbs, ADDRESSES[0]).expect("a device");
    let far = Channel::clear(listener.accept().expect("a connection").0).expect("an end");
    let mut sender = RdmaSender::new(far, &sources).expect("an end");
    let mut raw = Raw::new(&verbs, 1, near);
    let (mut done, mut events) = (Vec::new(), Vec::new());
    raw.meet(|| {
        sender.flush(&mut done).and_then(|()| sender.receive(&mut events)).expect("it stands");
    });
    let segment = Segment { buffer: 0, offset: 0, length: SIZE as u64 };
    let frame = Frame { id: 1, segments: [segment].into_iter().collect(), ..Frame::default() };
    let parts = [Part::new(buffer(SIZE), 0, SIZE).expect("a part")].into_iter().collect();
    let payload = Payload { parts, hold: Box::new(()), still_valid: None };
    sender.send_frame(1, &packet_to_subscriber(&ToSubscriber::Frame(frame)), payload);
    lie(&mut raw);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    let end = loop {
        assert!(std::time::Instant::now() < deadline, "it did not end");
        if let Err(error) = sender.flush(&mut done).and_then(|()| sender.receive(&mut events)) {
            break error.to_string();
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    };
    drop((sender, raw, sources));
    (fake, end, done.len())
}

#[test]
fn a_subscriber_that_lies_ends_its_link_and_reads_nothing() {
    let nowhere = Remote { address: 4096, rkey: 5 };
    let whole = SIZE as u64;
    type Lie = (&'static str, Box<dyn FnOnce(&mut Raw)>);
    let lies: Vec<Lie> = vec![
        (
            "a place that is too small",
            Box::new(move |raw| (0..2).for_each(|_| raw.grant(1, nowhere, whole - 1))),
        ),
        ("a place out of order", Box::new(move |raw| raw.grant(0, nowhere, whole))),
        ("a place out of order", Box::new(move |raw| raw.grant(2, nowhere, whole))),
        ("", Box::new(move |raw| raw.grant(1, nowhere, u64::MAX))),
        ("", Box::new(move |raw| raw.grant(1, nowhere, whole))),
        ("", Box::new(move |raw| raw.grant(1, Remote { address: u64::MAX - 9, rkey: 5 }, whole))),
        (
            "places",
            Box::new(move |raw| {
                let (pages, region) = raw.pages(SIZE, Access::Receive);
                (0..4).for_each(|_| raw.queue.post_recv(0, &[]).expect("posted"));
                let place = Remote { address: region.address(), rkey: region.rkey() };
                (1..=20).for_each(|slot| raw.grant(slot, place, whole));
                std::mem::forget((pages, region));
            }),
        ),
        // Nothing was posted for the immediate: not ready, for ever.
        (
            "",
            Box::new(move |raw| {
                let (pages, region) = raw.pages(SIZE, Access::Receive);
                raw.grant(1, Remote { address: region.address(), rkey: region.rkey() }, whole);
                std::mem::forget((pages, region));
            }),
        ),
        // Pages that only it may write.
        (
            "",
            Box::new(move |raw| {
                let (pages, region) = raw.pages(SIZE, Access::Local);
                raw.queue.post_recv(0, &[]).expect("posted");
                raw.grant(1, Remote { address: region.address(), rkey: region.rkey() }, whole);
                std::mem::forget((pages, region));
            }),
        ),
        ("a second hello", Box::new(|raw| raw.say(HELLO, &raw.queue.endpoint().to_bytes()))),
        ("an unknown message", Box::new(|raw| raw.say(0, b""))),
        ("heartbeats in a row", Box::new(|raw| (0..1000).for_each(|_| raw.beat()))),
        ("closed", Box::new(|raw| raw.hang_up())),
    ];
    for (why, lie) in lies {
        let (fake, said, done) = hostile(lie);
        assert!(said.contains(why) && !said.is_empty(), "{said}, and not {why}");
        assert!(done <= usize::from(why == "places"), "{said}");
        assert_eq!(fake.violations(), Vec::<String>::new());
    }
}
