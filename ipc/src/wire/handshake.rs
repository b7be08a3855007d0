//! How a link begins.

use super::WireError;
use super::bytes::{Reader, Writer};
use super::limits::{MAX_NAME, VERSION, VERSION_MIN};
use crate::policy::{Policy, Rate};

bitflags::bitflags! {
    /// The faces a subscriber can use, or is given.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct FaceSet: u32 {
        /// The memory face.
        const MEMORY = 1;
        /// The dma-buf face.
        const DMA_BUF = 1 << 1;
    }
}

/// What the peer of a publisher came for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// Frames.
    Subscriber,
    /// To ask, without frames and without a share of the budget.
    Observer,
}

/// The first message, from the subscriber.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The oldest version it speaks.
    pub version_min: u16,
    /// The newest version it speaks.
    pub version_max: u16,
    /// What it came for.
    pub role: Role,
    /// The policy it asks for; `None` leaves it to the publisher.
    pub policy: Option<Policy>,
    /// Credits it asks for; `None` leaves it to the publisher.
    pub credits: Option<u32>,
    /// Frames it may keep without being called stuck.
    pub keep: u32,
    /// The most frames per second it wants.
    pub rate: Option<Rate>,
    /// Faces it can use.
    pub faces: FaceSet,
    /// What it calls itself, for people.
    pub name: String,
}

impl Hello {
    /// A subscriber with every choice left to the publisher.
    pub fn new(role: Role, name: &str) -> Self {
        Self {
            version_min: VERSION_MIN,
            version_max: VERSION,
            role,
            policy: None,
            credits: None,
            keep: 1,
            rate: None,
            faces: FaceSet::MEMORY,
            name: name.to_owned(),
        }
    }

    /// The version both ends speak, if there is one.
    pub fn common_version(&self) -> Option<u16> {
        let version = self.version_max.min(VERSION);
        (version >= self.version_min && version >= VERSION_MIN).then_some(version)
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u16(self.version_min);
        out.put_u16(self.version_max);
        out.put_u16(match self.role {
            Role::Subscriber => 0,
            Role::Observer => 1,
        });
        out.put_u16(self.policy.map_or(0, policy_number));
        out.put_u32(self.credits.unwrap_or(0));
        out.put_u32(self.keep);
        let rate = self.rate.unwrap_or(Rate { frames: 0, seconds: 0 });
        out.put_u32(rate.frames);
        out.put_u32(rate.seconds);
        out.put_u32(self.faces.bits());
        out.put_blob(self.name.as_bytes());
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let (version_min, version_max) = (reader.u16()?, reader.u16()?);
        let role = match reader.u16()? {
            0 => Role::Subscriber,
            1 => Role::Observer,
            value => return Err(WireError::Invalid { field: "role", value: value.into() }),
        };
        let policy = match reader.u16()? {
            0 => None,
            number => Some(policy_from(number)?),
        };
        let credits = Some(reader.u32()?).filter(|credits| *credits > 0);
        let keep = reader.u32()?;
        let rate = Rate { frames: reader.u32()?, seconds: reader.u32()? };
        let faces = FaceSet::from_bits_truncate(reader.u32()?);
        let name = reader.text("name", MAX_NAME)?;
        let rate = rate.interval().map(|_| rate);
        Ok(Self { version_min, version_max, role, policy, credits, keep, rate, faces, name })
    }
}

fn policy_number(policy: Policy) -> u16 {
    match policy {
        Policy::Auto => 1,
        Policy::Block => 2,
        Policy::DropOldest => 3,
        Policy::DropNewest => 4,
        Policy::Latest => 5,
    }
}

fn policy_from(number: u16) -> Result<Policy, WireError> {
    Policy::ALL
        .into_iter()
        .find(|policy| policy_number(*policy) == number)
        .ok_or(WireError::Invalid { field: "policy", value: number.into() })
}

/// The publisher's answer to a [`Hello`] that it accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The version in use.
    pub version: u16,
    /// The subscriber's number.
    pub subscriber: u64,
    /// The publisher's process.
    pub pid: u32,
    /// The policy in force; resolved. `None` for an observer.
    pub policy: Option<Policy>,
    /// Credits granted.
    pub credits: u32,
    /// Places in the mailbox.
    pub mailbox: u32,
    /// Faces that buffers will be announced with.
    pub faces: FaceSet,
    /// Whether the stream is live.
    pub live: bool,
    /// The publisher's name.
    pub name: String,
}

impl Welcome {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u16(self.version);
        out.put_u16(u16::from(self.live));
        out.put_u64(self.subscriber);
        out.put_u32(self.pid);
        out.put_u32(self.policy.map_or(0, |policy| policy_number(policy).into()));
        out.put_u32(self.credits);
        out.put_u32(self.mailbox);
        out.put_u32(self.faces.bits());
        out.put_blob(self.name.as_bytes());
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let version = reader.u16()?;
        if !(VERSION_MIN..=VERSION).contains(&version) {
            return Err(WireError::Invalid { field: "version", value: version.into() });
        }
        let live = reader.u16()? & 1 != 0;
        Ok(Self {
            version,
            live,
            subscriber: reader.u64()?,
            pid: reader.u32()?,
            policy: match reader.u32()? {
                0 => None,
                number => Some(policy_from(number.try_into().unwrap_or(u16::MAX))?),
            },
            credits: reader.u32()?,
            mailbox: reader.u32()?,
            faces: FaceSet::from_bits_truncate(reader.u32()?),
            name: reader.text("name", MAX_NAME)?,
        })
    }
}

/// Why a publisher refused or ended a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefusalCode {
    /// No common protocol version.
    Version,
    /// The peer's user or group may not.
    Access,
    /// The budget cannot carry another subscriber.
    NoRoom,
    /// No face that both can use.
    Face,
    /// The peer broke the protocol.
    Fault,
    /// The peer held frames for too long.
    Evicted,
    /// The publisher ends.
    Closing,
    /// A code of a newer version.
    Other(u16),
}

impl RefusalCode {
    pub(super) fn number(self) -> u16 {
        match self {
            RefusalCode::Version => 1,
            RefusalCode::Access => 2,
            RefusalCode::NoRoom => 3,
            RefusalCode::Face => 4,
            RefusalCode::Fault => 5,
            RefusalCode::Evicted => 6,
            RefusalCode::Closing => 7,
            RefusalCode::Other(number) => number,
        }
    }

    pub(super) fn from_number(number: u16) -> Self {
        use RefusalCode::*;
        [Version, Access, NoRoom, Face, Fault, Evicted, Closing]
            .into_iter()
            .find(|code| code.number() == number)
            .unwrap_or(Other(number))
    }
}
