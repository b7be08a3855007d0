//! Arbitrary messages of the protocol, and the way from a message to a packet and back.

use pagecast_ipc::policy::{Policy, Rate};
use pagecast_ipc::wire::{
    Announce, Clock, Event, Face, FaceSet, Frame, FrameFlags, Hello, Meta, PacketBuilder, Packets, Plane,
    RECORD_HEADER, Record, RefusalCode, Role, Segment, Sticky, Times, ToPublisher, ToSubscriber, Welcome,
    WireError,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::unless_miri;

/// Both directions, so that each test can be written once.
pub(crate) trait Message: Clone + std::fmt::Debug + PartialEq + Sized {
    /// Kinds that are in use.
    const KINDS: &'static [u16];
    fn put(&self, out: &mut Vec<u8>);
    fn get(record: Record<'_>) -> Result<Self, WireError>;

    /// One record.
    fn record(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.put(&mut out);
        out
    }

    fn kind(&self) -> u16 {
        u16::from_le_bytes([self.record()[0], self.record()[1]])
    }

    /// What follows the record's header.
    fn body(&self) -> Vec<u8> {
        self.record().split_off(RECORD_HEADER)
    }

    /// Through a record and back.
    fn again(&self) -> Result<Self, WireError> {
        Self::get(Record { kind: self.kind(), body: &self.body() })
    }
}

impl Message for ToPublisher {
    const KINDS: &'static [u16] = &[1, 2, 3, 4, 5, 6];
    fn put(&self, out: &mut Vec<u8>) {
        self.encode(out);
    }
    fn get(record: Record<'_>) -> Result<Self, WireError> {
        Self::decode(record)
    }
}

impl Message for ToSubscriber {
    const KINDS: &'static [u16] = &[33, 34, 35, 36, 37, 38, 39, 40, 41];
    fn put(&self, out: &mut Vec<u8>) {
        self.encode(out);
    }
    fn get(record: Record<'_>) -> Result<Self, WireError> {
        Self::decode(record)
    }
}

/// All messages in one packet.
pub(crate) fn packet<M: Message>(epoch: u32, messages: &[M]) -> Vec<u8> {
    let mut builder = PacketBuilder::default();
    for message in messages {
        builder.push(&message.record());
    }
    builder.bytes(epoch)
}

/// All messages of a packet.
pub(crate) fn unpack<M: Message>(bytes: &[u8]) -> Result<(u32, Vec<M>), WireError> {
    let mut packets = Packets::open(bytes)?;
    let mut messages = Vec::new();
    while let Some(record) = packets.next_record()? {
        messages.push(M::get(record)?);
    }
    Ok((packets.epoch(), messages))
}

fn name() -> impl Strategy<Value = String> {
    // Up to 40 characters of up to 4 bytes: within the limit of 255 bytes.
    vec(any::<char>(), 0..unless_miri(40, 6)).prop_map(String::from_iter)
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..unless_miri(80, 8))
}

/// All ones stand for "none".
fn time() -> impl Strategy<Value = Option<u64>> {
    option::of(prop_oneof![0..u64::MAX, Just(u64::MAX - 1), Just(0)])
}

fn some_policy() -> impl Strategy<Value = Option<Policy>> {
    option::of(proptest::sample::select(&Policy::ALL[..]))
}

fn faces() -> impl Strategy<Value = FaceSet> {
    (0..4u32).prop_map(FaceSet::from_bits_truncate)
}

fn event() -> impl Strategy<Value = Event> {
    (name(), bytes()).prop_map(|(name, data)| Event { name, data })
}

fn hello() -> impl Strategy<Value = Hello> {
    let role = prop_oneof![Just(Role::Subscriber), Just(Role::Observer)];
    let rate =
        option::of((1..=u32::MAX, 1..=u32::MAX).prop_map(|(frames, seconds)| Rate { frames, seconds }));
    let numbers = (any::<u16>(), any::<u16>(), option::of(1..=u32::MAX), any::<u32>());
    (numbers, role, some_policy(), rate, faces(), name()).prop_map(
        |(numbers, role, policy, rate, faces, name)| {
            let (version_min, version_max, credits, keep) = numbers;
            Hello { version_min, version_max, role, policy, credits, keep, rate, faces, name }
        },
    )
}

fn welcome() -> impl Strategy<Value = Welcome> {
    let numbers = (any::<u64>(), any::<u32>(), any::<u32>(), any::<u32>());
    (numbers, some_policy(), faces(), any::<bool>(), name()).prop_map(
        |(numbers, policy, faces, live, name)| {
            let (subscriber, pid, credits, mailbox) = numbers;
            Welcome { version: 1, subscriber, pid, policy, credits, mailbox, faces, live, name }
        },
    )
}

fn refusal() -> impl Strategy<Value = RefusalCode> {
    use RefusalCode::*;
    prop_oneof![
        proptest::sample::select(&[Version, Access, NoRoom, Face, Fault, Evicted, Closing][..]),
        prop_oneof![Just(0), 8..=u16::MAX].prop_map(Other),
    ]
}

fn segment() -> impl Strategy<Value = Segment> {
    (any::<u64>(), 0..=1u64 << 31, 1..=1u64 << 31).prop_map(|(buffer, offset, length)| Segment {
        buffer,
        offset,
        length,
    })
}

pub(crate) fn frame() -> impl Strategy<Value = Frame> {
    let times = (time(), time(), time(), time(), time(), time()).prop_map(|times| {
        let (pts, dts, duration, running, captured, published) = times;
        Times { pts, dts, duration, running, captured, published }
    });
    let meta = (name(), bytes()).prop_map(|(name, data)| Meta { name, data });
    let numbers = (any::<u64>(), 0..1u32 << 14, any::<u32>(), any::<u32>());
    let layout = (
        vec(segment(), 1..=unless_miri(16, 3)),
        vec((any::<u64>(), any::<i32>()), 0..=unless_miri(8, 2)),
        vec(meta, 0..unless_miri(6, 2)),
    );
    (numbers, times, time(), time(), layout).prop_map(|(numbers, times, offset, offset_end, layout)| {
        let (id, flags, width, height) = numbers;
        let (segments, planes, metas) = layout;
        let flags = FrameFlags::from_bits_truncate(flags);
        let mut frame =
            Frame { id, flags, times, offset, offset_end, width, height, metas, ..Frame::default() };
        frame.segments.extend(segments);
        let size = frame.size();
        frame.planes.extend(planes.into_iter().map(|(at, stride)| Plane { offset: at % size, stride }));
        frame
    })
}

pub(crate) fn to_publisher() -> impl Strategy<Value = ToPublisher> {
    prop_oneof![
        hello().prop_map(ToPublisher::Hello),
        vec(any::<u64>(), 0..unless_miri(30, 4)).prop_map(ToPublisher::Return),
        any::<u64>().prop_map(ToPublisher::Seen),
        event().prop_map(ToPublisher::Request),
        Just(ToPublisher::Query),
        Just(ToPublisher::Bye),
    ]
}

pub(crate) fn to_subscriber() -> impl Strategy<Value = ToSubscriber> {
    let face = prop_oneof![Just(Face::Memory), Just(Face::DmaBuf)];
    let announce = (any::<u64>(), 1..=4u64 << 30, face);
    let clock = (any::<u64>(), time(), any::<u64>(), time());
    prop_oneof![
        welcome().prop_map(ToSubscriber::Welcome),
        (refusal(), name()).prop_map(|(code, text)| ToSubscriber::Refused(code, text)),
        announce.prop_map(|(buffer, size, face)| ToSubscriber::Announce(Announce { buffer, size, face })),
        any::<u64>().prop_map(ToSubscriber::Retire),
        frame().prop_map(ToSubscriber::Frame),
        event().prop_map(|Event { name, data }| ToSubscriber::Sticky(Sticky { name, data })),
        event().prop_map(ToSubscriber::Event),
        clock.prop_map(|(monotonic, running, latency_min, latency_max)| {
            ToSubscriber::Clock(Clock { monotonic, running, latency_min, latency_max })
        }),
        (bytes(), any::<bool>()).prop_map(|(part, last)| ToSubscriber::Info(part, last)),
    ]
}
