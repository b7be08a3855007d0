//! The ends of links that first have to be decided, or whose peer has to show what it came for.

use std::sync::Arc;
use std::time::Instant;

use pagecast_allocators::Buffer;
use pagecast_verbs::{LoadError, ProtectionDomain, RegisterError, Verbs};

use super::{Choice, Opened, Opening, Reason};
use crate::LinkError;
use crate::link::{FromPublisher, FromSubscriber, LinkFigures, Pages, Payload, PollFds, Receiver, Sender};
use crate::pulse::Role;
use crate::rdma::{RdmaError, RdmaReceiver, RdmaSender};
use crate::tcp::{Channel, TcpReceiver, TcpSender};

type Make<L> = Box<dyn FnOnce(Channel, Opened) -> Result<Box<L>, LinkError> + Send>;

/// A link, or the talk before it.
struct Undecided<L: ?Sized> {
    opening: Option<(Opening, Make<L>)>,
    link: Option<Box<L>>,
    chosen: Option<Choice>,
    /// What was said before it stood.
    early: Vec<Vec<u8>>,
    /// It stands, and what came with the last of the talk may wait within TLS, where no poll sees it.
    fresh: bool,
}

impl<L: ?Sized> Undecided<L> {
    fn new(opening: Opening, make: Make<L>) -> Self {
        Self { opening: Some((opening, make)), link: None, chosen: None, early: Vec::new(), fresh: false }
    }

    /// The link, if it stands; `say` is how a packet is sent over it.
    fn link(&mut self, say: fn(&mut L, &[u8])) -> Result<Option<&mut Box<L>>, LinkError> {
        if let Some((opening, _)) = &mut self.opening {
            let Some(opened) = opening.step()? else { return Ok(None) };
            self.chosen = match opened {
                _ if opening.only_rdma => None,
                Opened::Chosen(choice) => Some(choice),
                Opened::AskedForRdma => Some(Choice::Rdma),
                Opened::AskedForTcp => Some(Choice::Tcp(Reason::AskedFor)),
            };
            if let Some((opening, make)) = self.opening.take() {
                let link = self.link.insert(make(opening.channel, opened)?);
                self.fresh = true;
                self.early.drain(..).for_each(|packet| say(link, &packet));
            }
        }
        Ok(self.link.as_mut())
    }
}

/// How a link is to be carried.
enum By<'a> {
    Tcp,
    Rdma(&'a Verbs),
}

fn by(opened: Opened, verbs: &Result<Verbs, String>) -> Result<By<'_>, LinkError> {
    let rdma = || match verbs {
        Ok(verbs) => Ok(By::Rdma(verbs)),
        Err(why) => {
            let library = "libibverbs".to_owned();
            Err(RdmaError::from(LoadError::NoLibrary { library, why: why.clone() }).into())
        }
    };
    match opened {
        Opened::AskedForTcp | Opened::Chosen(Choice::Tcp(_)) => Ok(By::Tcp),
        Opened::AskedForRdma | Opened::Chosen(Choice::Rdma) => rdma(),
    }
}

/// The publisher's end of a `remote://` link; `verbs` where this machine has them. `register` is told of the domain that
/// frames will be read through, before the first.
pub fn sender(
    channel: Channel,
    listens: bool,
    verbs: Result<Verbs, String>,
    register: impl FnOnce(&Arc<ProtectionDomain>) -> Result<(), RegisterError> + Send + 'static,
) -> Box<dyn Sender> {
    let opening = Opening::new(channel, Role::Answers, listens, verbs.as_ref().ok());
    let make: Make<dyn Sender> = Box::new(move |channel, opened| match by(opened, &verbs)? {
        By::Tcp => Ok(Box::new(TcpSender::new(channel))),
        By::Rdma(verbs) => Ok(Box::new(RdmaSender::open(channel, verbs, register)?)),
    });
    Box::new(Undecided::new(opening, make))
}

/// The publisher's end of an `rdma://` link with somebody who came. `register` as for [`sender`].
pub fn rdma_sender(
    channel: Channel,
    verbs: Verbs,
    register: impl FnOnce(&Arc<ProtectionDomain>) -> Result<(), RegisterError> + Send + 'static,
) -> Box<dyn Sender> {
    let opening = Opening::of_rdma(channel, Role::Answers);
    let make: Make<dyn Sender> =
        Box::new(move |channel, _| Ok(Box::new(RdmaSender::open(channel, &verbs, register)?)));
    Box::new(Undecided::new(opening, make))
}

/// The subscriber's end of an `rdma://` link with somebody who came.
pub fn rdma_receiver(channel: Channel, verbs: Verbs) -> Box<dyn Receiver> {
    let opening = Opening::of_rdma(channel, Role::Asks);
    let make: Make<dyn Receiver> =
        Box::new(move |channel, _| Ok(Box::new(RdmaReceiver::new(channel, &verbs)?)));
    Box::new(Undecided::new(opening, make))
}

/// The subscriber's end of a `remote://` link.
pub fn receiver(channel: Channel, listens: bool, verbs: Result<Verbs, String>) -> Box<dyn Receiver> {
    let opening = Opening::new(channel, Role::Asks, listens, verbs.as_ref().ok());
    let make: Make<dyn Receiver> = Box::new(move |channel, opened| match by(opened, &verbs)? {
        By::Tcp => Ok(Box::new(TcpReceiver::new(channel))),
        By::Rdma(verbs) => Ok(Box::new(RdmaReceiver::new(channel, verbs)?)),
    });
    Box::new(Undecided::new(opening, make))
}

macro_rules! until_it_stands {
    () => {
        fn poll_fds(&self) -> PollFds<'_> {
            match (&self.opening, &self.link) {
                (Some((opening, _)), _) => opening.poll_fds(),
                (None, Some(link)) => link.poll_fds(),
                _ => PollFds::new(),
            }
        }

        fn next_look(&self) -> Instant {
            match (&self.opening, &self.link) {
                (Some((opening, _)), _) => opening.next_look(),
                (None, Some(link)) if !self.fresh => link.next_look(),
                _ => Instant::now(),
            }
        }

        fn is_busy(&self) -> bool {
            self.link.as_ref().is_none_or(|link| link.is_busy())
        }

        fn send_packet(&mut self, packet: &[u8]) {
            match &mut self.link {
                Some(link) => link.send_packet(packet),
                // It is busy, and is told only what cannot wait for that: that the other may not stay.
                None => self.early.push(packet.to_vec()),
            }
        }

        fn finish(&mut self) -> bool {
            self.link.as_mut().is_none_or(|link| link.finish())
        }

        fn figures(&self) -> LinkFigures {
            let figures = self.link.as_ref().map(|link| link.figures()).unwrap_or_default();
            LinkFigures { chosen: self.chosen.or(figures.chosen), ..figures }
        }
    };
}

impl Sender for Undecided<dyn Sender> {
    until_it_stands!();

    fn reaches(&self, buffer: &Buffer) -> bool {
        self.link.as_ref().is_none_or(|link| link.reaches(buffer))
    }

    fn send_frame(&mut self, frame: u64, packet: &[u8], payload: Payload) {
        if let Some(link) = &mut self.link {
            link.send_frame(frame, packet, payload);
        }
    }

    fn flush(&mut self, done: &mut Vec<u64>) -> Result<(), LinkError> {
        self.link(Sender::send_packet)?.map_or(Ok(()), |link| link.flush(done))
    }

    fn unsent(&self) -> u64 {
        self.link.as_ref().map_or(0, |link| link.unsent())
    }

    fn receive(&mut self, events: &mut Vec<FromSubscriber>) -> Result<(), LinkError> {
        let Some(link) = self.link(Sender::send_packet)? else { return Ok(()) };
        link.receive(events)?;
        self.fresh = false;
        Ok(())
    }
}

impl Receiver for Undecided<dyn Receiver> {
    until_it_stands!();

    fn flush(&mut self) -> Result<(), LinkError> {
        self.link(Receiver::send_packet)?.map_or(Ok(()), |link| link.flush())
    }

    fn receive(&mut self, pages: &mut dyn Pages, events: &mut Vec<FromPublisher>) -> Result<(), LinkError> {
        let Some(link) = self.link(Receiver::send_packet)? else { return Ok(()) };
        link.receive(pages, events)?;
        self.fresh = false;
        Ok(())
    }
}
