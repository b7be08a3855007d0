//! Registered pages.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use pagecast_allocators::{Buffer, FaceKind};
use pagecast_verbs::{Access, Device, Gid, MemoryRegion, ProtectionDomain, RegisterError, Verbs};

use super::RdmaError;
use crate::{LinkError, registration};

/// Where frames are sent from: one protection domain for all links of a device, so that a buffer is registered once,
/// whoever gets it. Nobody can write there.
pub struct Sources {
    domain: Arc<ProtectionDomain>,
    gid: Gid,
    /// Held while a buffer is registered, so that it is not registered twice.
    registering: Mutex<()>,
}

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sources").field("device", &self.domain.device().name()).finish_non_exhaustive()
    }
}

impl Sources {
    /// Those of the device that has `address`.
    ///
    /// # Errors
    /// [`RdmaError`].
    pub fn new(verbs: &Verbs, address: IpAddr) -> Result<Arc<Self>, RdmaError> {
        let (device, gid) = verbs.device_for(address)?;
        let domain = ProtectionDomain::new(&device)?;
        Ok(Arc::new(Self { domain, gid, registering: Mutex::default() }))
    }

    /// Their domain.
    pub fn domain(&self) -> &Arc<ProtectionDomain> {
        &self.domain
    }

    pub(super) fn gid(&self) -> &Gid {
        &self.gid
    }

    /// The buffer's registration, made if there is none, and where the buffer starts in it.
    pub(super) fn region(&self, buffer: &Buffer) -> Result<Arc<MemoryRegion>, LinkError> {
        let _one = self.registering.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(region) = registration::find(buffer, &self.domain) {
            return Ok(region);
        }
        let region = self.register(buffer)?;
        registration::keep(buffer, region.clone());
        Ok(region)
    }

    fn register(&self, buffer: &Buffer) -> Result<Arc<MemoryRegion>, LinkError> {
        // Pages of a device may have no CPU mapping that can be pinned.
        if buffer.face(FaceKind::Memory).is_none()
            && let Some(face) = buffer.face(FaceKind::DmaBuf)
        {
            let length = buffer.size() as u64;
            match MemoryRegion::register_dma_buf(
                &self.domain,
                face.fd,
                0,
                length,
                Access::Source,
                Arc::new(()),
            ) {
                Ok(region) => return Ok(region),
                Err(RegisterError::NoDmaBuf(_)) => {}
                Err(error) => return Err(RdmaError::from(error).into()),
            }
        }
        register(&self.domain, buffer, Access::Source)
    }
}

fn register(
    domain: &Arc<ProtectionDomain>,
    buffer: &Buffer,
    access: Access,
) -> Result<Arc<MemoryRegion>, LinkError> {
    buffer.map().map_err(|error| LinkError::NoPages(error.to_string()))?;
    let mapping =
        buffer.share_mapping().ok_or_else(|| LinkError::NoPages("pages that are not mapped".to_owned()))?;
    if access != Access::Source && !mapping.is_writable() {
        return Err(LinkError::NoPages("pages that cannot be written".to_owned()));
    }
    Ok(registration::register(domain, mapping, access).map_err(RdmaError::from)?)
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
        let region = register(&self.domain, buffer, Access::Receive)?;
        self.regions.insert(buffer.id().get(), (Arc::downgrade(buffer), region.clone()));
        Ok(region)
    }
}
