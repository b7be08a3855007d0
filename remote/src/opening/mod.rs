//! `remote://`: the two ends find out what can carry their link, and say so.
//!
//! Both make an [`Offer`]. If both have an RDMA device, the subscriber makes a place, the publisher writes there
//! by RDMA, and the subscriber looks whether it arrives; then it chooses. The link begins behind that, on the same
//! connection. Who listens waits for the first bytes of the other, which may as well be those of a `tcp://` or `rdma://` link.
//!
//! Nothing of a device is given to who came before it has said what it came for, inside TLS where that is asked for. So who
//! listens for `rdma://` alone listens here, too.

mod link;
mod probe;
pub mod wire;

use std::io;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags};
use pagecast_verbs::{ENDPOINT_BYTES, Verbs};

pub use self::link::{rdma_receiver, rdma_sender, receiver, sender};
use self::probe::Probe;
use self::wire::{ANSWER, Answer, MAGIC, OFFER, Offer};
pub use self::wire::{Choice, Reason};
use crate::limits::DEAD;
use crate::link::PollFds;
use crate::pulse::Role;
use crate::tcp::{Channel, Piece};
use crate::{LinkError, PeerFault, framing, rdma};

/// How long the subscriber waits for what was written to try RDMA.
pub const PROBE: Duration = Duration::from_millis(700);

/// What it has come to.
enum Opened {
    /// What was chosen.
    Chosen(Choice),
    /// The other end has said `tcp://`.
    AskedForTcp,
    /// The other end has said `rdma://`.
    AskedForRdma,
}

enum State {
    /// The other end speaks first.
    Listening,
    /// Our offer is made, the other's is not here.
    Offering,
    /// The publisher waits for an answer; whether it has written.
    Answered(Option<[u8; ENDPOINT_BYTES]>),
    /// The subscriber waits for what is written.
    Probing(Instant),
    /// The choice is being said.
    Choosing(Choice),
}

/// The talk before a link.
struct Opening {
    channel: Channel,
    role: Role,
    /// Whether `rdma://` is all that is spoken.
    only_rdma: bool,
    /// What a probe is made of, where there is something.
    verbs: Option<Verbs>,
    probe: Option<Probe>,
    state: State,
    output: Vec<u8>,
    begun: Instant,
}

impl Opening {
    fn new(channel: Channel, role: Role, listens: bool, verbs: Option<&Verbs>) -> Self {
        let mut opening = Self {
            channel,
            role,
            only_rdma: false,
            verbs: verbs.cloned(),
            probe: None,
            state: State::Listening,
            output: Vec::new(),
            begun: Instant::now(),
        };
        if !listens {
            opening.offer();
        }
        opening
    }

    /// Of one who listens for `rdma://`.
    fn of_rdma(channel: Channel, role: Role) -> Self {
        Self { only_rdma: true, ..Self::new(channel, role, true, None) }
    }

    fn offer(&mut self) {
        // Why not does not matter here: `rdma://` says it.
        self.probe = match (&self.verbs, self.channel.local()) {
            (Some(verbs), Ok(own)) => Probe::new(verbs, own.ip()).ok(),
            _ => None,
        };
        let endpoint = self.probe.as_ref().map(Probe::endpoint);
        self.output.extend(Offer { endpoint }.to_bytes());
        self.state = State::Offering;
    }

    /// Who came for something else hears what is spoken here.
    fn turn_away(&mut self) -> LinkError {
        self.output.extend(rdma::wire::preamble());
        self.flush().err().unwrap_or(PeerFault::OutOfPlace("another scheme than rdma://").into())
    }

    fn is_silent(&self) -> bool {
        self.role == Role::Asks && self.begun.elapsed() > DEAD
    }

    fn poll_fds(&self) -> PollFds<'_> {
        // While it probes the other end has nothing to say.
        let reads = !matches!(self.state, State::Probing(_));
        let mut fds = PollFds::new();
        fds.push(PollFd::new(self.channel.fd(), self.channel.interest(reads, !self.output.is_empty())));
        if let (State::Probing(_), Some(probe)) = (&self.state, &self.probe) {
            fds.push(PollFd::new(probe.fd(), PollFlags::POLLIN));
        }
        fds
    }

    fn next_look(&self) -> Instant {
        match self.state {
            State::Probing(since) => since + PROBE,
            _ => Instant::now() + Duration::from_secs(1),
        }
    }

    /// Goes on as far as it can now; `Some` at its end.
    fn step(&mut self) -> Result<Option<Opened>, LinkError> {
        loop {
            self.flush()?;
            match self.state {
                State::Listening => match self.first()? {
                    None if self.is_silent() => return Err(LinkError::Silent(DEAD.as_secs())),
                    None => return Ok(None),
                    Some(rdma::wire::MAGIC) => return Ok(Some(Opened::AskedForRdma)),
                    Some(_) if self.only_rdma => return Err(self.turn_away()),
                    Some(framing::MAGIC) => return Ok(Some(Opened::AskedForTcp)),
                    Some(_) => self.offer(),
                },
                State::Offering => match self.first()? {
                    None if self.is_silent() => return Err(LinkError::Silent(DEAD.as_secs())),
                    None => return Ok(None),
                    Some(framing::MAGIC) => return Err(LinkError::OtherScheme("tcp")),
                    Some(rdma::wire::MAGIC) => return Err(LinkError::OtherScheme("rdma")),
                    Some(_) => {
                        let Some(bytes) = take::<OFFER>(&mut self.channel)? else { return Ok(None) };
                        self.consider(Offer::from_bytes(&bytes)?);
                    }
                },
                State::Answered(peer) => {
                    let Some(bytes) = take::<ANSWER>(&mut self.channel)? else { return Ok(None) };
                    if let Some(choice) = self.answered(peer, Answer::from_bytes(&bytes)?)? {
                        return Ok(Some(Opened::Chosen(choice)));
                    }
                }
                State::Probing(since) => match self.probed(since) {
                    None => return Ok(None),
                    Some(choice) => self.choose(choice),
                },
                State::Choosing(choice) if self.output.is_empty() => return Ok(Some(Opened::Chosen(choice))),
                State::Choosing(_) => return Ok(None),
            }
        }
    }

    /// The first bytes of the other end.
    fn first(&mut self) -> Result<Option<[u8; 4]>, LinkError> {
        let Some(bytes) = self.channel.peek(4).map_err(closed)? else { return Ok(None) };
        let first = [bytes[0], bytes[1], bytes[2], bytes[3]];
        match first {
            MAGIC | framing::MAGIC | rdma::wire::MAGIC => Ok(Some(first)),
            _ => Err(PeerFault::NotPagecast.into()),
        }
    }

    /// The other end's offer is here.
    fn consider(&mut self, theirs: Offer) {
        if self.role == Role::Answers {
            self.state = State::Answered(theirs.endpoint);
            return;
        }
        let from = self.channel.peer().map(|peer| peer.ip()).map_err(LinkError::from);
        match (&mut self.probe, theirs.endpoint) {
            (None, _) => self.choose(Choice::Tcp(Reason::SubscriberHasNone)),
            (_, None) => self.choose(Choice::Tcp(Reason::PublisherHasNone)),
            (Some(probe), Some(peer)) => match from.and_then(|from| probe.place(&peer, from)) {
                Ok(place) => {
                    self.output.extend(place.to_bytes());
                    self.state = State::Probing(Instant::now());
                }
                Err(_) => self.choose(Choice::Tcp(Reason::ProbeLost)),
            },
        }
    }

    /// The subscriber has answered; the choice, if it was that.
    fn answered(
        &mut self,
        peer: Option<[u8; ENDPOINT_BYTES]>,
        answer: Answer,
    ) -> Result<Option<Choice>, LinkError> {
        match (answer, &mut self.probe, peer) {
            (Answer::Choice(Choice::Rdma), None, _) => Err(PeerFault::OutOfPlace("a choice of RDMA").into()),
            (Answer::Choice(choice), ..) => Ok(Some(choice)),
            (Answer::Place { nonce, address, rkey }, Some(probe), Some(peer)) => {
                // Once, and whatever comes of it, the subscriber will say.
                self.state = State::Answered(None);
                let _ = probe.write(&peer, self.channel.peer()?.ip(), (nonce, address, rkey));
                Ok(None)
            }
            _ => Err(PeerFault::OutOfPlace("a place for a probe").into()),
        }
    }

    /// What has come of the probe; `None` while that is open.
    fn probed(&mut self, since: Instant) -> Option<Choice> {
        let arrived = self.probe.as_mut().map(Probe::has_arrived);
        match arrived {
            Some(Ok(true)) => Some(Choice::Rdma),
            Some(Ok(false)) if since.elapsed() < PROBE => None,
            _ => Some(Choice::Tcp(Reason::ProbeLost)),
        }
    }

    fn choose(&mut self, choice: Choice) {
        self.output.extend(Answer::Choice(choice).to_bytes());
        self.state = State::Choosing(choice);
    }

    fn flush(&mut self) -> Result<(), LinkError> {
        while !self.output.is_empty() {
            let Some(count) = self.channel.send(&[Piece::Bytes(&self.output)])? else { return Ok(()) };
            self.output.drain(..count);
        }
        Ok(self.channel.flush()?)
    }
}

/// The next bytes, if they are all here.
fn take<const N: usize>(channel: &mut Channel) -> Result<Option<[u8; N]>, LinkError> {
    let bytes: Option<[u8; N]> = channel.peek(N).map_err(closed)?.and_then(|bytes| bytes.try_into().ok());
    if bytes.is_some() {
        channel.skip(N);
    }
    Ok(bytes)
}

fn closed(error: io::Error) -> LinkError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => LinkError::Closed,
        _ => error.into(),
    }
}
