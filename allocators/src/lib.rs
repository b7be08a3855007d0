//! Where the pages of Pagecast come from, and their faces.
//!
//! A [`Buffer`] is one allocation of pages with one owner and **one mapping** in this process. A
//! [`Backing`] makes buffers; each buffer can be reached through its faces ([`FaceKind`]): a memfd
//! that others can map but never write ([`AccessMode::Enforced`]), and, where the machine has
//! `/dev/udmabuf`, a dma-buf of the *same pages* that devices can import
//! ([`AccessMode::Cooperative`]).
//!
//! ```
//! use pagecast_allocators::{Backing, BackingChoice, FaceKind, Wants, open};
//!
//! let backing = open(BackingChoice::Auto);
//! let buffer = backing.allocate(100_000, &Wants::default())?;
//! buffer.mapping().unwrap().copy_from(0, b"written once")?;
//!
//! // What a subscriber does with the descriptor of the memory face that it received:
//! let fd = buffer.face(FaceKind::Memory).unwrap().fd.try_clone_to_owned()?;
//! let theirs = pagecast_allocators::receive::memory(fd, buffer.size() as u64)?;
//! let mut seen = [0; 12];
//! theirs.mapping().unwrap().copy_to(0, &mut seen)?;
//! assert_eq!(&seen, b"written once");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Three ways lead to a buffer: [`Backing::allocate`] (our own pages), [`receive`] (a subscriber
//! checks and maps what a publisher sent) and [`foreign`] (a publisher passes on what upstream
//! allocated).

mod backing;
mod buffer;
pub mod dma_buf;
mod error;
mod face;
mod fence;
pub mod foreign;
mod inspect;
mod ioctl;
mod mapping;
mod page;
pub mod receive;
mod udmabuf;

#[cfg(feature = "fault-injection")]
#[doc(hidden)]
pub use backing::Fault;
pub use backing::{
    Backing, BackingChoice, BackingKind, DmaHeapBacking, DrmDumbBacking, Fallback, HugetlbBacking,
    MemfdBacking, Wants, WithFallback, open,
};
pub use buffer::{Buffer, BufferId};
pub use error::{AccessError, AllocError, FaceAbsent, ImportError, NotShareable, UnknownName};
pub use face::{AccessMode, Face, FaceKind};
pub use fence::Fence;
pub use mapping::Mapping;
pub use page::PageSize;

/// The largest buffer, in bytes: 4 GiB. Allocation and import refuse more.
pub const MAX_BUFFER_SIZE: u64 = 4 << 30;
