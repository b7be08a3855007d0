//! The udev rules of packaging/: a real udevd, the kernel's nodes, and a user who is in a group or is not.
#![cfg(feature = "gstreamer")]

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use common::nobody::{VIDEO, as_nobody};
use common::{Place, Running, eventually, expect_code, finish, json, skip, stderr};

const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/60-pagecast.rules");
const UDEVD: &str = "/lib/systemd/systemd-udevd";
const NODES: [&str; 2] = ["/dev/udmabuf", "/dev/dma_heap/system"];

/// Group and permissions of a node.
fn owner(node: &str) -> (u32, u32) {
    let about = fs::metadata(node).unwrap_or_else(|error| panic!("{node}: {error}"));
    (about.gid(), about.permissions().mode() & 0o777)
}

/// What `doctor` says of udmabuf and of heaps to a user with these groups.
fn doctor(place: &Place, groups: &str) -> [String; 2] {
    let report = json(&finish(as_nobody(place, groups, "doctor --json").spawn().expect("setpriv")));
    let checks = report["checks"].as_array().expect("checks");
    ["udmabuf", "dma-heap"].map(|name| {
        let check = checks.iter().find(|check| check["name"] == name);
        check.unwrap_or_else(|| panic!("no {name}: {report}"))["status"].as_str().expect("a word").to_owned()
    })
}

#[test]
fn the_udev_rules_let_a_group_make_dma_bufs_and_nobody_else() {
    if std::env::var_os("PAGECAST_TESTBED").is_none() {
        return skip("the rules of the machine's own udevd are not touched");
    }
    assert!(Path::new(UDEVD).exists(), "no {UDEVD}: scripts/setup.sh --test installs udev");
    let place = Place::new();
    let (member, stranger) = (format!("--groups={VIDEO}"), "--clear-groups");
    let serve = "serve cam0 --backing dma-heap --test 320x240";
    assert_eq!(doctor(&place, &member), ["WARN"; 2], "nobody may, as the kernel makes its nodes");

    fs::create_dir_all("/run/udev/rules.d").expect("the folder of rules");
    fs::copy(RULES, "/run/udev/rules.d/60-pagecast.rules").expect("the rules");
    let mut udevd = Command::new(UDEVD);
    udevd.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _udevd = Running::start(udevd);
    // As the head of the rules has it; again until udevd listens.
    eventually("the nodes are the group's", || {
        let mut trigger = Command::new("udevadm");
        let _ = trigger.args(["trigger", "--subsystem-match=misc", "--subsystem-match=dma_heap"]).status();
        NODES.iter().all(|node| owner(node) == (VIDEO, 0o660))
    });

    assert_eq!(doctor(&place, &member), ["PASS"; 2]);
    let _serving = Running::start(as_nobody(&place, &member, serve));
    let asked = || as_nobody(&place, stranger, "info cam0 --timeout 30").spawn().expect("setpriv");
    eventually("it serves", || finish(asked()).status.success());
    let received = finish(as_nobody(&place, stranger, "recv cam0 -n 10").spawn().expect("setpriv"));
    expect_code(&received, 0);
    // The negative control: who is not in the group.
    let refused =
        finish(as_nobody(&place, stranger, &serve.replace("cam0", "cam1")).spawn().expect("setpriv"));
    expect_code(&refused, 2);
    assert!(stderr(&refused).contains("/dev/dma_heap/system"), "{}", stderr(&refused));
}
