//! The folder of an identity.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use pagecast_remote::secure::{CERTIFICATE, IdentityError, KEY, MAX_TRUSTED, TRUSTED, generate};
use pagecast_remote::{Identity, PeerFault};

use super::ends::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("permissions");
}

/// Writes a file that only its owner can change, whatever the umask is.
fn put(path: impl AsRef<Path>, text: impl AsRef<[u8]>) {
    fs::write(path.as_ref(), text).expect("written");
    set_mode(path.as_ref(), 0o644);
}

#[test]
fn a_new_identity_is_of_use_and_its_key_is_secret() {
    let place = tempfile::tempdir().expect("a folder");
    let folder = place.path().join("deeper/pagecast");
    let made = generate(&folder, "a host", false).expect("an identity");
    assert_eq!((mode(&folder), mode(&folder.join(KEY))), (0o700, 0o600));
    assert_eq!(mode(&made.certificate), 0o644);
    let identity = Identity::open(&folder).expect("an identity");
    assert_eq!(identity.fingerprint(), made.fingerprint);
    let key = fs::read_to_string(folder.join(KEY)).expect("a key");
    let shown = format!("{identity:?} {:?}", tls(identity.clone()));
    let secret = key.lines().nth(1).expect("a line of the key");
    assert!(!shown.contains(secret) && shown.contains("sha256:"), "{shown}");
    let left: Vec<_> =
        fs::read_dir(&folder).expect("a folder").map(|e| e.expect("an entry").file_name()).collect();
    assert_eq!(left.len(), 3, "nothing else is left: {left:?}");
}

#[test]
fn an_identity_is_not_replaced_unless_asked_for() {
    let place = tempfile::tempdir().expect("a folder");
    let first = generate(place.path(), "a host", false).expect("an identity");
    put(first.trusted.join("peer.pem"), Pair::new().certificate);
    assert!(matches!(generate(place.path(), "a host", false), Err(IdentityError::Exists(_))));
    assert_eq!(Identity::open(place.path()).expect("the first").fingerprint(), first.fingerprint);
    let second = generate(place.path(), "a host", true).expect("another");
    assert_ne!(first.fingerprint, second.fingerprint);
    let identity = Identity::open(place.path()).expect("the second");
    assert_eq!(identity.fingerprint(), second.fingerprint);
    assert_eq!(identity.trusted().list().expect("a list").len(), 1, "who was trusted stays so");
}

#[test]
fn of_many_who_make_one_at_once_one_wins() {
    let place = tempfile::tempdir().expect("a folder");
    let at_once = |replace| {
        std::thread::scope(|scope| {
            let make = || generate(place.path(), "a host", replace);
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(make)).collect();
            threads.into_iter().map(|thread| thread.join().expect("it ends")).collect::<Vec<_>>()
        })
    };
    let made = at_once(false);
    let winners: Vec<_> = made.iter().flatten().collect();
    assert_eq!(winners.len(), 1, "{made:?}");
    let refused = |error| matches!(error, &IdentityError::Exists(_) | &IdentityError::Busy(_));
    assert!(made.iter().filter_map(|made| made.as_ref().err()).all(refused), "{made:?}");
    let now = || Identity::open(place.path()).expect("a whole one").fingerprint();
    assert_eq!(now(), winners[0].fingerprint);
    for _ in 0..20 {
        let made = at_once(true);
        assert!(made.iter().flatten().any(|made| made.fingerprint == now()), "{made:?}");
    }
}

#[test]
fn what_a_killed_attempt_left_hinders_nobody() {
    let place = tempfile::tempdir().expect("a folder");
    put(place.path().join("key.part"), "half of a key");
    generate(place.path(), "a host", false).expect("an identity");
    assert!(!place.path().join("key.part").exists());
    // Nor does it write through links: they are what is replaced.
    let elsewhere = place.path().join("elsewhere");
    for name in [KEY, CERTIFICATE] {
        fs::remove_file(place.path().join(name)).expect("removed");
        std::os::unix::fs::symlink(&elsewhere, place.path().join(name)).expect("a link");
    }
    assert!(matches!(generate(place.path(), "a host", false), Err(IdentityError::Exists(_))));
    generate(place.path(), "a host", true).expect("an identity");
    assert!(!elsewhere.exists() && mode(&place.path().join(KEY)) == 0o600);
}

#[test]
fn where_it_would_be_of_no_use_none_is_made() {
    let place = tempfile::tempdir().expect("a folder");
    let first = generate(place.path(), "a host", false).expect("an identity");
    let before = fs::read(&first.certificate).expect("it");
    let unchanged = || {
        generate(place.path(), "a host", true).expect_err("of no use");
        assert_eq!(fs::read(&first.certificate).expect("it"), before);
    };
    set_mode(place.path(), 0o770);
    unchanged();
    set_mode(place.path(), 0o700);
    put(first.trusted.join("peer.pem"), "no certificate");
    unchanged();
    fs::remove_file(first.trusted.join("peer.pem")).expect("removed");
    assert_eq!(Identity::open(place.path()).expect("it").fingerprint(), first.fingerprint);
    let file = place.path().join("file");
    put(&file, "");
    assert!(matches!(generate(&file, "a host", false), Err(IdentityError::File { .. })));
}

#[test]
fn what_others_could_read_or_change_is_refused() {
    let place = tempfile::tempdir().expect("a folder");
    generate(place.path(), "a host", false).expect("an identity");
    for (file, wrong, right) in [(KEY, 0o640, 0o600), (KEY, 0o604, 0o600)] {
        set_mode(&place.path().join(file), wrong);
        let refused = Identity::open(place.path());
        assert!(
            matches!(&refused, Err(IdentityError::Readable { mode, .. }) if *mode == wrong),
            "{refused:?}"
        );
        assert!(refused.expect_err("refused").to_string().contains("chmod 600"));
        set_mode(&place.path().join(file), right);
    }
    for (file, wrong, right) in [(CERTIFICATE, 0o664, 0o644), (TRUSTED, 0o770, 0o700), ("", 0o702, 0o700)] {
        set_mode(&place.path().join(file), wrong);
        let refused = Identity::open(place.path());
        assert!(matches!(refused, Err(IdentityError::Writable { .. })), "{file}: {refused:?}");
        set_mode(&place.path().join(file), right);
    }
    Identity::open(place.path()).expect("now nothing is wrong");
}

#[test]
fn what_is_missing_or_no_pair_is_said() {
    let place = tempfile::tempdir().expect("a folder");
    let missing = Identity::open(place.path()).expect_err("nothing is there");
    assert!(missing.to_string().contains("pagecast keygen --dir"), "{missing}");
    generate(place.path(), "a host", false).expect("an identity");
    let (key, certificate) = (place.path().join(KEY), place.path().join(CERTIFICATE));
    put(&certificate, Pair::new().certificate);
    assert!(matches!(Identity::open(place.path()), Err(IdentityError::Pair(_))));
    put(&certificate, "no certificate");
    assert!(matches!(Identity::open(place.path()), Err(IdentityError::Content { .. })));
    put(&certificate, vec![b'-'; 70_000]);
    assert!(matches!(Identity::open(place.path()), Err(IdentityError::File { .. })));
    fs::remove_file(&certificate).expect("removed");
    assert!(
        matches!(Identity::open(place.path()), Err(IdentityError::File { path, .. }) if path == certificate)
    );
    fs::remove_file(&key).expect("removed");
    nix::unistd::mkfifo(&key, nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR).expect("a pipe");
    put(&certificate, Pair::new().certificate);
    assert!(Identity::open(place.path()).is_err(), "and nobody waits for a pipe");
}

#[test]
fn who_is_trusted_is_looked_up_at_each_handshake() {
    let place = tempfile::tempdir().expect("a folder");
    let made = generate(place.path(), "a host", false).expect("an identity");
    let (b, listener) = (Pair::new(), tls(Identity::open(place.path()).expect("it")));
    let own = Pair { key: String::new(), certificate: fs::read_to_string(&made.certificate).expect("it") };
    let dialler = tls(b.trusting(&[&own]));
    let refused = || meet(elsewhere(), &listener, &dialler).faults().0;
    assert!(
        matches!(refused(), PeerFault::Untrusted { place, .. } if place == made.trusted.display().to_string())
    );
    // Neither a file that is none, nor one without the ending.
    put(made.trusted.join("half.pem"), &b.certificate[..200]);
    put(made.trusted.join("b.pem.old"), &b.certificate);
    assert!(matches!(refused(), PeerFault::Untrusted { .. }));
    put(made.trusted.join("b.pem"), &b.certificate);
    assert_eq!(meet(elsewhere(), &listener, &dialler).packet, Some(packet()), "from now on");
    fs::remove_file(made.trusted.join("b.pem")).expect("removed");
    assert!(matches!(refused(), PeerFault::Untrusted { .. }), "not any more");
    assert!(
        matches!(Identity::open(place.path()), Err(IdentityError::Content { .. })),
        "and half.pem is named"
    );
}

#[test]
fn so_many_and_no_more_are_trusted() {
    let place = tempfile::tempdir().expect("a folder");
    let made = generate(place.path(), "a host", false).expect("an identity");
    let one = Pair::new().certificate;
    for at in 0..MAX_TRUSTED {
        put(made.trusted.join(format!("{at}.pem")), &one);
    }
    Identity::open(place.path()).expect("as many as may be");
    put(made.trusted.join("more.pem"), &one);
    assert!(matches!(Identity::open(place.path()), Err(IdentityError::TooMany { .. })));
}
