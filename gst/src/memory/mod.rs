//! Memories of GStreamer that are buffers of Pagecast.
//!
//! Each buffer has a `GstMemory` of its own, made by `gst_fd_allocator_alloc`, which lives as long as the
//! buffer: while nobody uses it, it is attached to the buffer; while it is used, it holds the buffer's
//! [`Lease`](pagecast::Lease) (a page to be filled) or [`Frame`](pagecast::Frame) (a page received). When its
//! last user, sub-memories included, lets go, `dispose` of the mini object puts it back: the one hook that
//! fires then and only then. So import caches that others key on the memory stay warm, and no mapping is made
//! per frame: `mem_map` returns the buffer's one mapping.

mod allocator;
mod find;
mod pool;
mod received;
mod slot;

pub use allocator::{DmaBufPageAllocator, PageAllocator};
pub use find::{Page, find};
pub use pool::PoolAllocator;
pub use received::ReceivedMemory;

use pagecast::FaceKind;

/// Whether a pool has room for a page of `size` bytes and `reserve` more.
fn has_room(pool: &pagecast::Pool, size: usize, reserve: u32) -> bool {
    let figures = pool.figures();
    let room = figures.limit.saturating_sub(figures.total) + figures.free;
    room >= pool.footprint(size.max(1)) as u64 * (u64::from(reserve) + 1)
}

/// Where the bytes of a memory are for an RDMA device, if they are a page of a pool that is registered with that
/// domain ([`Pool::register`](pagecast::Pool::register)).
pub fn registered(
    memory: &gst::MemoryRef,
    domain: &std::sync::Arc<pagecast::verbs::ProtectionDomain>,
) -> Option<pagecast::registration::Part> {
    let page = find(memory)?;
    pagecast::registration::part(&page.buffer, domain, page.offset, page.length)
}

/// A memory of a page to be filled, `size` bytes from `offset`; the page goes back to its pool with it.
pub fn from_lease(mut lease: pagecast::Lease, offset: usize, size: usize) -> Option<gst::Memory> {
    lease.end_writing();
    slot::wrap(slot::Hold::Lease(lease), FaceKind::Memory, offset, size)
}

/// The same of the page's dma-buf face, where it has one, for drivers that import.
fn dma_buf_from_lease(mut lease: pagecast::Lease, offset: usize, size: usize) -> Option<gst::Memory> {
    lease.end_writing();
    slot::wrap(slot::Hold::Lease(lease), FaceKind::DmaBuf, offset, size)
}

#[cfg(test)]
mod tests;
