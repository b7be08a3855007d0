//! What the devices of a world know. Objects are known by their addresses.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::RawFd;

use super::Inject;
use crate::ffi::*;

/// Which object: its address.
pub(super) type Key = usize;

#[derive(Clone)]
pub(super) struct Region {
    pub(super) object: Key,
    pub(super) domain: Key,
    /// As the device addresses it.
    pub(super) start: u64,
    pub(super) length: u64,
    /// Where the bytes are in this process.
    pub(super) base: usize,
    pub(super) access: i32,
}

/// A posted request.
pub(super) struct Work {
    pub(super) id: u64,
    pub(super) opcode: u32,
    pub(super) signalled: bool,
    pub(super) immediate: u32,
    pub(super) remote: (u64, u32),
    pub(super) pieces: Vec<ibv_sge>,
}

/// A posted receive.
pub(super) struct Receive {
    pub(super) id: u64,
    pub(super) pieces: Vec<ibv_sge>,
}

pub(super) struct Pair {
    pub(super) device: usize,
    pub(super) object: Key,
    pub(super) domain: Key,
    pub(super) queue: Key,
    pub(super) state: u32,
    pub(super) peer: u32,
    pub(super) depth: (u32, u32),
    pub(super) sends: VecDeque<Work>,
    pub(super) receives: VecDeque<Receive>,
}

pub(super) struct Queue {
    pub(super) device: usize,
    pub(super) capacity: usize,
    pub(super) armed: bool,
    /// The channel's eventfd.
    pub(super) event: RawFd,
    pub(super) done: VecDeque<ibv_wc>,
}

#[derive(Default)]
pub(super) struct DeviceState {
    pub(super) removed: bool,
    /// eventfds of open contexts, with what they have not read yet.
    pub(super) contexts: BTreeMap<Key, (RawFd, VecDeque<u32>)>,
}

pub(super) struct Model {
    pub(super) devices: Vec<DeviceState>,
    /// With the context each belongs to.
    pub(super) domains: BTreeMap<Key, Key>,
    /// By key, which is lkey and rkey.
    pub(super) regions: BTreeMap<u32, Region>,
    pub(super) queues: BTreeMap<Key, Queue>,
    /// By number.
    pub(super) pairs: BTreeMap<u32, Pair>,
    pub(super) injected: Vec<Inject>,
    pub(super) held: bool,
    pub(super) receives_first: bool,
    /// Bytes of one message.
    pub(super) max_message: u32,
    pub(super) violations: Vec<String>,
    next: u32,
}

impl Model {
    pub(super) fn new(devices: usize) -> Self {
        Self {
            devices: (0..devices).map(|_| DeviceState::default()).collect(),
            domains: BTreeMap::new(),
            regions: BTreeMap::new(),
            queues: BTreeMap::new(),
            pairs: BTreeMap::new(),
            injected: Vec::new(),
            held: false,
            receives_first: false,
            max_message: 1 << 30,
            violations: Vec::new(),
            next: 16,
        }
    }

    /// A number that was never used.
    pub(super) fn number(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    /// Takes the first injected fault that `fits`.
    pub(super) fn fault<T>(&mut self, fits: impl Fn(&Inject) -> Option<T>) -> Option<T> {
        let (index, value) =
            self.injected.iter().enumerate().find_map(|(i, fault)| Some((i, fits(fault)?)))?;
        self.injected.remove(index);
        Some(value)
    }

    pub(super) fn violation(&mut self, what: impl Into<String>) {
        self.violations.push(what.into());
    }

    pub(super) fn objects(&self) -> usize {
        let contexts: usize = self.devices.iter().map(|device| device.contexts.len()).sum();
        contexts + self.domains.len() + self.queues.len() + self.pairs.len()
    }

    /// Whether posted work names the region of that key.
    pub(super) fn in_use(&self, key: u32) -> bool {
        let names = |pieces: &[ibv_sge]| pieces.iter().any(|piece| piece.lkey == key);
        self.pairs.values().any(|pair| {
            pair.sends.iter().any(|work| names(&work.pieces))
                || pair.receives.iter().any(|work| names(&work.pieces))
        })
    }

    /// Reports a completion, and wakes who asked for it.
    pub(super) fn complete(&mut self, queue: Key, wc: ibv_wc) {
        let Some(found) = self.queues.get_mut(&queue) else { return };
        if self.devices[found.device].removed {
            return;
        }
        found.done.push_back(wc);
        let overrun = found.done.len() > found.capacity;
        if std::mem::take(&mut found.armed) {
            super::objects::signal(found.event);
        }
        if overrun {
            self.violation("a completion queue overran");
        }
    }

    pub(super) fn remove(&mut self, device: usize) {
        let state = &mut self.devices[device];
        state.removed = true;
        for (event, unread) in state.contexts.values_mut() {
            unread.push_back(IBV_EVENT_DEVICE_FATAL);
            super::objects::signal(*event);
        }
    }
}
