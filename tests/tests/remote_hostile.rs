//! Remote peers that mean harm, and the end of those that are killed: nobody else notices.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use nix::sys::signal::Signal;
use pagecast::ipc::wire::{
    Announce, Event, Face, Frame, Hello, PacketBuilder, Packets, Role, Segment, ToPublisher, ToSubscriber,
    Welcome,
};
use pagecast::{Message, PoolOptions, Subscriber, SubscriberOptions};
use pagecast_tests::peers::Peer;
use pagecast_tests::scene::Scene;
use pagecast_tests::{eventually, proc};

const PEER: &str = env!("CARGO_BIN_EXE_pagecast-peer");
const PATIENCE: Option<Duration> = Some(Duration::from_secs(30));
const PREAMBLE: [u8; 8] = *b"PGCR\x01\0\0\0";

fn scene(size: &str) -> Scene {
    Scene::across(PEER, "tcp://127.0.0.1:0", &[size])
}

fn connect(scene: &Scene) -> TcpStream {
    let stream = TcpStream::connect(remote(scene).trim_start_matches("tcp://")).expect("a connection");
    stream.set_read_timeout(PATIENCE).expect("a limit");
    stream
}

fn remote(scene: &Scene) -> &str {
    scene.remote.as_deref().expect("an address")
}

fn framed(records: &[Vec<u8>], epoch: u32) -> Vec<u8> {
    let mut packet = PacketBuilder::default();
    records.iter().for_each(|record| packet.push(record));
    let packet = packet.bytes(epoch);
    [(packet.len() as u32).to_le_bytes().to_vec(), packet].concat()
}

fn to_publisher(message: &ToPublisher) -> Vec<u8> {
    let mut record = Vec::new();
    message.encode(&mut record);
    record
}

fn to_subscriber(message: &ToSubscriber) -> Vec<u8> {
    let mut record = Vec::new();
    message.encode(&mut record);
    record
}

fn hello() -> Vec<u8> {
    let hello = ToPublisher::Hello(Hello::new(Role::Subscriber, "hostile"));
    [PREAMBLE.to_vec(), framed(&[to_publisher(&hello)], 0)].concat()
}

/// Reads a packet; `None` at the end of the link.
fn read_packet(stream: &mut TcpStream) -> Option<Vec<u8>> {
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length).ok()?;
        let length = u32::from_le_bytes(length) as usize;
        let mut packet = vec![0; if length == 0 { 24 } else { length }];
        stream.read_exact(&mut packet).ok()?;
        if length > 0 {
            return Some(packet);
        }
    }
}

/// Says hello and waits for the welcome; returns the epoch.
fn join(stream: &mut TcpStream) -> u32 {
    stream.write_all(&hello()).expect("heard");
    let mut preamble = [0; 8];
    stream.read_exact(&mut preamble).expect("an answer");
    assert_eq!(preamble, PREAMBLE);
    let packet = read_packet(stream).expect("an answer");
    Packets::open(&packet).expect("a packet").epoch()
}

/// Reads until the other end has closed.
fn ends(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    if let Err(error) = stream.read_to_end(&mut rest) {
        assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "it was not cut off");
    }
}

#[test]
fn who_sends_rubbish_is_cut_off_and_nobody_else_notices() {
    let mut scene = scene("size=200000");
    let before = scene.fds();
    let random: Vec<u8> =
        (0..5000_u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u8).collect();
    let length = |length: u32| [PREAMBLE.to_vec(), length.to_le_bytes().to_vec()].concat();
    let twice = [hello(), hello()[8..].to_vec()].concat();
    let bye = [PREAMBLE.to_vec(), framed(&[to_publisher(&ToPublisher::Bye)], 0)].concat();
    let frame = to_subscriber(&ToSubscriber::Frame(Frame::default()));
    let frame = [PREAMBLE.to_vec(), framed(&[frame], 0)].concat();
    let openings: [&[u8]; 9] = [
        &random,
        b"GET / HTTP/1.1\r\n\r\n",
        b"PGCR\x02\0\0\0\0\0\0\0",
        &length(1),
        &length(98_305),
        &length(u32::MAX),
        &twice,
        &bye,
        &frame,
    ];
    for bytes in openings {
        let mut stream = connect(&scene);
        // It may be cut off before it has said all.
        let _ = stream.write_all(bytes);
        ends(&mut stream);
        scene.publish(2);
    }
    scene.settles(&before);
}

#[test]
fn who_breaks_the_protocol_later_is_cut_off_too() {
    let mut scene = scene("size=200000");
    let before = scene.fds();
    let event = || Event { name: "x".to_owned(), data: Vec::new() };
    let wrong: [(&str, Vec<Vec<u8>>); 5] = [
        ("a return of what it never had", vec![to_publisher(&ToPublisher::Return(vec![1 << 40]))]),
        ("a second hello", vec![to_publisher(&ToPublisher::Hello(Hello::new(Role::Subscriber, "again")))]),
        ("a count of buffers", vec![to_publisher(&ToPublisher::Seen(0))]),
        ("a question of an observer", vec![to_publisher(&ToPublisher::Query)]),
        ("a publisher's record", vec![to_subscriber(&ToSubscriber::Event(event()))]),
    ];
    for (what, records) in wrong {
        let mut stream = connect(&scene);
        let epoch = join(&mut stream);
        stream.write_all(&framed(&records, epoch)).expect(what);
        ends(&mut stream);
        scene.publish(2);
    }
    // A frame that it has, returned twice.
    let mut stream = connect(&scene);
    let epoch = join(&mut stream);
    scene.publish(2);
    let twice = loop {
        let packet = read_packet(&mut stream).expect("a frame");
        let record = Packets::open(&packet).expect("a packet").next_record().expect("a record").expect("one");
        if let Ok(ToSubscriber::Frame(frame)) = ToSubscriber::decode(record) {
            break ToPublisher::Return(vec![frame.id; 2]);
        }
    };
    stream.write_all(&framed(&[to_publisher(&twice)], epoch)).expect("heard");
    ends(&mut stream);
    scene.publish(2);
    scene.settles(&before);
}

#[test]
fn who_stalls_costs_nobody_anything() {
    let mut scene = scene("size=2000000");
    let before = scene.fds();
    // Silent before the hello, in it, after it without reading; half closed; gone in mid-frame.
    let silent: Vec<TcpStream> = (0..40).map(|_| connect(&scene)).collect();
    let mut in_hello = connect(&scene);
    in_hello.write_all(&hello()[..20]).expect("heard");
    let mut deaf = connect(&scene);
    join(&mut deaf);
    let mut half_closed = connect(&scene);
    join(&mut half_closed);
    half_closed.shutdown(Shutdown::Write).expect("half closed");
    let mut gone = connect(&scene);
    join(&mut gone);
    scene.publish(2);
    let mut some = vec![0; 100_000];
    gone.read_exact(&mut some).expect("a part of a frame");
    drop(gone);
    scene.publish(60);
    // Whatever they are, after a while of silence they are gone.
    scene.settles(&before);
    for mut stream in silent.into_iter().chain([in_hello, deaf, half_closed]) {
        ends(&mut stream);
    }
    scene.settles(&before);
}

#[test]
fn subscribers_that_are_killed_or_stopped_leave_nothing_behind() {
    let mut scene = scene("size=3000000");
    let before = scene.fds();
    for round in 0..12 {
        let mut victim = scene.join_at(remote(&scene), &["subscriber"]);
        victim.expect("connected");
        scene.publish_while(4, || {
            std::thread::sleep(Duration::from_micros(700 * round));
            victim.kill();
        });
        scene.publish(2);
    }
    let stopped = scene.join_at(remote(&scene), &["subscriber"]);
    stopped.expect("connected");
    stopped.stop();
    scene.publish(40);
    scene.only_the_healthy_are_left();
    stopped.signal(Signal::SIGCONT);
    // It comes back by itself and is served.
    stopped.expect("connected");
    scene.publish(2);
    drop(stopped);
    scene.settles(&before);
}

#[test]
fn a_publisher_killed_in_mid_frame_leaves_no_torn_frame() {
    let mut publisher = Peer::start(PEER, &["publisher", "tcp://127.0.0.1:0", "size=6000000", "every_us=0"]);
    let uri = publisher.expect("ready");
    let subscriber = Peer::start(PEER, &["subscriber", &uri, "quiet=true", "hold=0"]);
    let (mut before, mut torn) = (proc::Fds::default(), 0);
    // As often as it takes: where a kill hits is the machine's matter.
    let mut round = 0;
    while round < 15 || torn < 3 {
        assert!(round < 150, "{torn} of {round} kills left a part of a frame: the test must be able to fail");
        subscriber.expect("connected");
        if round == 0 {
            before = proc::fds(subscriber.pid());
        }
        std::thread::sleep(Duration::from_millis(20 + 3 * (round % 15)));
        round += 1;
        publisher.kill();
        let why = subscriber.expect("disconnected");
        torn += usize::from(why.contains("mid-frame"));
        assert!(!subscriber.has_said("bad"), "{}", subscriber.expect("bad"));
        publisher = Peer::start(PEER, &["publisher", &uri, "size=6000000", "every_us=0"]);
        publisher.expect("ready");
    }
    subscriber.expect("connected");
    let pid = subscriber.pid();
    eventually("descriptors of earlier lives are closed", || {
        // A bridge and its subscriber have a descriptor each of the eight frames that may be held.
        proc::fds(pid).others <= before.others + 2 && proc::fds(pid).memfds <= 2 * 10
    });
}

/// What a false publisher answers to the hello, and what the subscriber says of it.
fn false_publisher(answer: impl Fn(&mut TcpStream) + Send + 'static, limit: u64) -> (Vec<Message>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let uri = format!("tcp://{}", listener.local_addr().expect("its address"));
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a subscriber");
        stream.set_read_timeout(PATIENCE).expect("a limit");
        let mut preamble = [0; 8];
        stream.read_exact(&mut preamble).expect("a preamble");
        read_packet(&mut stream).expect("a hello");
        let _ = stream.write_all(&PREAMBLE);
        answer(&mut stream);
        // Who closes with bytes unread takes back what was not read of its own.
        let _ = stream.shutdown(Shutdown::Write);
        while matches!(stream.read(&mut [0; 64]), Ok(1..)) {}
    });
    let pool = PoolOptions { limit, ..PoolOptions::default() };
    let options = SubscriberOptions { reconnect: false, pool, ..SubscriberOptions::default() };
    let subscriber = Subscriber::open(&uri, options).expect("a subscriber");
    let mut messages = Vec::new();
    let error = loop {
        match subscriber.recv(PATIENCE) {
            Ok(message) => messages.push(message),
            Err(error) => break error.to_string(),
        }
    };
    thread.join().expect("the false publisher");
    (messages, error)
}

fn welcome() -> Vec<u8> {
    let welcome = Welcome {
        version: 1,
        subscriber: 1,
        pid: 1,
        policy: None,
        credits: 8,
        mailbox: 8,
        faces: pagecast::FaceSet::MEMORY,
        live: true,
        name: "false".to_owned(),
    };
    framed(&[to_subscriber(&ToSubscriber::Welcome(welcome))], 9)
}

fn frame_of(lengths: &[u64]) -> Vec<u8> {
    let segments = lengths.iter().map(|length| Segment { buffer: 5, offset: 9, length: *length });
    let frame = Frame { id: 1, segments: segments.collect(), ..Frame::default() };
    framed(&[to_subscriber(&ToSubscriber::Frame(frame))], 9)
}

#[test]
fn a_false_publisher_is_left_and_gives_no_torn_frame() {
    let announce = ToSubscriber::Announce(Announce { buffer: 1, size: 4096, face: Face::Memory });
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("closed", Vec::new()),
        ("bytes", vec![0xee; 3000]),
        ("over a limit", [welcome(), frame_of(&[1 << 29, (1 << 29) + 1])].concat()),
        ("pool-limit", [welcome(), frame_of(&[1 << 29])].concat()),
        ("mid-frame", [welcome(), frame_of(&[3000]), vec![1; 2999]].concat()),
        ("closed", [welcome(), frame_of(&[3000])[..40].to_vec()].concat()),
        ("out of place", [welcome(), framed(&[to_subscriber(&announce)], 9)].concat()),
        ("out of place", [welcome(), framed(&[to_subscriber(&ToSubscriber::Retire(1))], 9)].concat()),
        ("out of place", [welcome(), frame_of(&[]), frame_of(&[])].concat()),
        ("out of place", [welcome(), welcome()].concat()),
    ];
    for (what, bytes) in cases {
        let sent = bytes.clone();
        let (messages, error) = false_publisher(move |stream| drop(stream.write_all(&sent)), 64 << 20);
        let frames =
            messages.iter().filter(|m| matches!(m, Message::Frame(frame) if frame.size() > 0)).count();
        assert_eq!(frames, 0, "{what}: {messages:?}");
        let said = error.contains(what) || (what == "bytes" && error.contains("limit"));
        assert!(said || what == "over a limit" && error.contains("limit"), "{what}: {error}");
    }
}

#[test]
fn the_end_of_a_frame_may_come_late_and_in_pieces() {
    let (messages, error) = false_publisher(
        |stream| {
            let bytes = [welcome(), frame_of(&[3, 5]), b"abcdefgh".to_vec(), frame_of(&[])].concat();
            for byte in bytes.chunks(3) {
                stream.write_all(byte).expect("heard");
                std::thread::sleep(Duration::from_micros(300));
            }
        },
        64 << 20,
    );
    let content = |message: &Message| match message {
        Message::Frame(frame) => Some(frame.to_vec().expect("readable, though the link is gone")),
        _ => None,
    };
    let frames: Vec<Vec<u8>> = messages.iter().filter_map(content).collect();
    assert_eq!(frames, [b"abcdefgh".to_vec()], "the same number twice is not taken: {error}");
}
