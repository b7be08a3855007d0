//! One of each message, byte for byte: the protocol cannot change by accident. When it changes on purpose,
//! the version, docs/protocol.md and these bytes change together.

mod common;

use common::messages::{Message, packet, unpack};
use pagecast_ipc::policy::{Policy, Rate};
use pagecast_ipc::wire::limits::*;
use pagecast_ipc::wire::{
    Announce, Clock, Event, Face, FaceSet, Frame, FrameFlags, Hello, Meta, Plane, RefusalCode, Role, Segment,
    Sticky, Times, ToPublisher, ToSubscriber, Welcome,
};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `expected`, spaces aside, is the message as one record, and is read as the message.
#[track_caller]
fn golden<M: Message>(message: M, expected: &str) {
    assert_eq!(hex(&message.record()), expected.replace(char::is_whitespace, ""), "{message:?}");
    assert_eq!(message.again(), Ok(message));
}

#[test]
fn the_packet() {
    let bytes = packet(0x0403_0201, &[ToPublisher::Query, ToPublisher::Bye]);
    let expected = "50474354 01020304 20000000 0200 0000  0500 0000 00000000  0600 0000 00000000";
    assert_eq!(hex(&bytes), expected.replace(' ', ""));
    assert_eq!(unpack(&bytes), Ok((0x0403_0201, vec![ToPublisher::Query, ToPublisher::Bye])));
}

#[test]
fn to_the_publisher() {
    let hello = Hello {
        version_min: 1,
        version_max: 3,
        role: Role::Observer,
        policy: Some(Policy::Latest),
        credits: Some(6),
        keep: 2,
        rate: Some(Rate { frames: 30000, seconds: 1001 }),
        faces: FaceSet::all(),
        name: "né".into(),
    };
    golden(
        ToPublisher::Hello(hello),
        "0100 0000 23000000  0100 0300 0100 0500 06000000 02000000 30750000 e9030000 03000000
         03000000 6ec3a9",
    );
    golden(
        ToPublisher::Hello(Hello::new(Role::Subscriber, "")),
        "0100 0000 20000000  0100 0100 0000 0000 00000000 01000000 00000000 00000000 01000000 00000000",
    );
    golden(
        ToPublisher::Return(vec![1, 0x0102_0304_0506_0708]),
        "0200 0000 12000000  0200 0100000000000000 0807060504030201",
    );
    golden(ToPublisher::Seen(9), "0300 0000 08000000  0900000000000000");
    let request = Event { name: "key".into(), data: vec![0xaa, 0xbb] };
    golden(ToPublisher::Request(request), "0400 0000 0d000000  03000000 6b6579 02000000 aabb");
    golden(ToPublisher::Query, "0500 0000 00000000");
    golden(ToPublisher::Bye, "0600 0000 00000000");
}

#[test]
fn to_the_subscriber() {
    let welcome = Welcome {
        version: 1,
        subscriber: 7,
        pid: 0x1234,
        policy: Some(Policy::DropOldest),
        credits: 5,
        mailbox: 4,
        faces: FaceSet::MEMORY,
        live: true,
        name: "cam".into(),
    };
    golden(
        ToSubscriber::Welcome(welcome),
        "2100 0000 27000000  0100 0100 0700000000000000 34120000 03000000 05000000 04000000 01000000
         03000000 63616d",
    );
    golden(ToSubscriber::Refused(RefusalCode::NoRoom, "no".into()), "2200 0000 08000000  0300 02000000 6e6f");
    let announce = Announce { buffer: 2, size: 0x10000, face: Face::DmaBuf };
    golden(ToSubscriber::Announce(announce), "2300 0000 12000000  0200000000000000 0000010000000000 0100");
    let announce = Announce { face: Face::Memory, ..announce };
    golden(ToSubscriber::Announce(announce), "2300 0000 12000000  0200000000000000 0000010000000000 0000");
    golden(ToSubscriber::Retire(2), "2400 0000 08000000  0200000000000000");
    let sticky = Sticky { name: "caps".into(), data: b"x/y".to_vec() };
    golden(ToSubscriber::Sticky(sticky), "2600 0000 0f000000  04000000 63617073 03000000 782f79");
    let event = Event { name: "eos".into(), data: vec![] };
    golden(ToSubscriber::Event(event), "2700 0000 0b000000  03000000 656f73 00000000");
    let clock = Clock { monotonic: 1, running: None, latency_min: 2, latency_max: Some(3) };
    golden(
        ToSubscriber::Clock(clock),
        "2800 0000 20000000  0100000000000000 ffffffffffffffff 0200000000000000 0300000000000000",
    );
    golden(ToSubscriber::Info(b"{}".to_vec(), true), "2900 0000 08000000  0100 02000000 7b7d");
    golden(ToSubscriber::Info(vec![], false), "2900 0000 06000000  0000 00000000");
}

#[test]
fn a_frame() {
    let frame = Frame {
        id: 0x11,
        flags: FrameFlags::DISCONT | FrameFlags::ONE_FIELD,
        times: Times {
            pts: Some(1),
            dts: None,
            duration: Some(3),
            running: Some(4),
            captured: Some(5),
            published: Some(6),
        },
        offset: Some(7),
        offset_end: Some(8),
        width: 640,
        height: 480,
        segments: [Segment { buffer: 9, offset: 10, length: 11 }].into_iter().collect(),
        planes: [Plane { offset: 2, stride: -3 }].into_iter().collect(),
        metas: vec![Meta { name: "m".into(), data: vec![0xcc] }],
    };
    golden(
        ToSubscriber::Frame(frame),
        "2500 0000 88000000
         1100000000000000 01200000 0100 0100
         0100000000000000 ffffffffffffffff 0300000000000000 0400000000000000
         0500000000000000 0600000000000000 0700000000000000 0800000000000000
         80020000 e0010000
         0900000000000000 0a00000000000000 0b00000000000000
         0200000000000000 fdffffff
         0100 01000000 6d 01000000 cc",
    );
}

#[test]
fn numbers_of_policies_and_refusals() {
    for (policy, number) in Policy::ALL.into_iter().zip(1..) {
        let hello = Hello { policy: Some(policy), ..Hello::new(Role::Subscriber, "") };
        assert_eq!(ToPublisher::Hello(hello).body()[6], number, "{policy}");
    }
    use RefusalCode::*;
    let codes = [Other(0), Version, Access, NoRoom, Face, Fault, Evicted, Closing, Other(8)];
    for (code, number) in codes.into_iter().zip(0..) {
        let refused = ToSubscriber::Refused(code, String::new());
        assert_eq!(refused.body()[0], number);
        assert_eq!(refused.again(), Ok(refused));
    }
    let flags = FrameFlags::all().iter_names().map(|(_, flag)| flag.bits()).collect::<Vec<_>>();
    assert_eq!(flags, (0..14).map(|bit| 1 << bit).collect::<Vec<_>>());
}

#[test]
fn limits() {
    assert_eq!((VERSION, VERSION_MIN), (1, 1));
    assert_eq!((MAX_PACKET, MAX_RECORDS), (96 << 10, 256));
    assert_eq!((MAX_SEGMENTS, MAX_PLANES, MAX_METAS, MAX_META_BYTES), (16, 8, 64, 64 << 10));
    assert_eq!((MAX_NAME, MAX_TEXT, MAX_EVENT_BYTES, MAX_INFO_PART), (255, 1024, 64 << 10, 64 << 10));
    assert_eq!((MAX_RETURNS, MAX_BUFFER_BYTES, MAX_BUFFERS, MAX_STICKIES), (1024, 4 << 30, 4096, 32));
}
