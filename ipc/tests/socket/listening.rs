use std::fs;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;

use pagecast_ipc::socket::{ListenError, ListenOptions, Listener, MAX_PATH, Seqpacket, SocketError};

use super::common::{assert_works, foreign, in_folder, leave_dead, listen_at, lock_of};

#[test]
fn a_listener_takes_connections_and_leaves_nothing_behind() {
    let (folder, path) = in_folder();
    let listener = listen_at(&path).unwrap();
    assert_eq!(listener.path(), path);
    assert!(listener.accept().unwrap().is_none());
    assert_works(&listener);
    drop(listener);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    assert_works(&listen_at(&path).unwrap());
}

#[test]
fn a_path_in_use_is_refused_also_within_a_process() {
    let (_folder, path) = in_folder();
    let first = listen_at(&path).unwrap();
    let own = std::process::id() as i32;
    let error = listen_at(&path).unwrap_err();
    assert!(matches!(error, ListenError::InUse { pid: Some(pid), .. } if pid == own), "{error:?}");
    assert!(error.to_string().contains(&format!("process {own}: stop that publisher")), "{error}");
    assert_works(&first);
}

#[test]
fn a_live_listener_without_a_lock_is_not_taken_over() {
    let (_folder, path) = in_folder();
    let own = std::process::id() as i32;
    let live = foreign(&path, true);
    let refused = listen_at(&path);
    assert!(matches!(&refused, Err(ListenError::InUse { pid: Some(p), .. }) if *p == own), "{refused:?}");
    assert!(path.exists() && !lock_of(&path).exists());
    drop(live);
    // Now it is dead.
    assert_works(&listen_at(&path).unwrap());

    let stream = UnixListener::bind(&path).unwrap();
    assert!(matches!(Seqpacket::connect(&path), Err(SocketError::WrongType { .. })));
    assert!(matches!(listen_at(&path), Err(ListenError::InUse { pid: None, .. })));
    drop(stream);
    assert_works(&listen_at(&path).unwrap());

    let datagram = UnixDatagram::bind(&path).unwrap();
    assert!(matches!(listen_at(&path), Err(ListenError::InUse { pid: None, .. })));
    assert!(path.exists());
    drop(datagram);
}

#[test]
fn deleting_the_lock_file_does_not_free_a_live_path() {
    let (_folder, path) = in_folder();
    let first = listen_at(&path).unwrap();
    fs::remove_file(lock_of(&path)).unwrap();
    assert!(matches!(listen_at(&path), Err(ListenError::InUse { .. })));
    // That one took the connection to see whether someone lives here.
    assert!(first.accept().unwrap().is_some());
    assert_works(&first);
}

#[test]
fn what_is_no_socket_is_left_alone() {
    let (folder, path) = in_folder();
    let refused = |path: &Path| {
        let result = listen_at(path);
        assert!(matches!(result, Err(ListenError::NotASocket { .. })), "{result:?}");
        assert!(!lock_of(path).exists());
    };
    fs::write(&path, "precious").unwrap();
    refused(&path);
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    let directory = folder.path().join("directory");
    fs::create_dir(&directory).unwrap();
    refused(&directory);
    assert!(directory.is_dir());
    // Not even a link to a dead socket.
    let dead = folder.path().join("dead");
    leave_dead(&dead);
    let link = folder.path().join("link");
    symlink(&dead, &link).unwrap();
    refused(&link);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink() && dead.exists());
    // Nor a link to nothing, which bind would not follow either.
    let dangling = folder.path().join("dangling");
    symlink(folder.path().join("nothing"), &dangling).unwrap();
    refused(&dangling);
}

#[test]
fn a_listener_removes_only_its_own_socket() {
    let (_folder, path) = in_folder();
    let first = listen_at(&path).unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, "precious").unwrap();
    drop(first);
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    fs::remove_file(&path).unwrap();

    let first = listen_at(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let successor = foreign(&path, true);
    drop(first);
    assert!(fs::symlink_metadata(&path).unwrap().file_type().is_socket());
    drop(successor);
}

#[test]
fn bad_paths_and_options_are_told_apart() {
    let (folder, path) = in_folder();
    let base = folder.path();
    let fill = MAX_PATH - base.as_os_str().len() - 1;
    let longest = base.join("x".repeat(fill));
    assert_works(&listen_at(&longest).unwrap());
    let too_long = base.join("x".repeat(fill + 1));
    assert!(matches!(listen_at(&too_long), Err(ListenError::PathTooLong(_))));
    assert!(matches!(Seqpacket::connect(&too_long), Err(SocketError::PathTooLong(_))));
    for bad in ["", "\0abstract"] {
        assert!(matches!(listen_at(Path::new(bad)), Err(ListenError::BadPath { .. })));
        assert!(matches!(Seqpacket::connect(Path::new(bad)), Err(SocketError::BadPath { .. })));
    }
    assert!(matches!(listen_at(&base.join("no/x")), Err(ListenError::NoFolder { .. })));
    fs::write(base.join("file"), "").unwrap();
    assert!(matches!(listen_at(&base.join("file/x")), Err(ListenError::NoFolder { .. })));
    for missing in ["missing", "no/x", "file/x"] {
        let result = Seqpacket::connect(&base.join(missing));
        assert!(matches!(result, Err(SocketError::NotFound { .. })), "{result:?}");
    }
    assert!(matches!(Seqpacket::connect(&base.join("file")), Err(SocketError::Refused { .. })));
    let options = ListenOptions { perms: 0o1000, ..Default::default() };
    assert!(matches!(Listener::bind(&path, &options), Err(ListenError::BadPermissions(0o1000))));
    fs::create_dir(lock_of(&path)).unwrap();
    assert!(matches!(listen_at(&path), Err(ListenError::NotALock { .. })));
}

#[test]
fn a_full_queue_of_connections_asks_to_try_again() {
    let (_folder, path) = in_folder();
    let listener = Listener::bind(&path, &ListenOptions { backlog: 2, ..Default::default() }).unwrap();
    let mut waiting = Vec::new();
    let full = loop {
        match Seqpacket::connect(&path) {
            Ok(client) => waiting.push(client),
            Err(error) => break error,
        }
        assert!(waiting.len() < 100, "the queue has no end");
    };
    assert!(matches!(full, SocketError::Backlog { .. }), "{full:?}");
    assert!(listener.accept().unwrap().is_some());
    waiting.push(Seqpacket::connect(&path).unwrap());
    for _ in 1..waiting.len() {
        assert!(listener.accept().unwrap().is_some());
    }
    assert!(listener.accept().unwrap().is_none());
}
