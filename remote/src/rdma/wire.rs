//! What the two ends say on the control connection, and its bytes; no I/O.
//!
//! Each direction begins with a preamble of 8 bytes. Then come messages: a length of four bytes, a kind, a body.
#![forbid(unsafe_code)]

use pagecast_ipc::wire::limits::MAX_PACKET;
use pagecast_verbs::ENDPOINT_BYTES;

use crate::PeerFault;
use crate::pulse::Beat;

/// The first bytes of each direction.
pub const MAGIC: [u8; 4] = *b"PGCV";
const VERSION: u16 = 1;
/// Bytes of the preamble: magic, version (2), zero (2).
pub const PREAMBLE: usize = 8;
/// Bytes of length and kind.
pub const HEADER: usize = 5;
const GRANT: usize = 24;
const BEAT: usize = 24;

const HELLO_KIND: u8 = 1;
const PACKET_KIND: u8 = 2;
const GRANT_KIND: u8 = 3;
const BEAT_KIND: u8 = 4;
const ABILITY_KIND: u8 = 5;

/// Bytes of the token of [`Way::Listens`].
pub const TOKEN: usize = 16;
const ABILITY: usize = 4 + TOKEN;

/// How a queue pair comes up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It is told its peer, by the hellos.
    Told,
    /// By RDMA-CM: this end, the publisher's, calls.
    Calls,
    /// By RDMA-CM: this end, the subscriber's, listens.
    Listens {
        /// At its port.
        port: u16,
        /// For who says this.
        token: [u8; TOKEN],
    },
}

impl std::fmt::Debug for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Tokens are secrets.
        f.write_str(match self {
            Self::Told => "Told",
            Self::Calls => "Calls",
            Self::Listens { .. } => "Listens",
        })
    }
}

/// What a device can do, where it is not what all others can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ability {
    /// Whether a write can carry an immediate.
    pub immediates: bool,
    /// How its queue pair comes up.
    pub way: Way,
}

impl Ability {
    /// That of who says none.
    pub const USUAL: Self = Self { immediates: true, way: Way::Told };

    fn to_bytes(self) -> [u8; ABILITY] {
        let mut bytes = [0; ABILITY];
        bytes[0] = self.immediates.into();
        match self.way {
            Way::Told => {}
            Way::Calls => bytes[1] = 1,
            Way::Listens { port, token } => {
                bytes[1] = 2;
                bytes[2..4].copy_from_slice(&port.to_le_bytes());
                bytes[4..].copy_from_slice(&token);
            }
        }
        bytes
    }

    fn from_bytes(bytes: &[u8; ABILITY]) -> Option<Self> {
        let port = u16::from_le_bytes([bytes[2], bytes[3]]);
        let mut token = [0; TOKEN];
        token.copy_from_slice(&bytes[4..]);
        let way = match bytes[1] {
            0 => Way::Told,
            1 => Way::Calls,
            2 if port != 0 => Way::Listens { port, token },
            _ => return None,
        };
        let ability = Self { immediates: bytes[0] == 1, way };
        // One way to say it.
        (ability.to_bytes() == *bytes).then_some(ability)
    }
}

/// A place for the bytes of a frame.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// The number of the place, and of the frame that it is for; the immediate.
    pub slot: u32,
    /// The key of its pages.
    pub rkey: u32,
    /// Its address, as the subscriber's device knows it.
    pub address: u64,
    /// Its length in bytes.
    pub length: u64,
}

impl std::fmt::Debug for Grant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Keys are secrets.
        f.debug_struct("Grant")
            .field("slot", &self.slot)
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// The queue pair of who speaks; once, and first.
    Hello([u8; ENDPOINT_BYTES]),
    /// Records.
    Packet(&'a [u8]),
    /// A place, from the subscriber.
    Grant(Grant),
    /// A heartbeat.
    Beat(Beat),
    /// What the device of who speaks can do; at most once, before the hello.
    Ability(Ability),
}

/// The preamble of this build.
pub fn preamble() -> [u8; PREAMBLE] {
    let mut bytes = [0; PREAMBLE];
    bytes[..4].copy_from_slice(&MAGIC);
    bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
    bytes
}

impl<'a> Message<'a> {
    /// Appends its bytes.
    pub fn encode(&self, output: &mut impl Extend<u8>) {
        let mut put = |kind: u8, body: &[&[u8]]| {
            let length: usize = body.iter().map(|piece| piece.len()).sum();
            output.extend((length as u32).to_le_bytes());
            output.extend([kind]);
            body.iter().for_each(|piece| output.extend(piece.iter().copied()));
        };
        match self {
            Self::Hello(endpoint) => put(HELLO_KIND, &[endpoint]),
            Self::Packet(packet) => put(PACKET_KIND, &[packet]),
            Self::Ability(ability) => put(ABILITY_KIND, &[&ability.to_bytes()]),
            Self::Grant(grant) => put(
                GRANT_KIND,
                &[
                    &grant.slot.to_le_bytes(),
                    &grant.rkey.to_le_bytes(),
                    &grant.address.to_le_bytes(),
                    &grant.length.to_le_bytes(),
                ],
            ),
            Self::Beat(beat) => put(
                BEAT_KIND,
                &[&beat.sent.to_le_bytes(), &beat.echo.to_le_bytes(), &beat.kept.to_le_bytes()],
            ),
        }
    }

    /// Of a kind and a body whose length has been checked.
    fn decode(kind: u8, body: &'a [u8]) -> Result<Self, PeerFault> {
        let word = |at: usize| body[at..at + 4].try_into().map_or(0, u32::from_le_bytes);
        let long = |at: usize| body[at..at + 8].try_into().map_or(0, u64::from_le_bytes);
        Ok(match kind {
            HELLO_KIND => Self::Hello(body.try_into().map_err(|_| PeerFault::OutOfPlace("a hello"))?),
            GRANT_KIND => {
                Self::Grant(Grant { slot: word(0), rkey: word(4), address: long(8), length: long(16) })
            }
            ABILITY_KIND => {
                let bytes = body.first_chunk().filter(|_| body.len() == ABILITY);
                let ability = bytes.and_then(Ability::from_bytes);
                Self::Ability(ability.ok_or(PeerFault::OutOfPlace("what a device can do"))?)
            }
            BEAT_KIND => Self::Beat(Beat { sent: long(0), echo: long(8), kept: long(16) }),
            _ => Self::Packet(body),
        })
    }
}

/// Cuts a stream into messages. It remembers only whether the preamble has been seen.
#[derive(Debug, Default)]
pub struct Splitter {
    greeted: bool,
}

impl Splitter {
    /// The message at the front of `bytes`, which begin where the last one ended, and how many bytes it takes with all that stands
    /// before it; `None` while it is not whole.
    ///
    /// # Errors
    /// [`PeerFault`]: the peer is not to be listened to any more.
    pub fn cut<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<(Message<'a>, usize)>, PeerFault> {
        let start = if self.greeted { 0 } else { PREAMBLE };
        if start > 0 && !greets(bytes)? {
            return Ok(None);
        }
        let rest = &bytes[start..];
        let Some(&[a, b, c, d, kind]) = rest.first_chunk::<HEADER>() else { return Ok(None) };
        let length = checked(kind, u32::from_le_bytes([a, b, c, d]) as usize)?;
        let Some(body) = rest.get(HEADER..HEADER + length) else { return Ok(None) };
        self.greeted = true;
        Ok(Some((Message::decode(kind, body)?, start + HEADER + length)))
    }
}

/// Whether the preamble is here. It is judged by what is: who speaks something else may never send the rest.
fn greets(bytes: &[u8]) -> Result<bool, PeerFault> {
    let seen = bytes.len().min(MAGIC.len());
    if bytes[..seen] != MAGIC[..seen] {
        return Err(PeerFault::NotPagecast);
    }
    let Some(preamble) = bytes.first_chunk::<PREAMBLE>() else { return Ok(false) };
    match u16::from_le_bytes([preamble[4], preamble[5]]) {
        VERSION => Ok(true),
        theirs => Err(PeerFault::Version { theirs, ours: VERSION }),
    }
}

/// The length of a message's body, if one of that kind can have it.
fn checked(kind: u8, length: usize) -> Result<usize, PeerFault> {
    let right = match kind {
        HELLO_KIND => length == ENDPOINT_BYTES,
        PACKET_KIND if length > MAX_PACKET => {
            let (value, limit) = (length as u64, MAX_PACKET as u64);
            return Err(PeerFault::OverLimit { what: "packet", value, limit });
        }
        PACKET_KIND => true,
        GRANT_KIND => length == GRANT,
        BEAT_KIND => length == BEAT,
        ABILITY_KIND => length == ABILITY,
        _ => false,
    };
    if right { Ok(length) } else { Err(PeerFault::OutOfPlace("an unknown message")) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(bytes: &[u8], words: [u64; 3], kind: u8) -> Message<'_> {
        let [sent, echo, kept] = words;
        match kind {
            0 => Message::Hello([sent as u8; ENDPOINT_BYTES]),
            1 => Message::Packet(bytes),
            2 => Message::Ability(Ability {
                immediates: sent % 2 == 0,
                way: match echo % 3 {
                    0 => Way::Told,
                    1 => Way::Calls,
                    _ => Way::Listens { port: kept as u16 | 1, token: [kept as u8; TOKEN] },
                },
            }),
            3 => Message::Grant(Grant { slot: sent as u32, rkey: kept as u32, address: echo, length: kept }),
            _ => Message::Beat(Beat { sent, echo, kept }),
        }
    }

    proptest! {
        #[test]
        fn messages_survive_the_wire_however_it_is_cut(
            parts in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..50), any::<[u64; 3]>(), 0u8..5), 1..6),
            cut in any::<proptest::sample::Index>(),
        ) {
            let mut stream = preamble().to_vec();
            let messages: Vec<_> = parts.iter().map(|(bytes, words, kind)| message(bytes, *words, *kind)).collect();
            messages.iter().for_each(|message| message.encode(&mut stream));
            let (mut splitter, mut at, mut read) = (Splitter::default(), 0, Vec::new());
            for end in [cut.index(stream.len()), stream.len()] {
                while let Some((message, taken)) = splitter.cut(&stream[at..end]).expect("our own") {
                    read.push(message);
                    at += taken;
                }
            }
            prop_assert_eq!((read, at), (messages, stream.len()));
        }
    }

    #[test]
    fn abilities_have_one_form() {
        let good = Ability { immediates: false, way: Way::Listens { port: 7, token: [9; TOKEN] } }.to_bytes();
        assert!(Ability::from_bytes(&good).is_some());
        for (at, value) in [(0, 2), (1, 0), (1, 1), (1, 3), (2, 0)] {
            let mut bytes = good;
            bytes[at] = value;
            assert_eq!(Ability::from_bytes(&bytes), None, "{at} {value}");
        }
        assert_eq!(Ability::from_bytes(&Ability::USUAL.to_bytes()), Some(Ability::USUAL));
    }

    #[test]
    fn what_cannot_be_is_refused_as_soon_as_it_is_seen() {
        let stream = |kind: u8, length: usize| {
            let mut bytes = preamble().to_vec();
            bytes.extend((length as u32).to_le_bytes());
            bytes.push(kind);
            bytes
        };
        let cut = |bytes: &[u8]| Splitter::default().cut(bytes).map(|found| found.is_some());
        for (kind, length) in [
            (HELLO_KIND, ENDPOINT_BYTES),
            (PACKET_KIND, MAX_PACKET),
            (GRANT_KIND, 24),
            (BEAT_KIND, 24),
            (ABILITY_KIND, ABILITY),
        ] {
            assert_eq!(cut(&stream(kind, length)), Ok(false));
            cut(&stream(kind, length + 1)).expect_err("another length");
        }
        cut(&stream(0, 0)).expect_err("no kind");
        cut(&stream(6, 0)).expect_err("no kind");
        assert_eq!(cut(b"PGX"), Err(PeerFault::NotPagecast));
        assert_eq!(cut(b"PGCV\x02\0\0\0"), Err(PeerFault::Version { theirs: 2, ours: 1 }));
        assert_eq!(cut(b""), Ok(false));
    }
}
