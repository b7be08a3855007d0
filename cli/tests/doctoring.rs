//! `doctor`.

mod common;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use common::{Place, expect_code, json, stdout};

#[test]
fn doctor_passes_here_and_every_shortcoming_has_a_remedy() {
    let place = Place::new();
    let output = place.run("doctor --json");
    expect_code(&output, 0);
    let report = json(&output);
    let checks = report["checks"].as_array().unwrap();
    let names: Vec<_> = checks.iter().map(|check| check["name"].as_str().unwrap()).collect();
    for name in [
        "kernel",
        "sealed pages",
        "huge pages",
        "udmabuf",
        "dma-heap",
        "open files",
        "locked memory",
        "rdma",
        "loopback",
    ] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    for check in checks {
        let status = check["status"].as_str().unwrap();
        assert!(["PASS", "WARN"].contains(&status), "{check}");
        assert_eq!(status == "PASS", check.get("remedy").is_none(), "{check}");
        assert!(!check["detail"].as_str().unwrap().is_empty());
    }
    assert!(["PASS", "WARN"].contains(&report["verdict"].as_str().unwrap()));
    // It leaves nothing behind.
    assert_eq!(std::fs::read_dir(place.path().join("pagecast")).unwrap().count(), 0);
}

#[test]
fn doctor_fails_where_publishers_cannot_be_found() {
    let place = Place::new();
    let folder = place.path().join("pagecast");
    std::fs::set_permissions(&folder, Permissions::from_mode(0o777)).unwrap();
    let output = place.run("doctor");
    expect_code(&output, 1);
    let text = stdout(&output);
    let failed: Vec<_> = text.lines().filter(|line| line.starts_with("FAIL")).collect();
    assert_eq!(failed.len(), 2, "{text}");
    assert!(failed[0].contains("runtime folder") && failed[1].contains("loopback"), "{text}");
    assert!(text.contains("XDG_RUNTIME_DIR"), "{text}");
}

#[test]
fn doctor_says_who_cannot_lock_a_frame_and_what_to_do() {
    // The limit binds nobody who may lock any amount, as root may.
    let ordinary = "exec setpriv --bounding-set=-ipc_lock --inh-caps=-ipc_lock -- \"$0\" doctor --json";
    for (who, status) in [("exec \"$0\" doctor --json", "PASS"), (ordinary, "WARN")] {
        if !nix::unistd::geteuid().is_root() {
            return common::skip("must be root to drop a capability");
        }
        let place = Place::new();
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &format!("ulimit -l 64; {who}"), env!("CARGO_BIN_EXE_pagecast")]);
        let output = shell.env("XDG_RUNTIME_DIR", place.path()).output().unwrap();
        expect_code(&output, 0);
        let report = json(&output);
        let checks = report["checks"].as_array().unwrap();
        let locked = checks.iter().find(|check| check["name"] == "locked memory").unwrap();
        assert_eq!(locked["status"], status, "{locked}");
        if status == "WARN" {
            assert!(locked["detail"].as_str().unwrap().contains("0 frames of 4K"), "{locked}");
            assert!(locked["remedy"].as_str().unwrap().contains("ulimit -l"), "{locked}");
        }
    }
}

#[test]
fn doctor_sees_rdma_devices_and_what_they_can_do() {
    let place = Place::new();
    let report = json(&place.run("doctor --json"));
    let checks = report["checks"].as_array().unwrap();
    let all = |name: &str| {
        let these = checks.iter().filter(|check| check["name"] == name);
        these.map(|check| check["detail"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    if all("rdma port").is_empty() {
        assert_eq!(all("rdma").len(), 1, "{report}");
        return common::skip(&all("rdma")[0]);
    }
    // As the testbed has them.
    let ports = all("rdma port");
    assert!(
        ports.iter().any(|port| port.contains("rxe0/1: active") && port.contains("1: 10.77.0.1")),
        "{ports:?}"
    );
    assert!(all("mr face").iter().all(|face| face.contains("can be registered")), "{report}");
    assert_eq!(all("mr face").len(), ports.len(), "{report}");
    assert!(ports.iter().all(|port| port.contains("MTU 4096")), "{ports:?}");
    // Soft RDMA registers no dma-bufs: tried, said, and what follows stands beside.
    let dma_bufs: Vec<_> = checks.iter().filter(|check| check["name"] == "dma-buf mr").collect();
    assert_eq!(dma_bufs.len(), ports.len(), "{report}");
    for check in dma_bufs {
        assert!(check["detail"].as_str().unwrap().contains(": no ("), "{check}");
        assert!(check["remedy"].as_str().unwrap().contains("copied once"), "{check}");
    }
}

#[test]
fn doctor_tells_what_each_face_of_each_backing_gives() {
    let place = Place::new();
    let report = json(&place.run("doctor --json"));
    let rows = report["faces"].as_array().unwrap();
    let row = |name: &str| rows.iter().find(|row| row["backing"] == name).unwrap_or_else(|| panic!("{name}"));
    let names: Vec<_> = rows.iter().map(|row| row["backing"].as_str().unwrap()).collect();
    assert_eq!(names, ["memfd", "hugetlb", "dma-heap", "drm-dumb", "imported memfd", "imported dma-buf"]);
    // Everywhere: pages that nobody else can write, and what is not here has a reason.
    for name in ["memfd", "imported memfd"] {
        assert_eq!(row(name)["memory"]["gives"], "enforced", "{report}");
    }
    assert_eq!(row("imported memfd")["dma-buf"], "none", "{report}");
    for given in rows.iter().flat_map(|row| [&row["memory"], &row["dma-buf"], &row["mr"]]) {
        let said = given["gives"].as_str().or(given["not-here"].as_str()).or(given.as_str());
        assert!(said.is_some_and(|said| !said.is_empty()), "{report}");
    }
    let text = stdout(&place.run("doctor"));
    let table = text.split("What each face of each backing gives here").nth(1).expect("a table");
    assert!(names.iter().all(|name| table.contains(name)), "{text}");
    if std::env::var_os("PAGECAST_TESTBED").is_none() {
        return common::skip("another machine has other faces");
    }
    // As the testbed has them: each device's pages, and what soft RDMA can do with them.
    let expected = [
        ("memfd", "enforced", "cooperative", true),
        ("hugetlb", "enforced", "cooperative", true),
        ("dma-heap", "none", "cooperative", false),
        ("drm-dumb", "none", "cooperative", false),
        ("imported memfd", "enforced", "none", true),
        ("imported dma-buf", "none", "cooperative", false),
    ];
    for (name, memory, dma_buf, mr) in expected {
        let row = row(name);
        let said = |given: &serde_json::Value| given["gives"].as_str().or(given.as_str()).map(str::to_owned);
        assert_eq!(said(&row["memory"]).as_deref(), Some(memory), "{row}");
        assert_eq!(said(&row["dma-buf"]).as_deref(), Some(dma_buf), "{row}");
        let devices = row["mr"]["gives"].as_str().unwrap_or_default();
        assert_eq!(devices.contains("rxe0") && devices.contains("rxe1"), mr, "{row}");
    }
    assert!(text.contains("not here: ") && text.contains("copied once"), "{text}");
}
