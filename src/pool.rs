//! Buffers that are filled, published and used again.

mod sizes;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use pagecast_allocators::dma_buf::{CpuAccess, DEVICE_LIMIT, Direction, end_access};
use pagecast_allocators::{
    AccessError, AllocError, Backing, BackingChoice, BackingKind, Buffer, Fallback, HugetlbBacking, Wants,
    WithFallback,
};
use pagecast_verbs::{Access, ProtectionDomain, RegisterError};

use crate::registration::Registrar;
use sizes::Sizes;

/// How long a device may work on a buffer that was given back; then the pool lets go of it.
const RESTING: Duration = DEVICE_LIMIT;

/// How long [`Pool::acquire_by`] sleeps between two looks at an exhausted pool.
const RETRY: Duration = Duration::from_millis(1);

/// What a pool is made of.
#[derive(Clone, Debug)]
pub struct PoolOptions {
    /// Where the pages come from.
    pub backing: BackingChoice,
    /// The most bytes of all its buffers together.
    pub limit: u64,
    /// What its buffers must be able to do.
    pub wants: Wants,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self { backing: BackingChoice::Auto, limit: 1 << 30, wants: Wants::default() }
    }
}

/// Why there is no buffer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// Every buffer within the limit is in use.
    #[error(
        "the pool's limit of {limit} bytes is reached and no buffer of {size} bytes is free: raise pool-limit, or let subscribers hold fewer frames"
    )]
    Exhausted {
        /// Bytes asked for.
        size: usize,
        /// The pool's limit.
        limit: u64,
    },
    /// A single buffer would be larger than the whole pool may be.
    #[error("a buffer of {size} bytes is larger than the pool's limit of {limit} bytes: raise pool-limit")]
    LargerThanPool {
        /// Bytes asked for.
        size: usize,
        /// The pool's limit.
        limit: u64,
    },
    /// The caller was told to stop waiting.
    #[error("waiting for a buffer was cancelled")]
    Cancelled,
    /// The pages could not be had.
    #[error(transparent)]
    Alloc(#[from] AllocError),
}

/// Can find buffers that were given back but not looked at yet; a publisher is one.
pub trait Reclaim: Send + Sync {
    /// Looks for returned frames, without waiting.
    fn reclaim(&self);
}

/// Figures of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolFigures {
    /// Bytes of all buffers.
    pub total: u64,
    /// Bytes of the buffers that are free.
    pub free: u64,
    /// The most bytes there may be.
    pub limit: u64,
    /// Number of buffers.
    pub buffers: usize,
    /// Buffers allocated so far, in all.
    pub allocated: u64,
    /// Registrations of its buffers with RDMA devices.
    pub registrations: u64,
}

#[derive(Debug, Default)]
struct State {
    free: BTreeMap<usize, Vec<Arc<Buffer>>>,
    free_bytes: u64,
    /// Buffers that came back before devices were done with them, and when that was.
    resting: Vec<(Arc<Buffer>, Instant)>,
    total: u64,
    buffers: usize,
    allocated: u64,
}

struct Shared {
    backing: WithFallback,
    sizes: Sizes,
    options: PoolOptions,
    state: Mutex<State>,
    reclaimers: Mutex<Vec<Weak<dyn Reclaim>>>,
    registrar: Registrar,
}

/// Buffers of one backing, reused last-in first-out so that their pages stay warm. Clones share it.
#[derive(Clone)]
pub struct Pool(Arc<Shared>);

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("options", &self.0.options).field("figures", &self.figures()).finish()
    }
}

impl Pool {
    /// An empty pool; buffers are made when they are first needed, or by [`Pool::populate`].
    pub fn new(options: PoolOptions) -> Self {
        Self::of(pagecast_allocators::open(options.backing.clone()), options)
    }

    /// A pool of somebody's own backing.
    pub fn with_backing(backing: Box<dyn Backing>, options: PoolOptions) -> Self {
        Self::of(WithFallback::new(backing, Vec::new()), options)
    }

    fn of(backing: WithFallback, options: PoolOptions) -> Self {
        let (page, preferred) = (backing.finest_granularity().max(1), backing.granularity());
        let always_huge = options.backing == BackingChoice::Hugetlb;
        // Where no huge page is reserved, `auto` will not have any.
        let reserved = options.backing != BackingChoice::Auto || HugetlbBacking::pages_available() > 0;
        let huge = (preferred > page && reserved).then_some(preferred);
        let sizes = Sizes { page, huge, always_huge };
        let state = Mutex::default();
        Self(Arc::new(Shared {
            backing,
            sizes,
            options,
            state,
            reclaimers: Mutex::default(),
            registrar: Registrar::default(),
        }))
    }

    /// Whether the backing can be used at all: the device of one that has a device is opened.
    ///
    /// # Errors
    /// What is in the way, and what would help.
    pub fn check(&self) -> Result<(), PoolError> {
        Ok(self.0.backing.check()?)
    }

    /// A buffer of at least `size` bytes, exclusively the caller's until it is published; never waits.
    ///
    /// # Errors
    /// [`PoolError::Exhausted`] when all are in use; otherwise what the backing says.
    pub fn acquire(&self, size: usize) -> Result<Lease, PoolError> {
        match self.try_acquire(size) {
            Err(PoolError::Exhausted { .. }) => {
                self.reclaim();
                self.try_acquire(size)
            }
            result => result,
        }
    }

    /// A buffer that is there and free; none is made.
    pub(crate) fn acquire_free(&self, size: usize) -> Option<Lease> {
        let buffer = self.state().take(size, self.footprint(size.max(1)));
        buffer.map(|buffer| self.lease(buffer))
    }

    /// As [`Pool::acquire`], but waits until `deadline` (`None`: for ever) while `go_on` says so.
    ///
    /// # Errors
    /// As [`Pool::acquire`]; [`PoolError::Cancelled`] when `go_on` says no.
    pub fn acquire_by(
        &self,
        size: usize,
        deadline: Option<Instant>,
        go_on: impl Fn() -> bool,
    ) -> Result<Lease, PoolError> {
        loop {
            match self.acquire(size) {
                Err(PoolError::Exhausted { .. }) if !go_on() => return Err(PoolError::Cancelled),
                Err(PoolError::Exhausted { .. }) if deadline.is_none_or(|d| Instant::now() < d) => {
                    std::thread::sleep(RETRY);
                }
                result => return result,
            }
        }
    }

    /// Makes sure that `count` buffers of `size` bytes exist, as far as the limit goes.
    ///
    /// # Errors
    /// If not even one can be made.
    pub fn populate(&self, size: usize, count: usize) -> Result<usize, PoolError> {
        let mut leases = Vec::with_capacity(count);
        for _ in 0..count {
            match self.acquire(size) {
                Ok(lease) => leases.push(lease),
                Err(error) if leases.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        Ok(leases.len())
    }

    /// Registers the pool with a device: its free buffers now, every other before it is filled next, so that
    /// nothing is registered while a frame is under way. To register it with the same domain again does nothing. A
    /// buffer that cannot be registered later serves everybody but the device: see `Frame::registered`.
    ///
    /// # Errors
    /// What the device, or the limit of locked memory, says of a free buffer; the pool is not registered then.
    pub fn register(&self, domain: &Arc<ProtectionDomain>, access: Access) -> Result<(), RegisterError> {
        self.0.registrar.add(domain, access);
        // Nobody may lease them meanwhile; whoever wants to waits, once, instead of at a frame.
        let state = self.state();
        let registered =
            state.free.values().flatten().try_for_each(|buffer| self.0.registrar.register(buffer));
        if registered.is_err() {
            self.0.registrar.remove(domain);
        }
        registered
    }

    /// Lets go of all buffers that are free.
    pub fn trim(&self) {
        let mut state = self.state();
        let free = std::mem::take(&mut state.free);
        state.total -= state.free_bytes;
        state.free_bytes = 0;
        state.buffers -= free.values().map(Vec::len).sum::<usize>();
        drop(state);
        drop(free);
    }

    /// Where the pages come from.
    pub fn backing(&self) -> BackingKind {
        self.0.backing.kind()
    }

    /// What the pool could not have, and what it has instead.
    pub fn fallbacks(&self) -> Vec<Fallback> {
        self.0.backing.fallbacks()
    }

    /// The options it was made with.
    pub fn options(&self) -> &PoolOptions {
        &self.0.options
    }

    /// What a buffer of `size` bytes takes from the limit. Pages larger than the machine's are used only
    /// where at least half of one is filled.
    pub fn footprint(&self, size: usize) -> usize {
        self.0.sizes.footprint(size)
    }

    /// Its figures.
    pub fn figures(&self) -> PoolFigures {
        let state = self.state();
        PoolFigures {
            total: state.total,
            free: state.free_bytes,
            limit: self.0.options.limit,
            buffers: state.buffers,
            allocated: state.allocated,
            registrations: self.0.registrar.count(),
        }
    }

    /// Registers somebody who can find returned frames when the pool is exhausted.
    pub fn add_reclaimer(&self, reclaimer: Weak<dyn Reclaim>) {
        let mut reclaimers = self.0.reclaimers.lock().unwrap_or_else(PoisonError::into_inner);
        reclaimers.retain(|r| r.strong_count() > 0);
        reclaimers.push(reclaimer);
    }

    /// Asks those registered with [`Pool::add_reclaimer`] to look for returned frames now.
    pub fn reclaim(&self) {
        let reclaimers = self.0.reclaimers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        reclaimers.iter().filter_map(Weak::upgrade).for_each(|reclaimer| reclaimer.reclaim());
    }

    fn try_acquire(&self, size: usize) -> Result<Lease, PoolError> {
        let footprint = self.footprint(size.max(1));
        let limit = self.0.options.limit;
        if footprint as u64 > limit {
            return Err(PoolError::LargerThanPool { size, limit });
        }
        let mut retired = Vec::new();
        {
            let mut state = self.state();
            state.look_at_resting(&mut retired);
            if let Some(buffer) = state.take(size, footprint) {
                drop(state);
                return Ok(self.lease(buffer));
            }
            while state.total + footprint as u64 > limit {
                match state.take_any() {
                    Some(buffer) => retired.push(buffer),
                    None => return Err(PoolError::Exhausted { size, limit }),
                }
            }
            state.total += footprint as u64;
            state.buffers += 1;
            state.allocated += 1;
        }
        drop(retired);
        match self.0.backing.allocate(self.0.sizes.class(size), &self.0.options.wants) {
            Ok(buffer) => {
                let mut state = self.state();
                state.total = state.total + buffer.size() as u64 - footprint as u64;
                drop(state);
                Ok(self.lease(Arc::new(buffer)))
            }
            Err(error) => {
                let mut state = self.state();
                state.total -= footprint as u64;
                state.buffers -= 1;
                state.allocated -= 1;
                Err(error.into())
            }
        }
    }

    fn lease(&self, buffer: Arc<Buffer>) -> Lease {
        let lease = Lease { buffer: Some(buffer), home: self.clone(), writing: false };
        // Who reads on this host must not suffer from what a device cannot have.
        if let Err(error) = self.0.registrar.register(lease.buffer()) {
            tracing::warn!(%error, "a buffer cannot be registered for RDMA");
        }
        lease
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Buffers that devices are done with are free again; those that took too long are no longer the pool's.
    fn look_at_resting(&mut self, retired: &mut Vec<Arc<Buffer>>) {
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
    fn take(&mut self, size: usize, footprint: usize) -> Option<Arc<Buffer>> {
        let most = footprint.max(size.saturating_mul(2));
        let (&class, _) = self.free.range(size..=most).next()?;
        self.take_class(class)
    }

    /// The largest free buffer.
    fn take_any(&mut self) -> Option<Arc<Buffer>> {
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
}

/// A buffer that belongs to nobody else. Dropping it gives the buffer back to its pool.
///
/// The first access to the pages of a device's buffer tells the driver so (`DMA_BUF_IOCTL_SYNC`), and
/// [`FrameBuilder::lease`](crate::FrameBuilder::lease) that the writing is over.
#[derive(Debug)]
pub struct Lease {
    buffer: Option<Arc<Buffer>>,
    home: Pool,
    /// Whether a driver was told that the CPU writes.
    writing: bool,
}

impl Lease {
    /// The buffer.
    pub fn buffer(&self) -> &Arc<Buffer> {
        self.buffer.as_ref().expect("a lease has its buffer until it is dropped")
    }

    /// The pool it goes back to.
    pub fn pool(&self) -> &Pool {
        &self.home
    }

    /// Writes `bytes` at `offset`.
    ///
    /// # Errors
    /// If they do not fit, or the driver does not let us.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) -> Result<(), AccessError> {
        self.begin_writing()?;
        self.buffer().mapping().ok_or(AccessError::ReadOnly)?.copy_from(offset, bytes)
    }

    /// All bytes of the buffer; none while somebody else has it, in a frame that was not given back, or if a driver does
    /// not let the CPU have it.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        if Arc::strong_count(self.buffer()) > 1 || self.begin_writing().is_err() {
            return &mut [];
        }
        let buffer = self.buffer();
        let mapped = buffer.mapping().and_then(|map| Some((map.as_mut_ptr()?, map.len())));
        let Some((start, len)) = mapped else { return &mut [] };
        // SAFETY: the mapping lives as long as the buffer, which this lease keeps. Nobody else in this
        // process has the buffer (counted above; weak references are only ever counted, and a new strong
        // one would have to come from this lease, which is borrowed exclusively). Subscribers of earlier
        // frames in it have given them back, or were cut off and can only read.
        unsafe { std::slice::from_raw_parts_mut(start, len) }
    }

    /// Tells the driver, if there is one, that the CPU is going to write. Ordinary pages need no word.
    fn begin_writing(&mut self) -> Result<(), AccessError> {
        if self.writing {
            return Ok(());
        }
        let Some(fd) = self.buffer().mapped_dma_buf() else { return Ok(()) };
        CpuAccess::begin(fd, Direction::Write).map_err(AccessError::Device)?.keep_open();
        self.writing = true;
        Ok(())
    }

    /// Tells the driver that the CPU has written what it wanted, so that devices see it. [`FrameBuilder::lease`] does
    /// this; who passes the buffer on in another way must.
    ///
    /// [`FrameBuilder::lease`]: crate::FrameBuilder::lease
    pub fn end_writing(&mut self) {
        if std::mem::take(&mut self.writing)
            && let Some(fd) = self.buffer().mapped_dma_buf()
            && let Err(error) = end_access(fd, Direction::Write)
        {
            tracing::warn!(%error, "a driver did not take in what was written");
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.end_writing();
        let Some(buffer) = self.buffer.take() else { return };
        let rests = buffer.is_in_devices();
        let mut state = self.home.state();
        if buffer.is_spent() {
            state.total -= buffer.size() as u64;
            state.buffers -= 1;
        } else if rests {
            state.resting.push((buffer, Instant::now()));
        } else {
            state.put(buffer);
        }
    }
}
