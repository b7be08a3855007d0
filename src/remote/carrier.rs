//! What carries remote links: only here connections become their ends.

use std::net::IpAddr;
use std::sync::Arc;

use pagecast_ipc::socket::Transport;
use pagecast_remote::rdma::{RdmaError, RdmaReceiver, RdmaSender, RdmaWords};
use pagecast_remote::tcp::{Channel, ConnectError, TcpReceiver, TcpSender};
use pagecast_remote::{LinkError, Receiver, Sender, opening};
use pagecast_verbs::{DeviceError, ProtectionDomain, Verbs};

use crate::publisher::Shared;

/// How the bytes of frames travel.
#[derive(Clone, Debug)]
pub(crate) enum Carrier {
    /// On the connection itself.
    Tcp,
    /// By RDMA, beside the connection.
    Rdma(Verbs),
    /// By RDMA where that works, else on the connection; why there are no verbs, where there are none.
    Either(Result<Verbs, String>),
}

/// Who waited for the other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    /// This end listens.
    Here,
    /// This end connected.
    There,
}

impl Carrier {
    /// That of a transport, if this machine has it. `own` is the address of this end, where it is known.
    pub(super) fn new(transport: Transport, own: Option<IpAddr>) -> Result<Self, ConnectError> {
        match transport {
            Transport::Rdma => {}
            Transport::Remote => return Ok(Self::Either(Verbs::open().map_err(|error| error.to_string()))),
            _ => return Ok(Self::Tcp),
        }
        let verbs = Verbs::open().map_err(RdmaError::from)?;
        match own {
            Some(own) if !own.is_unspecified() => drop(verbs.device_for(own).map_err(RdmaError::from)?),
            _ if verbs.devices().map_err(RdmaError::from)?.is_empty() => {
                return Err(RdmaError::from(DeviceError::NoDevice).into());
            }
            _ => {}
        }
        Ok(Self::Rdma(verbs))
    }

    /// Its name, as in URIs.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Tcp => Transport::Tcp.scheme(),
            Self::Rdma(_) => Transport::Rdma.scheme(),
            Self::Either(_) => Transport::Remote.scheme(),
        }
    }

    /// The publisher's end of a connection.
    pub(super) fn sender(
        &self,
        channel: Channel,
        came: Came,
        shared: &Arc<Shared>,
    ) -> Result<Box<dyn Sender>, LinkError> {
        let weak = Arc::downgrade(shared);
        let register = move |domain: &Arc<ProtectionDomain>| {
            weak.upgrade().map_or(Ok(()), |shared| shared.register(domain))
        };
        Ok(match (self, came) {
            (Self::Tcp, _) => Box::new(TcpSender::new(channel)),
            (Self::Rdma(verbs), Came::Here) => opening::rdma_sender(channel, verbs.clone(), register),
            (Self::Rdma(verbs), Came::There) => Box::new(RdmaSender::open(channel, verbs, register)?),
            (Self::Either(verbs), _) => opening::sender(channel, came == Came::Here, verbs.clone(), register),
        })
    }

    /// An end that can send words only, to one who came. It takes nothing of a device.
    pub(super) fn plain_sender(&self, channel: Channel) -> Box<dyn Sender> {
        match self {
            Self::Tcp => Box::new(TcpSender::new(channel)),
            Self::Rdma(_) => Box::new(RdmaWords::new(channel)),
            Self::Either(_) => opening::sender(channel, true, Err("not for it".to_owned()), |_| Ok(())),
        }
    }

    /// The subscriber's end of a connection.
    pub(super) fn receiver(&self, channel: Channel, came: Came) -> Result<Box<dyn Receiver>, LinkError> {
        Ok(match (self, came) {
            (Self::Tcp, _) => Box::new(TcpReceiver::new(channel)),
            (Self::Rdma(verbs), Came::Here) => opening::rdma_receiver(channel, verbs.clone()),
            (Self::Rdma(verbs), Came::There) => Box::new(RdmaReceiver::new(channel, verbs)?),
            (Self::Either(verbs), _) => opening::receiver(channel, came == Came::Here, verbs.clone()),
        })
    }
}
