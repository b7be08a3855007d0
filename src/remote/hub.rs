//! The publisher's door to the network: it listens, reads hellos, and starts a bridge for each who may come.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use pagecast_ipc::socket::Uri;
use pagecast_ipc::wire::{Hello, RefusalCode, Role};
use pagecast_remote::limits::{HELLO, LAST_WORDS, LINGER};
use pagecast_remote::tcp::{Channel, ConnectError, Destination, TcpListener, connect};
use pagecast_remote::{FromSubscriber, LinkError, PeerFault, Sender};

use super::carrier::{Came, Carrier};
use super::egress::{Egress, hello, refusal};
use super::serving::{Kind, Seat, Serving};
use super::{Meter, Origin, RemoteOptions};
use crate::publisher::Shared;

/// Newcomers that have not said hello, at a time; the one that has been silent for longest makes room.
const MAX_STRANGERS: usize = 32;
/// Bridges of subscribers at a time beyond the publisher's most: those to whom it says itself that there is no room.
const MORE_PEERS: usize = 16;
/// Bridges of observers at a time.
const MAX_OBSERVERS: usize = 16;
/// Those who were refused and have not gone, at a time.
const MAX_LEAVING: usize = 32;
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
        let listener = TcpListener::bind(host, port, &options.security()?)?;
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
        self.outbound.push((super::destination(uri, options)?, carrier));
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
    /// The thread that listens.
    door: Option<JoinHandle<()>>,
    serving: Arc<Serving>,
}

impl Hub {
    pub(crate) fn start(ends: Ends, shared: &Arc<Shared>, options: &RemoteOptions) -> Result<Self, Errno> {
        // A semaphore of no use to anybody but who waits: it stays readable once written.
        let stop = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let mut hub = Self { stop: Arc::new(stop), door: None, serving: Arc::default() };
        for (to, carrier) in ends.outbound {
            let (stop, shared, serving) = (hub.stop.clone(), Arc::downgrade(shared), hub.serving.clone());
            thread(move || Caller { to, carrier, shared, serving }.run(&stop))?;
        }
        if !ends.listeners.is_empty() {
            let door = Door {
                listeners: ends.listeners,
                shared: Arc::downgrade(shared),
                options: options.clone(),
                strangers: Vec::new(),
                leaving: Vec::new(),
                serving: hub.serving.clone(),
                most: shared.max_subscribers() + MORE_PEERS,
            };
            let stop = hub.stop.clone();
            hub.door = Some(thread(move || door.run(&stop))?);
        }
        Ok(hub)
    }

    /// Ends all of it: nobody listens afterwards. The publisher has closed its sides, so bridges end by themselves, and
    /// are waited for as long as they have something to say. Who is only being reached for is not.
    pub(crate) fn end(self) {
        let _ = self.stop.write(1);
        // Somebody who is told of a subscriber's end in a bridge's thread may let go of the publisher there.
        if std::thread::current().name() == Some(THREAD) {
            return;
        }
        if let Some(door) = self.door {
            let _ = door.join();
        }
        // They end before; should one not, the publisher's owner is not held.
        self.serving.wait(LAST_WORDS + LINGER);
    }
}

pub(super) fn thread<T: Send + 'static>(
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, Errno> {
    let builder = std::thread::Builder::new().name(THREAD.to_owned());
    builder.spawn(run).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))
}

struct Door {
    listeners: Vec<(TcpListener, Carrier)>,
    shared: Weak<Shared>,
    options: RemoteOptions,
    strangers: Vec<Stranger>,
    /// Those who were told why they may not stay.
    leaving: Vec<Stranger>,
    serving: Arc<Serving>,
    most: usize,
}

impl Door {
    fn run(mut self, stop: &EventFd) {
        while !self.wait(stop) {
            self.accept();
            self.hear();
            self.see_off();
        }
    }

    /// Waits for something to happen; `true` when it is time to stop.
    fn wait(&self, stop: &EventFd) -> bool {
        let mut fds = vec![PollFd::new(stop.as_fd(), PollFlags::POLLIN)];
        fds.extend(
            self.listeners.iter().map(|(listener, _)| PollFd::new(listener.as_fd(), PollFlags::POLLIN)),
        );
        for stranger in self.strangers.iter().chain(&self.leaving) {
            fds.extend(stranger.link.poll_fds());
        }
        let idle = self.strangers.is_empty() && self.leaving.is_empty();
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
                    Ok(Some((channel, peer))) => self.meet(channel, peer, carrier.clone()),
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

    fn meet(&mut self, channel: Channel, peer: SocketAddr, carrier: Carrier) {
        if !self.options.networks.admits(peer.ip()) {
            tracing::warn!(%peer, "not in the networks from which somebody may come");
            // Nothing of a device is given to who may not come, not even to tell it so.
            let link = carrier.plain_sender(channel.of_outsider());
            let text = format!("{} is not in the networks (--network) of the publisher", peer.ip());
            let stranger = Stranger { link, carrier, peer, since: Instant::now() };
            return self.refuse(stranger, RefusalCode::Access, text);
        }
        if self.strangers.len() >= MAX_STRANGERS {
            self.strangers.remove(0);
        }
        let Some(shared) = self.shared.upgrade() else { return };
        match carrier.sender(channel, Came::Here, &shared) {
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
                Err(error) if is_to_put_right(&error) => {
                    tracing::warn!(peer = %stranger.peer, %error, "not let in")
                }
                Err(error) => tracing::debug!(peer = %stranger.peer, %error, "no hello"),
            }
        }
    }

    fn let_in(&mut self, stranger: Stranger, packet: &[u8]) {
        let Some(shared) = self.shared.upgrade() else { return };
        let peer = stranger.peer;
        let hello = match hello(packet) {
            Ok(hello) => hello,
            Err(error) => return tracing::debug!(%peer, %error, "no hello"),
        };
        let (kind, most) = match hello.role {
            Role::Observer => (Kind::Observer, MAX_OBSERVERS),
            _ => (Kind::Subscriber, self.most),
        };
        let Some(seat) = self.serving.seat(kind, most) else {
            tracing::warn!(%peer, ?kind, "too many are here already");
            let text = format!("{most} from other hosts are here already: try again later");
            return self.refuse(stranger, RefusalCode::NoRoom, text);
        };
        let Some(bridge) = bridge(stranger.link, &stranger.carrier, peer, hello, &shared) else { return };
        if let Err(error) = thread(move || run(bridge, peer, seat)) {
            tracing::warn!(%peer, %error, "no thread for a subscriber");
        }
    }

    /// Tells somebody why it may not stay.
    fn refuse(&mut self, mut stranger: Stranger, code: RefusalCode, text: String) {
        if self.leaving.len() >= MAX_LEAVING {
            self.leaving.remove(0);
        }
        stranger.link.send_packet(&refusal(code, text, 0));
        stranger.since = Instant::now();
        self.leaving.push(stranger);
    }

    /// Who was refused is listened to until it has heard that, for a moment: a connection that is closed with bytes unread
    /// loses what is under way.
    fn see_off(&mut self) {
        self.leaving.retain_mut(|stranger| {
            stranger.link.finish();
            let sent = stranger.link.flush(&mut Vec::new());
            let here = sent.is_ok() && stranger.link.receive(&mut Vec::new()).is_ok();
            here && stranger.since.elapsed() < HELLO
        });
    }
}

/// Whether the user of one of the two ends has something to put right.
fn is_to_put_right(error: &LinkError) -> bool {
    match error {
        LinkError::Peer(fault) => fault.is_about_trust(),
        LinkError::Rdma(_) => true,
        _ => false,
    }
}

/// The first packet of a newcomer, if it is here.
fn greeting(link: &mut dyn Sender) -> Result<Option<Vec<u8>>, LinkError> {
    let mut said = Vec::new();
    link.flush(&mut Vec::new())?;
    let received = link.receive(&mut said);
    if received.is_err() {
        // Who came for something else hears what is spoken here.
        let _ = link.flush(&mut Vec::new());
    }
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
    hello: Hello,
    shared: &Arc<Shared>,
) -> Option<Egress> {
    let origin = Origin { meter: Meter::default() };
    origin.meter.begin(carrier.name(), &peer);
    origin.meter.set(link.figures(), 0);
    Egress::new(link, hello, shared, origin)
}

fn run(bridge: Egress, peer: SocketAddr, _seat: Seat) {
    match bridge.run() {
        Ok(()) | Err(LinkError::Closed) => tracing::debug!(%peer, "a remote link ended"),
        Err(error) => tracing::warn!(%peer, %error, "a remote link ended"),
    }
}

/// Reaches for one subscriber that listens, again and again.
struct Caller {
    to: Destination,
    carrier: Carrier,
    shared: Weak<Shared>,
    serving: Arc<Serving>,
}

impl Caller {
    fn run(self, stop: &EventFd) {
        let mut told = false;
        while !rings(stop, &[], Duration::ZERO) {
            let (error, matters) = match connect(&self.to) {
                Ok(channel) => match self.serve(channel, stop) {
                    Ok(()) => (None, false),
                    Err(error) => (Some(error.to_string()), is_to_put_right(&error)),
                },
                Err(error) => {
                    let matters = matches!(error, ConnectError::Name { .. } | ConnectError::ClearText(_));
                    (Some(error.to_string()), matters)
                }
            };
            let host = &self.to.host;
            match error {
                Some(error) if matters && !std::mem::replace(&mut told, true) => {
                    tracing::warn!(host, error, "no link to a subscriber that should listen");
                }
                Some(error) => tracing::debug!(host, error, "no link to a subscriber that should listen"),
                None => {}
            }
            if rings(stop, &[], DIAL) || self.shared.strong_count() == 0 {
                return;
            }
        }
    }

    /// Waits for the hello of whoever was reached, and serves it.
    fn serve(&self, channel: Channel, stop: &EventFd) -> Result<(), LinkError> {
        let peer = channel.peer()?;
        let Some(link) =
            self.shared.upgrade().map(|shared| self.carrier.sender(channel, Came::There, &shared))
        else {
            return Ok(());
        };
        let mut link =
            link.inspect_err(|error| tracing::warn!(%peer, %error, "a connection could not be set up"))?;
        // It speaks when it is asked for frames, which may be any time after it began to listen.
        let hello = loop {
            match greeting(link.as_mut())? {
                Some(packet) => break hello(&packet)?,
                None if rings(stop, &link.poll_fds(), LOOK) => return Ok(()),
                None => {}
            }
        };
        let seat = self.serving.seat(Kind::Subscriber, usize::MAX);
        let Some(shared) = self.shared.upgrade() else { return Ok(()) };
        if let (Some(seat), Some(bridge)) = (seat, bridge(link, &self.carrier, peer, hello, &shared)) {
            drop(shared);
            run(bridge, peer, seat);
        }
        Ok(())
    }
}

/// Waits for one of these, up to `limit`; `true` when it is time to stop.
fn rings(stop: &EventFd, others: &[PollFd<'_>], limit: Duration) -> bool {
    let mut fds = vec![PollFd::new(stop.as_fd(), PollFlags::POLLIN)];
    fds.extend_from_slice(others);
    let _ = poll(&mut fds, PollTimeout::from(limit.as_millis() as u16));
    fds[0].any().unwrap_or(true)
}
