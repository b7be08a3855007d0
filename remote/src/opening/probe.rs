//! A write by RDMA from the publisher to the subscriber, to see whether one arrives: a device and an address at each end do
//! not say that.

use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use pagecast_allocators::{Backing, BackingChoice, Buffer, Wants, open};
use pagecast_verbs::{
    Access, Doorbell, ENDPOINT_BYTES, MemoryRegion, ProtectionDomain, Remote, Slice, Transport, Verbs, Write,
};

use super::wire::Answer;
use crate::rdma::{Pair, RdmaError};
use crate::{LinkError, PeerFault, registration};

/// Several packets of any size.
const BYTES: usize = 32 * 1024;

/// One end of it. Its connection is of no use after it.
pub(super) struct Probe {
    // Before the pages: nothing reads or writes them any more when they are dropped.
    pair: Pair,
    domain: Arc<ProtectionDomain>,
    pages: Option<(Arc<MemoryRegion>, Arc<Buffer>)>,
    nonce: u64,
}

impl Probe {
    /// At the device that has `address`.
    pub(super) fn new(verbs: &Verbs, address: IpAddr) -> Result<Self, RdmaError> {
        use std::hash::{BuildHasher, Hasher, RandomState};
        let (device, gid) = verbs.device_for(address)?;
        // Queue pairs that are not told their peer take too long for a try.
        if device.transport() == Transport::Iwarp {
            return Err(RdmaError::Transports);
        }
        let domain = ProtectionDomain::new(&device)?;
        let pair = Pair::new(&domain, &gid)?;
        // What was there before cannot be taken for what was written.
        let nonce = RandomState::new().build_hasher().finish() | 1;
        Ok(Self { pair, domain, pages: None, nonce })
    }

    pub(super) fn endpoint(&self) -> [u8; ENDPOINT_BYTES] {
        self.pair.queue.endpoint().to_bytes()
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.pair.fd()
    }

    /// Makes a place for the publisher to write to.
    pub(super) fn place(&mut self, peer: &[u8; ENDPOINT_BYTES], from: IpAddr) -> Result<Answer, LinkError> {
        self.pair.queue.post_recv(0, &[]).map_err(RdmaError::from)?;
        self.pair.connect(peer, from)?;
        let (region, _) = self.pages(Access::Receive)?;
        Ok(Answer::Place { nonce: self.nonce, address: region.address(), rkey: region.rkey() })
    }

    /// Writes to the place that the subscriber made.
    pub(super) fn write(
        &mut self,
        peer: &[u8; ENDPOINT_BYTES],
        from: IpAddr,
        (nonce, address, rkey): (u64, u64, u32),
    ) -> Result<(), LinkError> {
        self.pair.connect(peer, from)?;
        self.nonce = nonce;
        let (region, buffer) = self.pages(Access::Source)?;
        let mapping =
            buffer.mapping().ok_or_else(|| LinkError::NoPages("pages that are not mapped".to_owned()))?;
        mapping.copy_from(0, &pattern(nonce)).map_err(|error| LinkError::NoPages(error.to_string()))?;
        let (from, to) =
            ([Slice { region: &region, offset: 0, length: BYTES as u32 }], Remote { address, rkey });
        let bell = Doorbell::Immediate { write: Write { from: &[], to }, value: nonce as u32 };
        let posted = self.pair.queue.post_frame(0, &[Write { from: &from, to }], bell);
        Ok(posted.map_err(RdmaError::from)?)
    }

    /// Whether what the publisher wrote is here.
    pub(super) fn has_arrived(&mut self) -> Result<bool, LinkError> {
        let mut rung = false;
        for ended in self.pair.completions()? {
            rung = ended.outcome.map_err(RdmaError::from)?.immediate == Some(self.nonce as u32);
        }
        let Some((_, buffer)) = self.pages.as_ref().filter(|_| rung) else { return Ok(false) };
        let mut bytes = vec![0; BYTES];
        let mapping =
            buffer.mapping().ok_or_else(|| LinkError::NoPages("pages that are not mapped".to_owned()))?;
        mapping.copy_to(0, &mut bytes).map_err(|error| LinkError::NoPages(error.to_string()))?;
        match bytes == pattern(self.nonce) {
            true => Ok(true),
            false => Err(PeerFault::OutOfPlace("another probe than was asked for").into()),
        }
    }

    fn pages(&mut self, access: Access) -> Result<(Arc<MemoryRegion>, Arc<Buffer>), LinkError> {
        if let Some(pages) = &self.pages {
            return Ok(pages.clone());
        }
        let no_pages = |error: &dyn std::fmt::Display| LinkError::NoPages(error.to_string());
        let buffer = open(BackingChoice::Memfd).allocate(BYTES, &Wants::default());
        let buffer = Arc::new(buffer.map_err(|error| no_pages(&error))?);
        let mapping = buffer.share_mapping().ok_or_else(|| no_pages(&"pages that are not mapped"))?;
        let region = registration::register(&self.domain, mapping, access).map_err(RdmaError::from)?;
        Ok(self.pages.insert((region, buffer)).clone())
    }
}

fn pattern(nonce: u64) -> Vec<u8> {
    let mut state = nonce | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..BYTES / 8).flat_map(|_| next()).collect()
}
