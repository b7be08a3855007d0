//! What both ends have: a queue pair that comes up with the peer's hello.

use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags};
use pagecast_verbs::{
    Completion, CompletionQueue, Depth, ENDPOINT_BYTES, Endpoint, Fault, Gid, ProtectionDomain, QueuePair,
    Standing, State, Timing, WorkError,
};

use super::RdmaError;
use super::bell::Bell;
use super::control::Control;
use super::meeting::Meeting;
use super::places::MAX_GRANTS;
use super::wire::{Ability, Message, Way};
use crate::{LinkError, PeerFault};

/// A frame of 1 GiB in 16 segments, in messages of 8 MiB, twice.
pub(super) const DEPTH: Depth = Depth { send: 512, receive: 2 * MAX_GRANTS as u32, pieces: 1 };

/// Pauses between looks whether the device is still there.
const ASK: Duration = Duration::from_millis(200);

/// How long the control connection may stay when the peer's queue pair is gone.
const PARTING: Duration = Duration::from_secs(2);

/// A queue pair.
pub(crate) struct Pair {
    pub(crate) queue: QueuePair,
    ended: Vec<Completion>,
    /// When the device was last asked whether it is still there.
    asked: Instant,
    /// How it comes up, if it is not told its peer. After the queue pair.
    meeting: Option<Meeting>,
    /// What the peer's device can do, once it was said.
    theirs: Option<Ability>,
    /// When what RDMA-CM connects was seen to be gone, and why. The control connection may say more.
    parted: Option<(Instant, RdmaError)>,
}

impl Pair {
    pub(crate) fn new(domain: &Arc<ProtectionDomain>, gid: &Gid) -> Result<Self, RdmaError> {
        let completions = CompletionQueue::new(domain.device(), DEPTH.completions())?;
        let queue = QueuePair::new(domain, completions, gid, DEPTH)?;
        let (ended, asked) = (Vec::new(), Instant::now());
        Ok(Self { queue, ended, asked, meeting: None, theirs: None, parted: None })
    }

    /// The same, of a link: it may come up otherwise.
    pub(super) fn meeting(mut self, meeting: Option<Meeting>) -> Self {
        self.meeting = meeting;
        self
    }

    /// Says what the peer has to know.
    pub(super) fn greet(&self, control: &mut Control, immediates: bool) {
        let way = self.meeting.as_ref().map_or(Way::Told, Meeting::way);
        let ability = Ability { immediates, way };
        if ability != Ability::USUAL {
            control.say(&Message::Ability(ability));
        }
        control.say(&Message::Hello(self.queue.endpoint().to_bytes()));
    }

    /// The peer has said what its device can do.
    pub(super) fn can(&mut self, ability: Ability) -> Result<(), PeerFault> {
        if self.theirs.is_some() || self.queue.state() != State::Init {
            return Err(PeerFault::OutOfPlace("what a device can do"));
        }
        self.theirs = Some(ability);
        Ok(())
    }

    /// How places are rung that are filled, as both can.
    pub(super) fn bell(&self, immediates: bool) -> Bell {
        let theirs = self.theirs.unwrap_or(Ability::USUAL);
        if immediates && theirs.immediates { Bell::Immediate } else { Bell::Message }
    }

    /// The peer's hello is here, and all that must be ready before it may send is.
    pub(super) fn meet(&mut self, endpoint: &[u8; ENDPOINT_BYTES], address: IpAddr) -> Result<(), LinkError> {
        let way = self.theirs.get_or_insert(Ability::USUAL).way;
        match &mut self.meeting {
            Some(meeting) => meeting.heard(&way, address),
            None if way == Way::Told => self.connect(endpoint, address),
            None => Err(RdmaError::Transports.into()),
        }
    }

    /// Whether frames can be sent. What brings the queue pair up goes on.
    pub(super) fn is_up(&mut self) -> Result<bool, LinkError> {
        if self.parted.is_none()
            && let Some(meeting) = &mut self.meeting
        {
            match meeting.step(&mut self.queue) {
                Ok(Standing::Ended) => self.part(RdmaError::Parted),
                Ok(_) => {}
                Err(error) => self.part(error),
            }
        }
        if let Some((since, why)) = &mut self.parted
            && since.elapsed() > PARTING
        {
            return Err(std::mem::replace(why, RdmaError::Parted).into());
        }
        Ok(self.parted.is_none() && self.queue.state() == State::Ready)
    }

    /// The queue pair of the peer, who is at `address`, is known. What is written goes there and nowhere else; and the
    /// kernel, which may wait for seconds for a neighbour that is not there, knows that one already.
    pub(crate) fn connect(
        &mut self,
        endpoint: &[u8; ENDPOINT_BYTES],
        address: IpAddr,
    ) -> Result<(), LinkError> {
        if self.queue.state() != State::Init {
            return Err(PeerFault::OutOfPlace("a second hello").into());
        }
        let endpoint = Endpoint::from_bytes(endpoint).map_err(RdmaError::from)?;
        if Ipv6Addr::from(endpoint.gid).to_canonical() != address.to_canonical() {
            return Err(PeerFault::OutOfPlace("a queue pair of another address").into());
        }
        Ok(self.queue.connect(&endpoint, Timing::default()).map_err(RdmaError::from)?)
    }

    /// What has completed. The completion channel wakes for everything after it.
    pub(crate) fn completions(&mut self) -> Result<std::vec::Drain<'_, Completion>, LinkError> {
        // A device that is gone completes nothing. Whoever has a link looks at it once a second at least.
        if self.asked.elapsed() >= ASK {
            self.asked = Instant::now();
            let device = self.queue.completions().device();
            if device.has_failed() {
                return Err(RdmaError::Gone(device.name().to_owned()).into());
            }
        }
        self.queue.completions().arm().map_err(RdmaError::from)?;
        self.queue.poll(&mut self.ended).map_err(RdmaError::from)?;
        if self.meeting.is_some() {
            // The peer's end flushes ours: that is not yet a failure.
            let before = self.ended.len();
            self.ended
                .retain(|ended| ended.outcome.as_ref().err().map(WorkError::fault) != Some(Fault::Flushed));
            if self.ended.len() < before {
                self.part(RdmaError::Parted);
            }
        }
        Ok(self.ended.drain(..))
    }

    /// Readable when something has completed.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.queue.fd()
    }

    /// What to wait for.
    pub(super) fn poll_fds(&self) -> impl Iterator<Item = PollFd<'_>> {
        let meeting = self.meeting.as_ref().filter(|_| self.parted.is_none()).and_then(Meeting::fd);
        [Some(self.fd()), meeting].into_iter().flatten().map(|fd| PollFd::new(fd, PollFlags::POLLIN))
    }

    /// When to look again at the latest.
    pub(super) fn next_look(&self, control: Instant) -> Instant {
        match &self.parted {
            Some((since, _)) => control.min(*since + PARTING + PARTING / 10),
            None => control,
        }
    }

    fn part(&mut self, why: RdmaError) {
        self.parted.get_or_insert((Instant::now(), why));
    }
}
