//! `relay` between a publisher in this process and other commands.

mod common;

use common::{Place, eventually, expect_code, finish, json, stderr};
use nix::sys::signal::Signal;

const GRAY: &str =
    "video/x-raw, format=(string)GRAY8, width=(int)64, height=(int)48, framerate=(fraction)100/1";
const GRAY_SIZE: usize = 64 * 48;

#[test]
fn what_a_relay_receives_others_receive() {
    let place = Place::new();
    let _publishing = place.publish("cam0", GRAY, GRAY_SIZE, 100);
    let relay = place.command("relay cam0 again --policy block --json").spawn().unwrap();
    let id = nix::unistd::Pid::from_raw(relay.id() as i32);
    eventually("the relay serves", || place.serves("again"));
    for consumer in ["recv again -n 20 --json", "recv again -n 5 --json"] {
        let output = place.run(consumer);
        expect_code(&output, 0);
        assert_eq!(json(&output)["caps"], GRAY);
        assert_eq!(json(&output)["dropped"], 0);
    }
    nix::sys::signal::kill(id, Signal::SIGINT).unwrap();
    let output = finish(relay);
    expect_code(&output, 130);
    assert!(json(&output)["upstream"]["frames"].as_u64().is_some_and(|frames| frames >= 25));
    assert!(!place.socket("again").exists(), "its socket is gone");
}

#[test]
fn what_cannot_be_relayed_is_said() {
    let place = Place::new();
    let mut publishing = place.publish("cam0", GRAY, GRAY_SIZE, 100);
    let output = place.run("relay nobody cam0");
    expect_code(&output, 4);
    expect_code(&place.run("relay cam0"), 2);
    expect_code(&place.run("relay cam0 ftp:x"), 2);
    publishing.pause();
    let output = place.run("relay cam0 again --timeout 0.3");
    expect_code(&output, 5);
    assert!(stderr(&output).contains("no frame"), "{}", stderr(&output));
    let output = place.run("relay nobody again --timeout 0.3");
    expect_code(&output, 5);
}
