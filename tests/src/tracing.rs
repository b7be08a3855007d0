//! System calls of all processes, as the kernel sees them. Needs root, as in the testbed.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

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
    /// What a display is told of pages, by `ioctl`: see [`display`].
    Display,
}

/// Requests of a display's driver.
pub mod display {
    /// `DRM_IOCTL_PRIME_FD_TO_HANDLE`: a dma-buf is imported.
    pub const IMPORT: u32 = 0xc00c_642e;
    /// `DRM_IOCTL_MODE_CREATE_DUMB`: pages of its own are made.
    pub const CREATE_DUMB: u32 = 0xc020_64b2;
    /// `DRM_IOCTL_MODE_ADDFB2`: imported or own pages become a picture that can be shown.
    pub const ADD_FRAMEBUFFER: u32 = 0xc068_64b8;
    /// `DRM_IOCTL_MODE_PAGE_FLIP`: a picture is shown.
    pub const FLIP: u32 = 0xc018_64b0;
    pub(super) const ALL: [u32; 4] = [IMPORT, CREATE_DUMB, ADD_FRAMEBUFFER, FLIP];
}

impl Calls {
    fn event(self) -> &'static str {
        match self {
            Self::DmaBufSync | Self::Display => "events/syscalls/sys_enter_ioctl",
            Self::Pages => "events/raw_syscalls/sys_enter",
        }
    }
}

/// The kernel counts calls until this is dropped. One at a time on a machine.
#[derive(Debug)]
pub struct Trace {
    calls: Calls,
    lines: Lines,
}

/// What the kernel writes down. Each line is taken out of its memory once: who reads there while the kernel writes may be told
/// that something is lost that is not.
#[derive(Debug)]
pub(crate) struct Lines(Mutex<(File, Vec<u8>)>);

impl Lines {
    /// From now on.
    ///
    /// # Panics
    /// If the kernel does not let us.
    pub(crate) fn begin() -> Self {
        mount();
        write("trace", "");
        let pipe = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path("trace_pipe"));
        Self(Mutex::new((pipe.expect("the trace"), Vec::new())))
    }

    /// All so far.
    ///
    /// # Panics
    /// If the kernel does not say, or has forgotten some.
    pub(crate) fn all(&self) -> String {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (pipe, text) = &mut *inner;
        match pipe.read_to_end(text) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => panic!("the trace: {error}"),
            _ => {}
        }
        let text = String::from_utf8_lossy(text).into_owned();
        let lost = text.lines().find(|line| line.contains("LOST"));
        assert!(lost.is_none(), "the kernel has forgotten some: {lost:?} of {} lines", text.lines().count());
        text
    }
}

fn path(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

pub(crate) fn write(name: &str, text: &str) {
    fs::write(path(name), text).unwrap_or_else(|error| panic!("{name}: {error}"));
}

/// Mounts tracefs where it is not yet.
fn mount() {
    if !path("trace").exists() {
        let mounted = Command::new("mount").args(["-t", "tracefs", "tracefs", FOLDER]).status();
        assert!(mounted.is_ok_and(|status| status.success()), "tracefs cannot be mounted");
    }
}

impl Trace {
    /// Begins to count.
    ///
    /// # Panics
    /// If the kernel cannot, or does not let us.
    pub fn begin(calls: Calls) -> Self {
        let lines = Lines::begin();
        let filter = match calls {
            Calls::DmaBufSync => format!("cmd == {DMA_BUF_SYNC:#x}"),
            Calls::Display => display::ALL.map(|command| format!("cmd == {command:#x}")).join(" || "),
            Calls::Pages => {
                let each = PAGE_CALLS.map(|call| format!("id == {call}"));
                each.join(" || ")
            }
        };
        write(&format!("{}/filter", calls.event()), &filter);
        write(&format!("{}/enable", calls.event()), "1");
        Self { calls, lines }
    }

    /// How often a thread has made one.
    ///
    /// # Panics
    /// If the kernel does not say, or has forgotten some.
    pub fn count(&self, thread: i32) -> usize {
        let of = format!("-{thread}");
        self.lines_with(|line| line.split('[').next().is_some_and(|task| task.trim_end().ends_with(&of)))
    }

    /// How often anybody has made this request by `ioctl`.
    ///
    /// # Panics
    /// As [`Trace::count`].
    pub fn requests(&self, command: u32) -> usize {
        let of = format!("cmd: {command:x},");
        self.lines_with(|line| line.contains(&of))
    }

    fn lines_with(&self, is_counted: impl Fn(&str) -> bool) -> usize {
        self.lines.all().lines().filter(|line| is_counted(line)).count()
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        write(&format!("{}/enable", self.calls.event()), "0");
        write(&format!("{}/filter", self.calls.event()), "0");
        write("trace", "");
    }
}
