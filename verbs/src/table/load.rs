//! The filler that loads libibverbs at run time.

use std::ffi::c_void;
use std::mem::ManuallyDrop;

use libloading::Library;

use super::Table;
use crate::LoadError;

/// What is loaded unless a test says otherwise.
pub(crate) const LIBRARY: &str = "libibverbs.so.1";
/// The package that has it, with the provider libraries.
pub(crate) const PACKAGE: &str = "libibverbs1 and ibverbs-providers (Debian), libibverbs (Fedora), rdma-core";

impl Table {
    /// Loads `library`, which stays loaded until the process ends.
    pub(crate) fn load(library: &str) -> Result<Self, LoadError> {
        // SAFETY: libibverbs' initialisers have no preconditions; `library` is libibverbs by our caller's word.
        let loaded = unsafe { Library::new(library) }
            .map_err(|error| LoadError::NoLibrary { library: library.into(), why: error.to_string() })?;
        // Providers are never unloaded, and threads of other users may be inside: so it is kept for ever.
        let loaded = ManuallyDrop::new(loaded);
        let find = |symbol: &'static str| {
            // SAFETY: only the address is taken here.
            let found = unsafe { loaded.get::<*const c_void>(symbol.as_bytes()) };
            found.map(|address| *address).map_err(|_| LoadError::TooOld { library: library.into(), symbol })
        };
        // SAFETY: these are libibverbs' own symbols, and it is never unloaded.
        unsafe { Self::fill(find) }
    }
}
