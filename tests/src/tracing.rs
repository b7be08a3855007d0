//! System calls of all processes, as the kernel sees them. Needs root, as in the testbed.

use std::fs;
use std::path::Path;
use std::process::Command;

use nix::libc;

const FOLDER: &str = "/sys/kernel/tracing";
/// `DMA_BUF_IOCTL_SYNC` of linux/dma-buf.h.
const DMA_BUF_SYNC: u32 = 0x4008_6200;

const PAGE_CALLS: [libc::c_long; 7] = [
    libc::SYS_ioctl,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_memfd_create,
    libc::SYS_fcntl,
];

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calls {
    /// `DMA_BUF_IOCTL_SYNC`.
    DmaBufSync,
    /// Whatever makes, maps or tunes pages: `ioctl`, `mmap`, `munmap`, `mremap`, `madvise`, `memfd_create`, `fcntl`.
    Pages,
}

impl Calls {
    fn event(self) -> &'static str {
        match self {
            Self::DmaBufSync => "events/syscalls/sys_enter_ioctl",
            Self::Pages => "events/raw_syscalls/sys_enter",
        }
    }
}

/// The kernel counts calls until this is dropped. One at a time on a machine.
#[derive(Debug)]
pub struct Trace(Calls);

fn write(name: &str, text: &str) {
    fs::write(Path::new(FOLDER).join(name), text).unwrap_or_else(|error| panic!("{name}: {error}"));
}

impl Trace {
    /// Begins to count.
    ///
    /// # Panics
    /// If the kernel cannot, or does not let us.
    pub fn begin(calls: Calls) -> Self {
        if !Path::new(FOLDER).join("trace").exists() {
            let mounted = Command::new("mount").args(["-t", "tracefs", "tracefs", FOLDER]).status();
            assert!(mounted.is_ok_and(|status| status.success()), "tracefs cannot be mounted");
        }
        let filter = match calls {
            Calls::DmaBufSync => format!("cmd == {DMA_BUF_SYNC:#x}"),
            Calls::Pages => {
                let each = PAGE_CALLS.map(|call| format!("id == {call}"));
                each.join(" || ")
            }
        };
        write(&format!("{}/filter", calls.event()), &filter);
        write("trace", "");
        write(&format!("{}/enable", calls.event()), "1");
        Self(calls)
    }

    /// How often a thread has made one.
    ///
    /// # Panics
    /// If the kernel does not say, or has forgotten some.
    pub fn count(&self, thread: i32) -> usize {
        let text = fs::read_to_string(Path::new(FOLDER).join("trace")).expect("the trace");
        assert!(!text.contains("LOST"), "the kernel has forgotten some");
        let of = format!("-{thread}");
        let is_of = |line: &&str| line.split('[').next().is_some_and(|task| task.trim_end().ends_with(&of));
        text.lines().filter(|line| !line.starts_with('#')).filter(is_of).count()
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        write(&format!("{}/enable", self.0.event()), "0");
        write(&format!("{}/filter", self.0.event()), "0");
        write("trace", "");
    }
}
