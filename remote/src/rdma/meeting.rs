//! How queue pairs come together that are not told of each other: the subscriber listens for RDMA-CM, the publisher calls, as
//! the one who sends first must on iWARP. A token that went over the control connection says who it is.

use std::io::Read as _;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::time::Instant;

use pagecast_verbs::{Cm, Connection, Listener, QueuePair, Request, Standing, Timing};

use super::RdmaError;
use super::wire::{TOKEN, Way};
use crate::limits::STALLED;
use crate::{LinkError, PeerFault};

/// Strangers who are refused until it is given up.
const MAX_STRANGERS: u32 = 64;

enum State {
    /// The publisher has not heard where to call.
    Unheard,
    /// The subscriber waits; whether the peer's hello is here, and where it is.
    Listening {
        listener: Listener,
        port: u16,
        token: [u8; TOKEN],
        strangers: u32,
        from: Option<IpAddr>,
    },
    Connection(Connection),
}

/// One end of it.
pub(super) struct Meeting {
    cm: Cm,
    own: IpAddr,
    state: State,
    /// When somebody must have called.
    until: Instant,
}

impl Meeting {
    /// The publisher's, who calls.
    pub(super) fn caller(cm: Cm, own: IpAddr) -> Self {
        let own = own.to_canonical();
        Self { cm, own, state: State::Unheard, until: Instant::now() + STALLED }
    }

    /// The subscriber's, who listens.
    pub(super) fn listener(cm: Cm, own: IpAddr) -> Result<Self, LinkError> {
        let own = own.to_canonical();
        let listener = Listener::new(&cm, own).map_err(RdmaError::from)?;
        let mut token = [0; TOKEN];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut token)?;
        let port = listener.port();
        let state = State::Listening { listener, port, token, strangers: 0, from: None };
        Ok(Self { cm, own, state, until: Instant::now() + STALLED })
    }

    /// What the other end is told.
    pub(super) fn way(&self) -> Way {
        match &self.state {
            State::Listening { port, token, .. } => Way::Listens { port: *port, token: *token },
            _ => Way::Calls,
        }
    }

    /// The other end, which is at `address`, has said how it comes up. All that this one must have ready is.
    pub(super) fn heard(&mut self, theirs: &Way, address: IpAddr) -> Result<(), LinkError> {
        self.until = Instant::now() + STALLED;
        match (&mut self.state, theirs) {
            (State::Unheard, Way::Listens { port, token }) => {
                let to = SocketAddr::new(address.to_canonical(), *port);
                let opened = Connection::open(&self.cm, (self.own, to), token, Timing::default(), STALLED);
                self.state = State::Connection(opened.map_err(RdmaError::from)?);
                Ok(())
            }
            (State::Listening { from, .. }, Way::Calls) => {
                *from = Some(address);
                Ok(())
            }
            (_, Way::Told) => Err(RdmaError::Transports.into()),
            _ => Err(PeerFault::OutOfPlace("a queue pair of the wrong role").into()),
        }
    }

    /// Readable when [`step`](Self::step) has something to do.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.state {
            State::Unheard => None,
            State::Listening { from: None, .. } => None,
            State::Listening { listener, .. } => Some(listener.fd()),
            State::Connection(connection) => Some(connection.fd()),
        }
    }

    /// Goes on as far as it can now.
    pub(super) fn step(&mut self, queue: &mut QueuePair) -> Result<Standing, RdmaError> {
        if let State::Listening { listener, token, strangers, from: Some(from), .. } = &mut self.state {
            let Some(request) = listener.next_request()? else {
                let late = Instant::now() > self.until;
                return if late { Err(RdmaError::NobodyCame) } else { Ok(Standing::Coming) };
            };
            if !is_expected(&request, token, *from) {
                // dropped, and so refused
                *strangers += 1;
                return if *strangers > MAX_STRANGERS {
                    Err(RdmaError::Strangers)
                } else {
                    Ok(Standing::Coming)
                };
            }
            let connection = request.accept(queue, Timing::default(), STALLED)?;
            self.state = State::Connection(connection);
        }
        match &mut self.state {
            State::Connection(connection) => Ok(connection.step(queue)?),
            _ => Ok(Standing::Coming),
        }
    }
}

/// Whether this is the publisher: from its address, and with the token. Some devices fill private data up with zeroes.
fn is_expected(request: &Request, token: &[u8; TOKEN], from: IpAddr) -> bool {
    let same = request.peer().ip().to_canonical() == from.to_canonical();
    let Some((given, rest)) = request.private_data().split_first_chunk::<TOKEN>() else { return false };
    let differs = given.iter().zip(token).fold(0, |differs, (a, b)| differs | (a ^ b));
    same && differs == 0 && rest.iter().all(|byte| *byte == 0)
}
