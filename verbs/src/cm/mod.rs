//! Connections by RDMA-CM: for devices whose queue pairs come up in no other way (iWARP), and for all others too.
//!
//! ```text
//! Listener ─► Request ─► Connection        Cm ─► Connection
//! ```
//!
//! Each has a channel of its own, with a descriptor to wait for, and no call waits for the peer. (Only an iWARP driver that
//! connects its socket within the call may.) The queue pair stays its owner's: a connection brings it up and tells when it is
//! ended. Private data is what anybody may send: a token in it is compared by who made it.

mod address;
mod connection;
mod id;
mod listener;

use std::net::IpAddr;

pub use connection::{Connection, Standing};
pub use listener::{Listener, Request};

use self::id::Id;
use crate::table::{CmTable, Table};
use crate::{CmError, LoadError};

/// Bytes that a connection carries on its way up: with IP addresses no more are left of InfiniBand's.
pub const MAX_PRIVATE: usize = 56;

/// librdmacm.
#[derive(Clone, Copy)]
pub struct Cm {
    table: CmTable,
    verbs: Table,
}

impl std::fmt::Debug for Cm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cm").finish_non_exhaustive()
    }
}

impl Cm {
    /// The library: loaded now, or linked with the feature `rdma-sys`.
    pub(crate) fn open(verbs: Table) -> Result<Self, LoadError> {
        #[cfg(feature = "rdma-sys")]
        let table = CmTable::linked()?;
        #[cfg(not(feature = "rdma-sys"))]
        let table = CmTable::load(crate::table::CM_LIBRARY)?;
        Ok(Self { table, verbs })
    }

    /// For tests of what is said when it cannot be loaded.
    ///
    /// # Safety
    /// `library` must not exist, lack librdmacm's functions, or be librdmacm.
    pub unsafe fn load_from(verbs: &crate::Verbs, library: &str) -> Result<Self, LoadError> {
        Ok(Self { table: CmTable::load(library)?, verbs: *verbs.table() })
    }

    /// Whether the kernel has its part of it, and this user may use it.
    ///
    /// # Errors
    /// [`CmError::NoManager`], or that it may not.
    pub fn is_there(&self) -> Result<(), CmError> {
        Id::new(self).map(drop)
    }

    /// The name of the device that RDMA-CM takes for an address of this machine.
    ///
    /// # Errors
    /// [`CmError::NoDevice`] if there is none.
    pub fn device_of(&self, address: IpAddr) -> Result<String, CmError> {
        let id = Id::new(self)?;
        id.bind(address)?;
        id.device().ok_or(CmError::NoDevice(address))
    }
}
