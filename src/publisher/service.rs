//! The publisher's own thread: it lets subscribers in, answers observers, and notices who is gone. Frames
//! do not pass through it.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use pagecast_ipc::ledger::SubscriberId;
use pagecast_ipc::socket::{Listener, ReceiveError, Seqpacket, SocketError};
use pagecast_ipc::wire::limits::MAX_PACKET;

use super::admission::{self, Answer, Asker};
use super::shared::{Shared, TICK};
use crate::remote::Origin;

/// How long a newcomer may take to say hello.
const HELLO: Duration = Duration::from_secs(5);
/// Newcomers that have not said hello, at a time.
const MAX_STRANGERS: usize = 64;
/// Observers at a time.
const MAX_OBSERVERS: usize = 64;
/// Pauses between attempts to reach a subscriber that listens.
const DIAL: Duration = Duration::from_millis(200);

const WAKE: u64 = 0;
const FIRST_LISTENER: u64 = 1;
const FIRST_STRANGER: u64 = 1 << 16;
/// Subscribers' epoll keys are their numbers above this.
const FIRST_SUBSCRIBER: u64 = 1 << 40;

struct Stranger {
    socket: Seqpacket,
    since: Instant,
    observer: bool,
    origin: Option<Origin>,
}

/// Somewhere a subscriber listens for us.
pub(super) struct Outbound {
    pub(super) path: std::path::PathBuf,
    pub(super) current: Option<u64>,
    pub(super) next: Instant,
}

pub(super) struct Service {
    shared: Weak<Shared>,
    epoll: Arc<Epoll>,
    listeners: Vec<Listener>,
    outbound: Vec<Outbound>,
    strangers: HashMap<u64, Stranger>,
    next_stranger: u64,
    packet: Vec<u8>,
}

pub(super) fn new_epoll() -> nix::Result<Epoll> {
    Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)
}

/// Watches a subscriber: always for its end, and for what it says if `talk`.
pub(super) fn watch(epoll: &Epoll, id: SubscriberId, fd: BorrowedFd<'_>, talk: bool, new: bool) {
    let flags = if talk { EpollFlags::EPOLLIN } else { EpollFlags::empty() };
    let mut event = EpollEvent::new(flags, FIRST_SUBSCRIBER + id.0);
    // A socket that is gone already is found by its next use.
    let _ = if new { epoll.add(fd, event) } else { epoll.modify(fd, &mut event) };
}

/// Ends that. To close the descriptor is not enough: a child forked without exec has a copy, and its end would be reported for
/// ever.
pub(super) fn unwatch(epoll: &Epoll, fd: BorrowedFd<'_>) {
    let _ = epoll.delete(fd);
}

impl Service {
    pub(super) fn new(
        shared: &Arc<Shared>,
        listeners: Vec<Listener>,
        outbound: Vec<Outbound>,
    ) -> nix::Result<Self> {
        let epoll = shared.epoll.clone();
        epoll.add(shared.wake.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, WAKE))?;
        for (at, listener) in listeners.iter().enumerate() {
            epoll.add(listener.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, FIRST_LISTENER + at as u64))?;
        }
        Ok(Self {
            shared: Arc::downgrade(shared),
            epoll,
            listeners,
            outbound,
            strangers: HashMap::new(),
            next_stranger: FIRST_STRANGER,
            packet: vec![0; MAX_PACKET],
        })
    }

    /// Runs until the publisher is gone.
    pub(super) fn run(mut self) {
        let mut events = [EpollEvent::empty(); 64];
        let mut round = Instant::now();
        loop {
            let timeout = match self.shared.upgrade() {
                Some(shared) if !shared.is_ended() => self.timeout(&shared),
                _ => return,
            };
            let ready = self.epoll.wait(&mut events, timeout).unwrap_or(0);
            let Some(shared) = self.shared.upgrade() else { return };
            for event in &events[..ready] {
                self.handle(&shared, event.data(), event.events());
            }
            self.dismiss_the_silent();
            self.dial(&shared);
            let everybody = round.elapsed() >= TICK;
            if everybody {
                round = Instant::now();
            }
            shared.attend(everybody);
        }
    }

    fn timeout(&self, shared: &Shared) -> EpollTimeout {
        let strangers = (!self.strangers.is_empty()).then_some(TICK);
        let dial = (!self.outbound.is_empty()).then_some(DIAL);
        let wait = [shared.next_look(), strangers, dial].into_iter().flatten().min();
        wait.map_or(EpollTimeout::NONE, |wait| EpollTimeout::from(wait.as_millis() as u16))
    }

    fn handle(&mut self, shared: &Arc<Shared>, key: u64, flags: EpollFlags) {
        match key {
            WAKE => {
                let _ = shared.wake.read();
                self.adopt(shared);
            }
            key if key >= FIRST_SUBSCRIBER => {
                let gone = flags.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR);
                shared.heard(SubscriberId(key - FIRST_SUBSCRIBER), gone);
            }
            key if key >= FIRST_STRANGER => self.heard_stranger(shared, key),
            key => self.accept((key - FIRST_LISTENER) as usize, shared),
        }
    }

    fn accept(&mut self, listener: usize, shared: &Arc<Shared>) {
        for _ in 0..16 {
            match self.listeners[listener].accept() {
                Ok(Some(socket)) => drop(self.meet(socket, shared)),
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%error, "a subscriber could not be let in");
                    // Without a descriptor to spare the queue stays readable: do not spin on it.
                    std::thread::sleep(TICK / 20);
                    return;
                }
            }
        }
    }

    /// Those whose links came otherwise; that they may come was looked at there.
    fn adopt(&mut self, shared: &Shared) {
        for (socket, origin) in shared.adopted() {
            self.receive(socket, Some(origin));
        }
    }

    fn meet(&mut self, socket: Seqpacket, shared: &Shared) -> Option<u64> {
        if let Err(refusal) = admission::may_enter(shared, &socket) {
            admission::refuse(&socket, &refusal);
            return None;
        }
        self.receive(socket, None)
    }

    fn receive(&mut self, socket: Seqpacket, origin: Option<Origin>) -> Option<u64> {
        let silent = || self.strangers.iter().filter(|(_, stranger)| !stranger.observer);
        if silent().count() >= MAX_STRANGERS {
            // The one that has been silent for longest makes room.
            let oldest = silent().min_by_key(|(_, stranger)| stranger.since);
            let oldest = oldest.map(|(key, _)| *key)?;
            drop(self.dismiss(oldest));
        }
        let key = self.next_stranger;
        self.next_stranger += 1;
        self.epoll.add(socket.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, key)).ok()?;
        self.strangers.insert(key, Stranger { socket, since: Instant::now(), observer: false, origin });
        Some(key)
    }

    /// Somebody is no stranger any more.
    fn dismiss(&mut self, key: u64) -> Option<Stranger> {
        let stranger = self.strangers.remove(&key)?;
        unwatch(&self.epoll, stranger.socket.as_fd());
        Some(stranger)
    }

    fn dismiss_the_silent(&mut self) {
        let is_late = |stranger: &Stranger| !stranger.observer && stranger.since.elapsed() >= HELLO;
        let late = self.strangers.iter().filter(|(_, stranger)| is_late(stranger));
        for key in late.map(|(key, _)| *key).collect::<Vec<_>>() {
            drop(self.dismiss(key));
        }
    }

    fn heard_stranger(&mut self, shared: &Arc<Shared>, key: u64) {
        let Some(stranger) = self.strangers.get(&key) else { return };
        let observers = self.strangers.values().filter(|stranger| stranger.observer).count();
        let asker = match stranger.observer {
            true => Asker::Observer { local: stranger.origin.is_none() },
            false => Asker::Stranger { may_observe: observers < MAX_OBSERVERS },
        };
        let mut fds = Vec::new();
        let answer = match stranger.socket.receive(&mut self.packet, &mut fds) {
            Err(ReceiveError::Empty) => return,
            Ok(len) => admission::answer(shared, &stranger.socket, &self.packet[..len], asker),
            Err(_) => Answer::End,
        };
        match answer {
            Answer::End => drop(self.dismiss(key)),
            Answer::Observe => {
                if let Some(stranger) = self.strangers.get_mut(&key) {
                    stranger.observer = true;
                }
            }
            Answer::Admit(hello) => {
                let Some(stranger) = self.dismiss(key) else { return };
                let id = admission::admit(shared, stranger.socket, stranger.origin, &hello);
                for outbound in self.outbound.iter_mut().filter(|outbound| outbound.current == Some(key)) {
                    outbound.current = id.map(|id| FIRST_SUBSCRIBER + id.0);
                }
            }
        }
    }

    /// Reaches for subscribers that listen.
    fn dial(&mut self, shared: &Arc<Shared>) {
        for at in 0..self.outbound.len() {
            let outbound = &mut self.outbound[at];
            let alive = outbound.current.is_some_and(|key| match key.checked_sub(FIRST_SUBSCRIBER) {
                Some(id) => shared.serves(SubscriberId(id)),
                None => self.strangers.contains_key(&key),
            });
            if alive || Instant::now() < outbound.next {
                continue;
            }
            outbound.current = None;
            outbound.next = Instant::now() + DIAL;
            match Seqpacket::connect(&outbound.path) {
                Ok(socket) => {
                    let key = self.meet(socket, shared);
                    self.outbound[at].current = key;
                }
                Err(SocketError::NotFound { .. } | SocketError::Refused { .. }) => {}
                Err(error) => tracing::debug!(%error, "no link to a subscriber that should listen"),
            }
        }
    }
}
