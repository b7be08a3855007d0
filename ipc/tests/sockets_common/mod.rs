//! What the tests of paths share.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use pagecast_ipc::socket::{ListenError, ListenOptions, Listener, Seqpacket, SocketError};

pub(crate) fn lock_of(path: &Path) -> PathBuf {
    PathBuf::from(format!("{}.lock", path.display()))
}

pub(crate) fn listen_at(path: &Path) -> Result<Listener, ListenError> {
    Listener::bind(path, &ListenOptions::default())
}

pub(crate) fn in_folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.sock");
    (folder, path)
}

/// A SEQPACKET socket of somebody who knows nothing of lock files.
pub(crate) fn foreign(path: &Path, listening: bool) -> OwnedFd {
    let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(fd.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
    if listening {
        listen(&fd, Backlog::new(4).unwrap()).unwrap();
    }
    fd
}

/// Leaves a socket at the path that nobody listens on. Another test may be starting a child process,
/// which has a copy of every descriptor for a moment: the socket lives until that has gone.
pub(crate) fn leave_dead(path: &Path) {
    drop(foreign(path, true));
    let deadline = Instant::now() + Duration::from_secs(30);
    while !matches!(Seqpacket::connect(path), Err(SocketError::Refused { .. })) {
        assert!(Instant::now() < deadline, "the socket does not die");
        std::thread::yield_now();
    }
}

pub(crate) fn assert_works(listener: &Listener) {
    let client = Seqpacket::connect(listener.path()).unwrap();
    let server = listener.accept().unwrap().expect("the connection waits");
    server.send(b"hello", &[]).unwrap();
    let mut buf = [0; 8];
    assert_eq!(client.receive(&mut buf, &mut Vec::new()), Ok(5));
    for fd in [server.as_fd(), listener.as_fd()] {
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).unwrap();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
        let wanted = libc::O_CLOEXEC | nix::libc::O_NONBLOCK;
        assert_eq!(i32::from_str_radix(flags, 8).unwrap() & wanted, wanted, "{info}");
    }
}

/// What lies at the path when a round begins: nothing, or what a killed publisher leaves.
pub(crate) fn set_scene(round: usize, path: &Path) {
    match round % 3 {
        0 => {}
        1 => leave_dead(path),
        _ => {
            leave_dead(path);
            fs::write(lock_of(path), "1\n").unwrap();
        }
    }
}
