//! The codec: what goes in comes out; what was cut, lengthened or made up is an error and never a panic.

mod common;

use common::messages::{Message, packet, to_publisher, to_subscriber, unpack};
use common::{config, unless_miri};
use pagecast_ipc::wire::{PACKET_HEADER, Packets, Record, ToPublisher, ToSubscriber, WireError};
use proptest::collection::vec;
use proptest::prelude::*;

fn round_trip<M: Message>(epoch: u32, messages: &[M]) -> Result<(), TestCaseError> {
    let (seen, again) = unpack::<M>(&packet(epoch, messages))?;
    prop_assert_eq!(seen, epoch);
    prop_assert_eq!(&again[..], messages);
    Ok(())
}

/// Every prefix of a packet and of a body is an error, and so is one byte too many.
fn cut_and_lengthened<M: Message>(message: &M) -> Result<(), TestCaseError> {
    let mut bytes = packet(7, std::slice::from_ref(message));
    for end in (0..bytes.len()).step_by(unless_miri(1, 5)) {
        let expected = if end < 4 { WireError::NotAPacket } else { WireError::Truncated };
        prop_assert_eq!(unpack::<M>(&bytes[..end]).unwrap_err(), expected, "cut at {}", end);
    }
    bytes.push(0);
    prop_assert_eq!(unpack::<M>(&bytes).unwrap_err(), WireError::Trailing(1));
    let (kind, mut body) = (message.kind(), message.body());
    for end in (0..body.len()).step_by(unless_miri(1, 5)) {
        // A frame cut in its metas may also be out of its planes' bytes: any error will do, success not.
        prop_assert!(M::get(Record { kind, body: &body[..end] }).is_err(), "cut at {}", end);
    }
    body.push(0);
    prop_assert_eq!(M::get(Record { kind, body: &body }).unwrap_err(), WireError::Trailing(1));
    Ok(())
}

/// What can be read is a message that survives its own round trip.
fn stable<M: Message>(record: Record<'_>) -> Result<(), TestCaseError> {
    if let Ok(message) = M::get(record) {
        prop_assert_eq!(message.again(), Ok(message));
    }
    Ok(())
}

fn read_all(bytes: &[u8]) -> Result<(), TestCaseError> {
    let Ok(mut packets) = Packets::open(bytes) else { return Ok(()) };
    while let Ok(Some(record)) = packets.next_record() {
        stable::<ToPublisher>(record)?;
        stable::<ToSubscriber>(record)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn round_trips(
        epoch: u32,
        up in vec(to_publisher(), 0..unless_miri(6, 3)),
        down in vec(to_subscriber(), 0..unless_miri(6, 3)),
    ) {
        round_trip(epoch, &up)?;
        round_trip(epoch, &down)?;
    }

    #[test]
    fn cut_anywhere_is_an_error(up in to_publisher(), down in to_subscriber()) {
        cut_and_lengthened(&up)?;
        cut_and_lengthened(&down)?;
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..unless_miri(400, 60))) {
        read_all(&bytes)?;
        for kind in ToPublisher::KINDS.iter().chain(ToSubscriber::KINDS) {
            let record = Record { kind: *kind, body: &bytes };
            stable::<ToPublisher>(record)?;
            stable::<ToSubscriber>(record)?;
        }
    }

    /// Made from a valid packet, hostile bytes reach every field.
    #[test]
    fn altered_packets_never_panic(
        up in vec(to_publisher(), 1..4),
        down in vec(to_subscriber(), 1..4),
        alterations in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        for mut bytes in [packet(1, &up), packet(1, &down)] {
            for (at, value) in &alterations {
                let at = at.index(bytes.len());
                bytes[at] = *value;
                read_all(&bytes)?;
                // The same with the header whole.
                let mut body = bytes.clone();
                body[..PACKET_HEADER].copy_from_slice(&packet(1, &up)[..PACKET_HEADER]);
                read_all(&body)?;
            }
        }
    }

    /// A packet that promises another number of records than it has.
    #[test]
    fn the_number_of_records_is_checked(up in vec(to_publisher(), 1..5), other in 0..20u8) {
        let mut bytes = packet(1, &up);
        bytes[12] = other;
        let answer = unpack::<ToPublisher>(&bytes);
        match (other as usize).cmp(&up.len()) {
            std::cmp::Ordering::Less => prop_assert!(matches!(answer, Err(WireError::Trailing(_)))),
            std::cmp::Ordering::Equal => prop_assert_eq!(answer, Ok((1, up))),
            std::cmp::Ordering::Greater => prop_assert_eq!(answer, Err(WireError::Truncated)),
        }
    }
}

#[test]
fn each_direction_knows_only_its_own_kinds() {
    for kind in 0..=u16::from(u8::MAX) {
        let unknown = WireError::Invalid { field: "message kind", value: kind.into() };
        for (known, answer) in [
            (ToPublisher::KINDS, ToPublisher::get(Record { kind, body: &[] }).err()),
            (ToSubscriber::KINDS, ToSubscriber::get(Record { kind, body: &[] }).err()),
        ] {
            assert_eq!(answer == Some(unknown.clone()), !known.contains(&kind), "kind {kind}");
        }
    }
}

#[test]
fn the_length_of_a_packet_is_checked_at_its_header() {
    let mut bytes = packet(1, &[ToPublisher::Query]);
    bytes.extend_from_slice(&[0; 3]);
    assert_eq!(Packets::open(&bytes).unwrap_err(), WireError::Trailing(3));
    assert_eq!(Packets::open(&bytes[..bytes.len() - 4]).unwrap_err(), WireError::Truncated);
}

#[test]
fn a_record_follows_what_is_there() {
    let mut bytes = vec![9; 5];
    ToPublisher::Seen(3).encode(&mut bytes);
    ToPublisher::Bye.encode(&mut bytes);
    let expected = [&[9; 5], &ToPublisher::Seen(3).record()[..], &ToPublisher::Bye.record()].concat();
    assert_eq!(bytes, expected);
}
