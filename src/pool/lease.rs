//! A buffer that is being filled.

use std::sync::Arc;

use pagecast_allocators::dma_buf::{CpuAccess, Direction, end_access};
use pagecast_allocators::{AccessError, Buffer};

use super::Pool;

/// A buffer that belongs to nobody else. Dropping it gives the buffer back to its pool.
///
/// The first access to the pages of a device's buffer tells the driver so (`DMA_BUF_IOCTL_SYNC`), and
/// [`FrameBuilder::lease`](crate::FrameBuilder::lease) that the writing is over.
#[derive(Debug)]
pub struct Lease {
    pub(super) buffer: Option<Arc<Buffer>>,
    pub(super) home: Pool,
    /// Whether a driver was told that the CPU writes.
    pub(super) writing: bool,
}

impl Lease {
    /// The buffer.
    pub fn buffer(&self) -> &Arc<Buffer> {
        self.buffer.as_ref().expect("a lease has its buffer until it is dropped")
    }

    /// The pool it goes back to.
    pub fn pool(&self) -> &Pool {
        &self.home
    }

    /// Writes `bytes` at `offset`.
    ///
    /// # Errors
    /// If they do not fit, or the driver does not let us.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) -> Result<(), AccessError> {
        self.begin_writing()?;
        self.buffer().mapping().ok_or(AccessError::ReadOnly)?.copy_from(offset, bytes)
    }

    /// All bytes of the buffer; none while somebody else has it, in a frame that was not given back, or if a driver does
    /// not let the CPU have it.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        if Arc::strong_count(self.buffer()) > 1 || self.begin_writing().is_err() {
            return &mut [];
        }
        let buffer = self.buffer();
        let mapped = buffer.mapping().and_then(|map| Some((map.as_mut_ptr()?, map.len())));
        let Some((start, len)) = mapped else { return &mut [] };
        // SAFETY: the mapping lives as long as the buffer, which this lease keeps. Nobody else in this
        // process has the buffer (counted above; weak references are only ever counted, and a new strong
        // one would have to come from this lease, which is borrowed exclusively). Subscribers of earlier
        // frames in it have given them back, or were cut off and can only read.
        unsafe { std::slice::from_raw_parts_mut(start, len) }
    }

    /// Tells the driver, if there is one, that the CPU is going to write. Ordinary pages need no word.
    fn begin_writing(&mut self) -> Result<(), AccessError> {
        if self.writing {
            return Ok(());
        }
        let Some(fd) = self.buffer().mapped_dma_buf() else { return Ok(()) };
        CpuAccess::begin(fd, Direction::Write).map_err(AccessError::Device)?.keep_open();
        self.writing = true;
        Ok(())
    }

    /// Tells the driver that the CPU has written what it wanted, so that devices see it. [`FrameBuilder::lease`] does
    /// this; who passes the buffer on in another way must.
    ///
    /// [`FrameBuilder::lease`]: crate::FrameBuilder::lease
    pub fn end_writing(&mut self) {
        if std::mem::take(&mut self.writing)
            && let Some(fd) = self.buffer().mapped_dma_buf()
            && let Err(error) = end_access(fd, Direction::Write)
        {
            tracing::warn!(%error, "a driver did not take in what was written");
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.end_writing();
        let Some(buffer) = self.buffer.take() else { return };
        let busy = buffer.is_in_devices();
        self.home.state().give_back(buffer, busy);
    }
}
