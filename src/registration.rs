//! The `mr` face: buffers registered with RDMA devices, once each.
//!
//! [`Pool::register`](crate::Pool::register) registers a pool with the protection domain of a device; its
//! frames then say where their bytes are for that device ([`Frame::registered`](crate::Frame::registered)). The
//! registration lives as long as the buffer, or as long as somebody has the region: work in flight keeps it, and the
//! region keeps the mapping.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use pagecast_allocators::Buffer;
use pagecast_remote::registration::find;
pub use pagecast_remote::registration::{Ensured, ensure};
use pagecast_verbs::{Access, MemoryRegion, ProtectionDomain, RegisterError};

/// Bytes as a device addresses them.
#[derive(Clone, Debug)]
pub struct Part {
    /// The registration they are in; it must be kept for as long as the device may use them.
    pub region: Arc<MemoryRegion>,
    /// Where they start, as work requests name it.
    pub address: u64,
    /// Their length in bytes.
    pub length: u64,
}

/// Where a part of a buffer is for a device, if the buffer is registered there.
pub fn part(buffer: &Buffer, domain: &Arc<ProtectionDomain>, offset: usize, length: usize) -> Option<Part> {
    offset.checked_add(length).filter(|end| *end <= buffer.size())?;
    let region = find(buffer, domain)?;
    Some(Part { address: region.address() + offset as u64, length: length as u64, region })
}

/// Goes with a buffer, as its registration does.
struct Counted(Arc<AtomicU64>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The domains that a pool is registered with.
#[derive(Default)]
pub(crate) struct Registrar {
    domains: Mutex<Vec<(Arc<ProtectionDomain>, Access)>>,
    /// Whether there is any: most pools have none, and ask for every frame.
    any: AtomicBool,
    count: Arc<AtomicU64>,
}

impl Registrar {
    pub(crate) fn add(&self, domain: &Arc<ProtectionDomain>, access: Access) {
        let mut domains = self.domains.lock().unwrap_or_else(PoisonError::into_inner);
        if !domains.iter().any(|(known, _)| Arc::ptr_eq(known, domain)) {
            domains.push((domain.clone(), access));
        }
        self.any.store(true, Ordering::Release);
    }

    pub(crate) fn remove(&self, domain: &Arc<ProtectionDomain>) {
        let mut domains = self.domains.lock().unwrap_or_else(PoisonError::into_inner);
        domains.retain(|(known, _)| !Arc::ptr_eq(known, domain));
        self.any.store(!domains.is_empty(), Ordering::Release);
    }

    /// Registers a buffer where it is not yet.
    pub(crate) fn register(&self, buffer: &Buffer) -> Result<(), RegisterError> {
        if !self.any.load(Ordering::Acquire) {
            return Ok(());
        }
        let domains = self.domains.lock().unwrap_or_else(PoisonError::into_inner);
        for (domain, access) in &*domains {
            if ensure(buffer, domain, *access)?.new {
                self.count.fetch_add(1, Ordering::Relaxed);
                buffer.attach(Counted(self.count.clone()));
            }
        }
        Ok(())
    }

    /// Registrations that are kept.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}
