//! The publisher's door to the network: it listens, reads hellos, and starts a bridge for each who may come.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use pagecast_ipc::socket::Uri;
use pagecast_remote::limits::HELLO;
use pagecast_remote::tcp::{ConnectError, Destination, TcpListener, connect};
use pagecast_remote::{FromSubscriber, LinkError, PeerFault, Sender};

use super::carrier::Carrier;
use super::egress::{Egress, hello};
use super::{Meter, Origin, RemoteOptions};
use crate::publisher::Shared;

/// Newcomers that have not said hello, at a time; the one that has been silent for longest makes room.
const MAX_STRANGERS: usize = 32;
/// Bridges at a time beyond the publisher's most subscribers: observers, and those who are refused.
const MORE_PEERS: usize = 16;
/// Pauses between attempts to reach a subscriber that listens.
const DIAL: Duration = Duration::from_millis(200);
/// What the threads of remote links are called.
const THREAD: &str = "pagecast-remote";
/// How often newcomers and bridges that ended are looked after.
const LOOK: Duration = Duration::from_millis(200);

/// Where a publisher listens on networks, and whom it reaches for there.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    listeners: Vec<(TcpListener, Carrier)>,
    outbound: Vec<(Destination, Carrier)>,
}

impl Ends {
    pub(crate) fn is_empty(&self) -> bool {
        self.listeners.is_empty() && self.outbound.is_empty()
    }

    /// Listens at `uri`, which is returned with the port that it got.
    pub(crate) fn listen(&mut self, uri: &Uri, options: &RemoteOptions) -> Result<Uri, ConnectError> {
        let (host, port) = uri.host().unwrap_or_default();
        let listener = TcpListener::bind(host, port, options.insecure)?;
        let address = listener.address().ok();
        let carrier = Carrier::new(uri.transport, address.map(|address| address.ip()))?;
        let mut uri = uri.clone();
        if let (0, Some(address)) = (port, address) {
            uri.address = address.to_string();
        }
        self.listeners.push((listener, carrier));
        Ok(uri)
    }

    /// Reaches for a subscriber that listens at `uri`.
    pub(crate) fn reach(&mut self, uri: &Uri, options: &RemoteOptions) -> Result<(), ConnectError> {
        let carrier = Carrier::new(uri.transport, uri.from)?;
        self.outbound.push((super::destination(uri, options), carrier));
        Ok(())
    }
}

struct Stranger {
    link: Box<dyn Sender>,
    carrier: Carrier,
    peer: SocketAddr,
    since: Instant,
}

/// The threads that serve a publisher's ends on networks.
#[derive(Debug)]
pub(crate) struct Hub {
    stop: Arc<EventFd>,
    threads: Vec<JoinHandle<()>>,
}

impl Hub {
    pub(crate) fn start(ends: Ends, shared: &Arc<Shared>, options: &RemoteOptions) -> Result<Self, Errno> {
        // A semaphore of no use to anybody but who waits: it stays readable once written.
        let stop = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let mut hub = Self { stop: Arc::new(stop), threads: Vec::new() };
        for (to, carrier) in ends.outbound {
            let (stop, shared) = (hub.stop.clone(), Arc::downgrade(shared));
            hub.spawn(move || dial(&to, &carrier, &shared, &stop))?;
        }
        if !ends.listeners.is_empty() {
            let door = Door {
                listeners: ends.listeners,
                shared: Arc::downgrade(shared),
                options: options.clone(),
                strangers: Vec::new(),
                bridges: Vec::new(),
                most: shared.max_subscribers() + MORE_PEERS,
            };
            let stop = hub.stop.clone();
            hub.spawn(move || door.run(&stop))?;
        }
        Ok(hub)
    }

    fn spawn(&mut self, run: impl FnOnce() + Send + 'static) -> Result<(), Errno> {
        self.threads.push(thread(run)?);
        Ok(())
    }

    /// Ends all of it. The publisher has closed its sides, so bridges end by themselves.
    pub(crate) fn end(self) {
        let _ = self.stop.write(1);
        // Somebody who is told of a subscriber's end in a bridge's thread may let go of the publisher there.
        if std::thread::current().name() == Some(THREAD) {
            return;
        }
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

fn thread(run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Errno> {
    let builder = std::thread::Builder::new().name(THREAD.to_owned());
    builder.spawn(run).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))
}

struct Door {
    listeners: Vec<(TcpListener, Carrier)>,
    shared: Weak<Shared>,
    options: RemoteOptions,
    strangers: Vec<Stranger>,
    bridges: Vec<JoinHandle<()>>,
    most: usize,
}

impl Door {
    fn run(mut self, stop: &EventFd) {
        while !self.wait(stop) {
            self.accept();
            self.hear();
            self.bridges.retain(|bridge| !bridge.is_finished());
        }
        self.strangers.clear();
        for bridge in self.bridges {
            let _ = bridge.join();
        }
    }

    /// Waits for something to happen; `true` when it is time to stop.
    fn wait(&self, stop: &EventFd) -> bool {
        let mut fds = vec![PollFd::new(stop.as_fd(), PollFlags::POLLIN)];
        fds.extend(
            self.listeners.iter().map(|(listener, _)| PollFd::new(listener.as_fd(), PollFlags::POLLIN)),
        );
        for stranger in &self.strangers {
            fds.extend(stranger.link.poll_fds());
        }
        let idle = self.strangers.is_empty() && self.bridges.is_empty();
        let timeout = if idle { PollTimeout::NONE } else { PollTimeout::from(LOOK.as_millis() as u16) };
        let _ = poll(&mut fds, timeout);
        fds[0].any().unwrap_or(true)
    }

    fn accept(&mut self) {
        for at in 0..self.listeners.len() {
            // A few at a time, so that those who are here are heard.
            for _ in 0..MAX_STRANGERS {
                let (listener, carrier) = &self.listeners[at];
                match listener.accept() {
                    Ok(Some((stream, peer))) => self.meet(stream, peer, carrier.clone()),
                    Ok(None) => break,
                    Err(error) => {
                        tracing::warn!(%error, "a subscriber could not be let in");
                        // Without a descriptor to spare the queue stays readable: do not spin on it.
                        std::thread::sleep(Duration::from_millis(5));
                        break;
                    }
                }
            }
        }
    }

    fn meet(&mut self, stream: TcpStream, peer: SocketAddr, carrier: Carrier) {
        if !self.options.networks.admits(peer.ip()) {
            tracing::warn!(%peer, "not in the networks from which somebody may come");
            return;
        }
        if self.strangers.len() >= MAX_STRANGERS {
            self.strangers.remove(0);
        }
        let Some(shared) = self.shared.upgrade() else { return };
        match carrier.sender(stream, &shared) {
            Ok(link) => self.strangers.push(Stranger { link, carrier, peer, since: Instant::now() }),
            Err(error) => tracing::warn!(%peer, %error, "a connection could not be set up"),
        }
    }

    fn hear(&mut self) {
        for mut stranger in std::mem::take(&mut self.strangers) {
            match greeting(stranger.link.as_mut()) {
                Ok(None) if stranger.since.elapsed() < HELLO => self.strangers.push(stranger),
                Ok(None) => {}
                Ok(Some(packet)) => self.let_in(stranger, &packet),
                Err(error) => tracing::debug!(peer = %stranger.peer, %error, "no hello"),
            }
        }
    }

    fn let_in(&mut self, stranger: Stranger, packet: &[u8]) {
        let Some(shared) = self.shared.upgrade() else { return };
        if self.bridges.len() >= self.most {
            tracing::warn!(peer = %stranger.peer, "too many are here already");
            return;
        }
        let peer = stranger.peer;
        let bridge = match bridge(stranger.link, &stranger.carrier, peer, packet, &shared) {
            Ok(Some(bridge)) => bridge,
            Ok(None) => return,
            Err(error) => return tracing::debug!(%peer, %error, "no hello"),
        };
        match thread(move || run(bridge, peer)) {
            Ok(bridge) => self.bridges.push(bridge),
            Err(error) => tracing::warn!(%peer, %error, "no thread for a subscriber"),
        }
    }
}

/// The first packet of a newcomer, if it is here.
fn greeting(link: &mut dyn Sender) -> Result<Option<Vec<u8>>, LinkError> {
    let mut said = Vec::new();
    link.flush(&mut Vec::new())?;
    let received = link.receive(&mut said);
    if said.len() > 1 {
        return Err(PeerFault::OutOfPlace("more than a hello").into());
    }
    match said.pop() {
        Some(FromSubscriber::Packet(packet)) => Ok(Some(packet)),
        None => received.map(|()| None),
    }
}

fn bridge(
    link: Box<dyn Sender>,
    carrier: &Carrier,
    peer: SocketAddr,
    packet: &[u8],
    shared: &Arc<Shared>,
) -> Result<Option<Egress>, PeerFault> {
    let hello = hello(packet)?;
    let origin = Origin { meter: Meter::default() };
    origin.meter.begin(carrier.name(), &peer);
    Ok(Egress::new(link, hello, shared, origin))
}

fn run(bridge: Egress, peer: SocketAddr) {
    match bridge.run() {
        Ok(()) | Err(LinkError::Closed) => tracing::debug!(%peer, "a remote link ended"),
        Err(error) => tracing::warn!(%peer, %error, "a remote link ended"),
    }
}

/// Reaches for one subscriber that listens, again and again.
fn dial(to: &Destination, carrier: &Carrier, shared: &Weak<Shared>, stop: &EventFd) {
    let mut told = false;
    loop {
        match connect(to) {
            Ok(stream) => serve(stream, carrier, shared, stop),
            Err(error @ (ConnectError::Name { .. } | ConnectError::ClearText(_))) if !told => {
                tracing::warn!(%error, "no link to a subscriber that should listen");
                told = true;
            }
            Err(error) => tracing::debug!(%error, "no link to a subscriber that should listen"),
        }
        let mut fds = [PollFd::new(stop.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut fds, PollTimeout::from(DIAL.as_millis() as u16));
        if fds[0].any().unwrap_or(true) || shared.strong_count() == 0 {
            return;
        }
    }
}

/// Waits for the hello of whoever was reached, and serves it.
fn serve(stream: TcpStream, carrier: &Carrier, shared: &Weak<Shared>, stop: &EventFd) {
    let Ok(peer) = stream.peer_addr() else { return };
    let Some(link) = shared.upgrade().map(|shared| carrier.sender(stream, &shared)) else { return };
    let mut link = match link {
        Ok(link) => link,
        Err(error) => return tracing::warn!(%peer, %error, "a connection could not be set up"),
    };
    // It speaks when it is asked for frames, which may be any time after it began to listen.
    loop {
        match greeting(link.as_mut()) {
            Ok(Some(packet)) => {
                let Some(shared) = shared.upgrade() else { return };
                match bridge(link, carrier, peer, &packet, &shared) {
                    Ok(Some(bridge)) => {
                        drop(shared);
                        run(bridge, peer);
                    }
                    Ok(None) => {}
                    Err(error) => tracing::debug!(%peer, %error, "no hello"),
                }
                return;
            }
            Ok(None) => {}
            Err(error) => return tracing::debug!(%peer, %error, "no hello"),
        }
        let mut fds = vec![PollFd::new(stop.as_fd(), PollFlags::POLLIN)];
        fds.extend(link.poll_fds());
        let _ = poll(&mut fds, PollTimeout::from(LOOK.as_millis() as u16));
        if fds[0].any().unwrap_or(true) {
            return;
        }
    }
}
