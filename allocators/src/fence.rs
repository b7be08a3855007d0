//! Fences: when a device is done with pages. A fence is a `sync_file` of the kernel.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::dma_buf::Direction;
use crate::ioctl;

/// Signals once, when a device has done what it was asked to. Clones are of the same.
#[derive(Clone, Debug)]
pub struct Fence(Arc<OwnedFd>);

impl Fence {
    /// Takes a `sync_file`, as GPU and display APIs export them.
    ///
    /// # Errors
    /// If it is something else.
    pub fn new(fd: OwnedFd) -> Result<Self, Errno> {
        ioctl::sync_file_info(fd.as_fd())?;
        Ok(Self(Arc::new(fd)))
    }

    /// The fence of what devices do with a dma-buf now, to be waited for before this kind of access. Needs Linux 6.0.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn of_dma_buf(dma_buf: BorrowedFd<'_>, access: Direction) -> Result<Self, Errno> {
        Ok(Self(Arc::new(ioctl::dma_buf_export_sync_file(dma_buf, access.flags() as u32)?)))
    }

    /// Whoever accesses the dma-buf from now on waits for this fence: with [`Direction::Write`] a device writes until it
    /// signals, with [`Direction::Read`] one reads. Needs Linux 6.0.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn attach(&self, dma_buf: BorrowedFd<'_>, doing: Direction) -> Result<(), Errno> {
        ioctl::dma_buf_import_sync_file(dma_buf, doing.flags() as u32, self.as_fd())
    }

    /// Whether it has signalled, well or not.
    pub fn has_signalled(&self) -> bool {
        is_ready(self.as_fd(), PollFlags::POLLIN, Duration::ZERO).is_ok()
    }

    /// Waits until it has signalled.
    ///
    /// # Errors
    /// `ETIMEDOUT` if it does not within `limit`.
    pub fn wait(&self, limit: Duration) -> Result<(), Errno> {
        is_ready(self.as_fd(), PollFlags::POLLIN, limit)
    }
}

impl AsFd for Fence {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits for an event of a sync_file or dma-buf; `ETIMEDOUT` if it does not come within `limit`.
pub(crate) fn is_ready(fd: BorrowedFd<'_>, event: PollFlags, limit: Duration) -> Result<(), Errno> {
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(fd, event)], timeout) {
            Err(Errno::EINTR) => {}
            Ok(0) => return Err(Errno::ETIMEDOUT),
            done => return done.map(drop),
        }
    }
}
