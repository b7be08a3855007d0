//! Two connected ends.

use std::net::IpAddr;
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use pagecast_verbs::{
    Access, Completion, CompletionQueue, Depth, Device, Doorbell, MemoryRegion, ProtectionDomain, QueuePair,
    Remote, Slice, Timing, Verbs, WorkError, Write,
};

use crate::pages::Pages;

const DEPTH: Depth = Depth { send: 128, receive: 32, pieces: 4 };
/// Longer than any of it may take on a loaded machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// Verbs with two devices.
pub(crate) struct Scene {
    pub(crate) verbs: Verbs,
    pub(crate) addresses: [IpAddr; 2],
    /// Keeps other tests away, where they would disturb.
    pub(crate) _alone: Option<MutexGuard<'static, ()>>,
}

/// One end of a connection.
pub(crate) struct End {
    pub(crate) queue: QueuePair,
    domain: Arc<ProtectionDomain>,
    pub(crate) device: Arc<Device>,
    seen: Vec<Completion>,
}

impl End {
    fn new(verbs: &Verbs, address: IpAddr) -> Self {
        let (device, gid) = verbs.device_for(address).unwrap();
        let domain = ProtectionDomain::new(&device).unwrap();
        let completions = CompletionQueue::new(&device, DEPTH.completions()).unwrap();
        let queue = QueuePair::new(&domain, completions, &gid, DEPTH).unwrap();
        Self { queue, domain, device, seen: Vec::new() }
    }

    pub(crate) fn domain(&self) -> &Arc<ProtectionDomain> {
        &self.domain
    }

    pub(crate) fn register(&self, len: usize, access: Access) -> (Arc<MemoryRegion>, Arc<Pages>) {
        let pages = Arc::new(Pages::new(len));
        (MemoryRegion::register(&self.domain, pages.clone(), access).unwrap(), pages)
    }
}

/// Two ends that are not connected.
pub(crate) fn ends(scene: &Scene) -> [End; 2] {
    scene.addresses.map(|address| End::new(&scene.verbs, address))
}

/// Two ends, connected.
pub(crate) fn pair(scene: &Scene, timing: Timing) -> (End, End) {
    let [mut a, mut b] = ends(scene);
    let (at_a, at_b) = (a.queue.endpoint(), b.queue.endpoint());
    a.queue.connect(&at_b, timing).unwrap();
    b.queue.connect(&at_a, timing).unwrap();
    (a, b)
}

/// The next completion.
pub(crate) fn completion(end: &mut End) -> Completion {
    let deadline = Instant::now() + LONG;
    while end.seen.is_empty() {
        assert!(Instant::now() < deadline, "nothing completed");
        end.queue.wait(&mut end.seen, deadline).unwrap();
    }
    end.seen.remove(0)
}

/// Where `region` is for its peer.
pub(crate) fn remote(region: &MemoryRegion) -> Remote {
    Remote { address: region.address(), rkey: region.rkey() }
}

/// Sends all of `from` to `to`, in writes of `step` bytes, and a doorbell with `value`.
pub(crate) fn send_frame(end: &mut End, from: &Arc<MemoryRegion>, to: Remote, step: usize, value: u32) {
    let slices: Vec<[Slice<'_>; 1]> = (0..from.length())
        .step_by(step)
        .map(|offset| [Slice { region: from, offset, length: step as u32 }])
        .collect();
    let writes: Vec<Write<'_>> = slices
        .iter()
        .map(|slice| Write { from: slice, to: Remote { address: to.address + slice[0].offset, ..to } })
        .collect();
    let doorbell = Doorbell::Immediate { write: Write { from: &[], to }, value };
    end.queue.post_frame(value.into(), &writes, doorbell).unwrap();
}

/// The first completion that failed, and not because of another.
pub(crate) fn failure(end: &mut End) -> WorkError {
    loop {
        if let Err(error) = completion(end).outcome {
            return error;
        }
    }
}
