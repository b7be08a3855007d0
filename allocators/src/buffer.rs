//! A buffer: pages with one owner, one mapping and several faces.

use std::any::Any;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::dma_buf::{self, Direction};
use crate::inspect::Identity;
use crate::mapping::Mapping;
use crate::{AccessMode, BackingKind, Face, FaceAbsent, FaceKind, ImportError};

/// Names a buffer within this process. Counted from 1, never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BufferId(u64);

impl BufferId {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for BufferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A face as the buffer owns it.
#[derive(Debug)]
pub(crate) struct OwnedFace {
    pub(crate) fd: OwnedFd,
    pub(crate) access: AccessMode,
}

/// What a buffer is made of; [`Buffer::new`] gives it its id.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) size: usize,
    pub(crate) page_size: usize,
    pub(crate) backing: BackingKind,
    pub(crate) identity: Identity,
    pub(crate) memory: Option<OwnedFace>,
    pub(crate) dma_buf: Result<OwnedFace, FaceAbsent>,
    pub(crate) mapping: Option<Mapping>,
}

/// One allocation of pages, with one owner and one mapping in this process.
///
/// Usually shared as `Arc<Buffer>`. Dropping it drops what is attached, then the mapping, then the
/// descriptors; the pages live on for as long as someone else has a descriptor or a mapping.
pub struct Buffer {
    // Declared first, so dropped first: what is attached may point into the mapping.
    attached: Mutex<Vec<Box<dyn Any + Send + Sync>>>,
    mapping: OnceLock<Arc<Mapping>>,
    mapping_made: Mutex<()>,
    id: BufferId,
    size: usize,
    page_size: usize,
    backing: BackingKind,
    identity: Identity,
    memory: Option<OwnedFace>,
    dma_buf: Result<OwnedFace, FaceAbsent>,
    spent: AtomicBool,
    in_devices: AtomicBool,
}

impl Buffer {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            attached: Mutex::default(),
            mapping: parts.mapping.map(Arc::new).map_or_else(OnceLock::new, OnceLock::from),
            mapping_made: Mutex::default(),
            id: BufferId::next(),
            size: parts.size,
            page_size: parts.page_size,
            backing: parts.backing,
            identity: parts.identity,
            memory: parts.memory,
            dma_buf: parts.dma_buf,
            spent: AtomicBool::new(false),
            in_devices: AtomicBool::new(false),
        }
    }

    /// Its id, unique in this process.
    pub fn id(&self) -> BufferId {
        self.id
    }

    /// Usable bytes: for our own buffers what was asked for, rounded up to whole pages (to the backing's granularity).
    pub fn size(&self) -> usize {
        self.size
    }

    /// The size of one page: of the machine, or 2 MiB.
    pub fn page_size(&self) -> usize {
        self.page_size
    }

    /// Where the pages come from.
    pub fn backing(&self) -> BackingKind {
        self.backing
    }

    /// The face of this kind, if the buffer has it. The `mr` face is not a descriptor: whoever
    /// registers the pages keeps the registration with [`attach`](Self::attach).
    pub fn face(&self, kind: FaceKind) -> Option<Face<'_>> {
        let face = match kind {
            FaceKind::Memory => self.memory.as_ref()?,
            FaceKind::DmaBuf => self.dma_buf.as_ref().ok()?,
            FaceKind::Mr => return None,
        };
        Some(Face { kind, fd: face.fd.as_fd(), access: face.access })
    }

    /// The faces it has.
    pub fn faces(&self) -> impl Iterator<Item = FaceKind> + '_ {
        [FaceKind::Memory, FaceKind::DmaBuf].into_iter().filter(|kind| self.face(*kind).is_some())
    }

    /// Why it lacks a face; `None` if it has it.
    pub fn absent(&self, kind: FaceKind) -> Option<FaceAbsent> {
        match (kind, &self.dma_buf) {
            (FaceKind::DmaBuf, Err(absent)) => Some(*absent),
            _ if self.face(kind).is_some() => None,
            _ => Some(FaceAbsent::NotOfThisBacking { backing: self.backing, face: kind }),
        }
    }

    /// The dma-buf that its mapping is of, if it has no other face: the CPU must say when it touches that, see
    /// [`CpuAccess`](crate::dma_buf::CpuAccess).
    pub fn mapped_dma_buf(&self) -> Option<BorrowedFd<'_>> {
        match self.face(FaceKind::Memory) {
            Some(_) => None,
            None => self.face(FaceKind::DmaBuf).map(|face| face.fd),
        }
    }

    /// The access mode of the memory face, else of the dma-buf face.
    pub fn access(&self) -> AccessMode {
        let face = self.memory.as_ref().or(self.dma_buf.as_ref().ok());
        face.map_or(AccessMode::Cooperative, |face| face.access)
    }

    /// This process's one mapping, if it has been made. A buffer from a backing always has it; one
    /// from [`receive::dma_buf`](crate::receive::dma_buf) or [`foreign`](crate::foreign) has it
    /// after [`map`](Self::map).
    pub fn mapping(&self) -> Option<&Mapping> {
        self.mapping.get().map(Arc::as_ref)
    }

    /// The same mapping, for somebody who may need it for longer than the buffer lives: a device that still
    /// reads.
    pub fn share_mapping(&self) -> Option<Arc<Mapping>> {
        self.mapping.get().cloned()
    }

    /// This process's one mapping, made now if there is none (read-only).
    pub fn map(&self) -> Result<&Mapping, ImportError> {
        if let Some(mapping) = self.mapping.get() {
            return Ok(mapping);
        }
        let _one_at_a_time = self.mapping_made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mapping) = self.mapping.get() {
            return Ok(mapping);
        }
        let face = self.memory.as_ref().or(self.dma_buf.as_ref().ok());
        let face = face.ok_or(ImportError::NotMemfd)?;
        let mapping = Mapping::read_only(face.fd.as_fd(), self.size, self.page_size)
            .map_err(ImportError::io("mmap"))?;
        Ok(self.mapping.get_or_init(|| Arc::new(mapping)))
    }

    /// What tells these pages from all others while the buffer lives: `(st_dev, st_ino)` of the
    /// memory face, else of the dma-buf face.
    pub fn identity(&self) -> Option<(u64, u64)> {
        Some(self.identity)
    }

    /// Marks the pages as not to be written again: somebody who cannot be asked may still read them.
    pub fn mark_spent(&self) {
        self.spent.store(true, Ordering::Release);
    }

    /// Whether a pool must let go of the buffer instead of using it again.
    pub fn is_spent(&self) -> bool {
        self.spent.load(Ordering::Acquire)
    }

    /// Somebody got the dma-buf face, or a device writes: devices may be at work here from now on.
    pub fn mark_in_devices(&self) {
        self.in_devices.store(true, Ordering::Release);
    }

    /// Whether a device still works on the pages, as their dma-buf knows: they must not be written yet.
    pub fn is_in_devices(&self) -> bool {
        self.in_devices.load(Ordering::Acquire)
            && self.face(FaceKind::DmaBuf).is_some_and(|face| !dma_buf::is_idle(face.fd, Direction::Write))
    }

    /// Keeps something derived from the pages (an idle wrapper, a registration) with them, on a
    /// stack. It is dropped with the buffer, before the mapping. It must not hold an `Arc` of this
    /// buffer: that would be a cycle.
    pub fn attach<T: Any + Send + Sync>(&self, derived: T) {
        self.attached.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(derived));
    }

    /// What `look` finds in the `T`s that are attached, the first first.
    pub fn attached<T: Any + Send + Sync, R>(&self, look: impl FnMut(&T) -> Option<R>) -> Option<R> {
        let attached = self.attached.lock().unwrap_or_else(PoisonError::into_inner);
        attached.iter().filter_map(|derived| derived.downcast_ref()).find_map(look)
    }

    /// Takes back the `T` that was attached last.
    pub fn detach<T: Any + Send + Sync>(&self) -> Option<T> {
        let mut attached = self.attached.lock().unwrap_or_else(PoisonError::into_inner);
        let last = attached.iter().rposition(|derived| derived.is::<T>())?;
        let derived = attached.remove(last);
        drop(attached);
        derived.downcast().ok().map(|derived| *derived)
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer")
            .field("id", &self.id.0)
            .field("size", &self.size)
            .field("backing", &self.backing)
            .field("memory", &self.memory)
            .field("dma_buf", &self.dma_buf)
            .field("mapping", &self.mapping.get())
            .finish_non_exhaustive()
    }
}
