//! Identities, and links between ends that know each other.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use common::{Place, Running, eventually, expect_code, finish, json, stderr, stdout};

/// The identity `name` in this place; the others trust it, if they are there.
fn identity(place: &Place, name: &str, trusted_by: &[&str]) {
    expect_code(&place.run(&format!("keygen --dir {name}")), 0);
    for other in trusted_by {
        let copy = place.path().join(other).join("trusted").join(format!("{name}.pem"));
        fs::copy(place.path().join(name).join("certificate.pem"), copy).unwrap();
    }
}

/// A port that nobody listens on now.
fn port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

#[test]
fn an_identity_is_made_once_and_says_what_to_do_with_it() {
    let place = Place::new();
    let made = place.run("keygen");
    expect_code(&made, 0);
    let said = stdout(&made);
    let folder = place.path().join("config/pagecast");
    assert!(
        said.contains("sha256:") && said.contains(&*folder.join("certificate.pem").to_string_lossy()),
        "{said}"
    );
    assert!(said.contains("trusted/"), "{said}");
    let key = fs::read_to_string(folder.join("key.pem")).unwrap();
    assert!(!said.contains(key.lines().nth(1).unwrap()));
    let again = place.run("keygen");
    expect_code(&again, 4);
    assert!(stderr(&again).contains("--force"), "{}", stderr(&again));
    assert_eq!(fs::read_to_string(folder.join("key.pem")).unwrap(), key);
    let forced = place.run("keygen --force --json");
    expect_code(&forced, 0);
    let fingerprint = json(&forced)["fingerprint"].as_str().unwrap().to_owned();
    assert!(fingerprint.starts_with("sha256:") && !said.contains(&fingerprint), "{fingerprint}");
    expect_code(&place.run("keygen --dir /proc/nowhere"), 1);
}

#[test]
fn who_is_killed_while_it_makes_an_identity_can_be_run_again() {
    let place = Place::new();
    // As far as it could have come, and killed at any moment.
    for round in 0..12 {
        let folder = place.path().join(format!("id{round}"));
        let keygen = format!("keygen --dir id{round}");
        if round == 0 {
            fs::create_dir(&folder).unwrap();
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
            fs::write(folder.join("key.part"), "half a k").unwrap();
            fs::write(folder.join("certificate.part"), "").unwrap();
        } else {
            let mut killed = place.command(&keygen).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(2 * round));
            killed.kill().unwrap();
            finish(killed);
        }
        let there = ["key.pem", "certificate.pem"].map(|file| folder.join(file).exists());
        expect_code(&place.run(&keygen), if there.contains(&true) { 4 } else { 0 });
        if there[0] != there[1] {
            expect_code(&place.run(&format!("{keygen} --force")), 0);
        }
        // It can be used: nobody listens, that is all.
        let used = format!("recv tcp://127.0.0.1:{} -n 1 --identity id{round} --timeout 20", port());
        expect_code(&place.run(&used), 3);
        let left = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name());
        let parts: Vec<_> = left.filter(|name| name.to_string_lossy().ends_with(".part")).collect();
        assert!(there[1] || parts.is_empty(), "{parts:?}");
    }
    // Between its two files: what is there may be somebody's, and it is said what to do.
    fs::remove_file(place.path().join("id0/certificate.pem")).unwrap();
    let half = place.run("keygen --dir id0");
    expect_code(&half, 4);
    assert!(stderr(&half).contains("key.pem is there already: with --force"), "{}", stderr(&half));
    expect_code(&place.run("keygen --dir id0 --force"), 0);
}

#[test]
fn ends_with_identities_find_each_other_and_nobody_tells_the_key() {
    let (place, port) = (Place::new(), port());
    identity(&place, "a", &[]);
    identity(&place, "b", &["a"]);
    identity(&place, "stranger", &[]);
    for owner in ["b", "stranger"] {
        let copy = place.path().join(owner).join("trusted/a.pem");
        fs::copy(place.path().join("a/certificate.pem"), copy).unwrap();
    }
    let publishing = place.publish("cam0", "application/x-test", 100_000, 50);
    let uri = format!("tcp://127.0.0.1:{port}");
    let log = fs::File::create(place.path().join("log")).unwrap();
    let mut relay = place.command(&format!("relay cam0 {uri} --policy block --identity a -vv"));
    relay.env("RUST_LOG", "trace").stderr(log.try_clone().unwrap()).stdout(log);
    let _relay = Running::start(relay);
    eventually("it listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());

    let mut recv = place.command(&format!("-vv recv {uri} -n 20 --timeout 20 --identity b"));
    let received = finish(recv.env("RUST_LOG", "trace").spawn().unwrap());
    expect_code(&received, 0);
    let info = place.run(&format!("info {uri} --json --timeout 20 --identity b"));
    expect_code(&info, 0);
    let refused = place.run(&format!("recv {uri} -n 1 --timeout 20 --identity stranger"));
    expect_code(&refused, 3);
    assert!(stderr(&refused).contains("does not trust the certificate of this end"), "{}", stderr(&refused));
    eventually("the other end says so, too", || {
        fs::read_to_string(place.path().join("log")).unwrap().contains("is not trusted here")
    });
    // Processes of this host need none.
    expect_code(&place.run(&format!("recv {uri} -n 5 --timeout 20")), 0);

    let mut said = fs::read_to_string(place.path().join("log")).unwrap();
    said.push_str(&stdout(&received));
    said.push_str(&stderr(&received));
    assert!(said.contains("sha256:"), "the control: what is said is looked at");
    for owner in ["a", "b"] {
        let key = fs::read_to_string(place.path().join(owner).join("key.pem")).unwrap();
        let secret = key.lines().filter(|line| !line.starts_with("-----"));
        assert!(secret.clone().count() > 1);
        secret.for_each(|line| assert!(!said.contains(line), "a key in what is said"));
    }
    drop(publishing);
}

#[test]
fn wrong_identities_are_wrong_usage() {
    let place = Place::new();
    identity(&place, "a", &[]);
    let uri = "tcp://192.0.2.1";
    let missing = place.run(&format!("recv {uri} -n 1 --timeout 20 --identity nowhere"));
    expect_code(&missing, 2);
    assert!(stderr(&missing).contains("pagecast keygen --dir nowhere"), "{}", stderr(&missing));
    expect_code(&place.run(&format!("recv {uri} -n 1 --identity a --insecure")), 2);
    fs::set_permissions(place.path().join("a/key.pem"), std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .unwrap();
    let readable = place.run(&format!("recv {uri} -n 1 --timeout 20 --identity a"));
    expect_code(&readable, 2);
    assert!(stderr(&readable).contains("chmod 600"), "{}", stderr(&readable));
    // The user's own is looked at only where another host may be.
    expect_code(&place.run("keygen"), 0);
    let key = place.path().join("config/pagecast/key.pem");
    fs::set_permissions(key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    expect_code(&place.run(&format!("recv {uri} -n 1 --timeout 20")), 2);
    for how in ["", " --insecure"] {
        expect_code(&place.run(&format!("recv tcp://127.0.0.1:{} -n 1 --timeout 20{how}", port())), 3);
    }
}
