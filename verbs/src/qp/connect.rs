//! Bringing a queue pair up: what the two ends tell each other, and the steps.

use std::hash::{BuildHasher, Hasher, RandomState};

use crate::ffi::*;
use crate::port::LinkLayer;
use crate::{ConnectError, DeviceError, Gid, Mtu, PortAttributes, Transport};

use super::{QueuePair, State};

/// Finite: with "for ever" (7) a credit bug is a silent stall.
pub const MAX_RNR_RETRY: u8 = 6;
/// Finite: soft-RoCE takes 7 for "for ever" here too, and a peer whose queue pair is gone would never show.
pub const MAX_RETRY: u8 = 6;
/// Length of [`Endpoint::to_bytes`].
pub const ENDPOINT_BYTES: usize = 28;

const MAX_24: u32 = 0xff_ffff;

/// What the peer must know of a queue pair. It travels over the control channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The queue pair's number, 24 bits.
    pub number: u32,
    /// The first packet's number, 24 bits.
    pub first_packet: u32,
    /// The port's address.
    pub gid: [u8; 16],
    /// The port's address on InfiniBand.
    pub lid: u16,
    /// The port's packets.
    pub mtu: Mtu,
}

impl Endpoint {
    /// For the wire: little-endian, in the order of the fields, then a zero byte.
    pub fn to_bytes(&self) -> [u8; ENDPOINT_BYTES] {
        let mut bytes = [0; ENDPOINT_BYTES];
        bytes[..4].copy_from_slice(&self.number.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.first_packet.to_le_bytes());
        bytes[8..24].copy_from_slice(&self.gid);
        bytes[24..26].copy_from_slice(&self.lid.to_le_bytes());
        bytes[26] = self.mtu as u8;
        bytes
    }

    /// From the wire, checked.
    pub fn from_bytes(bytes: &[u8; ENDPOINT_BYTES]) -> Result<Self, ConnectError> {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let mut gid = [0; 16];
        gid.copy_from_slice(&bytes[8..24]);
        let endpoint = Self {
            number: word(0),
            first_packet: word(4),
            gid,
            lid: u16::from_le_bytes([bytes[24], bytes[25]]),
            mtu: Mtu::from_code(bytes[26].into()).ok_or(ConnectError::Peer("no such MTU"))?,
        };
        endpoint.check()?;
        Ok(endpoint)
    }

    fn check(&self) -> Result<(), ConnectError> {
        match self {
            Self { number: 0..=1, .. } => Err(ConnectError::Peer("a reserved queue pair number")),
            Self { number, .. } if *number > MAX_24 => {
                Err(ConnectError::Peer("a queue pair number over 24 bits"))
            }
            Self { first_packet, .. } if *first_packet > MAX_24 => {
                Err(ConnectError::Peer("a packet number over 24 bits"))
            }
            Self { gid: [0xff, ..], .. } => Err(ConnectError::Peer("a multicast address")),
            Self { gid, lid: 0, .. } if *gid == [0; 16] => Err(ConnectError::Peer("no address")),
            _ => Ok(()),
        }
    }
}

/// How long the device tries. A dead peer shows after 0.5 to 2 s with the
/// defaults, and only when something is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// 4.096 µs × 2^n until a packet is sent again.
    pub timeout: u8,
    /// How often, at most [`MAX_RETRY`].
    pub retry: u8,
    /// How often while the peer has no receive posted, at most [`MAX_RNR_RETRY`].
    pub rnr_retry: u8,
    /// The code of the shortest wait for that; 12 is 0.64 ms.
    pub min_rnr_timer: u8,
}

impl Default for Timing {
    fn default() -> Self {
        Self { timeout: 14, retry: MAX_RETRY, rnr_retry: MAX_RNR_RETRY, min_rnr_timer: 12 }
    }
}

impl Timing {
    /// As near to what was asked as the limits allow.
    pub(crate) fn capped(self) -> Self {
        Self {
            timeout: self.timeout.clamp(1, 31),
            retry: self.retry.min(MAX_RETRY),
            rnr_retry: self.rnr_retry.min(MAX_RNR_RETRY),
            min_rnr_timer: self.min_rnr_timer.min(31),
        }
    }
}

/// Our end.
pub(crate) fn local_endpoint(number: u32, gid: &Gid, port: &PortAttributes) -> Endpoint {
    // unguessable enough that packets of an earlier life do not fit
    let first_packet = RandomState::new().build_hasher().finish() as u32 & MAX_24;
    Endpoint { number, first_packet, gid: gid.raw, lid: port.lid, mtu: port.mtu }
}

impl QueuePair {
    /// What the peer must know.
    pub fn endpoint(&self) -> Endpoint {
        self.local
    }

    /// The state in which receives can be posted, before the peer may send.
    pub(super) fn initialise(&mut self) -> Result<(), DeviceError> {
        let mut attr = ibv_qp_attr {
            qp_state: IBV_QPS_INIT,
            port_num: self.gid.port,
            qp_access_flags: IBV_ACCESS_REMOTE_WRITE as u32,
            ..Default::default()
        };
        self.modify(&mut attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS)
    }

    /// Connects to the peer's end: both directions work as soon as both have done this. Packets are as large as both ports
    /// take them.
    pub fn connect(&mut self, peer: &Endpoint, timing: Timing) -> Result<(), ConnectError> {
        if self.state != State::Init {
            return Err(ConnectError::WrongState(self.state));
        }
        peer.check()?;
        let timing = timing.capped();
        let done = self.receive_ready(peer, timing).and_then(|()| self.send_ready(timing));
        if let Err(error) = done {
            self.set_error();
            return Err(error.into());
        }
        self.state = State::Ready;
        Ok(())
    }

    /// Its number, as the kernel knows it.
    pub(crate) fn number(&self) -> u32 {
        self.local.number
    }

    /// Whether it goes through its states by [`take_attributes`](Self::take_attributes). iWARP drivers do that by themselves.
    pub(crate) fn is_told_its_peer(&self) -> bool {
        self.domain.device().transport() != Transport::Iwarp
    }

    /// Takes on what RDMA-CM has found out for a state, but never tries for ever.
    pub(crate) fn take_attributes(
        &mut self,
        attr: &mut ibv_qp_attr,
        mask: i32,
        timing: Timing,
    ) -> Result<(), DeviceError> {
        (attr.timeout, attr.retry_cnt, attr.rnr_retry) = (timing.timeout, timing.retry, timing.rnr_retry);
        attr.min_rnr_timer = timing.min_rnr_timer;
        self.modify(attr, mask)
    }

    /// RDMA-CM has connected it.
    pub(crate) fn came_up(&mut self) {
        if self.state == State::Init {
            self.state = State::Ready;
        }
    }

    fn receive_ready(&mut self, peer: &Endpoint, timing: Timing) -> Result<(), DeviceError> {
        let global = ibv_global_route {
            dgid: ibv_gid { raw: peer.gid },
            sgid_index: self.gid.index,
            hop_limit: 64,
            ..Default::default()
        };
        let address = ibv_ah_attr {
            grh: global,
            dlid: peer.lid,
            is_global: u8::from(self.link_layer != LinkLayer::InfiniBand || peer.lid == 0),
            port_num: self.gid.port,
            ..Default::default()
        };
        let mut attr = ibv_qp_attr {
            qp_state: IBV_QPS_RTR,
            path_mtu: peer.mtu.min(self.local.mtu) as u32,
            dest_qp_num: peer.number,
            rq_psn: peer.first_packet,
            min_rnr_timer: timing.min_rnr_timer,
            ah_attr: address,
            ..Default::default()
        };
        let mask = IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC;
        self.modify(&mut attr, IBV_QP_STATE | mask | IBV_QP_MIN_RNR_TIMER)
    }

    fn send_ready(&mut self, timing: Timing) -> Result<(), DeviceError> {
        let mut attr = ibv_qp_attr {
            qp_state: IBV_QPS_RTS,
            sq_psn: self.local.first_packet,
            timeout: timing.timeout,
            retry_cnt: timing.retry,
            rnr_retry: timing.rnr_retry,
            ..Default::default()
        };
        let mask =
            IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC;
        self.modify(&mut attr, IBV_QP_STATE | mask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Endpoint = Endpoint { number: 17, first_packet: 5, gid: [1; 16], lid: 0, mtu: Mtu::B1024 };

    #[test]
    fn endpoints_survive_the_wire() {
        for number in [2, MAX_24] {
            let endpoint = Endpoint { number, first_packet: MAX_24, ..GOOD };
            assert_eq!(Endpoint::from_bytes(&endpoint.to_bytes()).unwrap(), endpoint);
        }
    }

    #[test]
    fn rubbish_is_refused() {
        let bad = [
            Endpoint { number: 1, ..GOOD },
            Endpoint { number: MAX_24 + 1, ..GOOD },
            Endpoint { first_packet: MAX_24 + 1, ..GOOD },
            Endpoint { gid: [0; 16], ..GOOD },
            Endpoint { gid: [0xff; 16], ..GOOD },
        ];
        for endpoint in bad {
            assert!(
                matches!(Endpoint::from_bytes(&endpoint.to_bytes()), Err(ConnectError::Peer(_))),
                "{endpoint:?}"
            );
        }
        for code in [0, 6, 255] {
            let mut bytes = GOOD.to_bytes();
            bytes[26] = code;
            assert!(Endpoint::from_bytes(&bytes).is_err());
        }
    }

    #[test]
    fn retries_without_end_cannot_be_asked_for() {
        let wild = Timing { timeout: 0, retry: 200, rnr_retry: 7, min_rnr_timer: 200 }.capped();
        assert_eq!(
            wild,
            Timing { timeout: 1, retry: MAX_RETRY, rnr_retry: MAX_RNR_RETRY, min_rnr_timer: 31 }
        );
        assert_eq!(Timing::default().capped(), Timing::default());
    }
}
