//! Frames whose bytes a device still writes, and pages that one still reads: fences travel with the dma-buf itself, so that
//! devices and drivers wait for each other, and no CPU for them. Who cannot wait for a fence gets the frame when it has
//! signalled.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use nix::errno::Errno;
use pagecast_allocators::dma_buf::{DEVICE_LIMIT, Direction};
use pagecast_allocators::{FaceKind, Fence};

use super::{Frame, Segment};

/// What cannot be done with a fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FenceError {
    /// Only a dma-buf carries fences.
    #[error(
        "a part of the frame is in no dma-buf, which is what carries fences: wait for the device before the frame is let go"
    )]
    NotDmaBuf,
    /// The kernel refused it.
    #[error("the kernel does not take or give the fence: {0} (Linux 6.0 or newer is needed)")]
    Kernel(Errno),
}

/// How far the devices are that fill a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Its bytes are there.
    Done,
    /// They will be.
    Pending,
    /// It took too long: nobody waits any longer.
    Late,
}

/// The fences that a frame was made with.
#[derive(Debug)]
pub(super) struct Fences {
    all: Vec<Fence>,
    /// Whether they are in the dma-bufs of all its buffers, for whoever gets those.
    travel: bool,
    until: Instant,
    done: AtomicBool,
}

impl Fences {
    /// Puts the fences into the dma-bufs of these segments.
    pub(super) fn attach(all: Vec<Fence>, segments: &[Segment]) -> Self {
        let mut travel = true;
        for Segment { buffer, .. } in segments {
            buffer.mark_in_devices();
            let attached = buffer
                .face(FaceKind::DmaBuf)
                .is_some_and(|face| all.iter().all(|fence| fence.attach(face.fd, Direction::Write).is_ok()));
            travel &= attached;
        }
        Self { all, travel, until: Instant::now() + DEVICE_LIMIT, done: AtomicBool::new(false) }
    }

    fn progress(&self) -> Progress {
        if self.done.load(Ordering::Relaxed) {
            return Progress::Done;
        }
        if self.all.iter().all(Fence::has_signalled) {
            self.done.store(true, Ordering::Relaxed);
            return Progress::Done;
        }
        if Instant::now() < self.until { Progress::Pending } else { Progress::Late }
    }
}

/// The dma-bufs of a frame, each once.
fn dma_bufs(frame: &Frame) -> Result<Vec<BorrowedFd<'_>>, FenceError> {
    let mut known = Vec::with_capacity(frame.segments().len());
    let mut fds = Vec::with_capacity(frame.segments().len());
    for Segment { buffer, .. } in frame.segments() {
        if !known.contains(&buffer.id()) {
            known.push(buffer.id());
            fds.push(buffer.face(FaceKind::DmaBuf).ok_or(FenceError::NotDmaBuf)?.fd);
        }
    }
    Ok(fds)
}

impl Frame {
    /// What devices must have done before the frame is read, one fence for each of its dma-bufs, for APIs that wait by
    /// themselves. [`Frame::read`] waits, too.
    ///
    /// # Errors
    /// [`FenceError`].
    pub fn acquire_fences(&self) -> Result<Vec<Fence>, FenceError> {
        let of = |fd: BorrowedFd<'_>| Fence::of_dma_buf(fd, Direction::Read).map_err(FenceError::Kernel);
        dma_bufs(self)?.into_iter().map(of).collect()
    }

    /// A device reads the frame until this fence signals: the frame may be let go before, and its pages are not written
    /// until then. A device that takes longer than five seconds loses that.
    ///
    /// # Errors
    /// [`FenceError`].
    pub fn release_fence(&self, fence: &Fence) -> Result<(), FenceError> {
        let attach = |fd| fence.attach(fd, Direction::Read).map_err(FenceError::Kernel);
        dma_bufs(self)?.into_iter().try_for_each(attach)
    }

    /// How far devices are that fill it, as far as we were told.
    pub(crate) fn progress(&self) -> Progress {
        self.0.fences.as_ref().map_or(Progress::Done, Fences::progress)
    }

    /// Whether whoever has its dma-bufs can wait by itself.
    pub(crate) fn fences_travel(&self) -> bool {
        self.0.fences.as_ref().is_none_or(|fences| fences.travel)
    }

    /// Waits for the devices that fill it.
    pub(super) fn wait_for_devices(&self) -> Result<(), Errno> {
        let Some(fences) = &self.0.fences else { return Ok(()) };
        let left = |until: Instant| until.saturating_duration_since(Instant::now());
        fences.all.iter().try_for_each(|fence| fence.wait(left(fences.until)))
    }
}
