//! What two ends of `remote://` say before they know what carries their link; no I/O.
#![forbid(unsafe_code)]

use pagecast_verbs::ENDPOINT_BYTES;

use crate::PeerFault;

/// The first bytes of an offer, and of all that is decided.
pub const MAGIC: [u8; 4] = *b"PGCO";
const VERSION: u16 = 1;
/// Bytes of an [`Offer`].
pub const OFFER: usize = 8 + ENDPOINT_BYTES;
/// Bytes of an [`Answer`].
pub const ANSWER: usize = 28;

const PLACE: u8 = 1;
const CHOICE: u8 = 2;

/// What an end has, said once, by both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The end of its RDMA connection for the probe, if it has a device.
    pub endpoint: Option<[u8; ENDPOINT_BYTES]>,
}

impl Offer {
    /// For the wire.
    pub fn to_bytes(self) -> [u8; OFFER] {
        let mut bytes = [0; OFFER];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
        bytes[6] = self.endpoint.is_some().into();
        bytes[8..].copy_from_slice(&self.endpoint.unwrap_or([0; ENDPOINT_BYTES]));
        bytes
    }

    /// From the wire.
    ///
    /// # Errors
    /// [`PeerFault`].
    pub fn from_bytes(bytes: &[u8; OFFER]) -> Result<Self, PeerFault> {
        if bytes[..4] != MAGIC {
            return Err(PeerFault::NotPagecast);
        }
        let theirs = u16::from_le_bytes([bytes[4], bytes[5]]);
        if theirs != VERSION {
            return Err(PeerFault::Version { theirs, ours: VERSION });
        }
        let mut endpoint = [0; ENDPOINT_BYTES];
        endpoint.copy_from_slice(&bytes[8..]);
        match (bytes[6], bytes[7]) {
            (0, 0) => Ok(Self { endpoint: None }),
            (1, 0) => Ok(Self { endpoint: Some(endpoint) }),
            _ => Err(PeerFault::OutOfPlace("an offer")),
        }
    }
}

/// Why frames are not written by RDMA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The subscriber's host has no RDMA device with the connection's address, or one of iWARP.
    SubscriberHasNone,
    /// The publisher's host has none.
    PublisherHasNone,
    /// What was written to try it did not arrive in time.
    ProbeLost,
    /// The other end wants TCP; said by its URI, not here.
    AskedFor,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::SubscriberHasNone => "the subscriber's host has no RDMA device with the connection's address, or one of iWARP, which only rdma:// uses",
            Self::PublisherHasNone => "the publisher's host has no RDMA device with the connection's address, or one of iWARP, which only rdma:// uses",
            Self::AskedFor => "the other end asked for tcp://",
            Self::ProbeLost => {
                "a write by RDMA did not arrive: is UDP port 4791 open in both directions, for large packets too?"
            }
        })
    }
}

/// What carries the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// TCP, and why not RDMA.
    Tcp(Reason),
    /// RDMA.
    Rdma,
}

/// What the subscriber answers to an offer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Where the publisher is to write, to try it; at most once.
    Place {
        /// What the bytes there are to begin from.
        nonce: u64,
        /// The address, as the subscriber's device knows it.
        address: u64,
        /// The key.
        rkey: u32,
    },
    /// How it goes on.
    Choice(Choice),
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            // Keys are secrets.
            Self::Place { .. } => f.write_str("Place"),
            Self::Choice(choice) => choice.fmt(f),
        }
    }
}

impl Answer {
    /// For the wire.
    pub fn to_bytes(self) -> [u8; ANSWER] {
        let mut bytes = [0; ANSWER];
        match self {
            Self::Place { nonce, address, rkey } => {
                bytes[0] = PLACE;
                bytes[4..8].copy_from_slice(&rkey.to_le_bytes());
                bytes[8..16].copy_from_slice(&address.to_le_bytes());
                bytes[16..24].copy_from_slice(&nonce.to_le_bytes());
            }
            Self::Choice(choice) => {
                bytes[0] = CHOICE;
                bytes[1] = match choice {
                    Choice::Rdma => 0,
                    Choice::Tcp(Reason::SubscriberHasNone) => 1,
                    Choice::Tcp(Reason::PublisherHasNone) => 2,
                    Choice::Tcp(Reason::ProbeLost | Reason::AskedFor) => 3,
                };
            }
        }
        bytes
    }

    /// From the wire.
    ///
    /// # Errors
    /// [`PeerFault`].
    pub fn from_bytes(bytes: &[u8; ANSWER]) -> Result<Self, PeerFault> {
        let long = |at: usize| bytes[at..at + 8].try_into().map_or(0, u64::from_le_bytes);
        let answer = match (bytes[0], bytes[1]) {
            (PLACE, 0) => {
                let rkey = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
                Self::Place { nonce: long(16), address: long(8), rkey }
            }
            (CHOICE, 0) => Self::Choice(Choice::Rdma),
            (CHOICE, 1) => Self::Choice(Choice::Tcp(Reason::SubscriberHasNone)),
            (CHOICE, 2) => Self::Choice(Choice::Tcp(Reason::PublisherHasNone)),
            (CHOICE, 3) => Self::Choice(Choice::Tcp(Reason::ProbeLost)),
            _ => return Err(PeerFault::OutOfPlace("an answer to an offer")),
        };
        // One way to say it.
        if answer.to_bytes() == *bytes {
            Ok(answer)
        } else {
            Err(PeerFault::OutOfPlace("an answer to an offer"))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_said_survives_the_wire(endpoint: Option<[u8; ENDPOINT_BYTES]>, nonce: u64, address: u64, rkey: u32) {
            let offer = Offer { endpoint };
            prop_assert_eq!(Offer::from_bytes(&offer.to_bytes()), Ok(offer));
            let place = Answer::Place { nonce, address, rkey };
            prop_assert_eq!(Answer::from_bytes(&place.to_bytes()), Ok(place));
        }

        #[test]
        fn what_is_read_is_what_would_be_written(bytes: [u8; ANSWER], kind in 0u8..4, what in 0u8..5) {
            for bytes in [bytes, [&[kind, what], &bytes[2..]].concat().try_into().unwrap(), {
                let mut short = [0; ANSWER];
                (short[0], short[1]) = (kind, what);
                short
            }] {
                if let Ok(answer) = Answer::from_bytes(&bytes) {
                    prop_assert_eq!(answer.to_bytes(), bytes);
                }
            }
        }
    }

    #[test]
    fn choices_survive_and_rubbish_does_not() {
        let reasons = [Reason::SubscriberHasNone, Reason::PublisherHasNone, Reason::ProbeLost];
        for choice in reasons.map(Choice::Tcp).into_iter().chain([Choice::Rdma]) {
            assert_eq!(Answer::from_bytes(&Answer::Choice(choice).to_bytes()), Ok(Answer::Choice(choice)));
        }
        let offer = Offer { endpoint: None }.to_bytes();
        for (at, value) in [(0, b'X'), (4, 9), (6, 2), (7, 1)] {
            let mut bytes = offer;
            bytes[at] = value;
            assert!(Offer::from_bytes(&bytes).is_err(), "{at}");
        }
    }
}
