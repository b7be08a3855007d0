//! The size of a page, which is not 4 KiB everywhere: 64-bit ARM has kernels of 16 and 64 KiB.

use std::fmt;
use std::sync::OnceLock;

use nix::unistd::{SysconfVar, sysconf};

/// The size of an ordinary page: this machine's, or a larger one to round to.
///
/// What depends on pages asks here, or is given one, so that it can be tried with pages that the machine does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageSize(usize);

impl PageSize {
    /// The size of this machine's pages.
    pub fn of_machine() -> Self {
        static MACHINE: OnceLock<usize> = OnceLock::new();
        Self(*MACHINE.get_or_init(|| {
            let size = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
            size.and_then(|size| usize::try_from(size).ok())
                .filter(|size| size.is_power_of_two())
                .unwrap_or(4096)
        }))
    }

    /// Pages of so many bytes; `None` unless that is a power of two and at least this machine's.
    pub fn new(bytes: usize) -> Option<Self> {
        (bytes.is_power_of_two() && bytes >= Self::of_machine().bytes()).then_some(Self(bytes))
    }

    /// Bytes of one page.
    pub const fn bytes(self) -> usize {
        self.0
    }

    /// `size` in whole pages; `None` if that is more than can be counted.
    pub fn round_up(self, size: usize) -> Option<usize> {
        size.checked_next_multiple_of(self.0)
    }
}

impl Default for PageSize {
    fn default() -> Self {
        Self::of_machine()
    }
}

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} KiB", self.0 >> 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sizes_that_pages_of_this_machine_fill_are_pages() {
        let machine = PageSize::of_machine().bytes();
        assert!(machine >= 4096 && PageSize::new(machine) == Some(PageSize::of_machine()));
        for wrong in [0, 1, machine / 2, machine - 1, machine + 1, 3 * machine, usize::MAX] {
            assert_eq!(PageSize::new(wrong), None, "{wrong}");
        }
        assert_eq!(PageSize::new(16 * machine).map(PageSize::bytes), Some(16 * machine));
    }

    #[test]
    fn sizes_are_rounded_to_whole_pages() {
        let pages = PageSize::new(64 << 10).unwrap();
        assert_eq!(pages.to_string(), "64 KiB");
        for (size, rounded) in [(0, 0), (1, 65536), (65535, 65536), (65536, 65536), (65537, 131_072)] {
            assert_eq!(pages.round_up(size), Some(rounded), "{size}");
        }
        assert_eq!(pages.round_up(usize::MAX), None);
    }
}
