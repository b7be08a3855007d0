//! The buffers that nobody uses, and the count of all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pagecast_allocators::Buffer;
use pagecast_allocators::dma_buf::DEVICE_LIMIT;

/// How long a device may work on a buffer that was given back; then the pool lets go of it.
const RESTING: Duration = DEVICE_LIMIT;

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) free: BTreeMap<usize, Vec<Arc<Buffer>>>,
    pub(super) free_bytes: u64,
    /// Buffers that came back before devices were done with them, and when that was.
    resting: Vec<(Arc<Buffer>, Instant)>,
    pub(super) total: u64,
    pub(super) buffers: usize,
    pub(super) allocated: u64,
}

impl State {
    /// Buffers that devices are done with are free again; those that took too long are no longer the pool's.
    pub(super) fn look_at_resting(&mut self, retired: &mut Vec<Arc<Buffer>>) {
        for at in (0..self.resting.len()).rev() {
            let (buffer, since) = &self.resting[at];
            let (busy, late) = (buffer.is_in_devices(), since.elapsed() >= RESTING);
            if busy && !late {
                continue;
            }
            let (buffer, _) = self.resting.swap_remove(at);
            if busy {
                self.total -= buffer.size() as u64;
                self.buffers -= 1;
                retired.push(buffer);
            } else {
                self.put(buffer);
            }
        }
    }

    /// The best free buffer: of this class, else one not more than twice as large as needed.
    pub(super) fn take(&mut self, size: usize, footprint: usize) -> Option<Arc<Buffer>> {
        let most = footprint.max(size.saturating_mul(2));
        let (&class, _) = self.free.range(size..=most).next()?;
        self.take_class(class)
    }

    /// The largest free buffer.
    pub(super) fn take_any(&mut self) -> Option<Arc<Buffer>> {
        let (&class, _) = self.free.last_key_value()?;
        let buffer = self.take_class(class)?;
        self.total -= buffer.size() as u64;
        self.buffers -= 1;
        Some(buffer)
    }

    fn take_class(&mut self, class: usize) -> Option<Arc<Buffer>> {
        let buffers = self.free.get_mut(&class)?;
        let buffer = buffers.pop()?;
        if buffers.is_empty() {
            self.free.remove(&class);
        }
        self.free_bytes -= class as u64;
        Some(buffer)
    }

    fn put(&mut self, buffer: Arc<Buffer>) {
        self.free_bytes += buffer.size() as u64;
        self.free.entry(buffer.size()).or_default().push(buffer);
    }

    /// Takes in a buffer that nobody uses any more; one that devices still work on (`busy`) rests first.
    pub(super) fn give_back(&mut self, buffer: Arc<Buffer>, busy: bool) {
        if buffer.is_spent() {
            self.total -= buffer.size() as u64;
            self.buffers -= 1;
        } else if busy {
            self.resting.push((buffer, Instant::now()));
        } else {
            self.put(buffer);
        }
    }
}
