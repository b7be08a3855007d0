//! Ordinary pages in a sealed memfd.

use nix::sys::memfd::MFdFlags;

use super::sealed::{Faults, Recipe};
use super::{Backing, BackingKind, Wants};
use crate::{AllocError, Buffer, PageSize};

/// Allocates ordinary pages: everywhere, for every user.
#[derive(Clone, Debug, Default)]
pub struct MemfdBacking {
    pages: PageSize,
    faults: Faults,
}

impl MemfdBacking {
    /// The backing.
    pub fn new() -> Self {
        Self::default()
    }

    /// A backing whose buffers fill whole pages of this size, so that they can be used alike on machines that have
    /// such pages.
    pub fn with_pages(pages: PageSize) -> Self {
        Self { pages, ..Self::default() }
    }

    /// A backing that leaves a step out.
    #[cfg(feature = "fault-injection")]
    #[doc(hidden)]
    pub fn broken(fault: super::Fault) -> Self {
        Self { faults: fault.into(), ..Self::default() }
    }
}

impl Backing for MemfdBacking {
    fn kind(&self) -> BackingKind {
        BackingKind::Memfd
    }

    fn granularity(&self) -> usize {
        self.pages.bytes()
    }

    fn allocate(&self, size: usize, wants: &Wants) -> Result<Buffer, AllocError> {
        let recipe = Recipe {
            kind: BackingKind::Memfd,
            flags: MFdFlags::empty(),
            page_size: PageSize::of_machine().bytes(),
            granule: self.granularity(),
            faults: self.faults,
        };
        recipe.build(size, wants)
    }
}
