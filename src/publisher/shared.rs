//! What the publisher's handle and its service thread share: the state behind its lock, and what wakes
//! them.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::Epoll;
use nix::sys::eventfd::EventFd;
use pagecast_ipc::ledger::{FrameId, SubscriberId};
use pagecast_ipc::policy::Policy;
use pagecast_ipc::socket::Seqpacket;
use pagecast_verbs::{Access, ProtectionDomain, RegisterError};

use super::core::{self, Aftermath, Core, Departed, Published};
use super::info::{ForeignPool, Info};
use super::{Departure, Hooks, service};
use crate::pool::{Pool, Reclaim};
use crate::remote::Origin;

/// How often waiting mail is tried again when nothing else happens.
const RETRY: Duration = Duration::from_millis(5);
/// How often the service thread looks at everything while there are subscribers.
pub(super) const TICK: Duration = Duration::from_millis(100);

pub(crate) struct Shared {
    pub(super) core: Mutex<Core>,
    pub(super) changed: Condvar,
    pub(super) hooks: Hooks,
    pub(super) wake: EventFd,
    pub(super) cancel: EventFd,
    /// Tells the producer that waits to look again.
    pub(super) room: EventFd,
    /// Belongs to the producer that waits.
    pub(super) turn: Mutex<()>,
    pub(super) flushing: AtomicBool,
    pub(super) ended: AtomicBool,
    pub(super) attentive: AtomicBool,
    pub(super) retrying: AtomicBool,
    pub(super) epoll: Arc<Epoll>,
    pub(super) pool: Mutex<Option<Pool>>,
    pub(super) copied: AtomicU64,
    pub(super) not_carried: Mutex<BTreeMap<String, u64>>,
    pub(super) foreign: Mutex<Option<ForeignPool>>,
    pub(super) uri: String,
    pub(super) descriptors: u64,
    /// Links that came otherwise, for the service thread.
    pub(super) inbox: Mutex<Vec<(Seqpacket, Origin)>>,
}

impl Reclaim for Shared {
    fn reclaim(&self) {
        let mut core = self.lock();
        core.drain_all();
        self.release(core);
    }
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Releases the lock, and then does what had to wait for that.
    pub(super) fn release(&self, core: MutexGuard<'_, Core>) {
        let after = self.unlock(core);
        self.finish(after);
    }

    /// Releases the lock. What had to wait for that is still to be done.
    #[must_use = "it is to be finished"]
    pub(super) fn unlock(&self, mut core: MutexGuard<'_, Core>) -> Aftermath {
        self.watch_members(&mut core);
        core.aftermath()
    }

    /// The service thread is woken by subscribers for whom mail waits. Those with policy `block` usually
    /// wake the producer itself; for them the service thread only looks again from time to time.
    pub(super) fn watch_members(&self, core: &mut Core) {
        let attentive = self.attentive.load(Ordering::Relaxed);
        let mut retry = false;
        let Core { books, members, .. } = core;
        for (id, member) in members {
            let (mail, block) = (books.has_mail(*id), books.policy(*id) == Some(Policy::Block));
            retry |= mail && (block || member.delayed || member.fenced);
            let talk = attentive || (mail && !block && !member.delayed);
            if talk != member.watched {
                member.watched = talk;
                service::watch(&self.epoll, *id, member.socket.as_fd(), talk, false);
            }
        }
        if retry && !self.retrying.swap(true, Ordering::SeqCst) {
            let _ = self.wake.write(1);
        }
    }

    pub(super) fn finish(&self, after: Aftermath) {
        if after.room {
            let _ = self.room.write(1);
        }
        drop(after.freed);
        if !after.departed.is_empty() {
            self.changed.notify_all();
        }
        for Departed { id, why, socket } in after.departed {
            service::unwatch(&self.epoll, socket.as_fd());
            tracing::debug!(subscriber = id.0, ?why, "no longer served");
            if let Some(call) = &self.hooks.disconnected {
                call(id.0, &why);
            }
        }
        for (_, event) in after.requests {
            if let Some(call) = &self.hooks.request {
                call(event);
            }
        }
    }

    /// The right to wait for room; others who want to wait wait for it.
    pub(super) fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until one of these subscribers says something, another thread has heard it, the time comes, or
    /// waiting is cancelled. [`Core::awaited`] was set under the lock before.
    pub(super) fn wait_for(
        &self,
        _turn: &MutexGuard<'_, ()>,
        sockets: &[Arc<Seqpacket>],
        until: Option<Instant>,
    ) {
        let mut fds = vec![PollFd::new(self.room.as_fd(), PollFlags::POLLIN)];
        fds.push(PollFd::new(self.cancel.as_fd(), PollFlags::POLLIN));
        fds.extend(sockets.iter().map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)));
        let timeout = until.map_or(PollTimeout::NONE, |until| {
            let left = until.saturating_duration_since(Instant::now()).as_micros().div_ceil(1000);
            PollTimeout::try_from(left.min(60_000) as i32).unwrap_or(PollTimeout::MAX)
        });
        let _ = poll(&mut fds, timeout);
        if fds[0].any().unwrap_or(false) {
            let _ = self.room.read();
        }
    }

    /// A subscriber said something, or is gone.
    pub(super) fn heard(&self, id: SubscriberId, gone: bool) {
        let mut core = self.lock();
        core.drain(id);
        if gone {
            core.remove(id, Departure::Left);
        }
        core.pump(id);
        self.release(core);
    }

    /// The service thread's look at those for whom mail waits, and from time to time at everybody.
    pub(super) fn attend(&self, everybody: bool) {
        let mut core = self.lock();
        for id in core.ids() {
            if everybody || core.books.has_mail(id) {
                core.drain(id);
                core.pump_due(id);
            }
        }
        if everybody {
            core.spread_stream();
            core.sweep();
            core.police();
        }
        self.release(core);
    }

    /// When the service thread must look again by itself; `None`: only when it is woken.
    pub(super) fn next_look(&self) -> Option<Duration> {
        let core = self.lock();
        let waits = core.ids().iter().any(|id| core.books.has_mail(*id));
        self.retrying.store(waits, Ordering::SeqCst);
        match waits {
            true if core.delays() => Some(core::COMPANY),
            true => Some(RETRY),
            false if !core.members.is_empty() || core.quarantined() > 0 => Some(TICK),
            false => None,
        }
    }

    pub(super) fn serves(&self, id: SubscriberId) -> bool {
        self.lock().members.contains_key(&id)
    }

    /// The service thread meets whoever is at the other end of this socket. That it may come was looked at.
    pub(crate) fn adopt(&self, socket: Seqpacket, origin: Origin) {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody looks there any more; the other end sees the socket close.
        if !self.is_ended() {
            inbox.push((socket, origin));
        }
        drop(inbox);
        let _ = self.wake.write(1);
    }

    /// What was adopted since the last look; nothing is kept once the publisher has ended.
    pub(super) fn adopted(&self) -> Vec<(Seqpacket, Origin)> {
        std::mem::take(&mut *self.inbox.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A frame that somebody holds, for as long as the caller keeps it.
    pub(crate) fn published(&self, frame: u64) -> Option<Arc<Published>> {
        self.lock().books.ledger().resource(FrameId(frame)).cloned()
    }

    /// The publisher's pool, if it has one, is a device's to read from now on.
    pub(crate) fn register(&self, domain: &Arc<ProtectionDomain>) -> Result<(), RegisterError> {
        let pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match pool.map_or(Ok(()), |pool| pool.register(domain, Access::Source)) {
            // Pages of another device: frames in them are copied on their way.
            Err(RegisterError::BadPages) => Ok(()),
            done => done,
        }
    }

    /// A subscriber broke the protocol where its link came in.
    pub(crate) fn cut_off(&self, subscriber: u64, fault: String) {
        let mut core = self.lock();
        core.remove(SubscriberId(subscriber), Departure::Fault(fault));
        self.release(core);
    }

    pub(crate) fn max_subscribers(&self) -> usize {
        self.lock().options.max_subscribers as usize
    }

    pub(super) fn is_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// Descriptors that each of so many subscribers may leave in flight without harm to the others: the
    /// kernel counts them per user against the limit of open files.
    pub(super) fn descriptor_share(&self, subscribers: u32) -> u64 {
        (self.descriptors / 4 / u64::from(subscribers.max(1))).max(1)
    }

    /// As [`Self::info`], for somebody who may know where pages lie.
    pub(super) fn info_with_buffers(&self) -> Info {
        let buffers = self.lock().held_buffers();
        Info { buffers, ..self.info() }
    }

    pub(super) fn info(&self) -> Info {
        let pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let core = self.lock();
        let mut publisher = core.publisher_figures();
        let subscribers: Vec<_> = core.ids().into_iter().filter_map(|id| core.subscriber_info(id)).collect();
        let caps = core.stream.caps().map(str::to_owned);
        let name = core.options.name.clone();
        drop(core);
        publisher.copied = self.copied.load(Ordering::Relaxed);
        publisher.foreign = *self.foreign.lock().unwrap_or_else(PoisonError::into_inner);
        publisher.not_carried = self.not_carried.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(pool) = pool {
            let figures = pool.figures();
            publisher.pool_total = figures.total;
            publisher.pool_free = figures.free;
            publisher.pool_limit = figures.limit;
            publisher.registrations = figures.registrations;
            publisher.fallbacks = pool
                .fallbacks()
                .iter()
                .map(|f| format!("{} instead of {}: {}", f.to, f.from, f.reason))
                .collect();
        }
        let links = subscribers.iter().filter_map(|subscriber| subscriber.fallback.clone());
        publisher.fallbacks.extend(links);
        Info { name, uri: self.uri.clone(), caps, publisher, subscribers, buffers: Vec::new() }
    }
}
