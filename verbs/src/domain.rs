//! Protection domains.

use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::ffi::ibv_pd;
use crate::table::Table;
use crate::{Device, DeviceError};

/// Regions and queue pairs that may meet. One for all that is sent from, and one for each peer who may write.
pub struct ProtectionDomain {
    pub(crate) pd: NonNull<ibv_pd>,
    device: Arc<Device>,
}

// SAFETY: libibverbs' calls on a PD are thread-safe.
unsafe impl Send for ProtectionDomain {}
// SAFETY: as above.
unsafe impl Sync for ProtectionDomain {}

impl fmt::Debug for ProtectionDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProtectionDomain").field("device", &self.device.name()).finish_non_exhaustive()
    }
}

impl ProtectionDomain {
    /// A new one on that device.
    pub fn new(device: &Arc<Device>) -> Result<Arc<Self>, DeviceError> {
        // SAFETY: the context is open.
        let pd = unsafe { (device.table.alloc_pd)(device.context.as_ptr()) };
        let pd = NonNull::new(pd).ok_or_else(|| DeviceError::last("ibv_alloc_pd"))?;
        Ok(Arc::new(Self { pd, device: device.clone() }))
    }

    /// Its device.
    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    pub(crate) fn table(&self) -> &Table {
        &self.device.table
    }
}

impl Drop for ProtectionDomain {
    fn drop(&mut self) {
        // SAFETY: regions and queue pairs keep their domain, so none is left; freed once.
        unsafe { (self.table().dealloc_pd)(self.pd.as_ptr()) };
    }
}
