//! Beginnings and ends of remote links that go slowly, or not at all.

use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, connect, getsockname, listen, socket,
};
use pagecast::ipc::wire::RefusalCode;
use pagecast::remote::AllowList;
use pagecast::{
    Message, Pool, PoolOptions, Publisher, PublisherOptions, RecvError, RemoteOptions, Subscriber,
    SubscriberOptions,
};
use pagecast_tests::peers::Peer;
use pagecast_tests::{eventually, skip, stamped};

const PEER: &str = env!("CARGO_BIN_EXE_pagecast-peer");
const ANY: &str = "tcp://127.0.0.1:0";
const PATIENCE: Option<Duration> = Some(Duration::from_secs(30));

fn publisher(options: PublisherOptions) -> (Publisher, String) {
    let publisher = Publisher::open(ANY, options).expect("a publisher");
    let uri = publisher.info().uri;
    (publisher, uri)
}

fn patient() -> PublisherOptions {
    PublisherOptions { live: false, block_deadline: None, ..PublisherOptions::default() }
}

/// Without reconnecting: the first answer counts.
fn answer(uri: &str, observe: bool) -> (Subscriber, Result<Message, RecvError>) {
    let options = SubscriberOptions { reconnect: false, observe, ..SubscriberOptions::default() };
    let subscriber = Subscriber::open(uri, options).expect("a subscriber");
    let answer = subscriber.recv(PATIENCE);
    (subscriber, answer)
}

fn refused(answer: &Result<Message, RecvError>, expected: RefusalCode) -> &str {
    match answer {
        Err(RecvError::Refused { code, text }) if *code == expected => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_slow_network_gets_the_end_of_the_stream() {
    const FRAMES: u64 = 12;
    let (publisher, uri) = publisher(patient());
    let pool = Pool::new(PoolOptions::default());
    publisher.set_pool(&pool);
    let mut proxy = Peer::start(PEER, &["proxy", &uri, "buffer=65536"]);
    let slow = proxy.expect("ready");
    // What the kernel holds for it takes seconds.
    proxy.say("down rate 1500000");
    proxy.expect("set");
    let subscriber = Peer::start(PEER, &["victim", &slow]);
    assert!(publisher.wait_for_subscribers(1, PATIENCE));
    for number in 0..FRAMES {
        publisher.publish(&stamped(&pool, number, 500_000)).expect("published");
    }
    publisher.publish_event("eos", &[]).expect("said");
    publisher.close(Duration::from_secs(30));
    drop(publisher);
    let why = subscriber.expect("ended");
    assert!(why.contains("the publisher ends"), "{why}");
    let counted = subscriber.expect("leaked");
    assert!(counted.ends_with(&format!("frames {FRAMES}")), "{counted}");
}

/// What keeps an address from answering: its queue is full.
type Hole = (OwnedFd, Vec<OwnedFd>);

fn hole(at: SocketAddr) -> (Hole, SocketAddr) {
    let SocketAddr::V4(at) = at else { unreachable!("only these are asked for") };
    let new = |flags| socket(AddressFamily::Inet, SockType::Stream, flags, None).expect("a socket");
    let hole = new(SockFlag::SOCK_CLOEXEC);
    bind(hole.as_raw_fd(), &SockaddrIn::from(at)).expect("a port");
    listen(&hole, Backlog::new(0).expect("a length")).expect("a queue");
    let address: SockaddrIn = getsockname(hole.as_raw_fd()).expect("its address");
    let fill = (0..4).map(|_| {
        let filler = new(SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK);
        let _ = connect(filler.as_raw_fd(), &address);
        filler
    });
    let fillers = fill.collect();
    ((hole, fillers), SocketAddrV4::from(address).into())
}

/// Connections to a port that are being made by this process.
fn attempts(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/self/net/tcp").expect("the kernel's table");
    let to = format!(":{port:04X}");
    let is_attempt = |line: &&str| {
        let words: Vec<_> = line.split_whitespace().collect();
        // State 2 is SYN_SENT.
        words.len() > 3 && words[2].ends_with(&to) && words[3] == "02"
    };
    table.lines().filter(is_attempt).count()
}

#[test]
fn a_publisher_that_reaches_for_nobody_is_dropped_at_once() {
    let (hole, address) = hole(SocketAddr::from(([127, 0, 0, 1], 0)));
    let nobody = TcpStream::connect_timeout(&address, Duration::from_millis(200));
    assert!(nobody.is_err(), "the control: nobody is let in there");
    drop(nobody);
    let before = attempts(address.port());
    let uri = format!("tcp://{address}?mode=connect");
    let publisher = Publisher::open(&uri, PublisherOptions::default()).expect("a publisher");
    eventually("it reaches for the subscriber", || attempts(address.port()) > before);
    drop(publisher);
    assert!(attempts(address.port()) > before, "it waited until the attempt was over");
    drop(hole);
}

#[test]
fn who_may_not_come_is_told_why() {
    let networks = AllowList::parse("10.0.0.0/8").expect("a network");
    let remote = RemoteOptions { networks, ..RemoteOptions::default() };
    for any in [ANY, "remote://127.0.0.1:0"] {
        let options = PublisherOptions { remote: remote.clone(), ..PublisherOptions::default() };
        let publisher = Publisher::open(any, options).expect("a publisher");
        let (_subscriber, answer) = answer(&publisher.info().uri, false);
        let text = refused(&answer, RefusalCode::Access);
        assert!(text.contains("127.0.0.1") && text.contains("--network"), "{text}");
    }
}

#[test]
fn observers_take_no_subscribers_places_and_have_a_limit() {
    let (publisher, uri) = publisher(PublisherOptions { max_subscribers: 1, ..PublisherOptions::default() });
    let mut observers = Vec::new();
    let last = loop {
        let (observer, answer) = answer(&uri, true);
        match answer {
            Ok(Message::Connected(_)) => observers.push(observer),
            answer => break answer,
        }
        assert!(observers.len() < 1000, "observers without end");
    };
    let text = refused(&last, RefusalCode::NoRoom);
    assert!(text.contains(&format!("{} ", observers.len())), "{} and {text}", observers.len());
    let (_first, first) = answer(&uri, false);
    assert!(matches!(first, Ok(Message::Connected(_))), "{first:?}");
    assert!(publisher.wait_for_subscribers(1, PATIENCE));
    let (_second, second) = answer(&uri, false);
    refused(&second, RefusalCode::NoRoom);
    // Places come back.
    drop(observers);
    eventually("an observer is let in again", || matches!(answer(&uri, true).1, Ok(Message::Connected(_))));
}

#[test]
fn without_descriptors_a_subscriber_waits_for_better_times() {
    let (publisher, uri) = publisher(patient());
    let pool = Pool::new(PoolOptions::default());
    publisher.set_pool(&pool);
    // Standard input, output and error and the means to interrupt it: a link needs more. What this process was started
    // with beside them is closed.
    let alone = "exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-; exec \"$0\" \"$@\"";
    let limited = ["prlimit", "--nofile=5:256", PEER, "subscriber", &uri];
    let subscriber = Peer::start("sh", &[&["-c", alone], &limited[..]].concat());
    let descriptors = || pagecast_tests::proc::fds(subscriber.pid());
    eventually("it has opened what it can", || descriptors().others >= 1);
    std::thread::sleep(Duration::from_millis(300));
    assert!(!subscriber.has_said("failed") && !subscriber.has_said("connected"));
    let pid = subscriber.pid().to_string();
    let raised = Command::new("prlimit").args(["--pid", &pid, "--nofile=256:"]).status();
    if !raised.is_ok_and(|status| status.success()) {
        return skip("limits of other processes cannot be raised");
    }
    subscriber.expect("connected");
    publisher.publish(&stamped(&pool, 0, 1000)).expect("published");
    subscriber.try_follow(1).expect("followed");
}

/// How long dropping takes.
fn end(publisher: Publisher) -> Duration {
    let start = Instant::now();
    drop(publisher);
    start.elapsed()
}

#[test]
fn who_reads_nothing_holds_no_end() {
    let (publisher, uri) = publisher(patient());
    let pool = Pool::new(PoolOptions::default());
    publisher.set_pool(&pool);
    let subscriber = Peer::start(PEER, &["victim", &uri]);
    assert!(publisher.wait_for_subscribers(1, PATIENCE));
    subscriber.stop();
    for number in 0..8 {
        publisher.publish(&stamped(&pool, number, 2_000_000)).expect("published");
    }
    publisher.close(Duration::ZERO);
    // Less than who reads slowly is given.
    let took = end(publisher);
    assert!(took < pagecast_remote::limits::LAST_WORDS, "{took:?}");
}

#[test]
fn who_hardly_reads_holds_no_end_for_long() {
    let (publisher, uri) = publisher(patient());
    let pool = Pool::new(PoolOptions::default());
    publisher.set_pool(&pool);
    let mut proxy = Peer::start(PEER, &["proxy", &uri, "buffer=65536"]);
    let slow = proxy.expect("ready");
    let subscriber = Peer::start(PEER, &["victim", &slow]);
    assert!(publisher.wait_for_subscribers(1, PATIENCE));
    proxy.say("down rate 10000");
    proxy.expect("set");
    for number in 0..8 {
        publisher.publish(&stamped(&pool, number, 2_000_000)).expect("published");
    }
    publisher.publish_event("eos", &[]).expect("said");
    publisher.close(Duration::from_secs(5));
    // All of it would take a quarter of an hour.
    let took = end(publisher);
    assert!(took < Duration::from_secs(30), "{took:?}");
    drop(proxy);
    let counted = subscriber.expect("leaked");
    assert!(!counted.ends_with("frames 8"), "the control: it cannot have had all, {counted}");
}

#[test]
fn a_host_with_many_dead_addresses_takes_no_longer_than_with_one() {
    const HOLES: usize = 10;
    // The same port at each of them, so the first chooses.
    let (first, address) = hole(SocketAddr::from(([127, 0, 7, 1], 0)));
    let others = (2..=HOLES).map(|last| hole(SocketAddr::from(([127, 0, 7, last as u8], address.port()))).0);
    let _holes: Vec<Hole> = others.chain([first]).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let hosts = folder.path().join("hosts");
    let lines: String = (1..=HOLES).map(|last| format!("127.0.7.{last} holes.test\n")).collect();
    std::fs::write(&hosts, lines).expect("a file");
    // A name of several addresses, as a process in its own mount namespace sees it.
    let command = format!(
        "mount --bind {} /etc/hosts && getent ahostsv4 holes.test | wc -l && exec {PEER} victim tcp://holes.test:{}",
        hosts.display(),
        address.port()
    );
    let subscriber = Peer::start("unshare", &["-m", "sh", "-c", &command]);
    let Ok(seen) = subscriber.try_expect("") else { return skip("no mount namespaces") };
    assert!(
        seen.parse::<usize>().is_ok_and(|seen| seen >= HOLES),
        "the control: one name, many addresses: {seen}"
    );
    let start = Instant::now();
    let why = subscriber.expect("ended");
    assert!(why.contains("holes.test") || why.contains("127.0.7."), "{why}");
    // Each for itself would take as long as all of them may together.
    let each = pagecast_remote::limits::CONNECT;
    assert!(start.elapsed() < each * (HOLES as u32 - 2), "{:?}", start.elapsed());
}
