//! How much memory this process may pin, looked at before the kernel says no.

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

use crate::RegisterError;

/// Bit of `CapEff` in /proc/self/status.
const CAP_IPC_LOCK: u64 = 1 << 14;

/// What the kernel compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allowance {
    /// Bytes that are pinned.
    pub(crate) pinned: u64,
    /// Bytes that may be, if there is a limit.
    pub(crate) limit: Option<u64>,
}

impl Allowance {
    /// This process's, now.
    pub(crate) fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let soft = getrlimit(Resource::RLIMIT_MEMLOCK).map_or(RLIM_INFINITY, |(soft, _)| soft);
        Self::of(&status, soft)
    }

    fn of(status: &str, soft: u64) -> Self {
        let value = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|line| line.split_whitespace().next())
        };
        let capabilities = value("CapEff").and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or(0);
        let pinned = value("VmPin").and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0).saturating_mul(1024);
        let limited = soft != RLIM_INFINITY && capabilities & CAP_IPC_LOCK == 0;
        Self { pinned, limit: limited.then_some(soft) }
    }

    /// Whether `size` more bytes, a whole number of pages, may be pinned.
    pub(crate) fn check(&self, size: u64) -> Result<(), RegisterError> {
        match self.limit {
            Some(limit) if self.pinned.saturating_add(size) > limit => {
                Err(RegisterError::MemoryLock { size, pinned: self.pinned, limit })
            }
            _ => Ok(()),
        }
    }
}

/// Bytes that this process may still pin, as registrations do; `None` if nothing limits it (`RLIMIT_MEMLOCK`, unless it has
/// CAP_IPC_LOCK).
pub fn lockable() -> Option<u64> {
    let allowance = Allowance::now();
    Some(allowance.limit?.saturating_sub(allowance.pinned))
}

/// `size` bytes at `address`, in whole pages of this machine.
pub(crate) fn whole_pages(address: u64, size: u64) -> u64 {
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096) as u64;
    in_pages(page, address, size)
}

fn in_pages(page: u64, address: u64, size: u64) -> u64 {
    let start = address / page * page;
    address.saturating_add(size).div_ceil(page).saturating_mul(page).saturating_sub(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: &str = "Name:\tx\nVmLck:\t 8 kB\nVmPin:\t    4096 kB\nCapEff:\t0000000000000000\n";
    const ROOT: &str = "VmPin:\t    4096 kB\nCapEff:\t000001ffffffffff\n";

    #[test]
    fn the_limit_counts_what_is_pinned_already() {
        let allowance = Allowance::of(USER, 8 << 20);
        assert_eq!(allowance, Allowance { pinned: 4 << 20, limit: Some(8 << 20) });
        allowance.check(4 << 20).unwrap();
        let error = allowance.check((4 << 20) + 4096).unwrap_err();
        assert!(matches!(error, RegisterError::MemoryLock { limit: 8388608, .. }));
        assert!(error.to_string().contains("ulimit -l"), "{error}");
    }

    #[test]
    fn no_limit_for_those_who_may_lock_memory() {
        assert_eq!(Allowance::of(ROOT, 65536).limit, None);
        assert_eq!(Allowance::of(USER, RLIM_INFINITY).limit, None);
        Allowance::of(ROOT, 0).check(u64::MAX).unwrap();
    }

    #[test]
    fn sizes_are_counted_in_the_pages_they_touch() {
        for page in [4096, 16384, 65536, whole_pages(0, 1)] {
            assert_eq!(in_pages(page, page - 1, 2), 2 * page);
            assert_eq!(in_pages(page, page, page), page);
            assert_eq!(in_pages(page, 3 * page, 0), 0);
        }
    }
}
