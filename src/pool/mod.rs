//! Buffers that are filled, published and used again.

mod lease;
mod sizes;
mod state;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use pagecast_allocators::{
    AllocError, Backing, BackingChoice, BackingKind, Buffer, Fallback, HugetlbBacking, Wants, WithFallback,
};
use pagecast_verbs::{Access, ProtectionDomain, RegisterError};

use crate::registration::Registrar;
pub use lease::Lease;
use sizes::Sizes;
use state::State;

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
