//! Paths that other processes hold.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::stat::{Mode, umask};
use pagecast_ipc::socket::{ListenError, ListenOptions, Listener, ReceiveError, Seqpacket, SocketError};

use super::child::{Child, listen_to_parent, say};
use super::common::{assert_works, in_folder, listen_at, lock_of};

/// Role: holds a path until told to drop it.
pub(crate) fn hold(path: &str) {
    let listener = listen_at(Path::new(path)).unwrap();
    say("bound");
    listen_to_parent();
    drop(listener);
    say("dropped");
    listen_to_parent();
}

#[test]
fn a_living_process_keeps_its_path_and_a_killed_one_loses_it() {
    let (_folder, path) = in_folder();
    let mut holder = Child::start("hold", path.to_str().unwrap());
    assert_eq!(holder.hear(), "bound");
    let pid = holder.pid();
    let refused = listen_at(&path);
    assert!(matches!(&refused, Err(ListenError::InUse { pid: Some(p), .. }) if *p == pid), "{refused:?}");
    let client = Seqpacket::connect(&path).unwrap();
    assert_eq!(client.peer().unwrap().pid, pid);

    holder.kill();
    let mut buf = [0; 8];
    assert_eq!(client.receive(&mut buf, &mut Vec::new()), Err(ReceiveError::Closed));
    assert!(path.exists() && lock_of(&path).exists(), "nobody cleaned up");
    assert!(matches!(Seqpacket::connect(&path), Err(SocketError::Refused { .. })));

    let listener = listen_at(&path).unwrap();
    assert_works(&listener);
    drop(listener);
    assert!(!path.exists() && !lock_of(&path).exists());
}

#[test]
fn a_path_is_free_once_its_holder_dropped_it() {
    let (_folder, path) = in_folder();
    let mut holder = Child::start("hold", path.to_str().unwrap());
    assert_eq!(holder.hear(), "bound");
    holder.tell("drop");
    assert_eq!(holder.hear(), "dropped");
    assert!(matches!(Seqpacket::connect(&path), Err(SocketError::NotFound { .. })));
    assert_works(&listen_at(&path).unwrap());
}

/// How often the socket must have been seen, on its way or not.
const SIGHTINGS: u32 = 500;

/// Role: creates and removes a socket, with the umask that hides nothing, until told to stop; then once
/// with other umasks.
pub(crate) fn permissions(path: &str) {
    let path = Path::new(path);
    umask(Mode::empty());
    say("ready");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            listen_to_parent();
            stop.store(true, Ordering::Relaxed);
        });
        while !stop.load(Ordering::Relaxed) {
            drop(listen_at(path).unwrap());
        }
    });
    let mut wrong = Vec::new();
    for (mask, perms) in [0o000, 0o022, 0o077, 0o777]
        .into_iter()
        .flat_map(|mask| [0o600, 0o660, 0o666, 0o000, 0o777].map(|perms| (mask, perms)))
    {
        umask(Mode::from_bits_truncate(mask));
        let _listener = Listener::bind(path, &ListenOptions { perms, backlog: 1 }).unwrap();
        let mode = fs::symlink_metadata(path).unwrap().mode() & 0o7777;
        let lock = fs::metadata(lock_of(path)).unwrap().mode() & 0o077;
        if mode != perms || lock != 0 {
            wrong.push(format!("umask {mask:o}, asked {perms:o}, got {mode:o}, lock {lock:o}"));
        }
    }
    say(&format!("wrong: {wrong:?}"));
    listen_to_parent();
}

#[test]
fn permissions_are_exact_and_never_wider_on_the_way() {
    let (_folder, path) = in_folder();
    let mut child = Child::start("permissions", path.to_str().unwrap());
    assert_eq!(child.hear(), "ready");
    let (mut seen, mut widest) = (0, 0);
    let deadline = Instant::now() + Duration::from_secs(60);
    while seen < SIGHTINGS {
        assert!(Instant::now() < deadline, "seen {seen} times");
        if let Ok(metadata) = fs::symlink_metadata(&path) {
            seen += 1;
            widest |= metadata.mode() & 0o777;
        }
    }
    child.tell("stop");
    assert_eq!(widest, 0o600, "{widest:o}");
    assert_eq!(child.hear(), "wrong: []");
}
