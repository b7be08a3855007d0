//! A device's port.

use crate::ffi::ibv_port_attr;

/// Whether a port can be used.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortState {
    /// No link.
    Down,
    /// Being set up.
    Init,
    /// Nearly ready.
    Armed,
    /// Ready.
    Active,
    /// Something else.
    Other(u32),
}

/// What the port is connected to.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkLayer {
    /// InfiniBand: peers have LIDs.
    InfiniBand,
    /// Ethernet: RoCE, or iWARP.
    Ethernet,
    /// Something else.
    Other(u8),
}

/// Payload bytes of one packet, as the wire knows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Mtu {
    /// 256 bytes.
    B256 = 1,
    /// 512 bytes.
    B512 = 2,
    /// 1024 bytes.
    B1024 = 3,
    /// 2048 bytes.
    B2048 = 4,
    /// 4096 bytes.
    B4096 = 5,
}

impl Mtu {
    /// From `enum ibv_mtu`.
    pub fn from_code(code: u32) -> Option<Self> {
        [Self::B256, Self::B512, Self::B1024, Self::B2048, Self::B4096]
            .into_iter()
            .find(|mtu| *mtu as u32 == code)
    }

    /// Bytes.
    pub fn bytes(self) -> u32 {
        128 << self as u32
    }
}

/// What a port is.
#[derive(Clone, Debug)]
pub struct PortAttributes {
    /// Its number, from 1.
    pub port: u8,
    /// Whether it can be used.
    pub state: PortState,
    /// What it is connected to.
    pub link_layer: LinkLayer,
    /// Payload of a packet, now.
    pub mtu: Mtu,
    /// The largest message.
    pub max_message: u32,
    /// Its address on InfiniBand; 0 on Ethernet.
    pub lid: u16,
    /// Places of its GID table.
    pub gids: u32,
}

impl PortAttributes {
    pub(crate) fn of(port: u8, attr: &ibv_port_attr) -> Self {
        Self {
            port,
            state: match attr.state {
                1 => PortState::Down,
                2 => PortState::Init,
                3 => PortState::Armed,
                4 => PortState::Active,
                state => PortState::Other(state),
            },
            link_layer: match attr.link_layer {
                1 => LinkLayer::InfiniBand,
                2 => LinkLayer::Ethernet,
                other => LinkLayer::Other(other),
            },
            // every port has the smallest
            mtu: Mtu::from_code(attr.active_mtu).unwrap_or(Mtu::B256),
            max_message: attr.max_msg_sz,
            lid: attr.lid,
            gids: attr.gid_tbl_len.clamp(0, MAX_GIDS) as u32,
        }
    }
}

/// Entries of a GID table that are looked at.
pub(crate) const MAX_GIDS: i32 = 1024;
