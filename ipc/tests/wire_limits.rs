//! Every limit of the protocol, at N and at N+1.

mod common;

use common::messages::{Message, packet, unpack};
use pagecast_ipc::policy::Policy;
use pagecast_ipc::wire::limits::*;
use pagecast_ipc::wire::{
    Announce, Event, Face, Frame, Hello, Meta, PACKET_HEADER, PacketBuilder, Packets, Plane, Reader, Record,
    RefusalCode, Role, Segment, Sticky, ToPublisher, ToSubscriber, Welcome, WireError, Writer, packet_header,
};

/// `make(limit)` is read, `make(limit + 1)` is over the limit; the largest fits a packet.
#[track_caller]
fn at_limit<M: Message>(limit: usize, make: impl Fn(usize) -> M) {
    let largest = make(limit);
    assert_eq!(largest.again().as_ref(), Ok(&largest));
    assert!(PacketBuilder::default().fits(largest.record().len()), "the largest must fit a packet");
    match make(limit + 1).again() {
        Err(WireError::OverLimit { value, limit: said, .. }) => assert_eq!(value, said + 1),
        other => panic!("{limit} + 1 gave {other:?}"),
    }
}

fn event(name: usize, data: usize) -> Event {
    Event { name: "n".repeat(name), data: vec![1; data] }
}

fn sticky(name: usize, data: usize) -> ToSubscriber {
    ToSubscriber::Sticky(Sticky { name: "n".repeat(name), data: vec![1; data] })
}

fn meta(name: usize, data: usize) -> Meta {
    Meta { name: "n".repeat(name), data: vec![1; data] }
}

fn frame(segments: &[(u64, u64)], planes: &[u64], metas: Vec<Meta>) -> ToSubscriber {
    let segments =
        segments.iter().map(|(offset, length)| Segment { buffer: 1, offset: *offset, length: *length });
    let planes = planes.iter().map(|offset| Plane { offset: *offset, stride: 1 });
    ToSubscriber::Frame(Frame {
        segments: segments.collect(),
        planes: planes.collect(),
        metas,
        ..Frame::default()
    })
}

fn welcome(version: u16, name: usize) -> ToSubscriber {
    ToSubscriber::Welcome(Welcome {
        version,
        subscriber: 1,
        pid: 1,
        policy: Some(Policy::Block),
        credits: 1,
        mailbox: 1,
        faces: Default::default(),
        live: true,
        name: "n".repeat(name),
    })
}

#[test]
fn names_texts_and_blobs() {
    at_limit(MAX_NAME, |n| ToPublisher::Hello(Hello::new(Role::Subscriber, &"n".repeat(n))));
    at_limit(MAX_NAME, |n| welcome(1, n));
    at_limit(MAX_NAME, |n| ToPublisher::Request(event(n, 3)));
    at_limit(MAX_NAME, |n| ToSubscriber::Event(event(n, 3)));
    at_limit(MAX_NAME, |n| sticky(n, 3));
    at_limit(MAX_NAME, |n| frame(&[], &[], vec![meta(n, 3)]));
    at_limit(MAX_EVENT_BYTES, |n| ToPublisher::Request(event(MAX_NAME, n)));
    at_limit(MAX_EVENT_BYTES, |n| ToSubscriber::Event(event(MAX_NAME, n)));
    at_limit(MAX_EVENT_BYTES, |n| sticky(MAX_NAME, n));
    at_limit(MAX_TEXT, |n| ToSubscriber::Refused(RefusalCode::Fault, "n".repeat(n)));
    at_limit(MAX_INFO_PART, |n| ToSubscriber::Info(vec![1; n], true));
    at_limit(MAX_RETURNS, |n| ToPublisher::Return(vec![1; n]));
}

#[test]
fn metas() {
    at_limit(MAX_METAS, |n| frame(&[], &[], vec![meta(1, 1); n]));
    at_limit(MAX_META_BYTES - 5, |n| frame(&[], &[], vec![meta(5, n)]));
    at_limit(MAX_META_BYTES - 100 - 60 - 7, |n| frame(&[], &[], vec![meta(60, 100), meta(7, n)]));
    // A name that the bytes left cannot carry.
    at_limit(20, |n| frame(&[], &[], vec![meta(6, MAX_META_BYTES - 26), meta(n, 0)]));
    let largest = (0..64).map(|n| meta(MAX_NAME, if n == 0 { MAX_META_BYTES - 64 * MAX_NAME } else { 0 }));
    let largest = frame(&[(0, 1); MAX_SEGMENTS], &[0; MAX_PLANES], largest.collect());
    let ToSubscriber::Frame(frame) = &largest else { unreachable!() };
    assert_eq!(frame.meta_bytes(), MAX_META_BYTES);
    assert_eq!(largest.again().as_ref(), Ok(&largest));
    assert!(PacketBuilder::default().fits(largest.record().len()), "the largest frame must fit a packet");
}

/// The counts of a frame's description stand at fixed places; the types cannot hold more than the limits.
#[test]
fn segments_and_planes() {
    for (at, limit, field) in [(12, MAX_SEGMENTS, "segments"), (14, MAX_PLANES, "planes")] {
        let message = frame(&[(0, 9); MAX_SEGMENTS], &[1; MAX_PLANES], vec![]);
        assert_eq!(message.again().as_ref(), Ok(&message));
        let mut body = message.body();
        assert_eq!(usize::from(body[at]), limit);
        body[at] += 1;
        let over = WireError::OverLimit { field, value: limit as u64 + 1, limit: limit as u64 };
        assert_eq!(ToSubscriber::get(Record { kind: message.kind(), body: &body }), Err(over));
    }
}

#[test]
fn the_end_of_a_segment() {
    let end = MAX_BUFFER_BYTES;
    for good in [(0, 0), (0, end), (end, 0), (end - 1, 1), (1, end - 1)] {
        let message = frame(&[good], &[], vec![]);
        assert_eq!(message.again().as_ref(), Ok(&message));
    }
    for (bad, value) in [((0, end + 1), end + 1), ((end, 1), end + 1), ((u64::MAX, 2), u64::MAX)] {
        let over = WireError::OverLimit { field: "segment end", value, limit: end };
        assert_eq!(frame(&[bad], &[], vec![]).again(), Err(over));
    }
    // Sixteen of the largest: no sum overflows.
    let message = frame(&[(0, end); MAX_SEGMENTS], &[16 * end - 1], vec![]);
    assert_eq!(message.again().as_ref(), Ok(&message));
    let hostile = Segment { buffer: 1, offset: 0, length: u64::MAX };
    let frame = Frame { segments: [hostile; MAX_SEGMENTS].into(), ..Frame::default() };
    assert_eq!(frame.size(), u64::MAX);
}

#[test]
fn a_plane_begins_within_the_bytes() {
    let ok = |message: ToSubscriber| message.again().is_ok();
    assert!(ok(frame(&[(5, 10), (0, 3)], &[0, 12], vec![])));
    assert!(!ok(frame(&[(5, 10), (0, 3)], &[0, 13], vec![])));
    assert!(ok(frame(&[], &[0], vec![])), "an empty frame may keep its layout");
    let over = WireError::OverLimit { field: "plane offset", value: 1, limit: 0 };
    assert_eq!(frame(&[], &[1], vec![]).again(), Err(over));
}

#[test]
fn buffer_sizes() {
    let announce = |size| ToSubscriber::Announce(Announce { buffer: 1, size, face: Face::Memory });
    at_limit(MAX_BUFFER_BYTES as usize, |n| announce(n as u64));
    assert!(announce(1).again().is_ok());
    let nothing = WireError::Invalid { field: "buffer size", value: 0 };
    assert_eq!(announce(0).again(), Err(nothing));
}

#[test]
fn packets() {
    // Longest packet: header and one record of the rest.
    let build = |total: usize| {
        let mut bytes = packet_header(3, 1, total - PACKET_HEADER).to_vec();
        bytes.put_u16(5);
        bytes.put_u16(0);
        bytes.put_u32((total - PACKET_HEADER - 8) as u32);
        bytes.extend_from_slice(&vec![0; total - bytes.len()]);
        bytes
    };
    let largest = build(MAX_PACKET);
    let record = Packets::open(&largest).unwrap().next_record().unwrap().unwrap();
    assert_eq!((record.kind, record.body.len()), (5, MAX_PACKET - 24));
    let over = WireError::OverLimit {
        field: "packet length",
        value: MAX_PACKET as u64 + 1,
        limit: MAX_PACKET as u64,
    };
    assert_eq!(Packets::open(&build(MAX_PACKET + 1)).unwrap_err(), over);
    let mut builder = PacketBuilder::default();
    assert!(builder.is_empty() && builder.fits(MAX_PACKET - PACKET_HEADER));
    assert!(!builder.fits(MAX_PACKET - PACKET_HEADER + 1));
    builder.push(&[0; 8]);
    assert!(!builder.is_empty() && builder.fits(MAX_PACKET - PACKET_HEADER - 8));
    assert!(!builder.fits(MAX_PACKET - PACKET_HEADER - 7));
    assert_eq!(builder.body().len(), 8);
    builder.clear();
    assert!(builder.is_empty() && builder.body().is_empty());
    assert_eq!(builder.bytes(3), packet_header(3, 0, 0));
}

#[test]
fn records() {
    let mut builder = PacketBuilder::default();
    for _ in 0..MAX_RECORDS {
        assert!(builder.fits(8));
        builder.push(&ToPublisher::Query.record());
    }
    assert!(!builder.fits(8), "257 records do not fit");
    let (_, messages) = unpack::<ToPublisher>(&builder.bytes(1)).unwrap();
    assert_eq!(messages.len(), MAX_RECORDS);
    let over = WireError::OverLimit { field: "records", value: 257, limit: 256 };
    assert_eq!(unpack::<ToPublisher>(&packet(1, &vec![ToPublisher::Query; 257])), Err(over));
    // A record longer than the packet.
    let mut bytes = packet(1, &[ToPublisher::Query]);
    bytes[20] = 1;
    assert_eq!(unpack::<ToPublisher>(&bytes), Err(WireError::Truncated));
}

#[test]
fn versions() {
    let unknown = |version| Err(WireError::Invalid { field: "version", value: version });
    assert_eq!(welcome(VERSION_MIN - 1, 1).again(), unknown(u64::from(VERSION_MIN) - 1));
    assert_eq!(welcome(VERSION + 1, 1).again(), unknown(u64::from(VERSION) + 1));
    assert!(welcome(VERSION, 1).again().is_ok() && welcome(VERSION_MIN, 1).again().is_ok());
    for (min, max, common) in [(1, 1, Some(1)), (0, 9, Some(1)), (2, 9, None), (0, 0, None), (1, 0, None)] {
        let hello = Hello { version_min: min, version_max: max, ..Hello::new(Role::Observer, "") };
        assert_eq!(hello.common_version(), common, "{min} to {max}");
    }
}

#[test]
fn values_without_a_meaning() {
    let hello = ToPublisher::Hello(Hello::new(Role::Subscriber, "n"));
    let announce = ToSubscriber::Announce(Announce { buffer: 1, size: 1, face: Face::DmaBuf });
    let altered = |mut body: Vec<u8>, at: usize, bytes: &[u8]| {
        body[at..at + bytes.len()].copy_from_slice(bytes);
        body
    };
    let up = |at, bytes: &[u8]| ToPublisher::get(Record { kind: 1, body: &altered(hello.body(), at, bytes) });
    let down = |message: &ToSubscriber, at, bytes: &[u8]| {
        ToSubscriber::get(Record { kind: message.kind(), body: &altered(message.body(), at, bytes) })
    };
    let invalid = |field, value| WireError::Invalid { field, value };
    assert_eq!(up(4, &[2, 0]).unwrap_err(), invalid("role", 2));
    assert_eq!(up(6, &[6, 0]).unwrap_err(), invalid("policy", 6));
    assert_eq!(down(&announce, 16, &[2, 0]).unwrap_err(), invalid("face", 2));
    let welcome = welcome(1, 1);
    assert_eq!(down(&welcome, 16, &[6, 0, 0, 0]).unwrap_err(), invalid("policy", 6));
    assert_eq!(down(&welcome, 16, &[1, 0, 1, 0]).unwrap_err(), invalid("policy", 0xffff), "no wrap to 1");
    // A rate of nothing is no rate; flags of a newer version are ignored.
    let ToPublisher::Hello(read) = up(16, &[0, 0, 0, 0, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]).unwrap() else {
        panic!("not a hello")
    };
    assert_eq!((read.rate, read.faces.bits()), (None, 3));
    assert!(matches!(down(&welcome, 2, &[2, 0]), Ok(ToSubscriber::Welcome(Welcome { live: false, .. }))));
}

#[test]
fn texts_are_utf8() {
    let hello = ToPublisher::Hello(Hello::new(Role::Subscriber, "n"));
    let refused = ToSubscriber::Refused(RefusalCode::Other(99), "n".into());
    let spoiled = |mut body: Vec<u8>, from_end: usize| {
        let at = body.len() - from_end;
        body[at] = 0xff;
        body
    };
    let error = ToPublisher::get(Record { kind: 1, body: &spoiled(hello.body(), 1) }).unwrap_err();
    assert_eq!(error, WireError::NotUtf8 { field: "name" });
    let error = ToSubscriber::get(Record { kind: 34, body: &spoiled(refused.body(), 1) }).unwrap_err();
    assert_eq!(error, WireError::NotUtf8 { field: "refusal" });
    let request = ToPublisher::Request(event(1, 0));
    let error = ToPublisher::get(Record { kind: 4, body: &spoiled(request.body(), 5) }).unwrap_err();
    assert_eq!(error, WireError::NotUtf8 { field: "event name" });
}

#[test]
fn the_reader_says_what_is_left() {
    let mut reader = Reader::new(&[1, 2, 3]);
    assert_eq!((reader.u8(), reader.remaining()), (Ok(1), 2));
    assert_eq!((reader.u32(), reader.remaining()), (Err(WireError::Truncated), 2), "an error takes nothing");
    assert_eq!((reader.bytes(2), reader.remaining()), (Ok(&[2, 3][..]), 0));
}
