//! Registrations of buffers with RDMA devices, kept with the buffers: one per domain, whoever asked for it.

use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use pagecast_allocators::{Buffer, FaceKind, Mapping};
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

/// The device said that it cannot read these pages.
struct Refused(Weak<ProtectionDomain>);

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

/// A registration that [`ensure`] found or made.
#[derive(Debug)]
pub struct Ensured {
    /// The registration.
    pub region: Arc<MemoryRegion>,
    /// Whether it was made now.
    pub new: bool,
}

/// The buffer's registration with this domain, made now if there is none, and then kept with the buffer for as long as
/// that lives.
///
/// # Errors
/// [`RegisterError`].
pub fn ensure(
    buffer: &Buffer,
    domain: &Arc<ProtectionDomain>,
    access: Access,
) -> Result<Ensured, RegisterError> {
    // So that the same buffer is not registered twice at a time. It is not taken while frames flow.
    static ONE: Mutex<()> = Mutex::new(());
    if let Some(region) = find(buffer, domain) {
        return Ok(Ensured { region, new: false });
    }
    if is_refused(buffer, domain) {
        return Err(RegisterError::BadPages);
    }
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(region) = find(buffer, domain) {
        return Ok(Ensured { region, new: false });
    }
    let made = make(buffer, domain, access);
    if access == Access::Source && matches!(made, Err(RegisterError::BadPages)) {
        buffer.attach(Refused(Arc::downgrade(domain)));
    }
    let region = made?;
    buffer.attach(Kept(region.clone()));
    Ok(Ensured { region, new: true })
}

/// Whether the device was asked to read these pages, and cannot: they are another device's.
fn is_refused(buffer: &Buffer, domain: &Arc<ProtectionDomain>) -> bool {
    let is_it = |refused: &Refused| std::ptr::eq(refused.0.as_ptr(), Arc::as_ptr(domain)).then_some(());
    buffer.attached(is_it).is_some()
}

fn make(
    buffer: &Buffer,
    domain: &Arc<ProtectionDomain>,
    access: Access,
) -> Result<Arc<MemoryRegion>, RegisterError> {
    // Pages of a device may have no CPU mapping that can be pinned.
    if buffer.face(FaceKind::Memory).is_none()
        && let Some(face) = buffer.face(FaceKind::DmaBuf)
    {
        let length = buffer.size() as u64;
        match MemoryRegion::register_dma_buf(domain, face.fd, 0, length, access, Arc::new(())) {
            Err(RegisterError::NoDmaBuf(_)) => {}
            done => return done,
        }
    }
    buffer.map().map_err(|_| RegisterError::BadPages)?;
    let mapping = buffer.share_mapping().ok_or(RegisterError::BadPages)?;
    if access != Access::Source && !mapping.is_writable() {
        return Err(RegisterError::BadPages);
    }
    register(domain, mapping, access)
}

/// The registration with this domain that is kept with a buffer.
pub fn find(buffer: &Buffer, domain: &Arc<ProtectionDomain>) -> Option<Arc<MemoryRegion>> {
    buffer.attached(|kept: &Kept| Arc::ptr_eq(kept.0.domain(), domain).then(|| kept.0.clone()))
}

/// All registrations that are kept with a buffer.
pub fn all(buffer: &Buffer) -> Vec<Arc<MemoryRegion>> {
    let mut all = Vec::new();
    buffer.attached(|kept: &Kept| -> Option<()> {
        all.push(kept.0.clone());
        None
    });
    all
}
