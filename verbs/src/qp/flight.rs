//! What is in flight: the books that keep regions until the device is done with them.

use std::collections::VecDeque;
use std::sync::Arc;

use arrayvec::ArrayVec;

use super::MAX_PIECES;
use crate::{MemoryRegion, Side};

/// Regions of one request.
pub(crate) type Held = ArrayVec<Arc<MemoryRegion>, MAX_PIECES>;

/// One request that was posted.
pub(crate) struct Entry {
    pub(crate) token: u64,
    /// Whether its success is reported to the user.
    pub(crate) reported: bool,
    pub(crate) _held: Held,
}

/// One queue's requests, oldest first. The device ends them in this order: an entry that completes ends those before it.
pub(crate) struct Flight {
    side: Side,
    entries: VecDeque<Entry>,
    /// Number of the oldest entry.
    first: u64,
    depth: usize,
}

/// Set in the identifiers of receives: a failed completion does not say which queue it is from.
const RECEIVE: u64 = 1 << 63;

impl Flight {
    pub(crate) fn new(side: Side, depth: u32) -> Self {
        let depth = depth as usize;
        Self { side, entries: VecDeque::with_capacity(depth), first: 0, depth }
    }

    pub(crate) fn free(&self) -> usize {
        self.depth - self.entries.len()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The identifier of the request that will be `ahead` after the next.
    pub(crate) fn next_id(&self, ahead: usize) -> u64 {
        let number = (self.first + (self.entries.len() + ahead) as u64) & !RECEIVE;
        number | if self.side == Side::Receive { RECEIVE } else { 0 }
    }

    pub(crate) fn push(&mut self, entry: Entry) {
        debug_assert!(self.free() > 0);
        self.entries.push_back(entry);
    }

    /// Takes the newest `count` out again: the device did not take them.
    pub(crate) fn withdraw(&mut self, count: usize) {
        self.entries.truncate(self.entries.len() - count);
    }

    /// Ends the request of that identifier and those before it. `None` where no such request is in flight.
    pub(crate) fn end(&mut self, id: u64) -> Option<Entry> {
        let index = usize::try_from((id & !RECEIVE).checked_sub(self.first)?).ok()?;
        if index >= self.entries.len() {
            return None;
        }
        self.first += index as u64 + 1;
        self.entries.drain(..=index).next_back()
    }
}

/// Which queue an identifier belongs to.
pub(crate) fn side_of(id: u64) -> Side {
    if id & RECEIVE == 0 { Side::Send } else { Side::Receive }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(token: u64) -> Entry {
        Entry { token, reported: true, _held: Held::new() }
    }

    #[test]
    fn a_completion_ends_all_before_it_once() {
        let mut flight = Flight::new(Side::Send, 4);
        let ids: Vec<u64> = (0..4)
            .map(|token| {
                let id = flight.next_id(0);
                flight.push(entry(token));
                id
            })
            .collect();
        assert_eq!(flight.free(), 0);
        assert_eq!(flight.end(ids[2]).unwrap().token, 2);
        assert_eq!(flight.len(), 1);
        assert!(flight.end(ids[2]).is_none(), "told twice");
        assert!(flight.end(ids[3] + 1).is_none(), "never posted");
        assert_eq!(flight.end(ids[3]).unwrap().token, 3);
    }

    #[test]
    fn what_the_device_did_not_take_gets_its_number_again() {
        let mut flight = Flight::new(Side::Receive, 2);
        flight.push(entry(7));
        let id = flight.next_id(0);
        flight.push(entry(8));
        flight.withdraw(1);
        assert_eq!(flight.next_id(0), id);
        assert_eq!(side_of(id), Side::Receive);
        assert_eq!(flight.free(), 1);
    }
}
