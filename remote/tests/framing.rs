//! The stream of bytes: what is written is read, however it is cut; what means nothing is refused.

use pagecast_ipc::wire::limits::MAX_PACKET;
use pagecast_ipc::wire::{
    Announce, Event, Face, Frame, PACKET_HEADER, PacketBuilder, Segment, ToSubscriber, packet_header,
};
use pagecast_remote::PeerFault;
use pagecast_remote::framing::{BEAT, Cut, Item, Kind, PREAMBLE, Splitter, beat, kind_of, preamble};
use pagecast_remote::limits::MAX_FRAME_BYTES;
use pagecast_remote::pulse::Beat;
use proptest::prelude::*;

fn packet(messages: &[ToSubscriber]) -> Vec<u8> {
    let mut packet = PacketBuilder::default();
    for message in messages {
        let mut record = Vec::new();
        message.encode(&mut record);
        packet.push(&record);
    }
    packet.bytes(1)
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Owned {
    Packet(Vec<u8>),
    Beat(Beat),
}

fn written(items: &[Owned]) -> Vec<u8> {
    let mut bytes = preamble().to_vec();
    for item in items {
        match item {
            Owned::Packet(packet) => {
                bytes.extend_from_slice(&(packet.len() as u32).to_le_bytes());
                bytes.extend_from_slice(packet);
            }
            Owned::Beat(one) => bytes.extend_from_slice(&beat(one)),
        }
    }
    bytes
}

/// Reads a stream that arrives in pieces of these sizes, the last of them repeated.
fn read(stream: &[u8], pieces: &[usize]) -> Result<Vec<Owned>, PeerFault> {
    let mut splitter = Splitter::default();
    let (mut items, mut here, mut arrived) = (Vec::new(), Vec::new(), 0);
    let mut pieces = pieces.iter().chain(pieces.last().into_iter().cycle());
    while arrived < stream.len() {
        let piece = (*pieces.next().expect("a size")).min(stream.len() - arrived);
        here.extend_from_slice(&stream[arrived..arrived + piece]);
        arrived += piece;
        loop {
            let taken = match splitter.cut(&here)? {
                Cut::Need(need) => {
                    assert!(need > here.len(), "it needs more than there is");
                    break;
                }
                Cut::Item(Item::Packet(packet), length) => {
                    items.push(Owned::Packet(packet.to_vec()));
                    length
                }
                Cut::Item(Item::Beat(beat), length) => {
                    items.push(Owned::Beat(beat));
                    length
                }
            };
            here.drain(..taken);
        }
    }
    Ok(items)
}

fn any_item() -> impl Strategy<Value = Owned> {
    let packet = prop::collection::vec(any::<u8>(), PACKET_HEADER..200);
    let beat = any::<(u64, u64, u64)>().prop_map(|(sent, echo, kept)| Beat { sent, echo, kept });
    prop_oneof![packet.prop_map(Owned::Packet), beat.prop_map(Owned::Beat)]
}

proptest! {
    #[test]
    fn a_stream_reads_the_same_however_it_is_cut(
        items in prop::collection::vec(any_item(), 0..20),
        pieces in prop::collection::vec(1_usize..100, 1..20),
    ) {
        prop_assert_eq!(read(&written(&items), &pieces), Ok(items));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..2000), piece in 1_usize..50) {
        let mut stream = preamble().to_vec();
        let _ = read(&bytes, &[piece]);
        stream.extend(bytes);
        let _ = read(&stream, &[piece]);
    }

    #[test]
    fn any_packet_is_understood_or_refused(body in prop::collection::vec(any::<u8>(), 0..300), records in 0_u16..4) {
        let mut packet = packet_header(1, records, body.len()).to_vec();
        packet.extend(body);
        let _ = kind_of(&packet);
    }
}

#[test]
fn the_first_bytes_decide() {
    for stream in [&b"GET / HTTP/1.1\r\n"[..], b"P", b"PG", b"PGCT\0\0\0\0", b"\x16\x03\x01"] {
        let wrong = !preamble().starts_with(stream);
        assert_eq!(read(stream, &[1]) == Err(PeerFault::NotPagecast), wrong, "{stream:?}");
    }
    let mut other = preamble();
    other[4] += 1;
    assert!(matches!(read(&other, &[PREAMBLE]), Ok(_) | Err(PeerFault::Version { .. })));
    let mut stream = other.to_vec();
    stream.extend(beat(&Beat::default()));
    assert!(matches!(read(&stream, &[3]), Err(PeerFault::Version { .. })));
}

#[test]
fn a_packet_has_its_limits() {
    let with_length = |length: usize| {
        let mut stream = preamble().to_vec();
        stream.extend_from_slice(&(length as u32).to_le_bytes());
        stream
    };
    for (length, good) in [
        (1, false),
        (PACKET_HEADER - 1, false),
        (PACKET_HEADER, true),
        (MAX_PACKET, true),
        (MAX_PACKET + 1, false),
        (u32::MAX as usize, false),
    ] {
        assert_eq!(read(&with_length(length), &[1]).is_ok(), good, "{length}");
    }
    assert_eq!(read(&[preamble().to_vec(), vec![0; BEAT]].concat(), &[1]).map(|items| items.len()), Ok(1));
}

fn frame(lengths: &[u64]) -> ToSubscriber {
    let segments = lengths.iter().map(|length| Segment { buffer: 0, offset: 0, length: *length });
    ToSubscriber::Frame(Frame { id: 1, segments: segments.collect(), ..Frame::default() })
}

#[test]
fn a_frame_has_its_limits() {
    let fits = [MAX_FRAME_BYTES - 5, 5];
    assert!(matches!(kind_of(&packet(&[frame(&fits)])), Ok(Kind::Frame { epoch: 1, .. })));
    let over = kind_of(&packet(&[frame(&[MAX_FRAME_BYTES - 5, 6])]));
    assert!(matches!(over, Err(PeerFault::OverLimit { .. })), "{over:?}");
    let all = kind_of(&packet(&[frame(&[u64::MAX])]));
    assert!(matches!(all, Err(PeerFault::Wire(_))), "{all:?}");
}

#[test]
fn a_frame_stands_alone_and_buffers_have_no_place() {
    let event = || ToSubscriber::Event(Event { name: "eos".to_owned(), data: Vec::new() });
    assert!(matches!(kind_of(&packet(&[event(), event()])), Ok(Kind::Plain)));
    for messages in [[event(), frame(&[1])], [frame(&[1]), event()], [frame(&[1]), frame(&[1])]] {
        let kind = kind_of(&packet(&messages));
        assert!(matches!(kind, Err(PeerFault::OutOfPlace(_))), "{kind:?}");
    }
    let announce = ToSubscriber::Announce(Announce { buffer: 1, size: 1, face: Face::Memory });
    for message in [announce, ToSubscriber::Retire(1)] {
        assert!(matches!(kind_of(&packet(&[message])), Err(PeerFault::OutOfPlace(_))));
    }
}
