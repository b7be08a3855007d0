//! What the kernel says of a peer, and whom it lets connect.

use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{getegid, geteuid};
use pagecast_ipc::socket::{
    AccessRules, ListenError, ListenOptions, Listener, Refusal, Seqpacket, SocketError,
};

use super::child::{
    Child, STRANGER_GID, STRANGER_GROUPS, STRANGER_UID, become_stranger, can_become_stranger,
    listen_to_parent, say,
};

#[test]
fn the_peer_of_a_pair_is_this_process() {
    let (a, _b) = Seqpacket::pair().unwrap();
    let peer = a.peer().unwrap();
    assert_eq!(peer.pid, std::process::id() as i32);
    assert_eq!((peer.uid, peer.gid), (geteuid().as_raw(), getegid().as_raw()));
    assert!(peer.in_group(getegid().as_raw()) && !peer.in_group(STRANGER_GID));
}

/// Role: connects and listens as a user with no rights, says what came of it, stays connected.
pub(crate) fn stranger(path: &str) {
    become_stranger();
    let path = Path::new(path);
    while let Some(line) = listen_to_parent() {
        let connection = (line == "connect").then(|| Seqpacket::connect(path));
        match &connection {
            Some(Ok(_)) => say("connected"),
            Some(Err(SocketError::Permission { .. })) => say("no permission to connect"),
            Some(Err(error)) => say(&format!("{error:?}")),
            None => match Listener::bind(path, &ListenOptions::default()) {
                Err(ListenError::Permission { .. }) => say("no permission to listen"),
                other => say(&format!("{other:?}")),
            },
        }
        if matches!(connection, Some(Ok(_))) {
            listen_to_parent();
        }
    }
}

#[test]
fn another_user_is_kept_out_by_permissions_and_known_by_its_groups() {
    if !can_become_stranger("another_user_is_kept_out_by_permissions_and_known_by_its_groups") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = folder.path().join("x.sock");
    let mut child = Child::start("stranger", path.to_str().unwrap());

    let private = Listener::bind(&path, &ListenOptions::default()).unwrap();
    child.tell("connect");
    assert_eq!(child.hear(), "no permission to connect");
    child.tell("listen");
    assert_eq!(child.hear(), "no permission to listen");
    assert!(private.accept().unwrap().is_none());
    drop(private);

    let open = Listener::bind(&path, &ListenOptions { perms: 0o666, ..Default::default() }).unwrap();
    child.tell("connect");
    assert_eq!(child.hear(), "connected");
    let peer = open.accept().unwrap().expect("it waits").peer().unwrap();
    assert_eq!((peer.pid, peer.uid, peer.gid), (child.pid(), STRANGER_UID, STRANGER_GID));
    let mut groups = peer.groups.clone();
    groups.sort_unstable();
    assert_eq!(groups, STRANGER_GROUPS);

    let mut rules = AccessRules::default();
    assert_eq!(rules.admits(&peer), Err(Refusal::NotAllowed { uid: STRANGER_UID }));
    assert!(!rules.dma_buf_for(&peer));
    rules.allow_gids.push(STRANGER_GROUPS[1]);
    assert_eq!(rules.admits(&peer), Ok(()));
    assert!(!rules.dma_buf_for(&peer));

    let pidfd = peer.pidfd.expect("this kernel has pidfds");
    let ended = |timeout: PollTimeout| {
        poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], timeout).unwrap() == 1
    };
    assert!(!ended(PollTimeout::ZERO));
    child.kill();
    assert!(ended(PollTimeout::from(10_000_u16)));
}
