//! Ordinary pages in a sealed memfd.

use nix::sys::memfd::MFdFlags;

use super::sealed::{Faults, Recipe};
use super::{Backing, BackingKind, Wants};
use crate::{AllocError, Buffer, inspect};

/// Allocates ordinary pages: everywhere, for every user.
#[derive(Clone, Debug, Default)]
pub struct MemfdBacking {
    faults: Faults,
}

impl MemfdBacking {
    /// The backing.
    pub fn new() -> Self {
        Self::default()
    }

    /// A backing that leaves a step out.
    #[cfg(feature = "fault-injection")]
    #[doc(hidden)]
    pub fn broken(fault: super::Fault) -> Self {
        Self { faults: fault.into() }
    }
}

impl Backing for MemfdBacking {
    fn kind(&self) -> BackingKind {
        BackingKind::Memfd
    }

    fn granularity(&self) -> usize {
        inspect::page_size()
    }

    fn allocate(&self, size: usize, wants: &Wants) -> Result<Buffer, AllocError> {
        let recipe = Recipe {
            kind: BackingKind::Memfd,
            flags: MFdFlags::empty(),
            page_size: self.granularity(),
            faults: self.faults,
        };
        recipe.build(size, wants)
    }
}
