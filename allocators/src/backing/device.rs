//! Backings of devices that are opened when they are first needed, so that a pool of them can be made anywhere.

use std::path::PathBuf;
use std::sync::OnceLock;

use super::{Backing, BackingKind, DmaHeapBacking, DrmDumbBacking, Wants};
use crate::{AllocError, Buffer, PageSize};

#[derive(Debug)]
enum Device {
    Heap(String),
    Card(Option<PathBuf>),
}

#[derive(Debug)]
pub(super) struct DeviceBacking {
    device: Device,
    opened: OnceLock<Box<dyn Backing>>,
}

impl DeviceBacking {
    pub(super) fn heap(name: String) -> Self {
        Self { device: Device::Heap(name), opened: OnceLock::new() }
    }

    /// `None`: the first card that makes dumb buffers.
    pub(super) fn card(path: Option<PathBuf>) -> Self {
        Self { device: Device::Card(path), opened: OnceLock::new() }
    }

    /// A device that cannot be opened now may be there the next time.
    fn open(&self) -> Result<&dyn Backing, AllocError> {
        if let Some(opened) = self.opened.get() {
            return Ok(&**opened);
        }
        let opened: Box<dyn Backing> = match &self.device {
            Device::Heap(name) => Box::new(DmaHeapBacking::open(name)?),
            Device::Card(Some(path)) => Box::new(DrmDumbBacking::open(path)?),
            Device::Card(None) => Box::new(DrmDumbBacking::first()?),
        };
        Ok(&**self.opened.get_or_init(|| opened))
    }
}

impl Backing for DeviceBacking {
    fn kind(&self) -> BackingKind {
        match self.device {
            Device::Heap(_) => BackingKind::DmaHeap,
            Device::Card(_) => BackingKind::DrmDumb,
        }
    }

    fn granularity(&self) -> usize {
        PageSize::of_machine().bytes()
    }

    fn check(&self) -> Result<(), AllocError> {
        self.open()?.check()
    }

    fn allocate(&self, size: usize, wants: &Wants) -> Result<Buffer, AllocError> {
        self.open()?.allocate(size, wants)
    }
}
