//! The fillers that load the libraries at run time.

use std::ffi::c_void;
use std::mem::ManuallyDrop;

use libloading::Library;

use super::{CmTable, Table};
use crate::LoadError;

/// What is loaded unless a test says otherwise.
pub(crate) const LIBRARY: &str = "libibverbs.so.1";
/// The same, for connections by RDMA-CM.
pub(crate) const CM_LIBRARY: &str = "librdmacm.so.1";

/// The packages that have a library, with what it needs.
pub(crate) fn package(library: &str) -> &'static str {
    match library {
        CM_LIBRARY => "librdmacm1 (Debian), librdmacm (Fedora), rdma-core",
        _ => "libibverbs1 and ibverbs-providers (Debian), libibverbs (Fedora), rdma-core",
    }
}

impl Table {
    /// Loads `library`, which stays loaded until the process ends.
    pub(crate) fn load(library: &str) -> Result<Self, LoadError> {
        let find = symbols(library)?;
        // SAFETY: these are libibverbs' own symbols, by our caller's word, and it is never unloaded.
        unsafe { Self::fill(find) }
    }
}

impl CmTable {
    /// As [`Table::load`].
    pub(crate) fn load(library: &str) -> Result<Self, LoadError> {
        let find = symbols(library)?;
        // SAFETY: as above, of librdmacm.
        unsafe { Self::fill(find) }
    }
}

/// What finds the symbols of a library, which stays loaded until the process ends.
fn symbols(library: &str) -> Result<impl FnMut(&'static str) -> Result<*const c_void, LoadError>, LoadError> {
    // SAFETY: the libraries' initialisers have no preconditions; `library` is one of them by our caller's word.
    let loaded = unsafe { Library::new(library) }
        .map_err(|error| LoadError::NoLibrary { library: library.into(), why: error.to_string() })?;
    // Providers are never unloaded, and threads of other users may be inside: so it is kept for ever.
    let loaded = ManuallyDrop::new(loaded);
    Ok(move |symbol: &'static str| {
        // SAFETY: only the address is taken here.
        let found = unsafe { loaded.get::<*const c_void>(symbol.as_bytes()) };
        found.map(|address| *address).map_err(|_| LoadError::TooOld { library: library.into(), symbol })
    })
}
