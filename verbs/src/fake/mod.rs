//! A filler of the function table that needs no device, moves bytes inside of this process, and forces what devices do
//! seldom: refusals, failed work, late and reordered flushes, removal. It also notices what must never happen (see
//! [`Fake::violations`]). For tests.

mod calls;
mod engine;
mod model;
mod objects;

use std::collections::BTreeMap;
use std::ffi::{CString, c_int};
use std::net::IpAddr;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;

use self::model::Model;
use self::objects::FakeDevice;
use crate::Verbs;
use crate::ffi::*;

/// A fault that happens once, at the next call or the next work it fits.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inject {
    /// A call that makes or sets up something fails with this errno.
    Call(Call, i32),
    /// A registration fails with this errno.
    Register(i32),
    /// A registration of a dma-buf fails with this errno.
    RegisterDmaBuf(i32),
    /// A post of sends is refused with this errno after `taken` requests.
    Post {
        /// Requests that are taken.
        taken: usize,
        /// What is said of the rest.
        errno: i32,
    },
    /// Work on a send queue ends with this `enum ibv_wc_status`.
    Work(u32),
    /// The destruction of a queue pair fails with this errno.
    DestroyQueuePair(i32),
    /// A completion for work that was never posted.
    StrayCompletion,
}

/// A call that can be made to fail.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// `ibv_open_device`.
    Open,
    /// `ibv_alloc_pd`.
    Domain,
    /// `ibv_create_comp_channel`.
    Channel,
    /// `ibv_create_cq`.
    CompletionQueue,
    /// `ibv_create_qp`.
    QueuePair,
    /// `ibv_modify_qp`.
    Modify,
    /// `ibv_post_recv`.
    PostReceive,
}

impl Call {
    /// Its name in verbs.h.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "ibv_open_device",
            Self::Domain => "ibv_alloc_pd",
            Self::Channel => "ibv_create_comp_channel",
            Self::CompletionQueue => "ibv_create_cq",
            Self::QueuePair => "ibv_create_qp",
            Self::Modify => "ibv_modify_qp",
            Self::PostReceive => "ibv_post_recv",
        }
    }
}

/// The world of some fake devices that reach each other.
pub struct Fake {
    world: Arc<World>,
}

pub(super) struct World {
    id: c_int,
    devices: Vec<&'static FakeDevice>,
    model: Mutex<Model>,
}

static WORLDS: Mutex<BTreeMap<c_int, Arc<World>>> = Mutex::new(BTreeMap::new());
static NEXT: AtomicI32 = AtomicI32::new(1);

fn worlds() -> MutexGuard<'static, BTreeMap<c_int, Arc<World>>> {
    WORLDS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    fn find(id: c_int) -> Option<Arc<Self>> {
        worlds().get(&id).cloned()
    }

    /// The error that this call is to fail with.
    fn refuses(&self, call: Call) -> Option<Errno> {
        self.model().fault(|fault| match fault {
            Inject::Call(wanted, errno) if *wanted == call => Some(Errno::from_raw(*errno)),
            _ => None,
        })
    }

    fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fake {
    /// One device for each of the addresses, named `fakeW-0`, `fakeW-1`, … Each has a useless entry at GID index 0.
    pub fn new(addresses: &[IpAddr]) -> Self {
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let device = |(index, address): (usize, &IpAddr)| -> &'static FakeDevice {
            let name = CString::new(format!("fake{id}-{index}")).unwrap_or_default();
            // pointers to devices may be used after their list was freed
            Box::leak(Box::new(FakeDevice {
                base: ibv_device { _ops: [0; 2], node_type: 1, transport_type: IBV_TRANSPORT_IB },
                name,
                world: id,
                index,
                address: *address,
            }))
        };
        let devices: Vec<_> = addresses.iter().enumerate().map(device).collect();
        let model = Mutex::new(Model::new(devices.len()));
        let world = Arc::new(World { id, devices, model });
        worlds().insert(id, world.clone());
        Self { world }
    }

    /// The verbs of this world.
    pub fn verbs(&self) -> Verbs {
        Verbs::of_world(calls::table(), self.world.id)
    }

    /// Forces a fault.
    pub fn inject(&self, fault: Inject) {
        self.world.model().injected.push(fault);
    }

    /// From now on work is taken, and neither done nor flushed.
    pub fn hold(&self) {
        self.world.model().held = true;
    }

    /// Does `count` pieces of the held work of each queue pair.
    pub fn step(&self, count: usize) {
        self.world.model().step(count);
    }

    /// Does all that was held, and holds no more.
    pub fn release(&self) {
        self.world.model().release();
    }

    /// Whether queue pairs in error report their receives before their sends. Either order is right.
    pub fn flush_receives_first(&self, first: bool) {
        self.world.model().receives_first = first;
    }

    /// Messages have at most so many bytes; 1 GiB where nobody says so. Ports that were asked before do not know of it.
    pub fn limit_messages(&self, bytes: u32) {
        self.world.model().max_message = bytes;
    }

    /// Takes a device away: all calls fail but those that free something, and nothing completes any more.
    pub fn remove(&self, device: usize) {
        self.world.model().remove(device);
    }

    /// Registrations that exist.
    pub fn registrations(&self) -> usize {
        self.world.model().regions.len()
    }

    /// Queue pairs, completion queues, domains and contexts that exist.
    pub fn objects(&self) -> usize {
        self.world.model().objects()
    }

    /// What must never happen, and did: a region deregistered with work in flight, an object freed while others need it, a
    /// completion queue that overran.
    pub fn violations(&self) -> Vec<String> {
        self.world.model().violations.clone()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        worlds().remove(&self.world.id);
    }
}

/// Status numbers for [`Inject::Work`], as in verbs.h.
pub mod status {
    /// The peer does not answer.
    pub const RETRY_EXCEEDED: u32 = super::IBV_WC_RETRY_EXC_ERR;
    /// The peer has no receive posted.
    pub const RNR_RETRY_EXCEEDED: u32 = super::IBV_WC_RNR_RETRY_EXC_ERR;
    /// Our key or address is wrong.
    pub const LOCAL_PROTECTION: u32 = super::IBV_WC_LOC_PROT_ERR;
    /// The device failed.
    pub const FATAL: u32 = 19;
}
