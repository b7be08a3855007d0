//! Reading a frame that somebody else may take away.

use arrayvec::ArrayVec;
use pagecast_allocators::dma_buf::{CpuAccess, Direction};
use pagecast_allocators::{AccessError, AccessMode, ImportError};
use pagecast_ipc::wire::limits::MAX_SEGMENTS;

use super::{Frame, ReadError, Segment};

/// The publisher cut this subscriber off while it held the frame: what was read may be of a later frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the publisher took this frame back: what was read from it is not valid")]
pub struct Evicted;

/// Access to the bytes of a frame. What was read counts only after [`ReadGuard::finish`].
#[derive(Debug)]
#[must_use = "what is read is valid only after finish()"]
pub struct ReadGuard<'a> {
    frame: &'a Frame,
    /// dma-bufs that the CPU may look at until this ends.
    accesses: ArrayVec<CpuAccess<'a>, MAX_SEGMENTS>,
}

impl<'a> ReadGuard<'a> {
    pub(super) fn new(frame: &'a Frame) -> Result<Self, ImportError> {
        let late = |errno| ImportError::System { call: "waiting for a device's fence", errno };
        frame.wait_for_devices().map_err(late)?;
        let mut accesses = ArrayVec::new();
        let segments = frame.segments();
        for (at, Segment { buffer, .. }) in segments.iter().enumerate() {
            buffer.map()?;
            let known = segments[..at].iter().any(|earlier| earlier.buffer.id() == buffer.id());
            if let Some(fd) = buffer.mapped_dma_buf().filter(|_| !known) {
                let begun = CpuAccess::begin(fd, Direction::Read);
                accesses
                    .push(begun.map_err(|errno| ImportError::System { call: "DMA_BUF_IOCTL_SYNC", errno })?);
            }
        }
        Ok(Self { frame, accesses })
    }

    /// The bytes of one segment; `None` if there is no such segment or others may write into its pages, see
    /// [`ReadGuard::copy_to`].
    pub fn bytes(&self, segment: usize) -> Option<&[u8]> {
        let Segment { buffer, offset, length } = self.frame.segments().get(segment)?;
        if buffer.access() != AccessMode::Enforced {
            return None;
        }
        let mapping = buffer.mapping()?;
        // SAFETY: the range was checked against the buffer when the frame was made; the frame holds the
        // buffer and with it the mapping; the kernel keeps all but the publisher from writing (enforced),
        // and the publisher does not while this frame is held. If it broke that by evicting us, `finish`
        // says so before anybody relies on what was read.
        unsafe { mapping.slice(*offset, *length) }.ok()
    }

    /// Copies from the frame, counting from the start of its first segment.
    ///
    /// # Errors
    /// [`ReadError`] if the range is not within the frame.
    pub fn copy_to(&self, mut start: usize, mut out: &mut [u8]) -> Result<(), ReadError> {
        for Segment { buffer, offset, length } in self.frame.segments() {
            if start >= *length {
                start -= length;
                continue;
            }
            let part = out.len().min(length - start);
            let (head, rest) = out.split_at_mut(part);
            buffer.map()?.copy_to(offset + start, head)?;
            (out, start) = (rest, 0);
            if out.is_empty() {
                return Ok(());
            }
        }
        if out.is_empty() {
            Ok(())
        } else {
            Err(AccessError::OutOfBounds { offset: start, len: out.len(), size: self.frame.size() }.into())
        }
    }

    /// Ends reading: looks at the link after the read.
    ///
    /// # Errors
    /// [`Evicted`] if the frame was no longer ours at some point before now.
    pub fn finish(self) -> Result<(), Evicted> {
        let Self { frame, accesses } = self;
        drop(accesses);
        match frame.link() {
            Some(link) if !link.still_valid() => Err(Evicted),
            _ => Ok(()),
        }
    }
}
