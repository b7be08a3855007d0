//! What every kind of remote link must do, whatever carries it.

mod cases;
mod support;

use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};

use pagecast_remote::secure::Trusted;
use pagecast_remote::tcp::{Channel, TcpReceiver, TcpSender};
use pagecast_remote::{Identity, Security, memory};
use pagecast_verbs::Verbs;
use pagecast_verbs::fake::Fake;

use support::{Ends, clear};

fn in_process() -> Ends {
    let (sender, receiver) = memory::pair().expect("a pair");
    (Box::new(sender), Box::new(receiver))
}

fn tcp() -> Ends {
    over_tcp(clear)
}

fn tls() -> Ends {
    over_tcp(encrypted)
}

fn over_tcp(channels: fn([TcpStream; 2]) -> [Channel; 2]) -> Ends {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let near = TcpStream::connect(listener.local_addr().expect("its address")).expect("a connection");
    let (far, _) = listener.accept().expect("a connection");
    let [far, near] = channels([far, near]);
    (Box::new(TcpSender::new(far)), Box::new(TcpReceiver::new(near)))
}

/// Ends that trust each other.
fn encrypted([far, near]: [TcpStream; 2]) -> [Channel; 2] {
    let pairs = [(), ()].map(|()| key_and_certificate());
    let identity = |own: usize, other: usize| {
        let (key, certificate): &(String, String) = &pairs[own];
        let trusted = Trusted::these(pairs[other].1.as_bytes()).expect("a certificate");
        let identity = Identity::from_pem(certificate.as_bytes(), key.as_bytes(), trusted);
        Security::new(Some(identity.expect("an identity")), false).expect("TLS")
    };
    let peer = far.peer_addr().expect("an address");
    let far = Channel::accepted(far, peer, &identity(0, 1)).expect("an end");
    [far, Channel::dialled(near, &identity(1, 0)).expect("an end")]
}

/// A new key and its certificate, in PEM.
fn key_and_certificate() -> (String, String) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = rcgen::CertificateParams::default().self_signed(&key).expect("a certificate");
    (key.serialize_pem(), certificate.pem())
}

/// Two fake devices, for all that the device does not decide.
fn rdma_fake() -> Ends {
    over_fake(clear)
}

fn rdma_fake_tls() -> Ends {
    over_fake(encrypted)
}

fn over_fake(channels: fn([TcpStream; 2]) -> [Channel; 2]) -> Ends {
    let address = |last| IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
    let fake = Fake::new(&[address(1), address(2)]);
    let ends = support::rdma(&fake.verbs(), [address(1), address(2)], channels);
    // The devices last as long as the process.
    std::mem::forget(fake);
    ends
}

/// The same without immediates.
fn rdma_fake_message() -> Ends {
    let address = |last| IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
    let fake = Fake::new(&[address(1), address(2)]);
    let ends = support::rdma(&fake.verbs().without_immediates(), [address(1), address(2)], clear);
    std::mem::forget(fake);
    ends
}

/// The testbed's devices.
fn rdma_rxe() -> Option<Ends> {
    testbed([10, 77, 0], |verbs| verbs)
}

/// The same without immediates.
fn rdma_rxe_message() -> Option<Ends> {
    testbed([10, 77, 0], Verbs::without_immediates)
}

/// Its iWARP devices (`testbed/run --with-siw`), which come up by RDMA-CM and have no immediates.
fn rdma_siw() -> Option<Ends> {
    testbed([10, 78, 0], |verbs| verbs)
}

fn testbed([a, b, c]: [u8; 3], change: fn(Verbs) -> Verbs) -> Option<Ends> {
    let addresses = [1, 2].map(|last| IpAddr::V4(Ipv4Addr::new(a, b, c, last)));
    let found = Verbs::open().map(change).map_err(|error| error.to_string());
    let found = found.and_then(|verbs| match verbs.device_for(addresses[0]) {
        Ok(_) => Ok(verbs),
        Err(error) => Err(error.to_string()),
    });
    match found {
        Ok(verbs) => Some(support::rdma(&verbs, addresses, clear)),
        Err(why) => {
            support::skip(&why);
            None
        }
    }
}

/// Cases for one kind of link.
macro_rules! conformance {
    ($kind:ident: $($case:ident),* $(,)?) => {
        conformance!($kind as $kind: $($case),*);
    };
    ($kind:ident as $name:ident: $($case:ident),* $(,)?) => {
        mod $name {
            $(#[test]
            fn $case() {
                if let Some(ends) = Option::<crate::support::Ends>::from(crate::$kind()) {
                    crate::cases::$case(ends);
                }
            })*
        }
    };
}

macro_rules! every_case {
    ($($kind:ident),*) => {
        $(conformance!($kind:
            packets_arrive_in_order_both_ways,
            frames_arrive_whole_and_in_order_with_packets,
            a_frame_of_many_segments_is_one_after_another,
            frames_without_bytes_arrive,
            frames_without_bytes_pass_where_pages_are_few,
            a_large_frame_arrives_whole,
            many_small_frames_arrive,
            pages_are_given_back_when_a_frame_has_left_and_not_before,
            without_pages_a_frame_waits_and_then_arrives,
            pages_that_cannot_be_had_end_the_link,
            what_was_sent_before_the_end_arrives,
            the_end_of_the_subscriber_is_seen,
            an_idle_link_stays,
            a_frame_that_is_taken_back_is_never_complete,
        );)*
    };
}

every_case!(
    in_process,
    tcp,
    tls,
    rdma_fake,
    rdma_fake_tls,
    rdma_fake_message,
    rdma_rxe,
    rdma_rxe_message,
    rdma_siw
);
