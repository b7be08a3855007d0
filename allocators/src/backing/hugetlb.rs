//! Reserved huge pages in a sealed memfd.

use std::fs;

use nix::errno::Errno;
use nix::sys::memfd::MFdFlags;

use super::sealed::{Faults, Recipe};
use super::{Backing, BackingKind, Wants};
use crate::{AllocError, Buffer};

/// The size of the huge pages used: 2 MiB.
const HUGE_PAGE: usize = 2 << 20;

/// Allocates huge pages of 2 MiB, of those that the administrator reserved (`vm.nr_hugepages`).
#[derive(Clone, Debug, Default)]
pub struct HugetlbBacking {
    faults: Faults,
}

impl HugetlbBacking {
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

    /// Huge pages that are free and not promised to anyone.
    pub fn pages_available() -> u64 {
        let read = |name: &str| {
            let path = format!("/sys/kernel/mm/hugepages/hugepages-2048kB/{name}");
            let text = fs::read_to_string(path).ok()?;
            text.trim().parse::<u64>().ok()
        };
        let free = read("free_hugepages").unwrap_or(0);
        let promised = read("resv_hugepages").unwrap_or(0);
        // The kernel may also find pages beyond the reservation, up to this many in all.
        let overcommit = read("nr_overcommit_hugepages").unwrap_or(0);
        let surplus = read("surplus_hugepages").unwrap_or(0);
        free.saturating_sub(promised) + overcommit.saturating_sub(surplus)
    }

    /// Says what can be done about a failure: reserve pages, or do without.
    fn explain(error: AllocError, size: usize) -> AllocError {
        match error {
            AllocError::OutOfMemory { .. } => {
                // mmap reserves the pages, so it fails here and not later with SIGBUS. If there
                // are enough, it was another limit: a cgroup's or RLIMIT_AS.
                let (needed, free) = (size.div_ceil(HUGE_PAGE) as u64, Self::pages_available());
                if free < needed { AllocError::NoHugepages { needed, free } } else { error }
            }
            AllocError::System {
                call: "memfd_create",
                errno: errno @ (Errno::EINVAL | Errno::ENODEV | Errno::ENOENT | Errno::ENOSYS),
            } => AllocError::Unsupported { what: "huge pages of 2 MiB", errno },
            // User-mode emulation places mappings itself, in steps of ordinary pages.
            AllocError::System { call: "mmap", errno: errno @ Errno::EINVAL } => {
                AllocError::Unsupported { what: "mappings of huge pages of 2 MiB", errno }
            }
            error => error,
        }
    }
}

impl Backing for HugetlbBacking {
    fn kind(&self) -> BackingKind {
        BackingKind::Hugetlb
    }

    fn granularity(&self) -> usize {
        HUGE_PAGE
    }

    fn allocate(&self, size: usize, wants: &Wants) -> Result<Buffer, AllocError> {
        let recipe = Recipe {
            kind: BackingKind::Hugetlb,
            flags: MFdFlags::MFD_HUGETLB | MFdFlags::MFD_HUGE_2MB,
            page_size: HUGE_PAGE,
            granule: HUGE_PAGE,
            faults: self.faults,
        };
        recipe.build(size, wants).map_err(|error| Self::explain(error, size))
    }
}
