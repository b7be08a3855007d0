//! How packets become a stream of bytes, and back.
//!
//! Each direction begins with a preamble of 8 bytes. Then come, one after another: packets, each after its
//! length; heartbeats, which have the length zero; and after a packet with a frame, which is the only
//! record there, the bytes of that frame, without a length of their own.
#![forbid(unsafe_code)]

use pagecast_ipc::wire::limits::MAX_PACKET;
use pagecast_ipc::wire::{PACKET_HEADER, Packets, ToSubscriber};

use crate::PeerFault;
use crate::limits::{MAX_FRAME_BYTES, VERSION};
use crate::pulse::Beat;

/// The first bytes of each direction.
pub const MAGIC: [u8; 4] = *b"PGCR";
/// Bytes of the preamble: magic, version (2), zero (2).
pub const PREAMBLE: usize = 8;
/// Bytes of a length.
pub const LENGTH: usize = 4;
/// Bytes of a heartbeat, its length of zero included.
pub const BEAT: usize = LENGTH + 24;

/// The preamble of this build.
pub fn preamble() -> [u8; PREAMBLE] {
    let mut bytes = [0; PREAMBLE];
    bytes[..4].copy_from_slice(&MAGIC);
    bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
    bytes
}

/// A heartbeat's bytes.
pub fn beat(beat: &Beat) -> [u8; BEAT] {
    let mut bytes = [0; BEAT];
    bytes[4..12].copy_from_slice(&beat.sent.to_le_bytes());
    bytes[12..20].copy_from_slice(&beat.echo.to_le_bytes());
    bytes[20..28].copy_from_slice(&beat.kept.to_le_bytes());
    bytes
}

/// What stands at the front of a stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// A packet, whole.
    Packet(&'a [u8]),
    /// A heartbeat.
    Beat(Beat),
}

/// Cuts a stream into its items. It remembers only whether the preamble has been seen.
#[derive(Debug, Default)]
pub struct Splitter {
    greeted: bool,
}

/// The outcome of a look at the front of a stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Cut<'a> {
    /// An item, and how many bytes it takes with all that stands before it.
    Item(Item<'a>, usize),
    /// So many bytes from the front are needed before more can be said.
    Need(usize),
}

impl Splitter {
    /// Looks at the front of `bytes`, which begin where the last item ended.
    ///
    /// # Errors
    /// [`PeerFault`]: the peer is not to be listened to any more.
    pub fn cut<'a>(&mut self, bytes: &'a [u8]) -> Result<Cut<'a>, PeerFault> {
        let start = match self.greeted {
            true => 0,
            // Judged by what is here already: who speaks something else may never send the rest.
            false if bytes.len() < PREAMBLE => {
                let seen = bytes.len().min(4);
                return if bytes[..seen] == MAGIC[..seen] {
                    Ok(Cut::Need(PREAMBLE))
                } else {
                    Err(PeerFault::NotPagecast)
                };
            }
            false => PREAMBLE,
        };
        if start > 0 {
            check_preamble(&bytes[..PREAMBLE])?;
        }
        let rest = &bytes[start..];
        let Some(length) = rest.first_chunk::<LENGTH>() else { return Ok(Cut::Need(start + LENGTH)) };
        let length = u32::from_le_bytes(*length) as usize;
        let end = start + if length == 0 { BEAT } else { LENGTH + checked(length)? };
        if bytes.len() < end {
            return Ok(Cut::Need(end));
        }
        self.greeted = true;
        let item = match length {
            0 => Item::Beat(read_beat(&rest[LENGTH..BEAT])),
            _ => Item::Packet(&bytes[start + LENGTH..end]),
        };
        Ok(Cut::Item(item, end))
    }
}

fn check_preamble(bytes: &[u8]) -> Result<(), PeerFault> {
    if bytes[..4] != MAGIC {
        return Err(PeerFault::NotPagecast);
    }
    match u16::from_le_bytes([bytes[4], bytes[5]]) {
        VERSION => Ok(()),
        theirs => Err(PeerFault::Version { theirs, ours: VERSION }),
    }
}

fn checked(length: usize) -> Result<usize, PeerFault> {
    let over =
        |limit: usize| PeerFault::OverLimit { what: "packet", value: length as u64, limit: limit as u64 };
    match length {
        ..PACKET_HEADER => Err(PeerFault::OutOfPlace("a packet shorter than its header")),
        PACKET_HEADER..=MAX_PACKET => Ok(length),
        _ => Err(over(MAX_PACKET)),
    }
}

fn read_beat(bytes: &[u8]) -> Beat {
    let field = |at: usize| bytes[at..at + 8].try_into().map_or(0, u64::from_le_bytes);
    Beat { sent: field(0), echo: field(8), kept: field(16) }
}

/// What a publisher's packet is, as far as the stream is concerned.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "most packets are frames; a box would be an allocation each")]
pub enum Kind {
    /// Records that stand for themselves.
    Plain,
    /// One frame and nothing else: its bytes follow the packet.
    Frame {
        /// The epoch of the packet.
        epoch: u32,
        /// The frame.
        frame: pagecast_ipc::wire::Frame,
    },
}

/// Looks for a frame in a publisher's packet. All of it is checked.
///
/// # Errors
/// [`PeerFault`].
pub fn kind_of(packet: &[u8]) -> Result<Kind, PeerFault> {
    let mut packets = Packets::open(packet)?;
    let epoch = packets.epoch();
    let mut alone = true;
    while let Some(record) = packets.next_record()? {
        match ToSubscriber::decode(record)? {
            ToSubscriber::Frame(frame) => {
                if !alone || packets.next_record()?.is_some() {
                    return Err(PeerFault::OutOfPlace("another record beside a frame"));
                }
                let size = frame.size();
                if size > MAX_FRAME_BYTES {
                    return Err(PeerFault::OverLimit { what: "frame", value: size, limit: MAX_FRAME_BYTES });
                }
                return Ok(Kind::Frame { epoch, frame });
            }
            ToSubscriber::Announce(_) | ToSubscriber::Retire(_) => {
                return Err(PeerFault::OutOfPlace("a buffer on a remote link"));
            }
            _ => alone = false,
        }
    }
    Ok(Kind::Plain)
}
