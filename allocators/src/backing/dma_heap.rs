//! Buffers of a dma-heap: memory of the kind that a device needs (contiguous, protected, or just pages).

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;

use nix::errno::Errno;

use super::{Backing, BackingKind, Wants, exported, headroom, rounded};
use crate::error::errno_of;
use crate::{AllocError, Buffer, PageSize, ioctl};

/// Where heaps are.
const FOLDER: &str = "/dev/dma_heap";

/// Allocates from one of the kernel's dma-heaps. Its buffers have a dma-buf face and no other: they are for devices,
/// and for subscribers that may write. The CPU must say when it touches them
/// ([`CpuAccess`](crate::dma_buf::CpuAccess)).
#[derive(Debug)]
pub struct DmaHeapBacking {
    name: String,
    heap: File,
}

impl DmaHeapBacking {
    /// The heap of that name: `system`, `linux,cma`, …
    ///
    /// # Errors
    /// If there is none, or it is closed to this user.
    pub fn open(name: &str) -> Result<Self, AllocError> {
        // A name, and not a way to some other file.
        let is_name = !name.is_empty() && !name.contains('/') && name != "." && name != "..";
        let path = Path::new(FOLDER).join(if is_name { name } else { "" });
        let opened = if is_name { File::open(&path) } else { Err(Errno::ENOENT.into()) };
        let heap = opened.map_err(|error| match errno_of(&error) {
            Errno::EMFILE => AllocError::TooManyFiles,
            Errno::ENFILE => AllocError::TooManyFilesInSystem,
            errno => AllocError::NoHeap { name: name.to_owned(), errno, known: Self::names().join(", ") },
        })?;
        Ok(Self { name: name.to_owned(), heap })
    }

    /// The heaps that this machine has, whether this user may open them or not.
    pub fn names() -> Vec<String> {
        let entries = fs::read_dir(FOLDER).into_iter().flatten().flatten();
        let mut names: Vec<_> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

impl Backing for DmaHeapBacking {
    fn kind(&self) -> BackingKind {
        BackingKind::DmaHeap
    }

    fn granularity(&self) -> usize {
        PageSize::of_machine().bytes()
    }

    fn allocate(&self, size: usize, wants: &Wants) -> Result<Buffer, AllocError> {
        exported::check_wants(self.kind(), wants)?;
        let size = rounded(size, self.granularity())?;
        let full = || AllocError::HeapFull { name: self.name.clone(), size };
        // The kernel would rather kill somebody than say no.
        if headroom::available().is_some_and(|available| size as u64 > available) {
            return Err(full());
        }
        let fd = ioctl::dma_heap_allocate(self.heap.as_fd(), size).map_err(|errno| match errno {
            Errno::ENOMEM => full(),
            errno => AllocError::from_errno("DMA_HEAP_IOCTL_ALLOC", errno, size),
        })?;
        exported::build(self.kind(), fd, size)
    }
}
