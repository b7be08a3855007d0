//! Who is admitted, and who gets the dma-buf face.
//!
//! The socket's permissions decide first, in the kernel: who may not write to it cannot connect. These
//! rules come after them.

use nix::unistd::geteuid;

use super::peer::PeerCredentials;

/// Who may have the dma-buf face: whoever has it can write to the frames.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum DmaBufAccess {
    /// Subscribers of the publisher's own user.
    #[default]
    OwnUid,
    /// Nobody.
    Nobody,
    /// Every subscriber that is admitted.
    Everyone,
    /// Subscribers of these users, and of the publisher's own.
    Uids(Vec<u32>),
}

/// Why a peer is not admitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The peer is in none of the lists.
    #[error("user {uid} is not admitted: the publisher must allow that user, or one of its groups")]
    NotAllowed {
        /// The peer's user.
        uid: u32,
    },
}

/// A publisher's rules for its peers. Its own user and root are always admitted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccessRules {
    /// Further users.
    pub allow_uids: Vec<u32>,
    /// Further groups, also as supplementary ones.
    pub allow_gids: Vec<u32>,
    /// Who may have the dma-buf face.
    pub dma_buf: DmaBufAccess,
}

impl AccessRules {
    /// Whether `peer` may connect at all.
    pub fn admits(&self, peer: &PeerCredentials) -> Result<(), Refusal> {
        self.admits_to(geteuid().as_raw(), peer)
    }

    /// Whether `peer`, once admitted, may have the dma-buf face.
    pub fn dma_buf_for(&self, peer: &PeerCredentials) -> bool {
        self.dma_buf_of(geteuid().as_raw(), peer)
    }

    fn admits_to(&self, own_uid: u32, peer: &PeerCredentials) -> Result<(), Refusal> {
        let admitted = peer.uid == own_uid
            || peer.uid == 0
            || self.allow_uids.contains(&peer.uid)
            || self.allow_gids.iter().any(|gid| peer.in_group(*gid));
        if admitted { Ok(()) } else { Err(Refusal::NotAllowed { uid: peer.uid }) }
    }

    fn dma_buf_of(&self, own_uid: u32, peer: &PeerCredentials) -> bool {
        match &self.dma_buf {
            DmaBufAccess::Nobody => false,
            DmaBufAccess::Everyone => true,
            DmaBufAccess::OwnUid => peer.uid == own_uid,
            DmaBufAccess::Uids(uids) => peer.uid == own_uid || uids.contains(&peer.uid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: u32 = 1000;

    fn peer(uid: u32, gid: u32, groups: &[u32]) -> PeerCredentials {
        PeerCredentials { pid: 1, uid, gid, groups: groups.to_vec(), pidfd: None }
    }

    #[test]
    fn by_default_only_the_own_user_and_root_are_admitted() {
        let rules = AccessRules::default();
        assert_eq!(rules.admits_to(OWN, &peer(OWN, 5, &[])), Ok(()));
        assert_eq!(rules.admits_to(OWN, &peer(0, 0, &[])), Ok(()));
        // The own group is no reason.
        let refused = Err(Refusal::NotAllowed { uid: 1001 });
        assert_eq!(rules.admits_to(OWN, &peer(1001, OWN, &[OWN, 0])), refused);
        assert_eq!(rules.admits_to(0, &peer(1001, 0, &[])), refused);
    }

    #[test]
    fn listed_users_and_groups_are_admitted() {
        let rules = AccessRules { allow_uids: vec![7], allow_gids: vec![44, 45], ..Default::default() };
        for (uid, gid, groups, admitted) in [
            (7, 1, &[][..], true),
            (8, 44, &[], true),
            (8, 1, &[2, 45], true),
            (8, 7, &[7], false),
            (44, 1, &[], false),
            (OWN, 1, &[], true),
        ] {
            assert_eq!(
                rules.admits_to(OWN, &peer(uid, gid, groups)).is_ok(),
                admitted,
                "{uid} {gid} {groups:?}"
            );
        }
    }

    #[test]
    fn the_dma_buf_face_is_for_the_own_user_unless_told_otherwise() {
        let table = [
            (DmaBufAccess::OwnUid, [true, false, false]),
            (DmaBufAccess::Nobody, [false, false, false]),
            (DmaBufAccess::Everyone, [true, true, true]),
            (DmaBufAccess::Uids(vec![7]), [true, true, false]),
        ];
        for (dma_buf, expected) in table {
            let rules = AccessRules { dma_buf, ..Default::default() };
            let got = [OWN, 7, 0].map(|uid| rules.dma_buf_of(OWN, &peer(uid, 1, &[])));
            assert_eq!(got, expected, "{:?}", rules.dma_buf);
        }
    }

    #[test]
    fn a_real_peer_of_this_process_is_admitted() {
        let (a, _b) = crate::socket::Seqpacket::pair().unwrap();
        let rules = AccessRules::default();
        let peer = a.peer().unwrap();
        assert_eq!(rules.admits(&peer), Ok(()));
        assert!(rules.dma_buf_for(&peer));
    }
}
