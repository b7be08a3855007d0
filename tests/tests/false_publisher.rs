//! Publishers that lie, and a subscriber in a process of its own that must find them out: a clear error, no
//! signal, no descriptor left over, and no waiting beyond its time.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::ftruncate;
use pagecast::ipc::socket::{ListenOptions, Listener, SendError, Seqpacket};
use pagecast::ipc::wire::limits::{MAX_EVENT_BYTES, MAX_INFO_PART, MAX_PACKET, MAX_STICKIES};
use pagecast::ipc::wire::{
    Announce, Face, Frame, PacketBuilder, Packets, Plane, RefusalCode, Segment, Sticky, ToPublisher,
    ToSubscriber, Welcome,
};
use pagecast::{FaceSet, Subscriber, SubscriberOptions};
use pagecast_tests::peers::Peer;
use pagecast_tests::{Place, eventually};

const PEER: &str = env!("CARGO_BIN_EXE_pagecast-peer");
const SIZE: u64 = 8192;
const EPOCH: u32 = 7;

/// One end of a link whose other end believes that this is a publisher.
struct Liar {
    socket: Seqpacket,
}

impl Liar {
    /// Of the link of the next who comes.
    fn of(listener: &Listener) -> Self {
        let mut accepted = None;
        eventually("the subscriber comes", || {
            accepted = listener.accept().expect("accepted");
            accepted.is_some()
        });
        Self { socket: accepted.expect("a link") }
    }

    /// The faces that the other end asks for.
    fn asked_faces(&self) -> FaceSet {
        let (mut bytes, mut fds) = (vec![0; MAX_PACKET], Vec::new());
        let mut length = None;
        eventually("a hello", || {
            length = self.socket.receive(&mut bytes, &mut fds).ok();
            length.is_some()
        });
        let mut packets = Packets::open(&bytes[..length.unwrap_or(0)]).expect("a packet");
        let record = packets.next_record().expect("a record").expect("a record");
        match ToPublisher::decode(record).expect("a message") {
            ToPublisher::Hello(hello) => hello.faces,
            other => panic!("{other:?} instead of a hello"),
        }
    }

    fn say(&self, messages: &[ToSubscriber], fds: &[BorrowedFd<'_>]) -> bool {
        self.say_in(EPOCH, messages, fds)
    }

    fn say_in(&self, epoch: u32, messages: &[ToSubscriber], fds: &[BorrowedFd<'_>]) -> bool {
        let mut packet = PacketBuilder::default();
        for message in messages {
            let mut record = Vec::new();
            message.encode(&mut record);
            packet.push(&record);
        }
        self.send(&packet.bytes(epoch), fds)
    }

    fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> bool {
        loop {
            match self.socket.send(bytes, fds) {
                Err(SendError::Full) => std::thread::sleep(Duration::from_micros(100)),
                result => return result.is_ok(),
            }
        }
    }

    fn welcome(&self) {
        self.say(&[ToSubscriber::Welcome(welcome())], &[]);
    }

    /// Announces one buffer of `SIZE` bytes with this descriptor.
    fn announce(&self, fd: BorrowedFd<'_>) {
        self.say(&[announce(1, SIZE)], &[fd]);
    }
}

fn welcome() -> Welcome {
    Welcome {
        version: 1,
        subscriber: 1,
        pid: std::process::id(),
        policy: None,
        credits: 8,
        mailbox: 8,
        faces: FaceSet::MEMORY,
        live: true,
        name: "liar".to_owned(),
    }
}

fn announce(buffer: u64, size: u64) -> ToSubscriber {
    ToSubscriber::Announce(Announce { buffer, size, face: Face::Memory })
}

fn frame(segments: &[(u64, u64, u64)]) -> ToSubscriber {
    numbered(1, segments)
}

fn numbered(id: u64, segments: &[(u64, u64, u64)]) -> ToSubscriber {
    let segment = |(buffer, offset, length): &(u64, u64, u64)| Segment {
        buffer: *buffer,
        offset: *offset,
        length: *length,
    };
    ToSubscriber::Frame(Frame { id, segments: segments.iter().map(segment).collect(), ..Frame::default() })
}

fn memfd(size: u64, seals: SealFlag) -> OwnedFd {
    let fd = memfd_create(c"liar", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).expect("a memfd");
    ftruncate(&fd, size as i64).expect("its size");
    fcntl(&fd, FcntlArg::F_ADD_SEALS(seals)).expect("its seals");
    fd
}

fn honest() -> OwnedFd {
    memfd(SIZE, SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_FUTURE_WRITE)
}

fn reopened(fd: &OwnedFd, access: OFlag) -> File {
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(fd));
    let mut options = File::options();
    match access {
        OFlag::O_WRONLY => options.write(true),
        other => options.read(true).custom_flags(other.bits()),
    };
    options.open(path).expect("opened again")
}

/// Whether it was sent is shown by what the subscriber says.
fn sent(_: bool) {}

/// Lets a subscriber meet a publisher that does `lie` once it has been greeted, and returns what the
/// subscriber says of it.
fn meet(options: &[&str], lie: impl FnOnce(&Liar)) -> String {
    meet_again(options, |listener| {
        let liar = Liar::of(listener);
        lie(&liar);
        liar
    })
}

/// As [`meet`], for lies on more than one link. What `lie` returns is kept to the end.
fn meet_again<K>(options: &[&str], lie: impl FnOnce(&Listener) -> K) -> String {
    let place = Place::new();
    let uri = place.uri("liar");
    let listener = Listener::bind(&place.path().join("liar"), &ListenOptions::default()).expect("a socket");
    let mut role = vec!["victim", &uri];
    role.extend(options);
    let victim = Peer::start(PEER, &role);
    let _kept = lie(&listener);
    let ended = victim.expect("ended");
    let leaked = victim.expect("leaked");
    assert!(leaked.starts_with("0 "), "descriptors are left over: {leaked}");
    format!("{ended}; {leaked}")
}

/// As [`meet`], once the subscriber was made welcome; what it says must contain `expected`.
fn finds(expected: &str, lie: impl FnOnce(&Liar)) {
    let said = meet(&[], |liar| {
        liar.welcome();
        lie(liar);
    });
    assert!(said.contains(expected), "it said {said:?}, not {expected:?}");
}

/// The control: what is refused below is believed of somebody who tells the truth.
#[test]
fn the_truth_is_believed() {
    finds("gone; 0 frames 2", |liar| {
        liar.announce(honest().as_fd());
        liar.say(&[frame(&[(1, 0, SIZE)]), numbered(2, &[(1, SIZE - 1, 1)])], &[]);
        liar.socket.shutdown();
    });
}

#[test]
fn a_memfd_that_could_shrink_is_refused() {
    finds("seal", |liar| liar.announce(memfd(SIZE, SealFlag::empty()).as_fd()));
    finds("seal", |liar| liar.announce(memfd(SIZE, SealFlag::F_SEAL_GROW).as_fd()));
}

#[test]
fn a_memfd_shorter_than_announced_is_refused() {
    finds("4096", |liar| liar.announce(memfd(SIZE / 2, SealFlag::F_SEAL_SHRINK).as_fd()));
    finds("buffer 1", |liar| liar.announce(memfd(0, SealFlag::F_SEAL_SHRINK).as_fd()));
}

#[test]
fn descriptors_that_cannot_be_read_are_refused() {
    finds("writing only", |liar| liar.announce(reopened(&honest(), OFlag::O_WRONLY).as_fd()));
    finds("O_PATH", |liar| liar.announce(reopened(&honest(), OFlag::O_PATH).as_fd()));
}

#[test]
fn what_is_no_memfd_is_refused() {
    let (reader, _writer) = std::io::pipe().expect("a pipe");
    finds("buffer 1", |liar| liar.announce(reader.as_fd()));
    for path in ["/tmp", "/dev/zero", "/proc/self/maps", PEER] {
        finds("buffer 1", |liar| liar.announce(File::open(path).expect("a file").as_fd()));
    }
    let regular = tempfile::tempfile().expect("a file");
    regular.set_len(SIZE).expect("its size");
    finds("buffer 1", |liar| liar.announce(regular.as_fd()));
    finds("buffer 1", |liar| liar.announce(liar.socket.as_fd()));
    finds("buffer 1", |liar| {
        let dma_buf = Announce { buffer: 1, size: SIZE, face: Face::DmaBuf };
        liar.say(&[ToSubscriber::Announce(dma_buf)], &[honest().as_fd()]);
    });
}

#[test]
fn announcements_and_descriptors_must_be_of_one_number() {
    let fd = honest();
    let fd = fd.as_fd();
    finds("2 buffers were announced with 1", |liar| {
        liar.say(&[announce(1, SIZE), announce(2, SIZE)], &[fd]);
    });
    finds("1 buffers were announced with 2", |liar| sent(liar.say(&[announce(1, SIZE)], &[fd; 2])));
    finds("0 buffers were announced with 3", |liar| sent(liar.say(&[ToSubscriber::Retire(1)], &[fd; 3])));
    finds("more than 32", |liar| sent(liar.say(&[announce(1, SIZE)], &[fd; 200])));
    finds("announced twice", |liar| {
        liar.say(&[announce(1, SIZE), announce(1, SIZE)], &[fd; 2]);
    });
}

#[test]
fn frames_stay_within_announced_buffers() {
    let fd = honest();
    let outside = |segments: &[(u64, u64, u64)]| {
        finds("not in an announced buffer", |liar| {
            liar.announce(fd.as_fd());
            liar.say(&[frame(segments)], &[]);
        });
    };
    outside(&[(2, 0, 1)]);
    outside(&[(1, 0, SIZE + 1)]);
    outside(&[(1, SIZE, 1)]);
    outside(&[(1, 0, SIZE), (1, SIZE - 1, 2)]);
    let beyond = |segment| {
        finds("segment end", |liar| {
            liar.announce(fd.as_fd());
            liar.say(&[frame(&[segment])], &[]);
        });
    };
    beyond((1, u64::MAX, 1));
    beyond((1, u64::MAX, u64::MAX));
    beyond((1, 1 << 40, 1));
    finds("not in an announced buffer", |liar| {
        liar.announce(fd.as_fd());
        liar.say(&[ToSubscriber::Retire(1), frame(&[(1, 0, 1)])], &[]);
    });
    finds("plane", |liar| {
        liar.announce(fd.as_fd());
        let mut frame = Frame { id: 1, ..Frame::default() };
        frame.segments.push(Segment { buffer: 1, offset: 0, length: SIZE });
        frame.planes.push(Plane { offset: SIZE, stride: 64 });
        liar.say(&[ToSubscriber::Frame(frame)], &[]);
    });
}

#[test]
fn counts_beyond_the_limits_are_refused() {
    finds("sticky values", |liar| {
        for n in 0..=MAX_STICKIES {
            liar.say(&[ToSubscriber::Sticky(Sticky { name: format!("s{n}"), data: vec![1; 1000] })], &[]);
        }
    });
    finds("bytes of information", |liar| {
        let part = ToSubscriber::Info(vec![b' '; MAX_INFO_PART], false);
        while liar.say(std::slice::from_ref(&part), &[]) {}
    });
    let mut bytes = Vec::new();
    frame(&[(1, 0, 1)]).encode(&mut bytes);
    // Segments, planes: two bytes each after number and flags.
    for (at, word) in [(8 + 12, "segments"), (8 + 14, "planes")] {
        let mut record = bytes.clone();
        record[at] = 200;
        let mut packet = PacketBuilder::default();
        packet.push(&record);
        finds(word, |liar| sent(liar.send(&packet.bytes(EPOCH), &[])));
    }
}

#[test]
fn noise_is_called_noise() {
    finds("not a Pagecast packet", |liar| sent(liar.send(&[0x5a; 300], &[])));
    finds("larger than", |liar| sent(liar.send(&vec![0x5a; 100_000], &[])));
    finds("ends in mid-field", |liar| sent(liar.send(b"PGCT\x07\0\0", &[])));
    let said = meet(&[], |liar| sent(liar.send(&[0x5a; 300], &[])));
    assert!(said.contains("not a Pagecast packet"), "{said}");
}

#[test]
fn what_has_no_place_is_refused() {
    finds("a second welcome", Liar::welcome);
    for second in [1, 0] {
        finds(&format!("frame {second} came after frame 1"), |liar| {
            sent(liar.say(&[frame(&[]), numbered(second, &[])], &[]));
        });
    }
    let said = meet(&[], |liar| sent(liar.say(&[frame(&[])], &[])));
    assert!(said.contains("without welcome"), "{said}");
    let said = meet(&[], |liar| sent(liar.say(&[], &[])));
    assert!(said.contains("empty packet"), "{said}");
}

#[test]
fn refusals_are_told_in_the_publisher_s_words() {
    use RefusalCode::{Access, Face, Fault, NoRoom, Other, Version};
    for code in [Version, Access, NoRoom, Face, Fault, Other(77)] {
        let text = format!("because of {code:?}");
        let said = meet(&[], |liar| sent(liar.say(&[ToSubscriber::Refused(code, text.clone())], &[])));
        assert!(said.contains(&text), "{said}");
        finds(&text.clone(), |liar| sent(liar.say(&[ToSubscriber::Refused(code, text)], &[])));
    }
}

#[test]
fn who_has_none_of_the_faces_is_asked_once_more_and_for_all() {
    let refused = |liar: &Liar, text: &str| {
        sent(liar.say(&[ToSubscriber::Refused(RefusalCode::Face, text.to_owned())], &[]));
    };
    let said = meet_again(&["any_face=true"], |listener| {
        let first = Liar::of(listener);
        assert_eq!(first.asked_faces(), FaceSet::MEMORY);
        refused(&first, "not those");
        let second = Liar::of(listener);
        assert_eq!(second.asked_faces(), FaceSet::all());
        refused(&second, "no others either");
        (first, second)
    });
    assert!(said.contains("no others either"), "{said}");
    // Also of somebody who was made welcome first, as where a camera's first frame shows what there is.
    let said = meet_again(&["any_face=true"], |listener| {
        let first = Liar::of(listener);
        first.welcome();
        refused(&first, "not those");
        let second = Liar::of(listener);
        second.welcome();
        second.announce(honest().as_fd());
        second.say(&[frame(&[(1, 0, SIZE)])], &[]);
        second.socket.shutdown();
        (first, second)
    });
    assert!(said.contains("gone; 0 frames 1"), "{said}");
}

#[test]
fn silence_and_hanging_up_are_errors_where_nobody_reconnects() {
    let said = meet(&[], |_| std::thread::sleep(Duration::from_secs(10)));
    assert!(said.contains("did not answer"), "{said}");
    let said = meet(&[], |liar| liar.socket.shutdown());
    assert!(said.contains("gone"), "{said}");
    finds("gone", |liar| liar.socket.shutdown());
}

#[test]
fn silence_and_floods_do_not_hold_a_receiver_past_its_time() {
    let said = meet(&["within=300"], |_| {});
    assert!(said.starts_with("nothing came in time"), "{said}");
    let said = meet(&["within=300"], |liar| {
        liar.welcome();
        // Of another life: to be ignored, but not for ever.
        let end = std::time::Instant::now() + Duration::from_secs(3);
        while std::time::Instant::now() < end && liar.say_in(EPOCH + 1, &[frame(&[])], &[]) {}
    });
    assert!(said.starts_with("nothing came in time"), "{said}");
}

#[test]
fn pages_that_were_never_filled_cost_the_subscriber_nothing() {
    use std::os::unix::fs::MetadataExt;
    let size = 1 << 30;
    let fd = memfd(size, SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW);
    let shown = File::from(fd.try_clone().expect("another descriptor"));
    finds("gone", |liar| {
        liar.say(&[announce(1, size)], &[fd.as_fd()]);
        liar.socket.shutdown_write();
    });
    assert_eq!(shown.metadata().expect("metadata").blocks(), 0, "the subscriber filled them");
}

/// A publisher that does not listen for a while: what piles up must not push out the returns.
#[test]
fn returns_are_not_lost_behind_a_pile_of_requests() {
    let place = Place::new();
    let listener = Listener::bind(&place.path().join("liar"), &ListenOptions::default()).expect("a socket");
    let subscriber =
        Subscriber::open(&place.uri("liar"), SubscriberOptions::default()).expect("a subscriber");
    let mut accepted = None;
    eventually("the subscriber comes", || {
        let _ = subscriber.recv(Some(Duration::ZERO));
        accepted = listener.accept().expect("accepted");
        accepted.is_some()
    });
    let liar = Liar { socket: accepted.expect("a link") };
    liar.welcome();
    liar.announce(honest().as_fd());
    liar.say(&[frame(&[(1, 0, SIZE)])], &[]);
    let held = subscriber.next_frame(Some(Duration::from_secs(30))).expect("a frame");
    // Over the limit: not sent, since that would be a fault of ours.
    subscriber.request("large", &vec![0; MAX_EVENT_BYTES + 1]);
    for _ in 0..100 {
        subscriber.request("pile", &vec![0; 60_000]);
    }
    drop(held);
    let (mut returned, mut requests) = (Vec::new(), 0);
    let mut bytes = vec![0; MAX_PACKET];
    eventually("the frame is returned", || {
        let _ = subscriber.recv(Some(Duration::ZERO));
        while let Ok(len) = liar.socket.receive(&mut bytes, &mut Vec::new()) {
            let mut packets = Packets::open(&bytes[..len]).expect("a packet");
            while let Some(record) = packets.next_record().expect("a record") {
                match ToPublisher::decode(record).expect("a message") {
                    ToPublisher::Return(frames) => returned.extend(frames),
                    ToPublisher::Request(event) => {
                        assert_eq!(event.name, "pile");
                        requests += 1;
                    }
                    _ => {}
                }
            }
        }
        !returned.is_empty() && requests >= 64
    });
    assert_eq!(returned, [1]);
}

#[test]
fn a_frame_larger_than_memory_is_an_error() {
    let size = 4 << 30;
    let fd = memfd(size, SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW);
    let segments = [(1, 0, size); 16];
    // It arrives; what cannot be done is to copy it, and that must not end the process.
    finds("gone", |liar| {
        liar.say(&[announce(1, size), frame(&segments)], &[fd.as_fd()]);
        liar.socket.shutdown_write();
    });
}
