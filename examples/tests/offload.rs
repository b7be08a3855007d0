//! The offload example in two network namespaces: every mode, over our link and over tcpserversink, delivers every
//! picture right and in its turn. How fast decides nothing here.

mod hosts {
    pub(crate) mod run;
}

/// For the tests of its parts.
#[allow(dead_code, reason = "the program itself runs as a process")]
#[path = "../examples/offload/main.rs"]
mod program;

use hosts::run::{Hosts, skip, unavailable};

const SMALL: &str = "--frames 40 --size 320x240 --fps 30 --kilobits 500";

#[test]
fn every_mode_delivers_every_picture_in_its_turn() {
    if let Some(why) = unavailable() {
        return skip(why);
    }
    let hosts = Hosts::new();
    let printed = hosts.run(&format!("offload {SMALL} --out results"), "");
    let printed = printed.unwrap_or_else(|error| panic!("{error}"));
    let cases = [
        ("none", "-"),
        ("decode", "tcp"),
        ("decode", "tcpserversink"),
        ("encode", "tcp"),
        ("encode", "tcpserversink"),
        ("full", "tcp"),
        ("full", "tcpserversink"),
    ];
    for (mode, link) in cases {
        let cells = printed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let found = cells.filter(|cells| cells.starts_with(&[mode, link])).collect::<Vec<_>>();
        assert!(
            matches!(&found[..], [row] if row[2..6] == ["40", "0", "0", "0"]),
            "{mode} {link}: {printed}"
        );
    }
    let lines = |file: &str| String::from_utf8(hosts.read(file)).expect("text").lines().count();
    // Ten pictures of each case only warm it up.
    assert_eq!(lines("results/latency.csv"), 1 + cases.len() * 30);
    assert!(lines("results/cores.csv") > cases.len(), "{printed}");
    assert!(hosts.read("results/offload.svg").starts_with(b"<svg"));
}

#[test]
fn its_pipelines_are_shown_and_what_cannot_be_is_said() {
    if let Some(why) = unavailable() {
        return skip(why);
    }
    let hosts = Hosts::new();
    let shown = hosts.run("offload --modes encode --links tcp --show", "").expect("it is shown");
    assert!(
        shown.contains("encode over tcp, host 2: gst-launch-1.0 pagecastsrc uri=tcp://10.77.0.1:7174"),
        "{shown}"
    );
    for (wrong, says) in [
        ("--modes half", "none, decode, encode or full"),
        ("--links ftp", "tcpserversink"),
        ("--size 100x100", "barcode"),
        ("--modes full --links tcp --network 10.78.0.0/24", "is not in the networks"),
        // Nothing can come from there, and that is found out.
        ("--modes none --patience 0 --frames 1000000", "no picture"),
    ] {
        let told = hosts.run(&format!("offload {wrong} {SMALL}"), "").expect_err(wrong);
        assert!(told.contains(says), "{wrong}: {told}");
    }
}
