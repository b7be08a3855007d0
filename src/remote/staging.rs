//! Frames whose pages a link cannot read where they are (another device's): copied once, into pages that it can.

use pagecast_allocators::{BackingChoice, Wants};
use pagecast_remote::limits::{MAX_FRAME_BYTES, MAX_FRAMES_UNDER_WAY};

use crate::frame::ReadError;
use crate::{Frame, Lease, Pool, PoolError, PoolOptions};

/// Why a frame was not copied.
#[derive(Debug, thiserror::Error)]
pub(super) enum StagingError {
    #[error(transparent)]
    Pool(#[from] PoolError),
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// The pages of one link.
#[derive(Default)]
pub(super) struct Staging(Option<Pool>);

impl Staging {
    /// A copy of the frame's bytes, which was right when it was made. It may wait for a device that still writes.
    pub(super) fn copy(&mut self, frame: &Frame) -> Result<Lease, StagingError> {
        let pool = self.0.get_or_insert_with(|| {
            let wants = Wants { offer_dma_buf: false, ..Wants::default() };
            let limit = MAX_FRAME_BYTES * MAX_FRAMES_UNDER_WAY as u64;
            Pool::new(PoolOptions { backing: BackingChoice::Memfd, limit, wants })
        });
        let mut lease = pool.acquire(frame.size())?;
        frame.copy_to(lease.as_mut_slice())?;
        Ok(lease)
    }
}
