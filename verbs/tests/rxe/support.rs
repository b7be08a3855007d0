//! Two connected ends, stamped pages, and a look from outside.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use pagecast_verbs::{
    Access, Completion, CompletionQueue, Depth, Device, Memory, MemoryRegion, ProtectionDomain, QueuePair,
    Timing, Verbs,
};

/// Where the testbed's two devices are.
pub(crate) const ADDRESSES: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1)), IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2))];
/// A stamp is in each block.
pub(crate) const BLOCK: usize = 64 << 10;
const DEPTH: Depth = Depth { send: 128, receive: 32, pieces: 4 };
/// Longer than any of it may take on a loaded machine.
const LONG: Duration = Duration::from_secs(60);

/// One test at a time: they count registrations and packets of the whole machine.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The library, where there are the two devices; else a skip.
pub(crate) fn testbed() -> Option<Verbs> {
    let found = Verbs::open().map_err(|error| error.to_string()).and_then(|verbs| {
        ADDRESSES
            .iter()
            .try_for_each(|address| verbs.device_for(*address).map(drop))
            .map_err(|error| error.to_string())?;
        Ok(verbs)
    });
    match found {
        Ok(verbs) => Some(verbs),
        Err(why) => {
            assert!(std::env::var_os("PAGECAST_TESTBED").is_none(), "the testbed must not skip: {why}");
            let thread = std::thread::current();
            let line = format!("\nSKIP: {}: {why}\n", thread.name().unwrap_or("?"));
            std::io::stdout().write_all(line.as_bytes()).unwrap();
            None
        }
    }
}

/// Anonymous pages, read and written by bytes.
pub(crate) struct Pages {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: bytes are accessed by volatile reads and writes only.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

impl Pages {
    pub(crate) fn new(len: usize) -> Self {
        let flags = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping, which is in nobody's way.
        let base = unsafe { mmap_anonymous(None, len.try_into().unwrap(), flags, MapFlags::MAP_PRIVATE) };
        Self { base: base.unwrap().cast(), len }
    }

    pub(crate) fn write(&self, at: usize, byte: u8) {
        assert!(at < self.len);
        // SAFETY: inside the mapping.
        unsafe { self.base.add(at).write_volatile(byte) };
    }

    fn read(&self, at: usize) -> u8 {
        assert!(at < self.len);
        // SAFETY: inside the mapping.
        unsafe { self.base.add(at).read_volatile() }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`, and unmapped once.
        unsafe { munmap(self.base.cast(), self.len).unwrap() };
    }
}

// SAFETY: mapped until dropped, and never referred to.
unsafe impl Memory for Pages {
    fn base(&self) -> NonNull<u8> {
        self.base
    }
    fn len(&self) -> usize {
        self.len
    }
}

/// What byte `at` of frame `frame` is.
fn expected(frame: u32, at: usize) -> u8 {
    (frame as usize * 31 + at / BLOCK * 7 + at % 251) as u8
}

/// Where each block is stamped: its first and last bytes, and some between.
fn places(len: usize) -> impl Iterator<Item = usize> {
    (0..len).step_by(1024).flat_map(|at| [at, at + 1023])
}

/// Fills pages with what `check` expects.
pub(crate) fn stamp(pages: &Pages, frame: u32) {
    places(pages.len).for_each(|at| pages.write(at, expected(frame, at)));
}

/// Whether all of a frame is there.
pub(crate) fn check(pages: &Pages, frame: u32) -> Result<(), usize> {
    places(pages.len).find(|at| pages.read(*at) != expected(frame, *at)).map_or(Ok(()), Err)
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

/// Two ends, connected.
pub(crate) fn pair(verbs: &Verbs, timing: Timing) -> (End, End) {
    let [mut a, mut b] = ADDRESSES.map(|address| End::new(verbs, address));
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

/// A registration, as the kernel tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Region {
    name: String,
    pub(crate) length: u64,
}

/// All registrations of processes: `rdma resource show mr`.
pub(crate) fn regions_seen_from_outside() -> Vec<Region> {
    let output = Command::new("rdma").args(["resource", "show", "mr"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace().skip_while(|word| *word != "mrlen");
            let length = words.nth(1)?.parse().ok()?;
            Some(Region { name: line.split(" mrlen ").next()?.into(), length })
        })
        .collect()
}
