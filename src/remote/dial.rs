//! The subscriber's way to a publisher on another host: a local socket, with a bridge behind it.

use std::net::TcpStream;
use std::sync::{Arc, Mutex, PoisonError};

use pagecast_ipc::socket::{Mode, Seqpacket, Uri};
use pagecast_remote::tcp::{ConnectError, TcpListener, TcpReceiver, connect};

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
    host: String,
    port: u16,
    listener: Option<TcpListener>,
    options: RemoteOptions,
    pool: PoolOptions,
}

impl Way {
    /// The way to `uri`. Where it says so, this end listens from now on.
    pub(crate) fn new(uri: &Uri, options: &RemoteOptions, pool: PoolOptions) -> Result<Self, ConnectError> {
        let (host, port) = uri.host().unwrap_or_default();
        let listen = uri.mode == Some(Mode::Listen);
        let listener = listen.then(|| TcpListener::bind(host, port, options.insecure)).transpose()?;
        Ok(Self { host: host.to_owned(), port, listener, options: options.clone(), pool })
    }

    /// A socket with a bridge behind it, which connects by itself; `None` if this end listens and nobody came.
    pub(crate) fn reach(&self) -> std::io::Result<Option<(Seqpacket, Cause, Meter)>> {
        let stream = match &self.listener {
            None => None,
            Some(listener) => match listener.accept()? {
                Some((stream, peer)) if self.options.networks.admits(peer.ip()) => Some(stream),
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
        let (host, port, insecure) = (self.host.clone(), self.port, self.options.insecure);
        let meter = Meter::default();
        let (pool, told, measured) = (self.pool.clone(), cause.clone(), meter.clone());
        let bridge = move || {
            let stream = match stream {
                Some(stream) => Ok(stream),
                None => connect(&host, port, insecure),
            };
            // The cause is there before the socket closes.
            match stream {
                Ok(stream) => run(stream, local, pool, &told, measured),
                Err(error) => told.set(error.to_string(), matches!(error, ConnectError::ClearText(_))),
            }
        };
        std::thread::Builder::new().name("pagecast-remote".to_owned()).spawn(bridge)?;
        Ok(Some((subscribers, cause, meter)))
    }
}

fn run(stream: TcpStream, local: Seqpacket, pool: PoolOptions, cause: &Cause, meter: Meter) {
    if let Ok(peer) = stream.peer_addr() {
        meter.begin("tcp", &peer);
    }
    let link = match TcpReceiver::new(stream) {
        Ok(link) => link,
        Err(error) => return cause.set(error.to_string(), false),
    };
    // A pool for each life: what the subscriber still holds of an earlier one is never written again.
    let mut bridge = Ingress::new(Box::new(link), local, Pool::new(pool), meter);
    if let Err(error) = bridge.run() {
        cause.set(error.to_string(), false);
    }
}
