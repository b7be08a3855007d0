//! The command over `tcp://`.

mod common;

use std::time::Duration;

use common::{Place, expect_code, stderr};
#[cfg(feature = "gstreamer")]
use common::{Running, eventually, json, stdout};

/// A port that nobody listens on now.
fn port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

#[cfg(feature = "gstreamer")]
#[test]
fn what_is_served_over_tcp_is_received_looked_at_and_fed_to_a_pipeline() {
    let (place, port) = (Place::new(), port());
    // Whoever is slow on a busy machine loses nothing by that.
    let patient = "--policy block --block-deadline 60";
    let serve = format!("serve cam0 {patient} --listen tcp://127.0.0.1:{port} --test 64x48@100:GRAY8");
    let _serving = Running::start(place.command(&serve));
    let uri = format!("tcp://127.0.0.1:{port}");
    eventually("it serves", || place.serves(&uri));
    let output = place.run(&format!("recv {uri} -n 30 --json --timeout 20"));
    expect_code(&output, 0);
    assert_eq!(json(&output)["frames"], 30, "{}", stdout(&output));
    assert_eq!(json(&output)["bytes"], 30 * 64 * 48);

    let watching = Running::start(place.command(&format!("recv {uri} --timeout 30")));
    let mut figures = serde_json::Value::Null;
    eventually("it is among the subscribers", || {
        let output = place.run(&format!("info {uri} --json --timeout 20"));
        expect_code(&output, 0);
        figures = json(&output);
        figures["subscribers"][0]["frames"].as_u64() > Some(0)
    });
    assert_eq!(figures["subscribers"][0]["transport"], "tcp", "{figures}");
    let table = place.run(&format!("info {uri} --timeout 20"));
    assert!(stdout(&table).contains("tcp 127.0.0.1:"), "{}", stdout(&table));
    assert!(stdout(&table).contains("WIRE/FRAME"), "{}", stdout(&table));
    let subscriber = &figures["subscribers"][0];
    assert!(subscriber["wire_bytes"].as_u64() > Some(64 * 48), "{figures}");
    eventually("the round trip is known", || {
        let info = json(&place.run(&format!("info {uri} --json --timeout 20")));
        info["subscribers"][0]["rtt_us"]["last"].as_f64() > Some(0.0)
    });
    let top = place.run(&format!("top {uri} cam0 -n 1"));
    expect_code(&top, 0);
    assert_eq!(stdout(&top).matches("/frame").count(), 2, "seen both ways: {}", stdout(&top));
    let list = place.run(&format!("list {uri} tcp://127.0.0.1:1 --timeout 20 --json"));
    expect_code(&list, 0);
    let states: Vec<_> = (0..2).map(|at| json(&list)[at]["state"].clone()).collect();
    assert_eq!(states, ["alive", "stale"], "{}", stdout(&list));
    drop(watching);

    let output = place.run(&format!("recv {uri} -n 30 --timeout 20"));
    let said = stdout(&output);
    assert!(
        said.contains("latency p50") && said.contains("within") && said.contains("on the wire per frame")
    );
    let output = place.run(&format!("snapshot {uri} -o a.png"));
    expect_code(&output, 0);

    let output = place.run(&format!("recv {uri} -n 10 --timeout 20 videoconvert ! filesink location=out"));
    expect_code(&output, 0);
    assert_eq!(std::fs::metadata(place.path().join("out")).unwrap().len(), 10 * 64 * 48);
}

#[test]
fn who_is_not_there_and_who_must_not_be_are_told_apart() {
    let place = Place::new();
    let output = place.run(&format!("recv tcp://127.0.0.1:{} -n 1 --timeout 20", port()));
    expect_code(&output, 3);
    assert!(stderr(&output).contains("refused"), "{}", stderr(&output));
    // An address of documentation, where nobody is: it is not even tried.
    for command in ["recv tcp://192.0.2.1 -n 1 --timeout 20", "info tcp://192.0.2.1 --timeout 20"] {
        let start = std::time::Instant::now();
        let output = place.run(command);
        assert!(!output.status.success());
        assert!(stderr(&output).contains("insecure"), "{}", stderr(&output));
        assert!(start.elapsed() < Duration::from_secs(15));
    }
    for uri in ["remote:host", "tcp:host", "tcp://h:99999"] {
        let output = place.run(&format!("recv {uri} -n 1 --timeout 20"));
        expect_code(&output, 2);
    }
    let output = place.run(&format!("recv remote://127.0.0.1:{} -n 1 --timeout 20", port()));
    expect_code(&output, 3);
    assert!(stderr(&output).contains("refused"), "{}", stderr(&output));
    // Nobody is there, or there is no device: never another link than the one that was asked for.
    let output = place.run(&format!("recv rdma://127.0.0.1:{} -n 1 --timeout 20", port()));
    expect_code(&output, 3);
    assert!(stderr(&output).contains("RDMA") || stderr(&output).contains("refused"), "{}", stderr(&output));
}
