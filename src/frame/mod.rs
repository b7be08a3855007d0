//! A frame: where its bytes are and what they mean.

mod fences;
mod guard;
mod picture;
mod pixels;

use std::any::Any;
use std::fmt;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use arrayvec::ArrayVec;
use pagecast_allocators::{AccessError, AccessMode, Buffer, FaceKind, Fence, ImportError};
use pagecast_ipc::wire::limits::{MAX_META_BYTES, MAX_METAS, MAX_NAME, MAX_PLANES, MAX_SEGMENTS};
use pagecast_ipc::wire::{FrameFlags, Meta, Plane, Times};

use pagecast_verbs::ProtectionDomain;

pub use drm_fourcc::{DrmFourcc, DrmModifier};
pub use fences::FenceError;
pub(crate) use fences::Progress;
pub use guard::{Evicted, ReadGuard};
pub use picture::{Picture, PictureError, PicturePlane};
pub use pixels::Pixels;

use fences::Fences;

use crate::pool::Lease;
use crate::registration::{self, Part};
use crate::stream::Stream;
use crate::subscriber::LinkState;

/// What is said of a frame; everything but its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// Flags.
    pub flags: FrameFlags,
    /// Times, in nanoseconds.
    pub times: Times,
    /// Media-specific position, as `GST_BUFFER_OFFSET`.
    pub offset: Option<u64>,
    /// Media-specific end position.
    pub offset_end: Option<u64>,
    /// Width of the picture in pixels; 0 where it has none.
    pub width: u32,
    /// Height of the picture in pixels.
    pub height: u32,
    /// Planes; offsets count from the start of the first segment over all segments.
    pub planes: ArrayVec<Plane, MAX_PLANES>,
    /// Serialised metas.
    pub metas: Vec<Meta>,
}

/// A part of a buffer that a frame is made of.
#[derive(Clone, Debug)]
pub struct Segment {
    /// The buffer.
    pub buffer: Arc<Buffer>,
    /// Where the part begins, in bytes.
    pub offset: usize,
    /// Its length in bytes.
    pub length: usize,
}

/// A plane and where the CPU finds it; for importers see [`Frame::picture`].
#[derive(Clone, Copy, Debug)]
pub struct PlaneView<'a> {
    /// The descriptor that holds its bytes: the dma-buf face if the buffer has only that, else the memory
    /// face.
    pub fd: BorrowedFd<'a>,
    /// Which face that is.
    pub face: FaceKind,
    /// Where the plane begins behind the descriptor, in bytes.
    pub offset: u64,
    /// Bytes from one line to the next.
    pub stride: i32,
}

/// What a frame cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Too many segments, planes, metas or meta bytes.
    #[error("{what}: {value} is more than the limit of {limit}")]
    OverLimit {
        /// Which.
        what: &'static str,
        /// How many.
        value: usize,
        /// How many there may be.
        limit: usize,
    },
    /// A segment reaches past its buffer.
    #[error("a segment of {length} bytes at {offset} does not fit a buffer of {size} bytes")]
    OutOfBuffer {
        /// Start of the segment.
        offset: usize,
        /// Length of the segment.
        length: usize,
        /// Size of the buffer.
        size: usize,
    },
}

struct Inner {
    description: Description,
    segments: ArrayVec<Segment, MAX_SEGMENTS>,
    stream: Arc<Stream>,
    id: u64,
    link: Option<Arc<LinkState>>,
    fences: Option<Fences>,
    /// Keeps the pages from being reused; goes last.
    _owner: Option<Box<dyn Any + Send + Sync>>,
}

/// A frame that somebody holds: cheap to clone, and given back when the last clone is dropped.
#[derive(Clone)]
pub struct Frame(Arc<Inner>);

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("id", &self.0.id)
            .field("size", &self.size())
            .field("segments", &self.0.segments.len())
            .field("times", &self.0.description.times)
            .finish()
    }
}

/// Puts a frame together; see [`Frame::builder`].
#[derive(Default)]
pub struct FrameBuilder {
    description: Description,
    segments: ArrayVec<Segment, MAX_SEGMENTS>,
    owners: Vec<Box<dyn Any + Send + Sync>>,
    stream: Arc<Stream>,
    link: Option<Arc<LinkState>>,
    too_many: usize,
    fences: Vec<Fence>,
}

struct OnRelease<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for OnRelease<F> {
    fn drop(&mut self) {
        if let Some(release) = self.0.take() {
            release();
        }
    }
}

impl FrameBuilder {
    /// What is said of the frame.
    #[must_use]
    pub fn describe(mut self, description: Description) -> Self {
        self.description = description;
        self
    }

    /// Appends the first `length` bytes of a filled buffer, which goes back to its pool with the frame.
    #[must_use]
    pub fn lease(self, mut lease: Lease, length: usize) -> Self {
        lease.end_writing();
        let buffer = lease.buffer().clone();
        self.segment(buffer, 0, length).owner(lease)
    }

    /// Appends a part of a buffer that somebody else keeps alive; see [`FrameBuilder::owner`].
    #[must_use]
    pub fn segment(mut self, buffer: Arc<Buffer>, offset: usize, length: usize) -> Self {
        if self.segments.try_push(Segment { buffer, offset, length }).is_err() {
            self.too_many += 1;
        }
        self
    }

    /// Something that is dropped when nobody holds the frame any more, here or at a subscriber.
    #[must_use]
    pub fn owner(mut self, owner: impl Any + Send + Sync) -> Self {
        self.owners.push(Box::new(owner));
        self
    }

    /// A device writes the pages until this fence signals. It goes with the dma-bufs of the frame; who has other faces,
    /// or is on another host, gets the frame when it has signalled, and misses a frame whose device takes longer than
    /// five seconds.
    #[must_use]
    pub fn acquire_fence(mut self, fence: Fence) -> Self {
        self.fences.push(fence);
        self
    }

    /// Called when nobody holds the frame any more; a camera's buffer is queued again here.
    #[must_use]
    pub fn on_last_release(self, release: impl FnOnce() + Send + Sync + 'static) -> Self {
        self.owner(OnRelease(Some(release)))
    }

    /// The pages are those of this received frame, which is kept, and which its publisher may take back.
    pub(crate) fn received(mut self, frame: &Frame) -> Self {
        self.link.clone_from(&frame.0.link);
        self.owner(frame.clone())
    }

    /// The frame.
    ///
    /// # Errors
    /// [`FrameError`] if it is over a limit or reaches past a buffer.
    pub fn build(self) -> Result<Frame, FrameError> {
        let limit = |what, value, limit| match value > limit {
            true => Err(FrameError::OverLimit { what, value, limit }),
            false => Ok(()),
        };
        limit("segments", self.segments.len() + self.too_many, MAX_SEGMENTS)?;
        let metas = &self.description.metas;
        limit("metas", metas.len(), MAX_METAS)?;
        limit("meta bytes", metas.iter().map(|m| m.name.len() + m.data.len()).sum(), MAX_META_BYTES)?;
        limit("meta name", metas.iter().map(|m| m.name.len()).max().unwrap_or(0), MAX_NAME)?;
        for Segment { buffer, offset, length } in &self.segments {
            let (offset, length, size) = (*offset, *length, buffer.size());
            if offset.checked_add(length).is_none_or(|end| end > size) {
                return Err(FrameError::OutOfBuffer { offset, length, size });
            }
        }
        limit("fences", self.fences.len(), MAX_SEGMENTS)?;
        let fences = (!self.fences.is_empty()).then(|| Fences::attach(self.fences, &self.segments));
        Ok(Frame(Arc::new(Inner {
            fences,
            description: self.description,
            segments: self.segments,
            stream: self.stream,
            id: 0,
            link: self.link,
            _owner: Some(Box::new(self.owners)),
        })))
    }
}

impl Frame {
    /// Starts a new frame.
    pub fn builder() -> FrameBuilder {
        FrameBuilder::default()
    }

    /// A frame that came over a link; checked by the caller.
    pub(crate) fn received(
        id: u64,
        description: Description,
        segments: ArrayVec<Segment, MAX_SEGMENTS>,
        stream: Arc<Stream>,
        link: Arc<LinkState>,
        owner: impl Any + Send + Sync,
    ) -> Self {
        let owner: Option<Box<dyn Any + Send + Sync>> = Some(Box::new(owner));
        Self(Arc::new(Inner {
            description,
            segments,
            stream,
            id,
            link: Some(link),
            fences: None,
            _owner: owner,
        }))
    }

    /// The publisher's number of a received frame; rising, a gap is a frame that was not for us. 0 for a
    /// frame made here.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// What is said of it.
    pub fn description(&self) -> &Description {
        &self.0.description
    }

    /// The parts it is made of.
    pub fn segments(&self) -> &[Segment] {
        &self.0.segments
    }

    /// Caps, segment, tags at this point of the stream.
    pub fn stream(&self) -> &Arc<Stream> {
        &self.0.stream
    }

    /// The caps, if they are known.
    pub fn caps(&self) -> Option<&str> {
        self.0.stream.caps()
    }

    /// Bytes of all segments.
    pub fn size(&self) -> usize {
        self.0.segments.iter().map(|segment| segment.length).sum()
    }

    /// `enforced` if the kernel keeps everybody else from writing into every part of it.
    pub fn access(&self) -> AccessMode {
        let enforced = |segment: &Segment| segment.buffer.access() == AccessMode::Enforced;
        if self.0.segments.iter().all(enforced) { AccessMode::Enforced } else { AccessMode::Cooperative }
    }

    /// Its planes with the descriptors that hold them; without a known layout, one plane per segment.
    pub fn planes(&self) -> Vec<PlaneView<'_>> {
        let planes = &self.0.description.planes;
        if planes.is_empty() {
            let whole = |s| view(s, 0, 0);
            return self.0.segments.iter().filter_map(whole).collect();
        }
        planes.iter().filter_map(|plane| self.plane(*plane)).collect()
    }

    fn plane(&self, plane: Plane) -> Option<PlaneView<'_>> {
        let (segment, within) = self.segment_at(plane.offset)?;
        view(segment, within, plane.stride)
    }

    /// The segment that has this byte of the frame, and which of its bytes that is.
    fn segment_at(&self, offset: u64) -> Option<(&Segment, u64)> {
        let mut before = 0;
        for segment in &self.0.segments {
            let end = before + segment.length as u64;
            if offset < end {
                return Some((segment, offset - before));
            }
            before = end;
        }
        None
    }

    /// Where its bytes are for a device that its pool is registered with, one part per segment, in order; `None` if
    /// a buffer is not registered there. See [`Pool::register`](crate::Pool::register).
    pub fn registered(&self, domain: &Arc<ProtectionDomain>) -> Option<Vec<Part>> {
        let part =
            |segment: &Segment| registration::part(&segment.buffer, domain, segment.offset, segment.length);
        self.0.segments.iter().map(part).collect()
    }

    /// How long ago it was captured, or published where that is unknown. Only for frames of this host.
    pub fn age(&self) -> Option<Duration> {
        let times = &self.0.description.times;
        let captured = times.captured.or(times.published)?;
        Some(Duration::from_nanos(crate::clock::monotonic_ns().saturating_sub(captured)))
    }

    /// Begins to read its bytes; what was read is valid only if [`ReadGuard::finish`] says so.
    ///
    /// # Errors
    /// If its pages cannot be mapped.
    pub fn read(&self) -> Result<ReadGuard<'_>, ImportError> {
        ReadGuard::new(self)
    }

    /// Copies all bytes, in order.
    ///
    /// # Errors
    /// [`ReadError`] if they cannot be mapped, or the frame was taken away meanwhile.
    pub fn to_vec(&self) -> Result<Vec<u8>, ReadError> {
        // What a publisher says of its frames' sizes must not be able to abort us.
        let mut bytes = Vec::new();
        let size = self.size();
        bytes.try_reserve_exact(size).map_err(|_| ReadError::Memory { size })?;
        bytes.resize(size, 0);
        self.copy_to(&mut bytes)?;
        Ok(bytes)
    }

    /// Copies all bytes, in order, to the start of `out`.
    ///
    /// # Errors
    /// [`ReadError`] if they cannot be mapped or do not fit, or the frame was taken away meanwhile.
    pub fn copy_to(&self, out: &mut [u8]) -> Result<(), ReadError> {
        let (len, size) = (self.size(), out.len());
        let out = out.get_mut(..len).ok_or(AccessError::OutOfBounds { offset: 0, len, size })?;
        let guard = self.read()?;
        guard.copy_to(0, out)?;
        Ok(guard.finish()?)
    }

    pub(crate) fn link(&self) -> Option<&LinkState> {
        self.0.link.as_deref()
    }

    /// Whether its pages are those of a publisher that it came from.
    pub(crate) fn is_received(&self) -> bool {
        self.0.link.is_some()
    }

    /// Whether what was read of it until now is this frame.
    pub(crate) fn is_still_valid(&self) -> bool {
        self.link().is_none_or(LinkState::still_valid)
    }
}

/// Why a frame's bytes could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// They cannot be mapped.
    #[error(transparent)]
    Map(#[from] ImportError),
    /// The range is outside the frame.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The publisher took the frame away.
    #[error(transparent)]
    Evicted(#[from] Evicted),
    /// There is no memory for a copy.
    #[error("there is no memory for a copy of {size} bytes")]
    Memory {
        /// Bytes of the frame.
        size: usize,
    },
}

fn view(segment: &Segment, offset: u64, stride: i32) -> Option<PlaneView<'_>> {
    let face = [FaceKind::Memory, FaceKind::DmaBuf].into_iter().find_map(|kind| segment.buffer.face(kind))?;
    Some(PlaneView { fd: face.fd, face: face.kind, offset: segment.offset as u64 + offset, stride })
}
