//! The sending end of links: one publisher, any number of subscribers.

mod admission;
mod buffers;
mod core;
mod fault;
mod info;
mod member;
mod options;
mod quarantine;
mod service;
mod shared;
mod traffic;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::eventfd::{EfdFlags, EventFd};
use pagecast_ipc::fanout::Admission;
use pagecast_ipc::socket::{
    ListenError, ListenOptions, Listener, Mode, NameError, Transport, Uri, UriError, parse_list,
};
use pagecast_ipc::wire::limits::{MAX_EVENT_BYTES, MAX_NAME, MAX_STICKIES};
use pagecast_ipc::wire::{Clock, Event};

pub use buffers::{BufferInfo, FaceInfo, MAX_TOLD_BUFFERS, RegistrationInfo};
pub use core::Departure;
pub(crate) use core::Published;
pub use info::{ForeignPool, Info, PublisherFigures, SubscriberInfo};
pub use options::PublisherOptions;
pub(crate) use shared::Shared;

use crate::clock::monotonic_ns;
use crate::frame::Frame;
use crate::pool::{Pool, Reclaim};
use crate::remote::{ConnectError, Ends, Hub};
use crate::stream::{CAPS, Stream};
use core::Core;
use service::{Outbound, Service};

/// How long an end that somebody is patient about may take, however slowly subscribers give frames back.
pub const LONGEST_END: Duration = Duration::from_secs(10);

/// Why there is no publisher, or it did not publish.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The address cannot be used.
    #[error(transparent)]
    Uri(#[from] UriError),
    /// The name cannot be used.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Nobody can listen there.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// An address on a network cannot be used.
    #[error(transparent)]
    Remote(#[from] ConnectError),
    /// The system refused something.
    #[error("{what}: {errno}")]
    System {
        /// What.
        what: &'static str,
        /// Why.
        errno: nix::errno::Errno,
    },
    /// [`Publisher::set_flushing`] ended the wait for a subscriber with policy `block`.
    #[error("publishing was interrupted")]
    Flushing,
    /// The publisher was closed.
    #[error("the publisher is closed")]
    Closed,
    /// A value or event is over a limit.
    #[error("{what} of {size} bytes: the limit is {limit}")]
    TooLarge {
        /// What.
        what: String,
        /// Its size.
        size: usize,
        /// What it may be.
        limit: usize,
    },
}

/// Called when a subscriber was admitted.
pub type OnConnected = Box<dyn Fn(&SubscriberInfo) + Send + Sync>;
/// Called with the number of a subscriber that is no longer served, and why.
pub type OnDisconnected = Box<dyn Fn(u64, &Departure) + Send + Sync>;
/// Called with what a subscriber asks for.
pub type OnRequest = Box<dyn Fn(Event) + Send + Sync>;

/// Called from the publisher's threads, with no lock held.
#[derive(Default)]
pub struct Hooks {
    /// A subscriber was admitted.
    pub connected: Option<OnConnected>,
    /// A subscriber is no longer served.
    pub disconnected: Option<OnDisconnected>,
    /// A subscriber asks for something, e.g. `force-key-unit`.
    pub request: Option<OnRequest>,
}

/// Publishes frames to everybody who connects. Its methods may be called from any thread; frames keep the
/// order in which [`Publisher::publish`] is called.
///
/// Dropping it ends all links. Subscribers on other hosts are waited for while what was sent to them still arrives:
/// [`LAST_WORDS`] at most, [`LINGER`] where nothing moves.
///
/// [`LAST_WORDS`]: pagecast_remote::limits::LAST_WORDS
/// [`LINGER`]: pagecast_remote::limits::LINGER
pub struct Publisher {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    hub: Option<Hub>,
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher").field("uri", &self.shared.uri).finish_non_exhaustive()
    }
}

impl Publisher {
    /// Begins to serve `uri`: `unix:NAME`, `unix:/path`, `tcp://HOST:PORT`, `rdma://HOST:PORT`,
    /// `remote://HOST:PORT`, or several of them separated by spaces.
    ///
    /// # Errors
    /// If an address cannot be used, or a living publisher has it.
    pub fn open(uri: &str, options: PublisherOptions) -> Result<Self, PublishError> {
        Self::open_with(uri, options, Hooks::default())
    }

    /// As [`Publisher::open`], with somebody who is told of subscribers.
    ///
    /// # Errors
    /// As [`Publisher::open`].
    pub fn open_with(uri: &str, options: PublisherOptions, hooks: Hooks) -> Result<Self, PublishError> {
        let system = |what| move |errno| PublishError::System { what, errno };
        let descriptors = pagecast_ipc::socket::raise_fd_limit().map_or(1024, |(_, now)| now);
        let mut options = options;
        let ends = ends(uri, &mut options)?;
        let remote = options.remote.clone();
        let event = || EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
        let shared = Arc::new(Shared {
            core: Mutex::new(Core::new(options, new_epoch(), descriptors)),
            changed: Condvar::new(),
            hooks,
            wake: event().map_err(system("eventfd"))?,
            cancel: event().map_err(system("eventfd"))?,
            room: event().map_err(system("eventfd"))?,
            turn: Mutex::default(),
            flushing: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            attentive: AtomicBool::new(false),
            retrying: AtomicBool::new(false),
            epoll: Arc::new(service::new_epoll().map_err(system("epoll"))?),
            pool: Mutex::new(None),
            copied: AtomicU64::new(0),
            not_carried: Mutex::default(),
            foreign: Mutex::default(),
            uri: ends.uri,
            descriptors,
            inbox: Mutex::default(),
        });
        let service = Service::new(&shared, ends.listeners, ends.outbound).map_err(system("epoll"))?;
        let thread = std::thread::Builder::new().name("pagecast-service".to_owned());
        let thread = thread.spawn(move || service.run()).map_err(|error| PublishError::System {
            what: "thread",
            errno: nix::errno::Errno::from_raw(error.raw_os_error().unwrap_or(0)),
        })?;
        let mut publisher = Self { shared, thread: Some(thread), hub: None };
        if !ends.remote.is_empty() {
            let hub = Hub::start(ends.remote, &publisher.shared, &remote).map_err(system("thread"))?;
            publisher.hub = Some(hub);
        }
        Ok(publisher)
    }

    /// The pool whose figures are shown with the publisher's, and which finds returned frames through it
    /// when it is exhausted.
    pub fn set_pool(&self, pool: &Pool) {
        let reclaim: Arc<dyn Reclaim> = self.shared.clone();
        pool.add_reclaimer(Arc::downgrade(&reclaim));
        *self.shared.pool.lock().unwrap_or_else(PoisonError::into_inner) = Some(pool.clone());
    }

    /// Publishes a frame. With policy `block` this waits while a subscriber's mailbox is full.
    ///
    /// # Errors
    /// [`PublishError::Flushing`], [`PublishError::Closed`]; the frame was not published then.
    pub fn publish(&self, frame: &Frame) -> Result<(), PublishError> {
        let times = &frame.description().times;
        let at = times.running.or(times.pts).unwrap_or_else(monotonic_ns);
        self.publish_at(frame, Duration::from_nanos(at))
    }

    fn publish_at(&self, frame: &Frame, at: Duration) -> Result<(), PublishError> {
        let shared = &self.shared;
        let mut turn = None;
        loop {
            if shared.flushing.load(Ordering::SeqCst) {
                return Err(PublishError::Flushing);
            }
            let mut core = shared.lock();
            if core.closing {
                return Err(PublishError::Closed);
            }
            if turn.is_some() {
                core.awaited = false;
            }
            let (full, until) = match core.admission(at) {
                Admission::Now => {
                    core.publish(frame.clone(), at);
                    drop(turn);
                    shared.release(core);
                    return Ok(());
                }
                Admission::Wait { full, until } => (full, until),
            };
            turn = turn.or_else(|| shared.turn.try_lock().ok());
            let sockets = core.sockets(&full);
            core.awaited |= turn.is_some();
            let after = shared.unlock(core);
            // Somebody's code, which may publish.
            if after.is_code() {
                turn = None;
            }
            shared.finish(after);
            match &turn {
                Some(turn) => shared.wait_for(turn, &sockets, until),
                // What wakes one who waits is for one only.
                None => turn = Some(shared.turn()),
            }
        }
    }

    /// Sets the caps that later frames have.
    ///
    /// # Errors
    /// [`PublishError::TooLarge`].
    pub fn set_caps(&self, caps: &str) -> Result<(), PublishError> {
        self.set_sticky(CAPS, caps.as_bytes())
    }

    /// Sets a value that holds for later frames and that late joiners get.
    ///
    /// # Errors
    /// [`PublishError::TooLarge`].
    pub fn set_sticky(&self, name: &str, data: &[u8]) -> Result<(), PublishError> {
        check(name, data)?;
        let mut core = self.shared.lock();
        let Some(stream) = core.stream.with(name, data) else { return Ok(()) };
        if stream.len() > MAX_STICKIES {
            let (size, limit) = (stream.len(), MAX_STICKIES);
            return Err(PublishError::TooLarge { what: "sticky values".to_owned(), size, limit });
        }
        core.stream = Arc::new(stream);
        if name == CAPS {
            core.forget_size();
        }
        core.drain_all();
        core.pump_all();
        core.spread_stream();
        self.shared.release(core);
        Ok(())
    }

    /// Forgets all sticky values, as a new stream does.
    pub fn clear_stickies(&self) {
        self.shared.lock().stream = Arc::new(Stream::default());
    }

    /// Publishes an event, in order with the frames. It is never dropped for a frame's sake.
    ///
    /// # Errors
    /// [`PublishError::TooLarge`].
    pub fn publish_event(&self, name: &str, data: &[u8]) -> Result<(), PublishError> {
        check(name, data)?;
        let mut core = self.shared.lock();
        core.event(Event { name: name.to_owned(), data: data.to_vec() });
        self.shared.release(core);
        Ok(())
    }

    /// Drops all frames and events that wait for credits, as a flush does.
    pub fn flush(&self) {
        let mut core = self.shared.lock();
        core.books.flush();
        core.made_room();
        self.shared.release(core);
    }

    /// The publisher's running time at one moment of `CLOCK_MONOTONIC` (the two are best read together), and
    /// its latency; sent along with the next message to each.
    pub fn set_clock(&self, clock: Clock) {
        let mut core = self.shared.lock();
        let serial = core.clock.map_or(0, |(serial, _)| serial) + 1;
        core.clock = Some((serial, clock));
    }

    /// While set, [`Publisher::publish`] does not wait but fails.
    pub fn set_flushing(&self, flushing: bool) {
        self.shared.flushing.store(flushing, Ordering::SeqCst);
        if flushing {
            let _ = self.shared.cancel.write(1);
        } else {
            let _ = self.shared.cancel.read();
        }
        // Who waits looks at the flag under the lock: past this it either saw it or is woken.
        drop(self.shared.lock());
        self.shared.changed.notify_all();
    }

    /// Whether returned frames are to be noticed at once, because upstream has nothing else to fill.
    pub fn set_attentive(&self, attentive: bool) {
        if self.shared.attentive.swap(attentive, Ordering::SeqCst) != attentive {
            let core = self.shared.lock();
            self.shared.release(core);
        }
    }

    /// Waits until there are `count` subscribers; `false` if that did not come true in time.
    pub fn wait_for_subscribers(&self, count: usize, timeout: Option<Duration>) -> bool {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let mut core = self.shared.lock();
        while core.members.len() < count {
            let left = match deadline {
                Some(deadline) => deadline.saturating_duration_since(Instant::now()),
                None => Duration::from_secs(3600),
            };
            let stop = self.shared.flushing.load(Ordering::SeqCst) || core.closing;
            if left.is_zero() || stop {
                return false;
            }
            core = match self.shared.changed.wait_timeout(core, left) {
                Ok((core, _)) => core,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        true
    }

    /// Subscribers at this moment.
    pub fn subscribers(&self) -> usize {
        self.shared.lock().members.len()
    }

    /// Everything it tells of itself.
    pub fn info(&self) -> Info {
        self.shared.info()
    }

    /// Upstream keeps so many buffers to itself; subscribers share the others.
    pub fn set_upstream(&self, buffers: u32) {
        let mut core = self.shared.lock();
        core.set_upstream(buffers);
        self.shared.release(core);
    }

    /// There are at most so many frames to share, whatever the limit of bytes would allow: a camera has so many
    /// buffers, a relay so many credits. `None`: only the limit counts.
    pub fn set_most_frames(&self, frames: Option<u32>) {
        let mut core = self.shared.lock();
        core.set_most_frames(frames);
        self.shared.release(core);
    }

    /// Whether frames come at their own pace: what policy `auto` means for those who come from now on.
    pub fn set_live(&self, live: bool) {
        self.shared.lock().options.live = live;
    }

    /// A frame needed a copy; it is counted.
    pub fn count_copied(&self) {
        self.shared.copied.fetch_add(1, Ordering::Relaxed);
    }

    /// How the pool is doing that frames come from, if it is somebody else's; shown with the publisher's figures.
    pub fn set_foreign_pool(&self, foreign: Option<ForeignPool>) {
        *self.shared.foreign.lock().unwrap_or_else(PoisonError::into_inner) = foreign;
    }

    /// Something could not be carried; it is counted by name.
    pub fn count_not_carried(&self, name: &str) {
        let mut counts = self.shared.not_carried.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(name.to_owned()).or_default() += 1;
    }

    /// Ends the stream: what waits is still delivered and held frames come back, but for those that a subscriber may keep,
    /// as long as the next one does within `patience`; [`LONGEST_END`] in all, or `patience` if that is longer. Then all
    /// links are closed; pages still held are not written again.
    pub fn close(&self, patience: Duration) {
        let last = Instant::now() + patience.max(LONGEST_END);
        let (mut least, mut until) = (usize::MAX, Instant::now() + patience);
        loop {
            let mut core = self.shared.lock();
            core.drain_all();
            core.pump_all();
            let out = core.outstanding();
            if let Some(out) = out.filter(|out| *out < least) {
                (least, until) = (out, (Instant::now() + patience).min(last));
            }
            if out.is_none() || Instant::now() >= until {
                core.closing = true;
                for id in core.ids() {
                    core.remove(id, Departure::Closed);
                }
                self.shared.release(core);
                return;
            }
            self.shared.release(core);
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.close(Duration::ZERO);
        self.shared.ended.store(true, Ordering::SeqCst);
        let _ = self.shared.wake.write(1);
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
        drop(self.shared.adopted());
        if let Some(hub) = self.hub.take() {
            hub.end();
        }
    }
}

fn check(name: &str, data: &[u8]) -> Result<(), PublishError> {
    let too_large = |what: String, size, limit| Err(PublishError::TooLarge { what, size, limit });
    match (name.len(), data.len()) {
        (size, _) if size > MAX_NAME => too_large("name of an event".to_owned(), size, MAX_NAME),
        (_, size) if size > MAX_EVENT_BYTES => too_large(name.to_owned(), size, MAX_EVENT_BYTES),
        _ => Ok(()),
    }
}

/// The ends that a list of URIs names: where we listen, and whom we reach for.
#[derive(Default)]
struct AllEnds {
    listeners: Vec<Listener>,
    outbound: Vec<Outbound>,
    remote: Ends,
    /// As asked for, with the ports that were chosen.
    uri: String,
}

fn ends(uri: &str, options: &mut PublisherOptions) -> Result<AllEnds, PublishError> {
    let uris: Vec<Uri> = parse_list(uri)?;
    if options.name.is_empty() {
        options.name = uris.first().map(|uri| uri.address.clone()).unwrap_or_default();
    }
    let mut ends = AllEnds::default();
    let mut actual = Vec::new();
    for uri in uris {
        let connect = uri.mode == Some(Mode::Connect);
        if let Some(from) = uri.from.filter(|_| !connect) {
            return Err(UriError::BadFrom { option: format!("from={from}") }.into());
        }
        match uri.transport {
            Transport::Unix if connect => {
                let path = pagecast_ipc::socket::name::resolve(&uri.address)?;
                ends.outbound.push(Outbound { path, current: None, next: Instant::now() });
            }
            Transport::Unix => {
                let path = pagecast_ipc::socket::name::resolve_to_listen(&uri.address)?;
                let listen = ListenOptions { perms: options.perms, ..ListenOptions::default() };
                ends.listeners.push(Listener::bind(&path, &listen)?);
            }
            _ if connect => ends.remote.reach(&uri, &options.remote)?,
            _ => {
                actual.push(ends.remote.listen(&uri, &options.remote)?.to_string());
                continue;
            }
        }
        actual.push(uri.to_string());
    }
    ends.uri = actual.join(" ");
    Ok(ends)
}

/// A number that this publisher's earlier lives did not have.
fn new_epoch() -> u32 {
    static LIVES: AtomicU64 = AtomicU64::new(0);
    let life = LIVES.fetch_add(1, Ordering::Relaxed);
    let now = monotonic_ns() / 1_000_000;
    ((now + life) as u32).max(1)
}
