//! The subscriber's way to a publisher on another host: a local socket, with a bridge behind it.

use std::sync::{Arc, Mutex, PoisonError};

use pagecast_ipc::socket::{Mode, Seqpacket, Uri};
use pagecast_remote::LinkError;
use pagecast_remote::rdma::RdmaError;
use pagecast_remote::tcp::{Channel, ConnectError, Destination, TcpListener, connect};
use pagecast_verbs::DeviceError;

use super::carrier::{Came, Carrier};
use super::ingress::Ingress;
use super::{Meter, RemoteOptions};
use crate::pool::{Pool, PoolOptions};

/// Bytes, with the kernel's own, that may lie between a bridge and its subscriber.
const LOCAL_BUFFER: usize = 1 << 20;

/// Why a bridge ended, or was not built; nothing while it stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cause(Arc<Mutex<Option<Ended>>>);

#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub(crate) text: String,
    /// Whether it would be the same the next time.
    pub(crate) for_good: bool,
}

impl Cause {
    fn set(&self, text: String, for_good: bool) {
        let mut ended = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ended.get_or_insert(Ended { text, for_good });
    }

    pub(crate) fn get(&self) -> Option<Ended> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// How a publisher on another host is reached.
#[derive(Debug)]
pub(crate) struct Way {
    to: Destination,
    carrier: Carrier,
    listener: Option<TcpListener>,
    options: RemoteOptions,
    pool: PoolOptions,
    /// A second one is with who connects now.
    turn: Arc<()>,
}

impl Way {
    /// The way to `uri`. Where it says so, this end listens from now on.
    pub(crate) fn new(uri: &Uri, options: &RemoteOptions, pool: PoolOptions) -> Result<Self, ConnectError> {
        let to = super::destination(uri, options)?;
        let listen = uri.mode == Some(Mode::Listen);
        let listener = listen.then(|| TcpListener::bind(&to.host, to.port, &to.security)).transpose()?;
        let listens_at = listener.as_ref().and_then(|listener| listener.address().ok());
        let carrier = Carrier::new(uri.transport, listens_at.map(|address| address.ip()).or(uri.from))?;
        Ok(Self { to, carrier, listener, options: options.clone(), pool, turn: Arc::default() })
    }

    /// A socket with a bridge behind it, which connects by itself; `None` if this end listens and nobody came, or if an
    /// earlier bridge has not found out yet whether somebody is there: a name server may take long.
    pub(crate) fn reach(&self) -> std::io::Result<Option<(Seqpacket, Cause, Meter)>> {
        if Arc::strong_count(&self.turn) > 1 {
            return Ok(None);
        }
        let turn = self.turn.clone();
        let channel = match &self.listener {
            None => None,
            Some(listener) => match listener.accept()? {
                Some((channel, peer)) if self.options.networks.admits(peer.ip()) => Some(channel),
                Some((_, peer)) => {
                    tracing::warn!(%peer, "not in the networks from which somebody may come");
                    return Ok(None);
                }
                None => return Ok(None),
            },
        };
        let (subscribers, local) = Seqpacket::pair().map_err(std::io::Error::other)?;
        // Many small frames may be held; where the system gives less, they wait in the bridge.
        let _ = local.set_buffers(LOCAL_BUFFER, LOCAL_BUFFER);
        let cause = Cause::default();
        let (to, carrier) = (self.to.clone(), self.carrier.clone());
        let meter = Meter::default();
        let (pool, told, measured) = (self.pool.clone(), cause.clone(), meter.clone());
        let came = if channel.is_some() { Came::Here } else { Came::There };
        let bridge = move || {
            let channel = match channel {
                Some(channel) => Ok(channel),
                None => connect(&to),
            };
            drop(turn);
            // The cause is there before the socket closes.
            match channel {
                Ok(channel) => run((channel, came), &carrier, local, pool, &told, measured),
                Err(error) => told.set(error.to_string(), matches!(error, ConnectError::ClearText(_))),
            }
        };
        std::thread::Builder::new().name("pagecast-remote".to_owned()).spawn(bridge)?;
        Ok(Some((subscribers, cause, meter)))
    }
}

fn run(
    (channel, came): (Channel, Came),
    carrier: &Carrier,
    local: Seqpacket,
    pool: PoolOptions,
    cause: &Cause,
    meter: Meter,
) {
    if let Ok(peer) = channel.peer() {
        meter.begin(carrier.name(), &peer);
    }
    let link = match carrier.receiver(channel, came) {
        Ok(link) => link,
        Err(error) => {
            // Another try leaves from the same address.
            let for_good = matches!(error, LinkError::Rdma(RdmaError::Device(DeviceError::NoGid(_))));
            return match error {
                LinkError::Rdma(error) => cause.set(ConnectError::from(error).to_string(), for_good),
                error => cause.set(error.to_string(), for_good),
            };
        }
    };
    // A pool for each life: what the subscriber still holds of an earlier one is never written again.
    let mut bridge = Ingress::new(link, local, Pool::new(pool), meter);
    if let Err(error) = bridge.run() {
        let for_good = match &error {
            LinkError::OtherScheme(_) => true,
            // Where this end listens another may come.
            LinkError::Peer(fault) => fault.is_about_trust() && came == Came::There,
            _ => false,
        };
        cause.set(error.to_string(), for_good);
    }
}
