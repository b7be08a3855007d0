//! The receiving end of a link.

#[cfg(feature = "tokio")]
mod asynchronous;
mod connection;
mod dial;
mod link;
mod message;
mod options;

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use pagecast_ipc::socket::{ReceiveError, Uri};
use pagecast_ipc::wire::limits::{MAX_EVENT_BYTES, MAX_NAME};
use pagecast_ipc::wire::{Clock, Event, RefusalCode, ToPublisher, Welcome};

#[cfg(feature = "tokio")]
pub use asynchronous::AsyncSubscriber;
pub use connection::PublisherFault;
pub(crate) use link::LinkState;
pub use message::{Message, RecvError, SubscriberFigures};
pub use options::SubscriberOptions;

use crate::frame::Frame;
use crate::latency::Latency;
use crate::remote::Meter;
use crate::stream::{EOS, Stream};
use connection::Connection;
use dial::Dialer;

/// Only the receiving thread has it, also while it waits.
struct Receiver {
    connection: Option<Connection>,
    dialer: Dialer,
    last_frame: Option<u64>,
    /// Whether the last message had to be waited for.
    waited: bool,
}

/// What anybody may look at at any time.
#[derive(Default)]
struct View {
    link: Option<Arc<LinkState>>,
    welcome: Option<Welcome>,
    stream: Arc<Stream>,
    clock: Option<Clock>,
    lives: u64,
    latency: Latency,
    /// What is known of a link to another host, and how well its clock was known with each frame.
    meter: Option<Meter>,
    uncertainty: Latency,
    frames: u64,
    dropped: u64,
    bytes: u64,
}

/// Receives frames from one publisher. One thread receives at a time; frames may be dropped anywhere.
pub struct Subscriber {
    options: SubscriberOptions,
    receiver: Mutex<Receiver>,
    view: Mutex<View>,
    wake: EventFd,
    interrupted: AtomicBool,
}

impl std::fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscriber").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Subscriber {
    /// A subscriber of the publisher at `uri` (`unix:NAME`, `unix:/path`, or `tcp://`, `rdma://` or
    /// `remote://HOST:PORT`); it connects when it first receives.
    ///
    /// # Errors
    /// [`RecvError::Uri`] if that is not a name.
    pub fn open(uri: &str, options: SubscriberOptions) -> Result<Self, RecvError> {
        let parsed: Uri = uri.parse().map_err(|e| RecvError::Uri(format!("{e}")))?;
        let dialer = Dialer::new(parsed, uri, &options)?;
        let wake = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|errno| RecvError::Socket(ReceiveError::Io(errno)))?;
        Ok(Self {
            options,
            receiver: Mutex::new(Receiver { connection: None, dialer, last_frame: None, waited: false }),
            view: Mutex::default(),
            wake,
            interrupted: AtomicBool::new(false),
        })
    }

    /// The next message; waits up to `timeout` (`None`: for ever).
    ///
    /// # Errors
    /// [`RecvError`]. After [`RecvError::Timeout`] and [`RecvError::Interrupted`] it may be called again;
    /// with `reconnect` the end of a link is no error but [`Message::Disconnected`].
    pub fn recv(&self, timeout: Option<Duration>) -> Result<Message, RecvError> {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let mut receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner);
        // Who waited for the last message will wait for the next: asking the socket first is a call in vain.
        let idle = receiver.connection.as_ref().is_some_and(Connection::is_idle);
        let mut look =
            !(receiver.waited && idle) || deadline.is_some_and(|deadline| deadline <= Instant::now());
        receiver.waited = false;
        loop {
            if self.interrupted.load(Ordering::SeqCst) {
                return Err(RecvError::Interrupted);
            }
            if look && let Some(message) = self.step(&mut receiver)? {
                return Ok(message);
            }
            look = true;
            let pause = receiver.dialer.pause(receiver.connection.is_some());
            self.sleep(receiver.connection.as_ref(), deadline, pause)?;
            receiver.waited = true;
        }
    }

    /// The next frame; other messages are taken note of and passed over.
    ///
    /// # Errors
    /// As [`Subscriber::recv`].
    pub fn next_frame(&self, timeout: Option<Duration>) -> Result<Frame, RecvError> {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            match self.recv(left)? {
                Message::Frame(frame) => return Ok(frame),
                Message::Event(event) if event.name == EOS => return Err(RecvError::Closed),
                _ => {}
            }
        }
    }

    /// Makes a waiting [`Subscriber::recv`], and all later ones, return [`RecvError::Interrupted`] until
    /// [`Subscriber::resume`].
    pub fn interrupt(&self) {
        self.interrupted.store(true, Ordering::SeqCst);
        let _ = self.wake.write(1);
    }

    /// Ends what [`Subscriber::interrupt`] began.
    pub fn resume(&self) {
        self.interrupted.store(false, Ordering::SeqCst);
        let _ = self.wake.read();
    }

    /// Sends an upstream event, e.g. `force-key-unit`; dropped when there is no link, when it is over the
    /// limits of an event, or when very many wait.
    pub fn request(&self, name: &str, data: &[u8]) {
        // The publisher would take it for a fault and end the link.
        if name.len() > MAX_NAME || data.len() > MAX_EVENT_BYTES {
            tracing::warn!(name, bytes = data.len(), "a request is over the limit and is not sent");
            return;
        }
        self.send(ToPublisher::Request(Event { name: name.to_owned(), data: data.to_vec() }));
    }

    /// Asks the publisher for its figures; they come as [`Message::Info`]. Only observers may ask (see
    /// [`SubscriberOptions::observe`]); for others this does nothing.
    pub fn query(&self) {
        if self.options.observe {
            self.send(ToPublisher::Query);
        }
    }

    /// Caps, segment, tags as last received.
    pub fn stream(&self) -> Arc<Stream> {
        self.view().stream.clone()
    }

    /// What the publisher granted; `None` while there is no link.
    pub fn welcome(&self) -> Option<Welcome> {
        self.view().welcome.clone()
    }

    /// The publisher's clock as last received.
    pub fn clock(&self) -> Option<Clock> {
        self.view().clock
    }

    /// How well it is known how the publisher's `CLOCK_MONOTONIC`, in which frames are captured and published, stands to
    /// ours: zero where it is the same, `None` while it is not known. Times of frames and [`Subscriber::clock`] are
    /// of ours.
    pub fn clock_uncertainty(&self) -> Option<Duration> {
        self.view().meter.as_ref().map_or(Some(Duration::ZERO), Meter::uncertainty)
    }

    /// The options it was opened with.
    pub fn options(&self) -> &SubscriberOptions {
        &self.options
    }

    /// Its figures.
    pub fn figures(&self) -> SubscriberFigures {
        let view = self.view();
        let meter = view.meter.as_ref();
        let uncertain = || (!view.uncertainty.is_empty()).then(|| view.uncertainty.figures().p99);
        let transport = meter.map_or("unix", Meter::transport);
        SubscriberFigures {
            frames: view.frames,
            dropped: view.dropped,
            bytes: view.bytes,
            reconnects: view.lives.saturating_sub(1),
            epoch: view.link.as_ref().map_or(0, |link| link.epoch()),
            latency_us: view.latency.figures(),
            uncertainty_us: if meter.is_some() { uncertain() } else { Some(0.0) },
            transport: if view.lives > 0 { transport.to_owned() } else { String::new() },
            credits: view.welcome.as_ref().map_or(0, |welcome| welcome.credits),
            remote: meter.map(Meter::figures),
        }
    }

    fn send(&self, message: ToPublisher) {
        let link = self.view().link.clone();
        if let Some(link) = link {
            link.ask(message);
        }
    }

    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The link to wait for, or how long to wait before there may be one.
    #[cfg(feature = "tokio")]
    fn pending(&self) -> (Option<Arc<LinkState>>, Duration) {
        let receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner);
        let link = receiver.connection.as_ref().map(|connection| connection.link.clone());
        (link, receiver.dialer.pause(false).unwrap_or_default())
    }

    /// One step that does not wait: a message that is here, or progress with the link.
    fn step(&self, receiver: &mut Receiver) -> Result<Option<Message>, RecvError> {
        let Some(connection) = &mut receiver.connection else {
            return self.dial(receiver);
        };
        let next = if self.options.latest { connection.next_latest() } else { connection.next() };
        match next {
            Ok(Some(message)) => {
                self.note(receiver, &message);
                Ok(Some(message))
            }
            Ok(None) => Ok(None),
            Err(error) if receiver.dialer.asks_again(&error) => {
                self.forget(receiver).lives -= 1;
                Ok(None)
            }
            Err(error) => self.lost(receiver, error).map(Some),
        }
    }

    fn dial(&self, receiver: &mut Receiver) -> Result<Option<Message>, RecvError> {
        let Some((socket, epoch, welcome)) = receiver.dialer.step()? else { return Ok(None) };
        let meter = receiver.dialer.meter();
        let connection = Connection::new(socket, epoch, welcome.credits, meter.is_some());
        let mut view = self.view();
        view.meter = meter;
        view.link = Some(connection.link.clone());
        view.welcome = Some(welcome.clone());
        view.stream = Arc::default();
        view.clock = None;
        view.lives += 1;
        drop(view);
        receiver.connection = Some(connection);
        receiver.last_frame = None;
        Ok(Some(Message::Connected(welcome)))
    }

    /// There is no link any more.
    fn forget(&self, receiver: &mut Receiver) -> MutexGuard<'_, View> {
        receiver.connection = None;
        let mut view = self.view();
        view.link = None;
        view.welcome = None;
        view
    }

    fn lost(&self, receiver: &mut Receiver, error: RecvError) -> Result<Message, RecvError> {
        drop(self.forget(receiver));
        let error = receiver.dialer.explained(error);
        receiver.dialer.restart(receiver.last_frame.is_some());
        match &error {
            RecvError::Refused { code: RefusalCode::Closing, .. } => {}
            RecvError::Closed | RecvError::Remote { .. } => {}
            RecvError::Refused { code: RefusalCode::Evicted, .. } | RecvError::Socket(_) => {}
            _ => return Err(error),
        }
        match self.options.reconnect {
            true => Ok(Message::Disconnected(error.to_string())),
            false => Err(error),
        }
    }

    fn note(&self, receiver: &mut Receiver, message: &Message) {
        let mut view = self.view();
        match message {
            Message::Frame(frame) => {
                view.frames += 1;
                view.bytes += frame.size() as u64;
                if let Some(last) = receiver.last_frame.replace(frame.id()) {
                    view.dropped += frame.id().saturating_sub(last).saturating_sub(1);
                }
                let published = frame.description().times.published;
                let uncertainty = view.meter.as_ref().map(Meter::uncertainty);
                view.latency.record(published);
                if let (Some(_), Some(Some(uncertainty))) = (published, uncertainty) {
                    view.uncertainty.record_ns(uncertainty.as_nanos() as u64);
                }
            }
            Message::Sticky(_) => {
                if let Some(connection) = &receiver.connection {
                    view.stream = connection.stream().clone();
                }
            }
            Message::Clock(clock) => view.clock = Some(*clock),
            // Nobody may receive again: what is still held goes back when it is dropped, not with later ones.
            Message::Event(event) if event.name == EOS => {
                if let Some(connection) = &receiver.connection {
                    connection.link.set_receiving(true);
                    connection.link.flush();
                }
            }
            _ => {}
        }
    }

    /// Sleeps until there may be something, the pause is over, or the deadline has passed.
    fn sleep(
        &self,
        connection: Option<&Connection>,
        deadline: Option<Instant>,
        pause: Option<Duration>,
    ) -> Result<(), RecvError> {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            if let Some(connection) = connection {
                connection.link.flush();
            }
            return Err(RecvError::Timeout);
        }
        let wait = match (left, pause) {
            (Some(left), Some(pause)) => Some(left.min(pause)),
            (left, pause) => left.or(pause),
        };
        let timeout = wait.map_or(PollTimeout::NONE, |wait| {
            PollTimeout::try_from(wait.as_micros().div_ceil(1000).min(60_000) as i32)
                .unwrap_or(PollTimeout::MAX)
        });
        let mut fds = vec![PollFd::new(self.wake.as_fd(), PollFlags::POLLIN)];
        match connection {
            Some(connection) => {
                connection.link.set_receiving(true);
                connection.link.flush();
                fds.push(PollFd::new(connection.link.socket().as_fd(), PollFlags::POLLIN));
                let _ = poll(&mut fds, timeout);
                connection.link.set_receiving(false);
            }
            None => drop(poll(&mut fds, timeout)),
        }
        Ok(())
    }
}

impl AsFd for Subscriber {
    /// Readable when it was interrupted; see `AsyncSubscriber` for waiting without a thread.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let link = self.view().link.take();
        if let Some(link) = link {
            link.flush();
            link.ask(ToPublisher::Bye);
        }
    }
}
