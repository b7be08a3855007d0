//! Peers that do something else than a handshake.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Instant;

use nix::poll::{PollTimeout, poll};
use pagecast_remote::limits::DEAD;
use pagecast_remote::tcp::{Channel, TcpReceiver, TcpSender};
use pagecast_remote::{FromSubscriber, LinkError, PeerFault, Receiver, Sender};
use proptest::prelude::*;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme};

use super::ends::*;

/// Believes everybody.
#[derive(Debug)]
struct Credulous;

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let provider = rustls::crypto::ring::default_provider();
        provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Shows a certificate, whatever its key is.
#[derive(Debug)]
struct Shows(Option<Arc<CertifiedKey>>);

impl rustls::client::ResolvesClientCert for Shows {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}

fn say(client: &mut ClientConnection, near: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    let mut stream = rustls::Stream::new(client, near);
    stream.write_all(bytes).and_then(|()| stream.flush())
}

/// What a listener that trusts `trusted` says of a client that shows this certificate with this key.
fn raw_client(trusted: &Pair, shown: Option<(&str, &str)>, alpn: &[u8]) -> Result<Vec<u8>, LinkError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let certified = shown.map(|(certificate, key)| {
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
        let key = provider.key_provider.load_private_key(key).expect("a key of use");
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).expect("a certificate");
        Arc::new(CertifiedKey::new(vec![certificate], key))
    });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("a version")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Credulous))
        .with_client_cert_resolver(Arc::new(Shows(certified)));
    config.alpn_protocols = vec![alpn.to_vec()];
    let name = ServerName::try_from("anything").expect("a name");
    let mut client = ClientConnection::new(Arc::new(config), name).expect("a client");
    let [far, mut near] = sockets();
    let speaks = std::thread::spawn(move || {
        let mut bytes = pagecast_remote::framing::preamble().to_vec();
        bytes.extend((packet().len() as u32).to_le_bytes());
        bytes.extend(packet());
        let (first, second) = bytes.split_at(bytes.len() - 5);
        // Keys are changed in the middle, as they are after long use.
        let _ = say(&mut client, &mut near, first)
            .and_then(|()| client.refresh_traffic_keys().map_err(std::io::Error::other))
            .and_then(|()| say(&mut client, &mut near, second));
        // Until the other end has had enough.
        let _ = near.read_to_end(&mut Vec::new());
    });
    let own = Pair::new();
    let result = first_packet(listening(far, elsewhere(), &tls(own.trusting(&[trusted]))));
    speaks.join().expect("it ends");
    result
}

/// The first packet that comes, or how the link ended.
fn first_packet(mut sender: TcpSender) -> Result<Vec<u8>, LinkError> {
    let (mut said, deadline) = (Vec::new(), Instant::now() + PATIENCE);
    loop {
        assert!(Instant::now() < deadline, "no outcome");
        sender.receive(&mut said)?;
        if let Some(FromSubscriber::Packet(packet)) = said.pop() {
            return Ok(packet);
        }
        sender.flush(&mut Vec::new())?;
        let _ = poll(&mut sender.poll_fds(), PollTimeout::from(5_u8));
    }
}

#[test]
fn a_certificate_without_its_key_opens_nothing() {
    let (trusted, thief) = (Pair::new(), Pair::new());
    let stolen = raw_client(&trusted, Some((&trusted.certificate, &thief.key)), b"pagecast");
    assert!(matches!(stolen, Err(LinkError::Peer(PeerFault::WrongKey))), "{stolen:?}");
    // The control: the same client with the key.
    let right = raw_client(&trusted, Some((&trusted.certificate, &trusted.key)), b"pagecast");
    assert_eq!(right.expect("it is let in"), packet());
}

#[test]
fn no_certificate_and_another_protocol_are_refused() {
    let trusted = Pair::new();
    let without = raw_client(&trusted, None, b"pagecast");
    assert!(matches!(without, Err(LinkError::Peer(PeerFault::Encryption(_)))), "{without:?}");
    let other = raw_client(&trusted, Some((&trusted.certificate, &trusted.key)), b"http/1.1");
    assert!(matches!(other, Err(LinkError::Peer(PeerFault::Encryption(_)))), "{other:?}");
}

#[test]
fn who_stalls_in_the_handshake_is_silent() {
    let (a, b) = (Pair::new(), Pair::new());
    // It sends a byte now and then of a record that never ends.
    let [far, mut near] = sockets();
    near.write_all(&[22, 3, 1, 0x3f, 0xff, 1]).expect("a beginning");
    let identity = tls(a.trusting(&[&b]));
    // Before its end of the link is made, whose time counts from then on.
    let (begin, mut trickled) = (Instant::now(), Instant::now());
    let mut sender = listening(far, elsewhere(), &identity);
    let end = loop {
        if let Err(error) = sender.receive(&mut Vec::new()).and_then(|()| sender.flush(&mut Vec::new())) {
            break error;
        }
        assert!(begin.elapsed() < PATIENCE, "it waits for ever");
        if trickled.elapsed().as_millis() > 300 {
            let _ = near.write_all(&[0]);
            trickled = Instant::now();
        }
        let mut fds = sender.poll_fds();
        assert!(!fds[0].events().contains(nix::poll::PollFlags::POLLOUT), "it would spin");
        let _ = poll(&mut fds, PollTimeout::from(20_u8));
    };
    assert!(matches!(end, LinkError::Silent(_)), "{end}");
    assert!(begin.elapsed() >= DEAD);
}

/// Feeds bytes to both kinds of end; none of them may take them for a packet.
fn feed(bytes: &[u8], pairs: &[Pair; 2]) {
    let identity = || tls(pairs[0].trusting(&[&pairs[1]]));
    let [far, mut near] = sockets();
    near.write_all(bytes).and_then(|()| near.shutdown(Shutdown::Write)).expect("sent");
    assert!(first_packet(listening(far, elsewhere(), &identity())).is_err());
    let [mut far, near] = sockets();
    far.write_all(bytes).and_then(|()| far.shutdown(Shutdown::Write)).expect("sent");
    let mut receiver = TcpReceiver::new(Channel::dialled(near, &identity()).expect("an end"));
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut events = Vec::new();
        let ended = receiver.receive(&mut NoPages, &mut events).and_then(|()| receiver.flush()).is_err();
        assert!(events.is_empty() && Instant::now() < deadline);
        if ended {
            return;
        }
        let _ = poll(&mut receiver.poll_fds(), PollTimeout::from(5_u8));
    }
}

/// Copies from one to the other, and spoils one bit of the byte at `at`.
fn spoil(mut from: TcpStream, mut to: TcpStream, at: Option<usize>) {
    let (mut bytes, mut passed) = ([0; 4096], 0);
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        if let Some(at) = at.filter(|at| (passed..passed + count).contains(at)) {
            bytes[at - passed] ^= 0x10;
        }
        passed += count;
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// A packet that goes through somebody who spoils a byte of one direction.
fn through_a_spoiler(pairs: &[Pair; 2], upstream: Option<usize>, downstream: Option<usize>) -> Outcome {
    let ([far, far_proxy], [near_proxy, near]) = (sockets(), sockets());
    let clone = |stream: &TcpStream| stream.try_clone().expect("a clone");
    let (up, down) = ((clone(&near_proxy), clone(&far_proxy)), (far_proxy, near_proxy));
    let threads = [
        std::thread::spawn(move || spoil(up.0, up.1, upstream)),
        std::thread::spawn(move || spoil(down.0, down.1, downstream)),
    ];
    let sender = listening(far, elsewhere(), &tls(pairs[0].trusting(&[&pairs[1]])));
    let dialler = tls(pairs[1].trusting(&[&pairs[0]]));
    let outcome = converse(sender, TcpReceiver::new(Channel::dialled(near, &dialler).expect("an end")));
    threads.into_iter().for_each(|thread| thread.join().expect("it ends"));
    outcome
}

#[test]
fn a_spoilt_byte_is_never_taken_for_a_good_one() {
    let pairs = [Pair::new(), Pair::new()];
    // The control: nothing is spoilt.
    assert_eq!(through_a_spoiler(&pairs, None, None).packet, Some(packet()));
    for at in (0..1200).step_by(37) {
        for (up, down) in [(Some(at), None), (None, Some(at))] {
            let outcome = through_a_spoiler(&pairs, up, down);
            assert!(outcome.packet.is_none_or(|came| came == packet()), "at {at}");
        }
    }
    // The packet itself is the last of what the dialler sends: from there to the end every byte counts.
    let outcome = through_a_spoiler(&pairs, Some(700), None);
    assert!(outcome.packet.is_none(), "{outcome:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn garbage_is_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..2000), like_tls in any::<bool>()) {
        let pairs = [Pair::new(), Pair::new()];
        let mut bytes = bytes;
        if like_tls && bytes.len() > 5 {
            let length = (bytes.len() - 5) as u16;
            bytes[..3].copy_from_slice(&[22, 3, 1]);
            bytes[3..5].copy_from_slice(&length.to_be_bytes());
        }
        feed(&bytes, &pairs);
    }
}
