//! Dumb buffers of a DRM device: memory that its display can show.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use drm::buffer::DrmFourcc;
use drm::control::Device as _;
use nix::errno::Errno;

use super::{Backing, BackingKind, Wants, exported, rounded};
use crate::error::errno_of;
use crate::{AllocError, Buffer, PageSize};

/// Where DRM devices are.
const FOLDER: &str = "/dev/dri";

/// Bytes of a line: a page of the smallest kind, so that drivers need not pad it.
const LINE: u32 = 4096;

#[derive(Debug)]
struct Card(File);

impl AsFd for Card {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl drm::Device for Card {}
impl drm::control::Device for Card {}

/// Allocates dumb buffers, and exports them. They have a dma-buf face and no other: they are for displays and other
/// devices, and for subscribers that may write. The CPU must say when it touches them
/// ([`CpuAccess`](crate::dma_buf::CpuAccess)).
#[derive(Debug)]
pub struct DrmDumbBacking {
    path: PathBuf,
    card: Card,
}

impl DrmDumbBacking {
    /// Those of a device: `/dev/dri/card0`, …
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open(path: &Path) -> Result<Self, AllocError> {
        let card =
            File::options().read(true).write(true).open(path).map_err(|error| match errno_of(&error) {
                Errno::EMFILE => AllocError::TooManyFiles,
                Errno::ENFILE => AllocError::TooManyFilesInSystem,
                errno => AllocError::NoCard { path: path.to_owned(), errno },
            })?;
        Ok(Self { path: path.to_owned(), card: Card(card) })
    }

    /// Those of the first device that makes some.
    ///
    /// # Errors
    /// Why the last one does not, or that there is none.
    pub fn first() -> Result<Self, AllocError> {
        let entries = fs::read_dir(FOLDER).into_iter().flatten().flatten();
        let is_card = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with("card");
        let mut cards: Vec<_> = entries.filter(is_card).map(|entry| entry.path()).collect();
        cards.sort();
        let mut failed = AllocError::NoCard { path: FOLDER.into(), errno: Errno::ENOENT };
        for path in cards {
            let tried = Self::open(&path).and_then(|card| card.check().map(|()| card));
            match tried {
                Err(error) => failed = error,
                card => return card,
            }
        }
        Err(failed)
    }

    fn export(&self, size: usize) -> io::Result<OwnedFd> {
        let lines = u32::try_from(size / LINE as usize).map_err(|_| Errno::ENOMEM)?;
        let dumb = self.card.create_dumb_buffer((LINE, lines), DrmFourcc::R8, 8)?;
        let fd = self.card.buffer_to_prime_fd(drm::buffer::Buffer::handle(&dumb), drm::CLOEXEC | drm::RDWR);
        // The dma-buf keeps the pages; the handle would keep them for as long as the device is open.
        self.card.destroy_dumb_buffer(dumb)?;
        fd
    }
}

impl Backing for DrmDumbBacking {
    fn kind(&self) -> BackingKind {
        BackingKind::DrmDumb
    }

    fn granularity(&self) -> usize {
        PageSize::of_machine().bytes()
    }

    fn check(&self) -> Result<(), AllocError> {
        self.allocate(1, &Wants::default()).map(drop)
    }

    fn allocate(&self, size: usize, wants: &Wants) -> Result<Buffer, AllocError> {
        exported::check_wants(self.kind(), wants)?;
        let size = rounded(size, self.granularity())?;
        let fd = self.export(size).map_err(|error| match errno_of(&error) {
            errno @ (Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EACCES | Errno::ENOTTY) => {
                AllocError::NoDumbBuffers { path: self.path.clone(), errno }
            }
            errno => AllocError::from_errno("a dumb buffer", errno, size),
        })?;
        exported::build(self.kind(), fd, size)
    }
}
