//! Two ends over the loopback, and what becomes of them.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use nix::poll::{PollTimeout, poll};
use pagecast_remote::secure::Trusted;
use pagecast_remote::tcp::{Channel, TcpReceiver, TcpSender};
use pagecast_remote::{
    FromSubscriber, Identity, LinkError, Pages, PeerFault, Receiver, Room, Security, Sender,
};
use rcgen::{CertificateParams, KeyPair};

/// A test that passes never waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A key and its certificate.
pub(crate) struct Pair {
    pub(crate) key: String,
    pub(crate) certificate: String,
}

impl Pair {
    pub(crate) fn new() -> Self {
        Self::with(CertificateParams::default())
    }

    pub(crate) fn with(parameters: CertificateParams) -> Self {
        let key = KeyPair::generate().expect("a key");
        let certificate = parameters.self_signed(&key).expect("a certificate");
        Self { key: key.serialize_pem(), certificate: certificate.pem() }
    }

    /// An end with it that trusts these.
    pub(crate) fn trusting(&self, others: &[&Pair]) -> Identity {
        let all: String = others.iter().map(|other| other.certificate.as_str()).collect();
        let trusted = Trusted::these(all.as_bytes()).expect("certificates");
        Identity::from_pem(self.certificate.as_bytes(), self.key.as_bytes(), trusted).expect("an identity")
    }
}

pub(crate) fn tls(identity: Identity) -> Security {
    Security::new(Some(identity), false).expect("TLS")
}

pub(crate) fn insecure() -> Security {
    Security::new(None, true).expect("clear text")
}

/// Two connected sockets: of who listens, and of who dialled.
pub(crate) fn sockets() -> [TcpStream; 2] {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let near = TcpStream::connect(listener.local_addr().expect("its address")).expect("a connection");
    let (far, _) = listener.accept().expect("a connection");
    [far, near]
}

/// Another host, as far as the listener knows.
pub(crate) fn elsewhere() -> SocketAddr {
    "192.0.2.7:40000".parse().expect("an address")
}

/// The publisher's end, which listens.
pub(crate) fn listening(stream: TcpStream, peer: SocketAddr, security: &Security) -> TcpSender {
    TcpSender::new(Channel::accepted(stream, peer, security).expect("an end"))
}

/// What was sent, as it came.
pub(crate) const WORDS: &[u8] = b"sixteen bytes, or more, of a hello";

/// A packet with these bytes in a record.
pub(crate) fn packet() -> Vec<u8> {
    let mut packet = pagecast_ipc::wire::PacketBuilder::default();
    packet.push(WORDS);
    packet.bytes(1)
}

pub(crate) struct NoPages;

impl Pages for NoPages {
    fn take(&mut self, _size: usize) -> Result<Option<Room>, LinkError> {
        Ok(None)
    }
}

/// What became of the two ends.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// What came through.
    pub(crate) packet: Option<Vec<u8>>,
    pub(crate) listener: Option<LinkError>,
    pub(crate) dialler: Option<LinkError>,
}

impl Outcome {
    #[track_caller]
    pub(crate) fn faults(self) -> (PeerFault, PeerFault) {
        match (self.listener, self.dialler) {
            (Some(LinkError::Peer(listener)), Some(LinkError::Peer(dialler))) => (listener, dialler),
            other => panic!("not two faults: {other:?}; {:?} came", self.packet),
        }
    }
}

/// Lets the dialler send a packet to the listener, until it is here or both ends have ended.
pub(crate) fn meet(peer: SocketAddr, listener: &Security, dialler: &Security) -> Outcome {
    let [far, near] = sockets();
    let sender = listening(far, peer, listener);
    converse(sender, TcpReceiver::new(Channel::dialled(near, dialler).expect("an end")))
}

pub(crate) fn converse(mut sender: TcpSender, mut receiver: TcpReceiver) -> Outcome {
    let mut outcome = Outcome { packet: None, listener: None, dialler: None };
    let mut said = Vec::new();
    receiver.send_packet(&packet());
    let deadline = Instant::now() + PATIENCE;
    while outcome.packet.is_none() && (outcome.listener.is_none() || outcome.dialler.is_none()) {
        assert!(Instant::now() < deadline, "no outcome: {outcome:?}");
        if outcome.listener.is_none() {
            let heard = sender.receive(&mut said);
            outcome.listener = heard.and_then(|()| sender.flush(&mut Vec::new())).err();
            outcome.packet = said.pop().map(|FromSubscriber::Packet(packet)| packet);
        }
        if outcome.dialler.is_none() {
            // What it was told before it could not speak any more counts.
            let spoken = receiver.flush();
            let heard = receiver.receive(&mut NoPages, &mut Vec::new());
            outcome.dialler = heard.and(spoken).err();
        }
        let mut fds: Vec<_> = sender.poll_fds().into_iter().chain(receiver.poll_fds()).collect();
        let _ = poll(&mut fds, PollTimeout::from(5_u8));
    }
    outcome
}
