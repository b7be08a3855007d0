//! Connections: made, or waited for.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::channel::Channel;
use crate::limits::CONNECT;
use crate::rdma::RdmaError;
use crate::secure::{Contradiction, Security};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The name means nothing.
    #[error("{host}: {error}")]
    Name {
        /// The name.
        host: String,
        /// Why.
        error: io::Error,
    },
    /// Another host would see everything, and that was not allowed.
    #[error(
        "{0} is another host, and the connection would be in clear text: make an identity for TLS (`pagecast keygen`, \
         --identity), or say insecure (--insecure) on a network that you trust"
    )]
    ClearText(IpAddr),
    /// Frames cannot be written by RDMA from here, or to here.
    #[error("rdma:// does not work here: {0}; tcp:// needs no RDMA device")]
    NoDevice(#[from] RdmaError),
    /// An identity, and clear text.
    #[error(transparent)]
    Contradiction(#[from] Contradiction),
    /// Nobody is there, or the network is not.
    #[error("{address}: {error}")]
    Connect {
        /// Where.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// Nobody can listen there.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
}

/// The addresses of a host with which there can be a link. This may wait for a name server.
fn addresses(host: &str, port: u16, security: &Security) -> Result<Vec<SocketAddr>, ConnectError> {
    let name = |error| ConnectError::Name { host: host.to_owned(), error };
    let all: Vec<SocketAddr> = (host, port).to_socket_addrs().map_err(name)?.collect();
    let usable: Vec<SocketAddr> =
        all.iter().filter(|address| security.allows(address.ip())).copied().collect();
    match (usable.is_empty(), all.first()) {
        (true, Some(first)) => Err(ConnectError::ClearText(first.ip())),
        (true, None) => Err(name(io::Error::other("the name has no address"))),
        _ => Ok(usable),
    }
}

/// The other end of a connection, and how it may be reached.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Its host: a name or an address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The address of this host that connections leave from; the system chooses where there is none.
    pub from: Option<IpAddr>,
    /// What protects the connection.
    pub security: Security,
}

impl Destination {
    fn connect(&self, address: SocketAddr, within: Duration) -> io::Result<TcpStream> {
        let Some(from) = self.from else { return TcpStream::connect_timeout(&address, within) };
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.bind(&SocketAddr::new(from, 0).into())?;
        socket.connect_timeout(&address.into(), within)?;
        Ok(socket.into())
    }
}

/// Connects; may take up to [`CONNECT`], of which each of the host's addresses has its share, and as long as it takes a
/// name server to say what they are.
///
/// # Errors
/// [`ConnectError`]. In clear text it connects to this host only, unless it was told to.
pub fn connect(to: &Destination) -> Result<Channel, ConnectError> {
    let (host, mut failed) = (&to.host, None);
    let usable = addresses(host, to.port, &to.security)?;
    // Where a connection leaves from it cannot be of the other kind.
    let same = |address: &SocketAddr| to.from.is_none_or(|from| from.is_ipv4() == address.is_ipv4());
    let usable: Vec<SocketAddr> = usable.into_iter().filter(same).collect();
    let deadline = Instant::now() + CONNECT;
    for (at, address) in usable.iter().copied().enumerate() {
        match to.connect(address, share(deadline, usable.len() - at)) {
            // A connection to an unused port of one's own can meet itself.
            Ok(stream) if stream.local_addr().ok() == stream.peer_addr().ok() => {}
            Ok(stream) => match Channel::dialled(stream, &to.security) {
                Ok(channel) => return Ok(channel),
                Err(error) => failed = Some(ConnectError::Connect { address, error }),
            },
            Err(error) => failed = Some(ConnectError::Connect { address, error }),
        }
    }
    let itself = || ConnectError::Name { host: host.clone(), error: io::ErrorKind::ConnectionRefused.into() };
    Err(failed.unwrap_or_else(itself))
}

/// The time for one of so many addresses that are left.
fn share(deadline: Instant, left: usize) -> Duration {
    let all = deadline.saturating_duration_since(Instant::now());
    // No time at all would be refused.
    (all / u32::try_from(left).unwrap_or(u32::MAX).max(1)).max(Duration::from_millis(1))
}

/// Waits for connections.
#[derive(Debug)]
pub struct TcpListener {
    listener: std::net::TcpListener,
    security: Security,
}

impl TcpListener {
    /// Listens on the first address of `host` that can be had.
    ///
    /// # Errors
    /// [`ConnectError`]. In clear text it listens for this host only, unless it was told to.
    pub fn bind(host: &str, port: u16, security: &Security) -> Result<Self, ConnectError> {
        let mut failed = None;
        for address in addresses(host, port, security)? {
            let bound = std::net::TcpListener::bind(address)
                .and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
            match bound {
                Ok(listener) => return Ok(Self { listener, security: security.clone() }),
                Err(error) => failed = Some(ConnectError::Listen { address, error }),
            }
        }
        let none = || ConnectError::Name { host: host.to_owned(), error: io::ErrorKind::NotFound.into() };
        Err(failed.unwrap_or_else(none))
    }

    /// Where it listens.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Takes a connection that waits; `None` if none does.
    ///
    /// # Errors
    /// If the system cannot give it, for want of a descriptor, say.
    pub fn accept(&self) -> io::Result<Option<(Channel, SocketAddr)>> {
        loop {
            match self.listener.accept() {
                Ok((stream, peer)) => {
                    return Channel::accepted(stream, peer, &self.security)
                        .map(|channel| Some((channel, peer)));
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return Ok(None),
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
                    _ => return Err(error),
                },
            }
        }
    }
}

impl AsFd for TcpListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_share_the_time_for_connecting() {
        let deadline = Instant::now() + CONNECT;
        assert!(share(deadline, 3) <= CONNECT / 3 && share(deadline, 3) > CONNECT / 4);
        assert!(share(deadline, 1) <= CONNECT && share(deadline, 1) > CONNECT / 2);
        assert_eq!(share(Instant::now(), 2), Duration::from_millis(1), "what comes late is still tried");
    }
}
