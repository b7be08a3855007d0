//! Addresses of ports.

use std::net::{IpAddr, Ipv6Addr};

use crate::ffi::ibv_gid_entry;

/// What a GID is for.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GidKind {
    /// InfiniBand, and iWARP.
    InfiniBand,
    /// Ethernet frames that no router passes on.
    RoceV1,
    /// UDP.
    RoceV2,
    /// Something else.
    Other(u32),
}

/// One entry of a port's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gid {
    /// The port, from 1.
    pub port: u8,
    /// Its place in the table.
    pub index: u8,
    /// What it is for.
    pub kind: GidKind,
    /// The address: IPv6, or IPv4 mapped into it.
    pub raw: [u8; 16],
    /// The network interface, or 0.
    pub interface: u32,
}

impl Gid {
    /// `None` where the index does not fit the field that carries it.
    pub(crate) fn of(port: u8, entry: &ibv_gid_entry) -> Option<Self> {
        Some(Self {
            port,
            index: u8::try_from(entry.gid_index).ok()?,
            kind: match entry.gid_type {
                0 => GidKind::InfiniBand,
                1 => GidKind::RoceV1,
                2 => GidKind::RoceV2,
                kind => GidKind::Other(kind),
            },
            raw: entry.gid.raw,
            interface: entry.ndev_ifindex,
        })
    }

    /// Its IP address, where it has one.
    pub fn address(&self) -> IpAddr {
        Ipv6Addr::from(self.raw).to_canonical()
    }

    /// Whether RoCEv2 packets from `address` leave through this entry.
    pub(crate) fn serves(&self, address: IpAddr) -> bool {
        self.kind == GidKind::RoceV2 && self.address() == address.to_canonical()
    }
}
