//! What can go wrong, with the remedy in the message.

use std::io;
use std::path::PathBuf;

use nix::errno::Errno;

use crate::{BackingKind, FaceKind};

/// Why a backing could not allocate.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum AllocError {
    /// A buffer of no bytes was asked for.
    #[error("a buffer needs at least one byte")]
    ZeroSize,
    /// More than [`MAX_BUFFER_SIZE`](crate::MAX_BUFFER_SIZE).
    #[error("{size} bytes are more than the {limit} bytes a buffer may have; use several buffers")]
    TooLarge {
        /// What was asked for.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// The kernel has too few free huge pages to reserve.
    #[error(
        "{needed} free huge pages of 2 MiB needed, {free} not yet promised to others; reserve more \
         with `sysctl vm.nr_hugepages=N`, or use the memfd backing"
    )]
    NoHugepages {
        /// Pages the buffer needs.
        needed: u64,
        /// Pages free and not reserved, when it failed.
        free: u64,
    },
    /// Huge pages would be mostly unused (`auto` only).
    #[error("a buffer of less than {least} bytes would leave most of its huge page unused")]
    TooSmallForHugepages {
        /// The smallest buffer for which `auto` uses huge pages.
        least: usize,
    },
    /// EMFILE.
    #[error("this process has used up its file descriptors; raise RLIMIT_NOFILE (`ulimit -n`)")]
    TooManyFiles,
    /// ENFILE.
    #[error("the system has used up its open files; raise it with `sysctl fs.file-max`")]
    TooManyFilesInSystem,
    /// The kernel, the memory cgroup or RLIMIT_AS has not got the memory.
    #[error(
        "no memory for a buffer of {size} bytes; lower the pool's limit, or raise the limit of the \
         memory cgroup or of the address space (`ulimit -v`)"
    )]
    OutOfMemory {
        /// What was asked for, rounded up to whole pages.
        size: usize,
    },
    /// RLIMIT_FSIZE forbids a file of that size (the kernel would send SIGXFSZ).
    #[error(
        "RLIMIT_FSIZE allows files of {limit} bytes only, the buffer has {size}; raise it \
         (`ulimit -f`)"
    )]
    FileSizeLimit {
        /// What was asked for, rounded up to whole pages.
        size: usize,
        /// The soft limit.
        limit: u64,
    },
    /// The pool was asked for a property that this backing cannot give here.
    #[error("the {backing} backing cannot give {want}: {why}")]
    Conflict {
        /// The backing that was asked.
        backing: BackingKind,
        /// The property, in words.
        want: &'static str,
        /// What stands against it.
        why: String,
    },
    /// This kernel has no such kind of pages.
    #[error("this kernel has no {what} ({errno}); use the memfd backing")]
    Unsupported {
        /// What is missing.
        what: &'static str,
        /// What the kernel said.
        errno: Errno,
    },
    /// There is no such dma-heap, or this user may not open it.
    #[error(
        "/dev/dma_heap/{name} cannot be opened ({errno}); here are: {known}; ask the administrator to give the device to \
         a group of yours (a udev rule)"
    )]
    NoHeap {
        /// The name asked for.
        name: String,
        /// What the kernel said.
        errno: Errno,
        /// The heaps of this machine.
        known: String,
    },
    /// A dma-heap has no room for the buffer.
    #[error(
        "the dma-heap {name} has no {size} bytes left; let go of buffers, take another heap, or make this one larger \
         (`cma=` on the kernel's command line)"
    )]
    HeapFull {
        /// The heap.
        name: String,
        /// What was asked for, rounded up to whole pages.
        size: usize,
    },
    /// There is no such DRM device, or this user may not open it.
    #[error("{} cannot be opened ({errno}); `ls -l /dev/dri` shows devices and the group to join", path.display())]
    NoCard {
        /// The path asked for.
        path: PathBuf,
        /// What the kernel said.
        errno: Errno,
    },
    /// The device makes no dumb buffers.
    #[error("{} makes no dumb buffers ({errno}); take a card (not a render node) of a display", path.display())]
    NoDumbBuffers {
        /// The device.
        path: PathBuf,
        /// What the kernel said.
        errno: Errno,
    },
    /// Somebody changed each memfd through /proc before it was sealed.
    #[error(
        "{attempts} memory files were changed by another process of this user before they could be sealed; end that \
         process, or run as a user of its own"
    )]
    Disturbed {
        /// How many were made and thrown away.
        attempts: u32,
    },
    /// Any other failed system call.
    #[error("{call} failed: {errno}")]
    System {
        /// The call.
        call: &'static str,
        /// What the kernel said.
        errno: Errno,
    },
}

impl AllocError {
    /// Sorts a failed call by what the user can do about it.
    pub(crate) fn from_errno(call: &'static str, errno: Errno, size: usize) -> Self {
        match errno {
            Errno::EMFILE => Self::TooManyFiles,
            Errno::ENFILE => Self::TooManyFilesInSystem,
            Errno::ENOMEM | Errno::ENOSPC => Self::OutOfMemory { size },
            errno => Self::System { call, errno },
        }
    }

    /// Whether another backing might succeed where this one failed.
    pub fn is_worth_a_fallback(&self) -> bool {
        matches!(
            self,
            Self::NoHugepages { .. }
                | Self::TooSmallForHugepages { .. }
                | Self::OutOfMemory { .. }
                | Self::HeapFull { .. }
                | Self::Unsupported { .. }
                | Self::Conflict { .. }
        )
    }
}

/// Why a descriptor that somebody else made was refused.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// Opened with O_PATH, or for writing only: it cannot be mapped for reading.
    #[error("the descriptor cannot be read ({0})")]
    NotReadable(&'static str),
    /// Not a memfd: a pipe, a socket, a file of a disk, ...
    #[error("not a memfd")]
    NotMemfd,
    /// Not a dma-buf.
    #[error("not a dma-buf")]
    NotDmaBuf,
    /// Without F_SEAL_SHRINK its owner can make every reader die of SIGBUS.
    #[error("the memfd is not sealed against shrinking (F_SEAL_SHRINK)")]
    NotSealed,
    /// A hole punched into huge pages can end in SIGBUS, so they must be sealed against writing.
    #[error("the huge page memfd is not sealed against writing (F_SEAL_FUTURE_WRITE)")]
    HugetlbNotSealed,
    /// Fewer bytes than announced.
    #[error("announced as {announced} bytes, but the file has {actual}")]
    Short {
        /// What the peer said.
        announced: u64,
        /// What the kernel says.
        actual: u64,
    },
    /// No bytes.
    #[error("it has no bytes")]
    ZeroSize,
    /// More than [`MAX_BUFFER_SIZE`](crate::MAX_BUFFER_SIZE).
    #[error("{size} bytes are more than the {limit} bytes a buffer may have")]
    TooLarge {
        /// Announced or found.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// A failed system call.
    #[error("{call} failed: {errno}")]
    System {
        /// The call.
        call: &'static str,
        /// What the kernel said.
        errno: Errno,
    },
}

impl ImportError {
    /// For `map_err` on a system call.
    pub(crate) fn system(call: &'static str) -> impl FnOnce(Errno) -> Self {
        move |errno| Self::System { call, errno }
    }

    /// For `map_err` on a library call around a system call.
    pub(crate) fn io(call: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::System { call, errno: errno_of(&error) }
    }
}

/// Why upstream's pages cannot be passed on; the frame must be copied (and counted) instead.
#[derive(Debug, thiserror::Error)]
#[error("upstream's pages cannot be passed on: {reason}")]
pub struct NotShareable {
    reason: ImportError,
}

impl NotShareable {
    /// What stands against it.
    pub fn reason(&self) -> &ImportError {
        &self.reason
    }
}

impl From<ImportError> for NotShareable {
    fn from(reason: ImportError) -> Self {
        Self { reason }
    }
}

/// Why a buffer lacks a face.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaceAbsent {
    /// [`Wants::offer_dma_buf`](crate::Wants::offer_dma_buf) was false.
    #[error("it was not asked for")]
    NotWanted,
    /// /dev/udmabuf is missing or closed to this user.
    #[error("/dev/udmabuf cannot be opened ({0}); `modprobe udmabuf`, or join the group that owns it")]
    NoDevice(Errno),
    /// Over udmabuf's limit for one buffer.
    #[error(
        "{size} bytes are over udmabuf's limit of {limit}; raise \
         /sys/module/udmabuf/parameters/size_limit_mb"
    )]
    TooLarge {
        /// The buffer's size.
        size: usize,
        /// The limit in force.
        limit: u64,
    },
    /// udmabuf refused these pages.
    #[error("udmabuf refused the pages ({0})")]
    Refused(Errno),
    /// This kind of buffer has no such face.
    #[error("the {backing} backing has no {face} face")]
    NotOfThisBacking {
        /// Where the pages come from.
        backing: BackingKind,
        /// The face asked about.
        face: FaceKind,
    },
}

/// Why bytes of a [`Mapping`](crate::Mapping) were not copied.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// The range ends behind the mapping.
    #[error("bytes {offset}..{offset}+{len} lie outside a mapping of {size} bytes")]
    OutOfBounds {
        /// Where the range starts.
        offset: usize,
        /// Its length.
        len: usize,
        /// The mapping's length.
        size: usize,
    },
    /// The mapping was made for reading.
    #[error("the pages are mapped read-only")]
    ReadOnly,
    /// The pages are a device's, which does not let the CPU have them.
    #[error("the driver does not let the CPU have the pages: {0}")]
    Device(Errno),
}

/// A name that stands for nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown {what} `{name}`; one of: {known}")]
pub struct UnknownName {
    pub(crate) what: &'static str,
    pub(crate) name: String,
    pub(crate) known: &'static str,
}

/// The errno inside an [`io::Error`] of a system call.
pub(crate) fn errno_of(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
