//! What happens where descriptors run out. Limits are a process's own: each test is one of its own.

use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use pagecast_ipc::socket::{
    ListenError, ListenOptions, Listener, MAX_FDS_PER_MESSAGE, ReceiveError, SendError, Seqpacket,
    SocketError, raise_fd_limit,
};

use super::child::{Child, become_stranger, can_become_stranger, leave_fds, say};

const IN_FLIGHT_LIMIT: u64 = 64;

fn open_fds() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Role: puts descriptors under way until the kernel takes no more of this user.
pub(crate) fn in_flight() {
    become_stranger();
    setrlimit(Resource::RLIMIT_NOFILE, IN_FLIGHT_LIMIT, IN_FLIGHT_LIMIT).unwrap();
    let (a, b) = Seqpacket::pair().unwrap();
    let file = File::open("/dev/null").unwrap();
    let mut sent = 0_u64;
    let refused = loop {
        match a.send(b"x", &[file.as_fd()]) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refused, SendError::TooManyInFlight);
    // The user's other sockets feel it too; messages without descriptors do not.
    let (c, _d) = Seqpacket::pair().unwrap();
    assert_eq!(c.send(b"x", &[file.as_fd()]), Err(SendError::TooManyInFlight));
    c.send(b"x", &[]).unwrap();
    // Later it works again.
    let (mut buf, mut fds) = ([0; 8], Vec::new());
    for _ in 0..sent {
        assert_eq!(b.receive(&mut buf, &mut fds), Ok(1));
        assert_eq!(fds.drain(..).count(), 1);
    }
    assert_eq!(b.receive(&mut buf, &mut fds), Err(ReceiveError::Empty));
    a.send(b"x", &[file.as_fd()]).unwrap();
    say(&sent.to_string());
}

#[test]
fn too_many_descriptors_under_way_are_an_error_of_their_own() {
    if !can_become_stranger("too_many_descriptors_under_way_are_an_error_of_their_own") {
        return;
    }
    let sent: u64 = Child::start("in-flight", "").hear().parse().unwrap();
    assert!((IN_FLIGHT_LIMIT..=IN_FLIGHT_LIMIT + 1).contains(&sent), "{sent}");
}

/// Role: receives more descriptors than it can open.
pub(crate) fn lost_fds() {
    const SENT: usize = 8;
    const LEFT: usize = 3;
    let (a, b) = Seqpacket::pair().unwrap();
    let file = File::open("/dev/null").unwrap();
    a.send(b"many", &[file.as_fd(); SENT]).unwrap();
    a.send(b"none", &[]).unwrap();
    let many: Vec<BorrowedFd<'_>> = vec![file.as_fd(); MAX_FDS_PER_MESSAGE + 1];
    a.send(b"over", &many).unwrap();
    a.send(b"some", &[file.as_fd(); LEFT]).unwrap();
    let before = open_fds();
    let filler = leave_fds(LEFT);
    let (mut buf, mut fds) = ([0; 8], Vec::new());
    assert_eq!(b.receive(&mut buf, &mut fds), Err(ReceiveError::FdsTruncated(LEFT)));
    assert!(fds.is_empty());
    // Those that did arrive are closed: there is room for as many once more, each time.
    assert_eq!(b.receive(&mut buf, &mut fds), Ok(4));
    assert_eq!(b.receive(&mut buf, &mut fds), Err(ReceiveError::FdsTruncated(LEFT)));
    assert_eq!(b.receive(&mut buf, &mut fds), Ok(4));
    assert_eq!((&buf[..4], fds.len()), (&b"some"[..], LEFT));
    fds.clear();
    drop(filler);
    assert_eq!(open_fds(), before);
    say("done");
}

#[test]
fn descriptors_that_cannot_be_opened_are_an_error_and_the_rest_is_closed() {
    assert_eq!(Child::start("lost-fds", "").hear(), "done");
}

/// Role: accepts where no descriptor is left.
pub(crate) fn accept_without_fds(path: &str) {
    let path = Path::new(path);
    let listener = Listener::bind(path, &ListenOptions::default()).unwrap();
    let clients = [(); 3].map(|()| Seqpacket::connect(path).unwrap());
    let filler = leave_fds(0);
    assert!(matches!(Seqpacket::pair(), Err(SocketError::OutOfFds { .. })));
    assert!(matches!(Seqpacket::connect(path), Err(SocketError::OutOfFds { .. })));
    // Two are refused, one after the other, so that nobody spins on them.
    for _ in 0..2 {
        assert!(matches!(listener.accept(), Err(ListenError::OutOfFds { refused: true })));
    }
    let (mut buf, mut fds) = ([0; 8], Vec::new());
    for client in &clients[..2] {
        assert_eq!(client.receive(&mut buf, &mut fds), Err(ReceiveError::Closed));
    }
    assert_eq!(clients[2].receive(&mut buf, &mut fds), Err(ReceiveError::Empty));
    drop(filler);
    let server = listener.accept().unwrap().expect("the third waits");
    server.send(b"x", &[]).unwrap();
    assert_eq!(clients[2].receive(&mut buf, &mut fds), Ok(1));
    assert!(listener.accept().unwrap().is_none());
    let other = path.with_extension("other");
    let _filler = leave_fds(0);
    let refused = Listener::bind(&other, &ListenOptions::default());
    assert!(matches!(refused, Err(ListenError::OutOfFds { .. })), "{refused:?}");
    assert!(!other.exists());
    say("done");
}

#[test]
fn without_descriptors_connections_are_refused_and_later_ones_taken() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.sock");
    assert_eq!(Child::start("accept-without-fds", path.to_str().unwrap()).hear(), "done");
}

/// Role: raises the limit, within a hard limit of its own.
pub(crate) fn raise() {
    setrlimit(Resource::RLIMIT_NOFILE, 100, 200).unwrap();
    assert_eq!(raise_fd_limit().unwrap(), (100, 200));
    assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (200, 200));
    assert_eq!(raise_fd_limit().unwrap(), (200, 200));
    say("done");
}

#[test]
fn the_soft_limit_is_raised_to_the_hard_one() {
    assert_eq!(Child::start("raise", "").hear(), "done");
}
