//! Backings one after another, with every fallback named and counted.

use std::fmt;
use std::mem::{Discriminant, discriminant};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use super::{Backing, BackingKind, DeviceBacking, HugetlbBacking, MemfdBacking, Wants};
use crate::{AllocError, Buffer, UnknownName};

/// Which backing a user asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BackingChoice {
    /// Huge pages where they are reserved and not wasted, else ordinary pages.
    #[default]
    Auto,
    /// Ordinary pages.
    Memfd,
    /// Huge pages; ordinary ones where the reservation fails.
    Hugetlb,
    /// The dma-heap of this name. Its buffers have a dma-buf face only; nothing else takes its place.
    DmaHeap(String),
    /// Dumb buffers of this DRM device, or of the first that makes some. As with heaps, nothing takes its place.
    DrmDumb(Option<PathBuf>),
}

/// The heap that every kernel with heaps has.
const COMMON_HEAP: &str = "system";

impl fmt::Display for BackingChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.pad("auto"),
            Self::Memfd => f.pad("memfd"),
            Self::Hugetlb => f.pad("hugetlb"),
            Self::DmaHeap(name) => write!(f, "dma-heap:{name}"),
            Self::DrmDumb(None) => f.pad("drm-dumb"),
            Self::DrmDumb(Some(path)) => write!(f, "drm-dumb:{}", path.display()),
        }
    }
}

impl FromStr for BackingChoice {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        let (kind, device) = name.split_once(':').map_or((name, None), |(kind, device)| (kind, Some(device)));
        match (kind, device) {
            ("auto", None) => Ok(Self::Auto),
            ("memfd", None) => Ok(Self::Memfd),
            ("hugetlb", None) => Ok(Self::Hugetlb),
            ("dma-heap", device) if device != Some("") => {
                Ok(Self::DmaHeap(device.unwrap_or(COMMON_HEAP).to_owned()))
            }
            ("drm-dumb", device) if device != Some("") => Ok(Self::DrmDumb(device.map(PathBuf::from))),
            _ => Err(UnknownName {
                what: "backing",
                name: name.into(),
                known: "auto, memfd, hugetlb, dma-heap[:NAME], drm-dumb[:DEVICE]",
            }),
        }
    }
}

/// Buffers came from another backing than the preferred one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fallback {
    /// The backing that could not.
    pub from: BackingKind,
    /// The backing that did.
    pub to: BackingKind,
    /// Why, and what would help.
    pub reason: String,
    /// How many buffers.
    pub count: u64,
}

/// Tries backings in order of preference, and remembers each fallback.
///
/// It falls back on what another backing may not suffer from (no huge pages, no memory, a face
/// that cannot be had), not on what is wrong with the request or the process.
#[derive(Debug)]
pub struct WithFallback {
    first: Box<dyn Backing>,
    rest: Vec<Box<dyn Backing>>,
    recorded: Mutex<Vec<(Discriminant<AllocError>, Fallback)>>,
}

impl WithFallback {
    /// Prefers `first`, then those of `rest` in their order.
    pub fn new(first: Box<dyn Backing>, rest: Vec<Box<dyn Backing>>) -> Self {
        Self { first, rest, recorded: Mutex::default() }
    }

    /// The fallbacks so far.
    pub fn fallbacks(&self) -> Vec<Fallback> {
        let recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        recorded.iter().map(|(_, fallback)| fallback.clone()).collect()
    }

    /// Sizes are rounded up to a multiple of this by whichever of the backings rounds least.
    pub fn finest_granularity(&self) -> usize {
        let rest = self.rest.iter().map(|backing| backing.granularity());
        rest.fold(self.granularity(), usize::min)
    }

    fn record(&self, to: BackingKind, error: &AllocError) {
        let (from, reason) = (self.kind(), error.to_string());
        let cause = discriminant(error);
        let mut recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        // One entry per cause: its numbers may differ each time, and the latest are shown.
        let known = recorded.iter_mut().find(|(c, f)| *c == cause && f.from == from && f.to == to);
        if let Some((_, known)) = known {
            known.count += 1;
            known.reason = reason;
        } else {
            recorded.push((cause, Fallback { from, to, reason, count: 1 }));
        }
    }
}

impl Backing for WithFallback {
    fn kind(&self) -> BackingKind {
        self.first.kind()
    }

    fn granularity(&self) -> usize {
        self.first.granularity()
    }

    fn check(&self) -> Result<(), AllocError> {
        self.first.check()
    }

    fn allocate(&self, size: usize, wants: &Wants) -> Result<Buffer, AllocError> {
        let mut failed = match self.first.allocate(size, wants) {
            Err(error) if error.is_worth_a_fallback() => error,
            done => return done,
        };
        for backing in &self.rest {
            match backing.allocate(size, wants) {
                Ok(buffer) => {
                    self.record(buffer.backing(), &failed);
                    return Ok(buffer);
                }
                Err(error) if error.is_worth_a_fallback() => failed = error,
                Err(error) => return Err(error),
            }
        }
        Err(failed)
    }
}

/// Huge pages, but not for buffers that would leave most of one unused.
#[derive(Debug, Default)]
struct FrugalHugetlb(HugetlbBacking);

impl FrugalHugetlb {
    fn least(&self) -> usize {
        self.granularity() / 2
    }
}

impl Backing for FrugalHugetlb {
    fn kind(&self) -> BackingKind {
        self.0.kind()
    }

    fn granularity(&self) -> usize {
        self.0.granularity()
    }

    fn allocate(&self, size: usize, wants: &Wants) -> Result<Buffer, AllocError> {
        if (1..self.least()).contains(&size) {
            return Err(AllocError::TooSmallForHugepages { least: self.least() });
        }
        self.0.allocate(size, wants)
    }
}

/// The backing for a user's choice. Devices are opened when they are first needed: see [`Backing::check`].
pub fn open(choice: BackingChoice) -> WithFallback {
    let memfd: Box<dyn Backing> = Box::new(MemfdBacking::new());
    match choice {
        BackingChoice::Memfd => WithFallback::new(memfd, Vec::new()),
        BackingChoice::Auto => WithFallback::new(Box::<FrugalHugetlb>::default(), vec![memfd]),
        BackingChoice::Hugetlb => WithFallback::new(Box::new(HugetlbBacking::new()), vec![memfd]),
        BackingChoice::DmaHeap(name) => WithFallback::new(Box::new(DeviceBacking::heap(name)), Vec::new()),
        BackingChoice::DrmDumb(path) => WithFallback::new(Box::new(DeviceBacking::card(path)), Vec::new()),
    }
}
