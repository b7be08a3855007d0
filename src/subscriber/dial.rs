//! From a URI to a link on which the publisher has said welcome, without ever waiting.

use std::time::{Duration, Instant};

use pagecast_ipc::socket::{
    ListenOptions, Listener, Mode, ReceiveError, SendError, Seqpacket, SocketError, Transport, Uri,
};
use pagecast_ipc::wire::limits::MAX_PACKET;
use pagecast_ipc::wire::{
    FaceSet, Hello, PacketBuilder, Packets, RefusalCode, ToPublisher, ToSubscriber, Welcome,
};

use crate::remote::{Cause, Meter, Way};

use super::{PublisherFault, RecvError, SubscriberOptions};

/// The first pause between two attempts; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How long a publisher may take to answer a hello.
const ANSWER: Duration = Duration::from_secs(5);
/// How often an answer is looked for.
const LOOK: Duration = Duration::from_millis(1);

#[derive(Debug)]
enum State {
    Idle,
    Asked { socket: Seqpacket, since: Instant },
}

/// Makes a link, again and again.
#[derive(Debug)]
pub(super) struct Dialer {
    uri: Uri,
    text: String,
    /// The way to a publisher on another host, and why the last link on it ended.
    way: Option<Way>,
    cause: Cause,
    meter: Meter,
    hello: Hello,
    any_face: bool,
    reconnect: bool,
    listener: Option<Listener>,
    state: State,
    next: Instant,
    back_off: Duration,
}

impl Dialer {
    pub(super) fn new(uri: Uri, text: &str, options: &SubscriberOptions) -> Result<Self, RecvError> {
        let mut hello = Hello::new(options.role(), &options.name);
        hello.policy = options.policy;
        hello.credits = options.credits;
        hello.keep = options.keep;
        hello.rate = options.max_rate;
        hello.faces = options.faces;
        let way =
            match uri.transport {
                Transport::Unix => None,
                _ => {
                    let way = Way::new(&uri, &options.remote, options.pool.clone());
                    Some(way.map_err(|error| RecvError::Remote {
                        uri: text.to_owned(),
                        reason: error.to_string(),
                    })?)
                }
            };
        Ok(Self {
            uri,
            way,
            cause: Cause::default(),
            meter: Meter::default(),
            text: text.to_owned(),
            hello,
            any_face: options.any_face,
            reconnect: options.reconnect,
            listener: None,
            state: State::Idle,
            next: Instant::now(),
            back_off: FIRST_PAUSE,
        })
    }

    /// What is known of the link, if the publisher is on another host.
    pub(super) fn meter(&self) -> Option<Meter> {
        self.way.is_some().then(|| self.meter.clone())
    }

    /// The end of a link, in the words of the bridge that knows more.
    pub(super) fn explained(&self, error: RecvError) -> RecvError {
        match (error, self.cause.get()) {
            (RecvError::Closed | RecvError::Socket(_), Some(ended)) => {
                RecvError::Remote { uri: self.text.clone(), reason: ended.text }
            }
            (error, _) => error,
        }
    }

    /// Asks again, for all faces, if the publisher has none of those that were asked for; whether it does.
    pub(super) fn asks_again(&mut self, error: &RecvError) -> bool {
        let refused = matches!(error, RecvError::Refused { code: RefusalCode::Face, .. });
        let wider = refused && self.any_face && self.hello.faces != FaceSet::all();
        if wider {
            tracing::debug!("the publisher has none of the faces {:?}: asking for all", self.hello.faces);
            self.hello.faces = FaceSet::all();
            self.restart(true);
        }
        wider
    }

    /// The link ended: begin again, at once if it was of use. A publisher that greets and hangs up is not asked
    /// again without a pause.
    pub(super) fn restart(&mut self, was_of_use: bool) {
        if was_of_use {
            self.state = State::Idle;
            self.back_off = FIRST_PAUSE;
            self.next = Instant::now();
        } else {
            self.try_later();
        }
    }

    /// How long to wait before the next [`Dialer::step`]; `None` when there is a link.
    pub(super) fn pause(&self, connected: bool) -> Option<Duration> {
        match self.state {
            _ if connected => None,
            State::Asked { .. } => Some(LOOK),
            State::Idle => Some(self.next.saturating_duration_since(Instant::now()).max(LOOK)),
        }
    }

    /// Goes one step, if it is time for it.
    pub(super) fn step(&mut self) -> Result<Option<(Seqpacket, u32, Welcome)>, RecvError> {
        match &self.state {
            State::Idle if Instant::now() < self.next => Ok(None),
            State::Idle => {
                if let Some(socket) = self.reach()? {
                    self.ask(socket);
                }
                Ok(None)
            }
            State::Asked { socket, since } => {
                let overdue = since.elapsed() > ANSWER;
                match answer(socket) {
                    Ok(Some((epoch, welcome))) => {
                        let State::Asked { socket, .. } = std::mem::replace(&mut self.state, State::Idle)
                        else {
                            return Ok(None);
                        };
                        Ok(Some((socket, epoch, welcome)))
                    }
                    Ok(None) if !overdue => Ok(None),
                    other => {
                        let other = other.map_err(|error| self.explained(error));
                        let for_good = self.cause.get().is_some_and(|ended| ended.for_good);
                        self.try_later();
                        match other {
                            Err(error) if self.asks_again(&error) => Ok(None),
                            Ok(_) if self.reconnect => Ok(None),
                            Ok(_) => Err(RecvError::NoAnswer { seconds: ANSWER.as_secs() }),
                            // A publisher that ends while we come may come again.
                            Err(error) if self.reconnect && !for_good && is_departure(&error) => Ok(None),
                            Err(error) => Err(error),
                        }
                    }
                }
            }
        }
    }

    fn try_later(&mut self) {
        self.state = State::Idle;
        // Spread over half to one and a half, so that many do not come at once.
        let spread = 50 + crate::clock::monotonic_ns() / 1000 % 100;
        self.next = Instant::now() + self.back_off * spread as u32 / 100;
        self.back_off = (self.back_off * 2).min(LONGEST_PAUSE);
    }

    fn ask(&mut self, socket: Seqpacket) {
        let mut record = Vec::new();
        ToPublisher::Hello(self.hello.clone()).encode(&mut record);
        let mut packet = PacketBuilder::default();
        packet.push(&record);
        match socket.send(&packet.bytes(0), &[]) {
            Err(SendError::Full) => self.try_later(),
            // A refusal may be here before we have spoken: it is read even if we could not.
            _ => self.state = State::Asked { socket, since: Instant::now() },
        }
    }

    /// A socket to the publisher, if one can be had now.
    fn reach(&mut self) -> Result<Option<Seqpacket>, RecvError> {
        if let Some(way) = &self.way {
            let system = |error: std::io::Error| RecvError::Remote {
                uri: self.text.clone(),
                reason: error.to_string(),
            };
            let reached = match way.reach() {
                // Without a descriptor or a thread to spare now, there may be one later.
                Err(error) if self.reconnect => {
                    tracing::warn!(%error, uri = self.text, "no way to the publisher now");
                    self.try_later();
                    return Ok(None);
                }
                reached => reached.map_err(system)?,
            };
            self.next = Instant::now() + FIRST_PAUSE;
            return Ok(reached.map(|(socket, cause, meter)| {
                (self.cause, self.meter) = (cause, meter);
                socket
            }));
        }
        let uri_error = |error: &dyn std::fmt::Display| RecvError::Uri(error.to_string());
        if self.uri.mode == Some(Mode::Listen) {
            if self.listener.is_none() {
                let path = pagecast_ipc::socket::name::resolve_to_listen(&self.uri.address);
                let path = path.map_err(|e| uri_error(&e))?;
                let listener = Listener::bind(&path, &ListenOptions::default());
                self.listener = Some(listener.map_err(|e| uri_error(&e))?);
            }
            let accepted = self.listener.as_ref().map(Listener::accept);
            if let Some(Ok(Some(socket))) = accepted {
                return Ok(Some(socket));
            }
            self.next = Instant::now() + FIRST_PAUSE;
            return Ok(None);
        }
        let path = self.uri.path().map_err(|e| uri_error(&e))?;
        match Seqpacket::connect(&path) {
            Ok(socket) => Ok(Some(socket)),
            Err(error @ (SocketError::WrongType { .. } | SocketError::Permission { .. })) => {
                Err(RecvError::Connect { uri: self.text.clone(), source: error })
            }
            Err(error) if !self.reconnect && !matches!(error, SocketError::Backlog { .. }) => {
                Err(RecvError::Connect { uri: self.text.clone(), source: error })
            }
            Err(_) => {
                self.try_later();
                Ok(None)
            }
        }
    }
}

fn is_departure(error: &RecvError) -> bool {
    matches!(
        error,
        RecvError::Closed
            | RecvError::Socket(_)
            | RecvError::Remote { .. }
            | RecvError::Refused { code: RefusalCode::Closing, .. }
    )
}

/// The publisher's answer, if it is here.
fn answer(socket: &Seqpacket) -> Result<Option<(u32, Welcome)>, RecvError> {
    let mut bytes = vec![0; MAX_PACKET];
    let mut fds = Vec::new();
    let len = match socket.receive(&mut bytes, &mut fds) {
        Ok(len) => len,
        Err(ReceiveError::Empty) => return Ok(None),
        Err(ReceiveError::Closed) => return Err(RecvError::Closed),
        Err(error) => return Err(RecvError::Socket(error)),
    };
    let mut packets = Packets::open(&bytes[..len]).map_err(PublisherFault::from)?;
    let epoch = packets.epoch();
    let record = packets.next_record().map_err(PublisherFault::from)?;
    let record = record.ok_or(PublisherFault::OutOfPlace("an empty packet"))?;
    match ToSubscriber::decode(record).map_err(PublisherFault::from)? {
        ToSubscriber::Welcome(welcome) => Ok(Some((epoch, welcome))),
        ToSubscriber::Refused(code, text) => Err(RecvError::Refused { code, text }),
        _ => Err(PublisherFault::OutOfPlace("an answer without welcome").into()),
    }
}
