//! Receives from one publisher and publishes the same pages to others, without a copy.
//!
//! A relay is a subscriber that publishes what it received: its own subscribers hold frames that it holds
//! upstream, so what they may hold together is what upstream granted to it. One that stalls costs only its own
//! share; when the link upstream is lost, the relay and its subscribers stay, and frames come again when it is
//! back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pagecast_ipc::wire::{Event, FrameFlags, Welcome};

use crate::frame::{Frame, FrameError};
use crate::publisher::{Hooks, Info, PublishError, Publisher, PublisherOptions};
use crate::subscriber::{Message, RecvError, Subscriber, SubscriberFigures, SubscriberOptions};

/// Credits that a relay asks for where nothing else is said: they are shared by all of its subscribers.
const CREDITS: u32 = 64;
/// The share of one subscriber of a relay.
const LEAF_CREDITS: u32 = 4;
const LEAF_MAILBOX: u32 = 2;
/// Frames that the relay itself may have in hand between receiving and publishing.
const IN_HAND: u32 = 1;

/// How a relay receives and serves.
#[derive(Clone, Debug)]
pub struct RelayOptions {
    /// Towards upstream.
    pub subscriber: SubscriberOptions,
    /// Towards its own subscribers. `live` is taken over from upstream.
    pub publisher: PublisherOptions,
}

impl Default for RelayOptions {
    fn default() -> Self {
        let subscriber =
            SubscriberOptions { credits: Some(CREDITS), reconnect: true, ..SubscriberOptions::default() };
        // Nobody fills buffers here: what upstream granted is for subscribers, in shares that suit ten of them.
        let (credits, mailbox) = (Some(LEAF_CREDITS), Some(LEAF_MAILBOX));
        let publisher =
            PublisherOptions { reserve: IN_HAND, credits, mailbox, ..PublisherOptions::default() };
        Self { subscriber, publisher }
    }
}

/// Why a relay cannot begin, or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RelayError {
    /// Receiving: the link upstream.
    #[error("upstream: {0}")]
    Upstream(#[from] RecvError),
    /// Publishing: our own end.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// A frame that cannot be passed on.
    #[error("a frame cannot be passed on: {0}")]
    Frame(#[from] FrameError),
}

/// What one step of a relay did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// The link upstream stands; upstream is called so.
    Connected(String),
    /// A frame was passed on.
    Frame,
    /// Something else was passed on, or taken note of.
    Other,
    /// Upstream ended its stream; whoever subscribes was told.
    EndOfStream,
    /// The link upstream is lost, for this reason, and is looked for again.
    Disconnected(String),
    /// Nothing came in time.
    Nothing,
}

/// Figures of a relay.
#[derive(Clone, Debug, serde::Serialize)]
pub struct RelayFigures {
    /// Of its link upstream.
    pub upstream: SubscriberFigures,
    /// Of what it serves.
    pub downstream: Info,
}

/// Receives at one address and publishes at others; see the module's text.
#[derive(Debug)]
pub struct Relay {
    subscriber: Arc<Subscriber>,
    publisher: Publisher,
    /// The last frame of this life of the link upstream; 0 before its first.
    last: AtomicU64,
    frames: AtomicU64,
}

impl Relay {
    /// Begins to serve `to` (a list, as for [`Publisher::open`]) with what `from` publishes. It connects to `from`
    /// in the first [`Relay::step`].
    ///
    /// # Errors
    /// If one of the addresses cannot be used, or a living publisher has it.
    pub fn open(from: &str, to: &str, options: RelayOptions) -> Result<Self, RelayError> {
        let subscriber = Arc::new(Subscriber::open(from, options.subscriber)?);
        let upstream = Arc::downgrade(&subscriber);
        let request = move |event: Event| {
            if let Some(subscriber) = upstream.upgrade() {
                subscriber.request(&event.name, &event.data);
            }
        };
        let hooks = Hooks { request: Some(Box::new(request)), ..Hooks::default() };
        let publisher = Publisher::open_with(to, options.publisher, hooks)?;
        // Until upstream has said how much it grants, there is nothing to hold.
        publisher.set_most_frames(Some(CREDITS));
        Ok(Self { subscriber, publisher, last: AtomicU64::new(0), frames: AtomicU64::new(0) })
    }

    /// Waits for one message, up to `timeout` (`None`: for ever), and passes it on.
    ///
    /// # Errors
    /// [`RelayError`]. After [`RecvError::Interrupted`] it may be called again; the loss of a link is no error
    /// while the options say `reconnect`.
    pub fn step(&self, timeout: Option<Duration>) -> Result<Step, RelayError> {
        match self.subscriber.recv(timeout) {
            Ok(message) => self.pass_on(message),
            Err(RecvError::Timeout) => Ok(Step::Nothing),
            Err(error) => Err(error.into()),
        }
    }

    fn pass_on(&self, message: Message) -> Result<Step, RelayError> {
        match message {
            Message::Frame(frame) => return self.frame(&frame),
            Message::Connected(welcome) => return Ok(self.connected(&welcome)),
            Message::Disconnected(reason) => return Ok(Step::Disconnected(reason)),
            Message::Sticky(sticky) => self.publisher.set_sticky(&sticky.name, &sticky.data)?,
            Message::Clock(clock) => self.publisher.set_clock(clock),
            Message::Event(event) => {
                self.publisher.publish_event(&event.name, &event.data)?;
                if event.name == crate::stream::EOS {
                    return Ok(Step::EndOfStream);
                }
            }
            _ => {}
        }
        Ok(Step::Other)
    }

    fn frame(&self, frame: &Frame) -> Result<Step, RelayError> {
        let last = self.last.swap(frame.id(), Ordering::Relaxed);
        let first = self.frames.fetch_add(1, Ordering::Relaxed) == 0;
        // Our own numbers have no gaps: who subscribes here must be told of those upstream.
        match last.wrapping_add(1) == frame.id() || first {
            true => self.publisher.publish(frame)?,
            false => self.publisher.publish(&after_gap(frame)?)?,
        }
        Ok(Step::Frame)
    }

    fn connected(&self, welcome: &Welcome) -> Step {
        // Another life of the link begins with the whole state of the stream.
        self.last.store(0, Ordering::Relaxed);
        self.publisher.clear_stickies();
        self.publisher.set_live(welcome.live);
        self.publisher.set_most_frames(Some(welcome.credits));
        Step::Connected(welcome.name.clone())
    }

    /// Passes on whatever comes until [`Relay::stop`].
    ///
    /// # Errors
    /// As [`Relay::step`], except for the interruption.
    pub fn run(&self) -> Result<(), RelayError> {
        loop {
            match self.step(None) {
                Err(RelayError::Upstream(RecvError::Interrupted)) => return Ok(()),
                Err(RelayError::Publish(PublishError::Flushing | PublishError::Closed)) => return Ok(()),
                Err(error) => return Err(error),
                Ok(_) => {}
            }
        }
    }

    /// Ends [`Relay::run`] and a waiting [`Relay::step`], from any thread.
    pub fn stop(&self) {
        self.subscriber.interrupt();
        self.publisher.set_flushing(true);
    }

    /// The end that receives.
    pub fn subscriber(&self) -> &Subscriber {
        &self.subscriber
    }

    /// The end that serves.
    pub fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    /// Its figures.
    pub fn figures(&self) -> RelayFigures {
        RelayFigures { upstream: self.subscriber.figures(), downstream: self.publisher.info() }
    }

    /// Ends the stream downstream, as [`Publisher::close`] does.
    pub fn close(&self, patience: Duration) {
        self.publisher.set_flushing(false);
        self.publisher.close(patience);
    }
}

/// The same pages, with a word that frames before them are missing.
fn after_gap(frame: &Frame) -> Result<Frame, FrameError> {
    let mut description = frame.description().clone();
    description.flags |= FrameFlags::DISCONT;
    let segments = frame.segments().iter();
    let builder = segments.fold(Frame::builder().describe(description), |builder, segment| {
        builder.segment(segment.buffer.clone(), segment.offset, segment.length)
    });
    builder.received(frame).build()
}
