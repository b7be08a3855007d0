//! Registered pages.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use pagecast_allocators::Buffer;
use pagecast_verbs::{
    Access, Cm, Device, Gid, MemoryRegion, ProtectionDomain, RegisterError, Transport, Verbs,
};

use super::RdmaError;
use super::meeting::Meeting;
use crate::{LinkError, registration};

/// Where frames are sent from: one protection domain for all links of a device, so that a buffer is registered once,
/// whoever gets it. Nobody can write there.
pub struct Sources {
    domain: Arc<ProtectionDomain>,
    gid: Gid,
    address: IpAddr,
    immediates: bool,
    /// What connects queue pairs that are not told their peer.
    cm: Option<Cm>,
}

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sources").field("device", &self.domain.device().name()).finish_non_exhaustive()
    }
}

impl Sources {
    /// Those of the device that has `address`. All of this process are one, as long as any of them is there.
    ///
    /// # Errors
    /// [`RdmaError`].
    pub fn new(verbs: &Verbs, address: IpAddr) -> Result<Arc<Self>, RdmaError> {
        static DOMAINS: Mutex<Vec<Weak<ProtectionDomain>>> = Mutex::new(Vec::new());
        let (device, gid) = verbs.device_for(address)?;
        let (cm, immediates) = (cm_for(verbs, &device)?, device.has_immediates());
        let of = |domain: Arc<ProtectionDomain>| {
            let immediates = immediates && domain.device().has_immediates();
            Arc::new(Self { domain, gid, address, immediates, cm })
        };
        let mut domains = DOMAINS.lock().unwrap_or_else(PoisonError::into_inner);
        domains.retain(|domain| domain.strong_count() > 0);
        // A device that was away and is back has the name, and answers only who opened it since.
        let same = |domain: &Arc<ProtectionDomain>| {
            let there = domain.device();
            let answers = || there.gid_for(address).is_ok() || (cm.is_some() && there.port(gid.port).is_ok());
            there.name() == device.name() && answers()
        };
        if let Some(domain) = domains.iter().filter_map(Weak::upgrade).find(same) {
            return Ok(of(domain));
        }
        let domain = ProtectionDomain::new(&device)?;
        domains.push(Arc::downgrade(&domain));
        Ok(of(domain))
    }

    /// Their domain.
    pub fn domain(&self) -> &Arc<ProtectionDomain> {
        &self.domain
    }

    pub(super) fn gid(&self) -> &Gid {
        &self.gid
    }

    /// Whether writes can carry immediates.
    pub(super) fn immediates(&self) -> bool {
        self.immediates
    }

    /// How a queue pair comes up that is not told its peer.
    pub(super) fn meeting(&self) -> Option<Meeting> {
        self.cm.map(|cm| Meeting::caller(cm, self.address))
    }

    /// Whether the device can read the buffer's pages: those of another device it may not.
    pub(super) fn reaches(&self, buffer: &Buffer) -> bool {
        // Any other trouble ends the link, with its own words.
        !matches!(registration::ensure(buffer, &self.domain, Access::Source), Err(RegisterError::BadPages))
    }

    /// The buffer's registration, made if there is none.
    pub(super) fn region(&self, buffer: &Buffer) -> Result<Arc<MemoryRegion>, LinkError> {
        let ensured = registration::ensure(buffer, &self.domain, Access::Source);
        Ok(ensured.map_err(RdmaError::from)?.region)
    }
}

/// What connects the device's queue pairs, where they cannot be told their peer.
pub(super) fn cm_for(verbs: &Verbs, device: &Device) -> Result<Option<Cm>, RdmaError> {
    Ok(if device.transport() == Transport::Iwarp { Some(verbs.cm()?) } else { None })
}

/// Where one peer may write: its own protection domain, so that its keys open nothing else, and registrations that end with
/// the link.
pub(super) struct Targets {
    domain: Arc<ProtectionDomain>,
    regions: HashMap<u64, (Weak<Buffer>, Arc<MemoryRegion>)>,
}

impl Targets {
    pub(super) fn new(device: &Arc<Device>) -> Result<Self, RdmaError> {
        Ok(Self { domain: ProtectionDomain::new(device)?, regions: HashMap::new() })
    }

    pub(super) fn domain(&self) -> &Arc<ProtectionDomain> {
        &self.domain
    }

    /// The buffer's registration, made if there is none. Those of buffers that are gone end.
    pub(super) fn region(&mut self, buffer: &Arc<Buffer>) -> Result<Arc<MemoryRegion>, LinkError> {
        if let Some((_, region)) = self.regions.get(&buffer.id().get()) {
            return Ok(region.clone());
        }
        self.regions.retain(|_, (buffer, _)| buffer.strong_count() > 0);
        let mapping = buffer.share_mapping().filter(|mapping| mapping.is_writable());
        let mapping = mapping.ok_or_else(|| LinkError::NoPages("pages that cannot be written".to_owned()))?;
        let region = registration::register(&self.domain, mapping, Access::Receive);
        let region = region.map_err(RdmaError::from)?;
        self.regions.insert(buffer.id().get(), (Arc::downgrade(buffer), region.clone()));
        Ok(region)
    }
}
