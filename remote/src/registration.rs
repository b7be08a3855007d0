//! Registrations of buffers with RDMA devices, kept with the buffers: one per domain, whoever asked for it.

use std::ptr::NonNull;
use std::sync::Arc;

use pagecast_allocators::{Buffer, Mapping};
use pagecast_verbs::{Access, Memory, MemoryRegion, ProtectionDomain, RegisterError};

/// A mapping as verbs see it.
struct Mapped(Arc<Mapping>);

// SAFETY: a mapping stays where it is until it is dropped, and this keeps it. Slices of pages that others write are never
// made (the mapping's own rule); buffers that a device writes are their owner's alone until it is done.
unsafe impl Memory for Mapped {
    fn base(&self) -> NonNull<u8> {
        // A mapping is never at address 0.
        NonNull::new(self.0.as_ptr().cast_mut()).unwrap_or(NonNull::dangling())
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

struct Kept(Arc<MemoryRegion>);

/// Registers a buffer's mapping; the region keeps the mapping, not the buffer.
///
/// # Errors
/// [`RegisterError`].
pub fn register(
    domain: &Arc<ProtectionDomain>,
    mapping: Arc<Mapping>,
    access: Access,
) -> Result<Arc<MemoryRegion>, RegisterError> {
    MemoryRegion::register(domain, Arc::new(Mapped(mapping)), access)
}

/// Keeps a registration of a buffer with it, for as long as the buffer lives.
pub fn keep(buffer: &Buffer, region: Arc<MemoryRegion>) {
    buffer.attach(Kept(region));
}

/// The registration with this domain that is kept with a buffer.
pub fn find(buffer: &Buffer, domain: &Arc<ProtectionDomain>) -> Option<Arc<MemoryRegion>> {
    buffer.attached(|kept: &Kept| Arc::ptr_eq(kept.0.domain(), domain).then(|| kept.0.clone()))
}
