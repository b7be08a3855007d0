//! dma-bufs: what they are, and when the CPU may touch them.

use std::os::fd::BorrowedFd;

use std::time::Duration;

use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::statfs::{FsType, fstatfs};
use nix::unistd::{Whence, lseek};

use crate::{ImportError, fence, ioctl};

/// The file system that all dma-bufs live on (`DMA_BUF_MAGIC`).
const DMA_BUF_MAGIC: FsType = FsType(0x444d_4142);

/// Whether this descriptor is a dma-buf.
pub fn is_dma_buf(fd: BorrowedFd<'_>) -> bool {
    fstatfs(fd).is_ok_and(|fs| fs.filesystem_type() == DMA_BUF_MAGIC)
}

/// The size of a dma-buf: fstat knows none, lseek does.
pub fn size(fd: BorrowedFd<'_>) -> Result<u64, ImportError> {
    let end = lseek(fd, 0, Whence::SeekEnd).map_err(ImportError::system("lseek"))?;
    lseek(fd, 0, Whence::SeekSet).map_err(ImportError::system("lseek"))?;
    u64::try_from(end).map_err(|_| ImportError::NotDmaBuf)
}

/// What the CPU is going to do with a dma-buf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Read it.
    Read,
    /// Write it.
    Write,
    /// Both.
    ReadWrite,
}

impl Direction {
    pub(crate) const fn flags(self) -> u64 {
        match self {
            Self::Read => 1,
            Self::Write => 2,
            Self::ReadWrite => 3,
        }
    }
}

const SYNC_END: u64 = 4;

/// How long [`CpuAccess::begin`] waits for devices; a fence that never signals must not stop anybody for ever.
pub const DEVICE_LIMIT: Duration = Duration::from_secs(5);

/// Waits until the devices that stand against this access are done.
///
/// # Errors
/// `ETIMEDOUT` if they are not within `limit`.
pub fn wait_for_devices(fd: BorrowedFd<'_>, direction: Direction, limit: Duration) -> Result<(), Errno> {
    // Who reads waits for those who write; who writes, for everybody.
    let events = if direction == Direction::Read { PollFlags::POLLIN } else { PollFlags::POLLOUT };
    fence::is_ready(fd, events, limit)
}

/// Whether no device stands against this access now.
pub fn is_idle(fd: BorrowedFd<'_>, direction: Direction) -> bool {
    wait_for_devices(fd, direction, Duration::ZERO).is_ok()
}

/// CPU access to a dma-buf: from [`begin`](Self::begin), which waits for the devices that write it
/// and makes their writes visible, to [`end`](Self::end) or drop, which make the CPU's visible.
#[derive(Debug)]
#[must_use = "CPU access ends when this is dropped"]
pub struct CpuAccess<'a> {
    fd: BorrowedFd<'a>,
    direction: Direction,
}

impl<'a> CpuAccess<'a> {
    /// Begins CPU access; waits for devices, at most [`DEVICE_LIMIT`].
    ///
    /// # Errors
    /// `ETIMEDOUT` if a device does not finish; otherwise what the exporter says.
    pub fn begin(fd: BorrowedFd<'a>, direction: Direction) -> Result<Self, Errno> {
        wait_for_devices(fd, direction, DEVICE_LIMIT)?;
        ioctl::dma_buf_sync(fd, direction.flags())?;
        Ok(Self { fd, direction })
    }

    /// Ends CPU access, and says if the kernel objects.
    pub fn end(self) -> Result<(), Errno> {
        let this = std::mem::ManuallyDrop::new(self);
        this.finish()
    }

    /// Leaves CPU access open, for [`end_access`] to end it somewhere else.
    pub fn keep_open(self) {
        std::mem::forget(self);
    }

    fn finish(&self) -> Result<(), Errno> {
        end_access(self.fd, self.direction)
    }
}

/// Ends CPU access that [`CpuAccess::keep_open`] left open.
pub fn end_access(fd: BorrowedFd<'_>, direction: Direction) -> Result<(), Errno> {
    ioctl::dma_buf_sync(fd, direction.flags() | SYNC_END)
}

impl Drop for CpuAccess<'_> {
    fn drop(&mut self) {
        // Nobody is left to tell; the kernel fails here only if the exporter does.
        let _ = self.finish();
    }
}
