//! How the two ends of `remote://` find out what carries their link, over fake RDMA devices and the loopback.

#[path = "secure/ends.rs"]
#[allow(dead_code, reason = "shared with the tests of TLS, which need all of it")]
mod ends;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use nix::poll::{PollTimeout, poll};
use pagecast_ipc::wire::{PacketBuilder, RefusalCode, ToPublisher, ToSubscriber};
use pagecast_remote::link::Pages;
use pagecast_remote::opening::wire::{ANSWER, Answer, OFFER, Offer};
use pagecast_remote::opening::{self, Choice, Reason};
use pagecast_remote::rdma::{RdmaReceiver, RdmaSender, RdmaWords, Sources};
use pagecast_remote::tcp::{Channel, TcpReceiver, TcpSender};
use pagecast_remote::{FromPublisher, FromSubscriber, LinkError, PeerFault, Receiver, Room, Sender};
use pagecast_verbs::Verbs;
use pagecast_verbs::fake::Fake;

const PATIENCE: Duration = Duration::from_secs(30);
const PUBLISHER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1));
const SUBSCRIBER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

struct NoPages;

impl Pages for NoPages {
    fn take(&mut self, _: usize) -> Result<Option<Room>, LinkError> {
        Ok(None)
    }
}

fn connect_from(own: IpAddr, to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::new(own, 0).into()).expect("its own address");
    socket.connect(&to.into()).expect("a connection");
    socket.into()
}

/// Two ends of a connection: the publisher's and the subscriber's.
fn streams() -> (Channel, Channel) {
    let (far, near) = raw();
    (Channel::clear(far).expect("an end"), Channel::clear(near).expect("an end"))
}

fn raw() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((PUBLISHER, 0)).expect("a port");
    let near = connect_from(SUBSCRIBER, listener.local_addr().expect("its address"));
    (listener.accept().expect("a connection").0, near)
}

fn sender(channel: Channel, listens: bool, verbs: Option<Verbs>) -> Box<dyn Sender> {
    let verbs = verbs.ok_or_else(|| "none".to_owned());
    opening::sender(channel, listens, verbs, |_| Ok(()))
}

fn receiver(channel: Channel, listens: bool, verbs: Option<Verbs>) -> Box<dyn Receiver> {
    opening::receiver(channel, listens, verbs.ok_or_else(|| "none".to_owned()))
}

/// One round at a publisher's end.
fn turn_sender(sender: &mut dyn Sender, said: &mut Vec<FromSubscriber>) -> Result<(), LinkError> {
    sender.flush(&mut Vec::new())?;
    sender.receive(said)
}

fn turn_receiver(receiver: &mut dyn Receiver, said: &mut Vec<FromPublisher>) -> Result<(), LinkError> {
    receiver.flush()?;
    receiver.receive(&mut NoPages, said)
}

/// Drives both ends until a packet has gone each way.
fn join(sender: &mut dyn Sender, receiver: &mut dyn Receiver) -> Result<(), LinkError> {
    let packet = {
        let mut record = Vec::new();
        ToPublisher::Bye.encode(&mut record);
        let mut builder = PacketBuilder::default();
        builder.push(&record);
        builder.bytes(1)
    };
    let (mut upstream, mut asked) = (Vec::new(), false);
    let begun = Instant::now();
    while upstream.is_empty() {
        assert!(begun.elapsed() < PATIENCE, "nothing was decided");
        turn_sender(sender, &mut upstream)?;
        turn_receiver(receiver, &mut Vec::new())?;
        if !asked && !receiver.is_busy() {
            receiver.send_packet(&packet);
            asked = true;
        }
        let mut fds = sender.poll_fds().into_iter().chain(receiver.poll_fds()).collect::<Vec<_>>();
        let _ = poll(&mut fds, PollTimeout::from(5_u8));
    }
    Ok(())
}

fn world(addresses: &[IpAddr]) -> (Fake, Verbs) {
    let fake = Fake::new(addresses);
    let verbs = fake.verbs();
    (fake, verbs)
}

#[test]
fn with_a_device_at_both_ends_frames_go_by_rdma_whoever_listens() {
    for listens in [true, false] {
        let (fake, verbs) = world(&[PUBLISHER, SUBSCRIBER]);
        let (far, near) = streams();
        let mut sender = sender(far, listens, Some(verbs.clone()));
        let mut receiver = receiver(near, !listens, Some(verbs));
        assert_eq!(sender.figures().chosen, None);
        join(sender.as_mut(), receiver.as_mut()).expect("they come together");
        assert_eq!(sender.figures().chosen, Some(Choice::Rdma));
        assert_eq!(receiver.figures().chosen, Some(Choice::Rdma));
        drop((sender, receiver));
        assert_eq!((fake.registrations(), fake.violations()), (0, vec![]), "nothing of the probe stays");
    }
}

#[test]
fn without_a_device_at_one_end_it_is_tcp_and_both_say_why() {
    let cases = [
        (vec![PUBLISHER], Reason::SubscriberHasNone),
        (vec![SUBSCRIBER], Reason::PublisherHasNone),
        (vec![], Reason::SubscriberHasNone),
    ];
    for (devices, reason) in cases {
        let (_fake, verbs) = world(&devices);
        let (far, near) = streams();
        // Verbs without a device, and no verbs at all, are the same.
        let at_publisher = (devices != [SUBSCRIBER]).then(|| verbs.clone());
        let (mut sender, mut receiver) =
            (sender(far, true, at_publisher), receiver(near, false, Some(verbs)));
        join(sender.as_mut(), receiver.as_mut()).expect("they come together");
        assert_eq!(sender.figures().chosen, Some(Choice::Tcp(reason)), "{devices:?}");
        assert_eq!(receiver.figures().chosen, Some(Choice::Tcp(reason)), "{devices:?}");
    }
}

#[test]
fn where_nothing_arrives_by_rdma_it_is_tcp_within_a_second() {
    let (fake, verbs) = world(&[PUBLISHER, SUBSCRIBER]);
    // Devices and addresses are there, and what is written goes nowhere: as behind a filter of UDP.
    fake.hold();
    let (far, near) = streams();
    let mut sender = sender(far, true, Some(verbs.clone()));
    let mut receiver = receiver(near, false, Some(verbs));
    join(sender.as_mut(), receiver.as_mut()).expect("they come together");
    assert_eq!(sender.figures().chosen, Some(Choice::Tcp(Reason::ProbeLost)));
    assert_eq!(receiver.figures().chosen, Some(Choice::Tcp(Reason::ProbeLost)));
    assert!(opening::PROBE < Duration::from_secs(1));
}

#[test]
fn who_listens_for_either_serves_both_other_schemes() {
    let (_fake, verbs) = world(&[PUBLISHER, SUBSCRIBER]);
    let (far, near) = streams();
    let mut at_once = sender(far, true, Some(verbs.clone()));
    let mut tcp = TcpReceiver::new(near);
    join(at_once.as_mut(), &mut tcp).expect("they come together");
    assert_eq!(at_once.figures().chosen, Some(Choice::Tcp(Reason::AskedFor)));
    let (far, near) = streams();
    let mut at_once = sender(far, true, Some(verbs.clone()));
    let mut rdma = RdmaReceiver::new(near, &verbs).expect("an end");
    join(at_once.as_mut(), &mut rdma).expect("they come together");
    assert_eq!(at_once.figures().chosen, Some(Choice::Rdma));
    // And the same the other way round.
    let (far, near) = streams();
    let mut at_once = receiver(near, true, Some(verbs.clone()));
    let sources = Sources::new(&verbs, PUBLISHER).expect("a device");
    let mut rdma = RdmaSender::new(far, &sources).expect("an end");
    join(&mut rdma, at_once.as_mut()).expect("they come together");
    assert_eq!(at_once.figures().chosen, Some(Choice::Rdma));
}

#[test]
fn who_listens_for_one_scheme_alone_is_named() {
    let (far, near) = streams();
    let mut tcp = TcpSender::new(far);
    let mut either = receiver(near, false, None);
    let mut error = None;
    let begun = Instant::now();
    while error.is_none() {
        assert!(begun.elapsed() < PATIENCE);
        let _ = turn_sender(&mut tcp, &mut Vec::new());
        error = turn_receiver(either.as_mut(), &mut Vec::new()).err();
    }
    let error = error.expect("an error");
    assert!(matches!(error, LinkError::OtherScheme("tcp")), "{error}");
    assert!(error.to_string().contains("tcp://HOST:PORT"), "{error}");
}

/// What a publisher's end that listens says to these bytes.
fn to_bytes(bytes: &[u8], verbs: Option<Verbs>) -> LinkError {
    let (far, mut near) = raw();
    let mut end = sender(Channel::clear(far).expect("an end"), true, verbs);
    near.write_all(bytes).expect("said");
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < PATIENCE, "it takes anything");
        if let Err(error) = turn_sender(end.as_mut(), &mut Vec::new()) {
            return error;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn who_says_something_else_is_cut_off() {
    let offer = |endpoint| Offer { endpoint }.to_bytes().to_vec();
    let place = Answer::Place { nonce: 1, address: 2, rkey: 3 }.to_bytes();
    let rdma = Answer::Choice(Choice::Rdma).to_bytes();
    let (_fake, verbs) = world(&[PUBLISHER]);
    let cases: [(Vec<u8>, Option<Verbs>); 6] = [
        (b"GET / HTTP/1.1\r\n".to_vec(), None),
        ([&offer(None)[..4], &[9; OFFER]].concat(), None),
        ([&offer(None)[..], &[7; ANSWER]].concat(), None),
        // RDMA, where there is none.
        ([&offer(None)[..], &rdma].concat(), None),
        ([&offer(None)[..], &place].concat(), Some(verbs.clone())),
        // A second place.
        ([&offer(Some([1; 28]))[..], &place, &place].concat(), Some(verbs)),
    ];
    for (at, (bytes, verbs)) in cases.into_iter().enumerate() {
        let error = to_bytes(&bytes, verbs);
        assert!(matches!(error, LinkError::Peer(_)), "case {at}: {error}");
    }
    assert!(matches!(to_bytes(b"PGCX", None), LinkError::Peer(PeerFault::NotPagecast)));
}

#[test]
fn who_listens_says_nothing_before_it_has_heard() {
    let (far, mut near) = raw();
    let mut end = sender(Channel::clear(far).expect("an end"), true, None);
    for _ in 0..20 {
        turn_sender(end.as_mut(), &mut Vec::new()).expect("it waits");
        std::thread::sleep(Duration::from_millis(1));
    }
    near.set_nonblocking(true).expect("set");
    assert!(near.read(&mut [0]).is_err(), "a tcp:// end would not understand it");
    drop(near);
    let begun = Instant::now();
    while turn_sender(end.as_mut(), &mut Vec::new()).is_ok() {
        assert!(begun.elapsed() < PATIENCE, "that the other is gone is seen");
    }
}

/// The same within TLS: of who listens, and of who dials.
fn encrypted(trusted: bool) -> (Channel, Channel) {
    let (far, near) = raw();
    let pairs = [(); 3].map(|()| ends::Pair::new());
    let listener = ends::tls(pairs[0].trusting(&[&pairs[if trusted { 1 } else { 2 }]]));
    let dialler = ends::tls(pairs[1].trusting(&[&pairs[0]]));
    let far = Channel::accepted(far, ends::elsewhere(), &listener).expect("an end");
    (far, Channel::dialled(near, &dialler).expect("an end"))
}

#[test]
fn within_tls_it_is_decided_the_same_way() {
    for publisher_listens in [true, false] {
        for (devices, chosen) in [
            (vec![PUBLISHER, SUBSCRIBER], Choice::Rdma),
            (vec![PUBLISHER], Choice::Tcp(Reason::SubscriberHasNone)),
        ] {
            let (_fake, verbs) = world(&devices);
            let (far, near) = encrypted(true);
            // The listening end has the first address, the dialling one the second.
            let (publisher, subscriber) = if publisher_listens { (far, near) } else { (near, far) };
            let mut sender = sender(publisher, publisher_listens, Some(verbs.clone()));
            let mut receiver = receiver(subscriber, !publisher_listens, Some(verbs));
            join(sender.as_mut(), receiver.as_mut()).expect("they come together");
            let chosen = match chosen {
                Choice::Tcp(_) if !publisher_listens => Choice::Tcp(Reason::PublisherHasNone),
                chosen => chosen,
            };
            assert_eq!(sender.figures().chosen, Some(chosen));
            assert_eq!(receiver.figures().chosen, Some(chosen));
        }
    }
    // One port for all, here, too.
    let (far, near) = encrypted(true);
    let mut either = sender(far, true, None);
    join(either.as_mut(), &mut TcpReceiver::new(near)).expect("they come together");
    assert_eq!(either.figures().chosen, Some(Choice::Tcp(Reason::AskedFor)));
    // The control: nothing is decided with a stranger.
    let (far, near) = encrypted(false);
    let (mut sender, mut receiver) = (sender(far, true, None), receiver(near, false, None));
    let error = join(sender.as_mut(), receiver.as_mut()).expect_err("it is a stranger");
    assert!(matches!(error, LinkError::Peer(PeerFault::Untrusted { .. })), "{error}");
}

/// Both kinds of publisher's ends to which somebody came.
fn who_listens(at: usize, channel: Channel, verbs: &Verbs) -> Box<dyn Sender> {
    match at {
        0 => opening::rdma_sender(channel, verbs.clone(), |_| Ok(())),
        _ => sender(channel, true, Some(verbs.clone())),
    }
}

#[test]
fn nothing_of_a_device_is_given_to_who_has_not_shown_what_it_came_for() {
    for at in 0..2 {
        let (fake, verbs) = world(&[PUBLISHER, SUBSCRIBER]);
        let (far, mut near) = raw();
        let mut end = who_listens(at, Channel::clear(far).expect("an end"), &verbs);
        near.write_all(b"PGC").expect("said");
        for _ in 0..20 {
            turn_sender(end.as_mut(), &mut Vec::new()).expect("it waits");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(fake.objects(), 0);
        // The control: who says the rest gets its queue pair, and has the whole link with it.
        near.write_all(b"V").expect("said");
        let begun = Instant::now();
        while fake.objects() == 0 {
            assert!(begun.elapsed() < PATIENCE, "there is none");
            turn_sender(end.as_mut(), &mut Vec::new()).expect("it stands");
        }
        drop(end);
        assert_eq!((fake.objects(), fake.violations()), (0, vec![]));
    }
}

#[test]
fn nothing_of_a_device_is_given_to_a_stranger_within_tls() {
    for (at, trusted) in [(0, false), (1, false), (0, true)] {
        let (fake, verbs) = world(&[PUBLISHER, SUBSCRIBER]);
        let (far, near) = encrypted(trusted);
        let mut end = who_listens(at, far, &verbs);
        let (_elsewhere, theirs) = world(&[PUBLISHER, SUBSCRIBER]);
        let mut peer = RdmaReceiver::new(near, &theirs).expect("an end");
        let (begun, mut error) = (Instant::now(), None);
        while error.is_none() && fake.objects() == 0 {
            assert!(begun.elapsed() < PATIENCE, "nothing became of it");
            error = turn_sender(end.as_mut(), &mut Vec::new()).err();
            let _ = turn_receiver(&mut peer, &mut Vec::new());
        }
        let is_stranger = matches!(error, Some(LinkError::Peer(PeerFault::Untrusted { .. })));
        assert_eq!((is_stranger, fake.objects() == 0), (!trusted, !trusted), "{error:?}");
    }
}

#[test]
fn an_end_that_listens_for_rdma_is_whole_whoever_it_is() {
    for publisher_listens in [true, false] {
        for channels in [streams, || encrypted(true)] {
            let (fake, verbs) = world(&[PUBLISHER, SUBSCRIBER]);
            let (far, near) = channels();
            let (mut sender, mut receiver): (Box<dyn Sender>, Box<dyn Receiver>) = if publisher_listens {
                let sender = opening::rdma_sender(far, verbs.clone(), |_| Ok(()));
                (sender, Box::new(RdmaReceiver::new(near, &verbs).expect("an end")))
            } else {
                let sender = RdmaSender::open(near, &verbs, |_| Ok(())).expect("an end");
                (Box::new(sender), opening::rdma_receiver(far, verbs.clone()))
            };
            join(sender.as_mut(), receiver.as_mut()).expect("they come together");
            // Nothing was chosen: there was no choice.
            assert_eq!((sender.figures().chosen, receiver.figures().chosen), (None, None));
            drop((sender, receiver));
            assert_eq!((fake.objects(), fake.registrations(), fake.violations()), (0, 0, vec![]));
        }
    }
}

#[test]
fn who_comes_to_rdma_for_something_else_hears_what_is_spoken_there() {
    let (fake, verbs) = world(&[PUBLISHER]);
    for scheme in ["tcp", "remote"] {
        let (far, near) = streams();
        let mut rdma = opening::rdma_sender(far, verbs.clone(), |_| Ok(()));
        let mut other: Box<dyn Receiver> = match scheme {
            "tcp" => Box::new(TcpReceiver::new(near)),
            _ => receiver(near, false, None),
        };
        let (mut ends, begun) = ((None, None), Instant::now());
        while ends.0.is_none() || ends.1.is_none() {
            assert!(begun.elapsed() < PATIENCE, "{scheme}: {ends:?}");
            if ends.0.is_none() {
                ends.0 = turn_sender(rdma.as_mut(), &mut Vec::new()).err();
            }
            ends.1 = ends.1.or(turn_receiver(other.as_mut(), &mut Vec::new()).err());
        }
        let (here, there) = (ends.0.expect("an error").to_string(), ends.1.expect("an error"));
        assert!(here.contains("another scheme than rdma://"), "{here}");
        match scheme {
            "tcp" => assert!(matches!(there, LinkError::Peer(PeerFault::NotPagecast)), "{there}"),
            _ => assert!(matches!(there, LinkError::OtherScheme("rdma")), "{there}"),
        }
    }
    assert_eq!(fake.objects(), 0);
}

#[test]
fn who_may_not_stay_is_told_without_a_device() {
    let (_fake, verbs) = world(&[SUBSCRIBER]);
    let (far, near) = streams();
    let mut words = RdmaWords::new(far);
    let mut receiver = RdmaReceiver::new(near, &verbs).expect("an end");
    let mut record = Vec::new();
    ToSubscriber::Refused(RefusalCode::Access, "why".to_owned()).encode(&mut record);
    let mut packet = PacketBuilder::default();
    packet.push(&record);
    words.send_packet(&packet.bytes(0));
    let (mut heard, begun) = (Vec::new(), Instant::now());
    let end = loop {
        assert!(begun.elapsed() < PATIENCE, "{heard:?}");
        words.finish();
        let _ = turn_sender(&mut words, &mut Vec::new());
        if let Err(error) = turn_receiver(&mut receiver, &mut heard) {
            break error;
        }
    };
    assert!(matches!(end, LinkError::Closed), "{end}");
    let [FromPublisher::Packet(said)] = &heard[..] else { panic!("{heard:?}") };
    assert_eq!(*said, packet.bytes(0));
}

#[test]
fn a_subscriber_that_listens_does_not_wait_for_who_says_nothing() {
    let (_fake, verbs) = world(&[PUBLISHER]);
    let (first, second) = (raw(), raw());
    let end = |stream| Channel::clear(stream).expect("an end");
    let mut ends = [receiver(end(first.0), true, None), opening::rdma_receiver(end(second.0), verbs)];
    let begun = Instant::now();
    for receiver in &mut ends {
        let error = loop {
            assert!(begun.elapsed() < PATIENCE, "it waits for ever");
            if let Err(error) = turn_receiver(receiver.as_mut(), &mut Vec::new()) {
                break error;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        assert!(matches!(error, LinkError::Silent(_)), "{error}");
    }
}
