//! `pagecast bench` with few and tiny frames: every figure is there, and the files are what they say.

mod common;

use std::process::{Command, Output};

use serde_json::Value;

fn local(arguments: &[&str]) -> (Output, Value, String) {
    let small = ["local", "--frames", "20", "--warmup", "4", "--sizes", "320x240"];
    bench(&[&small, arguments].concat())
}

fn remote(arguments: &[&str]) -> (Output, Value, String) {
    bench(&[&["remote", "--frames", "20", "--warmup", "4"], arguments].concat())
}

fn bench(arguments: &[&str]) -> (Output, Value, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let (json, svg) = (folder.path().join("b.json"), folder.path().join("b.svg"));
    let output = Command::new(env!("CARGO_BIN_EXE_pagecast"))
        .arg("bench")
        .args(arguments)
        .args(["--runs", "1"])
        .arg("--json")
        .arg(&json)
        .arg("--svg")
        .arg(&svg)
        .output()
        .expect("it runs");
    let text = std::fs::read_to_string(&json).unwrap_or_default();
    let value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output, value, std::fs::read_to_string(&svg).expect("a drawing"))
}

fn cell<'a>(report: &'a Value, transport: &str, consumers: u64) -> &'a Value {
    let cells = report["cells"].as_array().expect("cells");
    let wanted = |cell: &&Value| cell["transport"] == transport && cell["consumers"] == consumers;
    cells.iter().find(wanted).unwrap_or_else(|| panic!("no {transport}: {report:#}"))
}

#[test]
fn every_figure_of_the_library_and_the_floor_is_there() {
    let (output, report, svg) = local(&["--library", "--consumers", "1,2", "--fps", "30"]);
    assert!(output.status.success(), "{output:?}");
    for (transport, consumers) in [("source", 0), ("pagecast", 0), ("seqpacket", 2), ("pagecast", 2)] {
        let cell = cell(&report, transport, consumers);
        let run = &cell["runs"][0];
        assert!(run["error"].is_null(), "{cell:#}");
        assert_eq!(run["frames"], 20, "{cell:#}");
        assert!(run["producer_cpu_seconds"].as_f64().expect("a number") > 0.0, "{cell:#}");
        let consumer_cpu = run["consumer_cpu_seconds"].as_array().expect("a list");
        assert_eq!(consumer_cpu.len() as u64, consumers, "{cell:#}");
        for figure in ["minor_faults", "memory_bytes", "fps", "dropped", "late"] {
            assert!(run[figure].is_number(), "{figure}: {cell:#}");
        }
        if consumers > 0 {
            assert!(consumer_cpu.iter().all(|cpu| cpu.as_f64().expect("a number") > 0.0), "{cell:#}");
            for percentile in ["p50", "p99", "p999", "max"] {
                let value = run["latency_us"][percentile].as_f64().expect("a number");
                assert!(value > 0.0 && value < 60e6, "{percentile}: {cell:#}");
            }
        }
    }
    assert_eq!(report["terms"]["touched"], "one byte per 4 KiB page");
    assert!(report["machine"]["cores"].as_u64().expect("a number") > 0);
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(table.contains("SEQPACKET floor") && table.contains("CPU ABOVE SOURCE"), "{table}");
    assert!(!table.contains('\x1b'), "no colours in a pipe: {table}");
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
}

#[test]
fn free_running_loses_nothing() {
    let (output, report, _) = local(&["--library", "--consumers", "3", "--pace", "free", "--full-read"]);
    assert!(output.status.success(), "{output:?}");
    for transport in ["seqpacket", "pagecast"] {
        let cell = cell(&report, transport, 3);
        assert_eq!(cell["runs"][0]["dropped"], 0, "{cell:#}");
        assert_eq!(cell["summary"]["discarded"], 0, "{cell:#}");
    }
    assert_eq!(report["terms"]["touched"], "every byte");
}

#[cfg(feature = "gstreamer")]
#[test]
fn pipelines_are_measured_beside() {
    let arguments = ["--consumers", "1", "--against", "shm,tee,unixfd", "--pace", "free"];
    let (output, report, _) = local(&arguments);
    assert!(output.status.success(), "{output:?}");
    for transport in ["gst-pagecast", "gst-shm", "gst-tee"] {
        let cell = cell(&report, transport, 1);
        assert!(cell["summary"]["cpu_seconds"]["median"].is_number(), "{cell:#}");
        assert_eq!(cell["runs"][0]["dropped"], 0, "{cell:#}");
    }
    let told = report["notes"].to_string();
    let measured = report["cells"].to_string().contains("gst-unixfd");
    assert!(measured != told.contains("unixfdsink is not installed"), "measured or named: {told}");
}

#[test]
fn every_figure_of_links_by_tcp_and_of_the_floor_is_there() {
    let (output, report, svg) = remote(&["--size", "320x240,70000", "--subscribers", "1,2"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(report["bench"], "remote");
    assert_eq!(report["cells"].as_array().expect("cells").len(), 8, "{report:#}");
    for (transport, consumers) in [("tcp-loop", 1), ("pagecast-tcp", 1), ("tcp-loop", 2), ("pagecast-tcp", 2)]
    {
        let cell = cell(&report, transport, consumers);
        let run = &cell["runs"][0];
        assert!(run["error"].is_null(), "{cell:#}");
        assert_eq!((&run["dropped"], &run["wrong"]), (&0.into(), &0.into()), "{cell:#}");
        let bytes = 20 * consumers * 320 * 240 * 3 / 2;
        assert_eq!(run["bytes"], bytes as f64, "{cell:#}");
        assert!(run["wire_bytes"].as_f64().expect("a number") > bytes as f64, "{cell:#}");
        for figure in [
            "gb_per_second",
            "cpu_seconds_per_gb",
            "sender_cpu_seconds_per_gb",
            "receiver_cpu_seconds_per_gb",
            "sender_cpu_ms_per_frame",
            "sender_cpu_ms_per_frame_and_subscriber",
            "wire_bytes_per_frame",
        ] {
            let value = cell["summary"][figure]["median"].as_f64();
            assert!(value.is_some_and(|value| value > 0.0), "{figure}: {cell:#}");
        }
        assert!(run["latency_us"]["p99"].as_f64().expect("a number") > 0.0, "{cell:#}");
    }
    let targets = report["targets"].to_string();
    assert!(targets.contains("throughput: pagecast tcp:// / send/recv loop, 320x240, 1->2"), "{targets}");
    assert!(targets.contains("at_least") && targets.contains("70000 bytes"), "{targets}");
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(table.contains("send/recv loop") && table.contains("CPU-s/GB"), "{table}");
    assert!(svg.contains("CPU per byte") && svg.trim_end().ends_with("</svg>"), "{svg}");
}

#[test]
fn peers_of_links_are_measured_or_named() {
    let all = ["--size", "320x240", "--against", "iperf3,tcpserversink", "--subscribers", "1,2"];
    let (output, report, _) = remote(&all);
    assert!(output.status.success(), "{output:?}");
    let (told, cells) = (report["notes"].to_string(), report["cells"].to_string());
    assert!(cells.contains("iperf3") != told.contains("iperf3 is not installed"), "{told}");
    assert!(told.contains("iperf3 has one receiver") == cells.contains("iperf3"), "{told}");
    let left_out = told.contains("is not installed: it") || told.contains("built without GStreamer");
    assert!(cells.contains("gst-tcp") || left_out, "{told}");
    // A busy machine may lose a frame of a live source: then the run does not count, which is no matter here.
    let (_, report, _) = remote(&["--size", "70000", "--against", "tcpserversink", "--pace", "live"]);
    let told = report["notes"].to_string();
    assert!(told.contains("left out") && report["cells"].as_array().expect("cells").len() == 1, "{told}");
    assert_eq!(report["terms"]["fps"], 60);
}

#[test]
fn links_by_rdma_are_measured_beside_ib_write_bw_or_what_is_missing_is_said() {
    let rdma = ["remote", "--link", "rdma", "--frames", "10", "--warmup", "2"];
    let place = common::Place::new();
    let nobody = [&["bench"], &rdma[..], &["--addresses", "192.0.2.77"]].concat();
    let output = common::finish(place.command_of(nobody).spawn().expect("it runs"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("RDMA cannot be measured here"), "{said}");
    let here = [&["bench"], &rdma[..], &["--size", "65536", "--runs", "1"]].concat();
    let output = common::finish(place.command_of(here).spawn().expect("it runs"));
    if output.status.code() == Some(1) && output.stdout.is_empty() {
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("rdma link add") || said.contains("install"), "a remedy: {said}");
        return common::skip(&said);
    }
    let (output, report, _) =
        bench(&[&rdma[..], &["--size", "65536,128x64", "--subscribers", "1,2"]].concat());
    assert!(output.status.success(), "{output:?}");
    assert_eq!(report["cells"].as_array().expect("cells").len(), 6, "{report:#}");
    for (transport, consumers) in [("ib-write-bw", 1), ("pagecast-rdma", 1), ("pagecast-rdma", 2)] {
        let cell = cell(&report, transport, consumers);
        let run = &cell["runs"][0];
        assert!(run["error"].is_null(), "{cell:#}");
        assert_eq!((&run["frames"], &run["dropped"]), (&10.into(), &0.into()), "{cell:#}");
        assert_eq!(
            run["wrong"] == 0,
            transport == "pagecast-rdma",
            "what is compared, and by whom: {cell:#}"
        );
        // All of it went over the cable between the two devices.
        let wire = run["wire_bytes"].as_f64().expect("a number");
        assert!(wire > (10 * consumers * 65536) as f64, "{cell:#}");
        let summary = &cell["summary"];
        assert!(summary["gb_per_second"]["median"].as_f64().expect("a number") > 0.0, "{cell:#}");
        assert!(summary["sender_cpu_ms_per_frame"]["median"].as_f64().expect("a number") > 0.0, "{cell:#}");
    }
    let (told, notes) = (report["targets"].to_string(), report["notes"].to_string());
    assert!(told.contains("throughput: pagecast rdma:// / ib_write_bw, 65536 bytes, 1->1"), "{told}");
    assert!(notes.contains("RDMA from rxe0 (10.77.0.1") && notes.contains("has one receiver"), "{notes}");
}

#[test]
fn wrong_usage_is_told_apart() {
    let local = [["--consumers", "0"], ["--consumers", "65"], ["--sizes", "7x7"], ["--backing", "paper"]];
    let remote = [
        ["--size", "4095"],
        ["--size", "1073741825"],
        ["--size", "8k"],
        ["--size", "64x63"],
        ["--subscribers", "0"],
        ["--subscribers", "17"],
        ["--link", "pigeon"],
        ["--against", "shm"],
        ["--against", "ib_write_bw"],
        ["--addresses", "127.0.0.1"],
        ["--addresses", "rxe0"],
        ["--frames", "0"],
        ["--runs", "0"],
        ["--pace", "slow"],
    ];
    let mut all: Vec<(&str, Vec<&str>)> = local.iter().map(|wrong| ("local", wrong.to_vec())).collect();
    all.extend(remote.iter().map(|wrong| ("remote", wrong.to_vec())));
    all.push(("remote", vec!["--link", "rdma", "--against", "tcp-loop"]));
    all.push(("remote", vec!["--link", "rdma", "--addresses", "10.0.0.1,10.0.0.2,10.0.0.3"]));
    for (what, wrong) in all {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pagecast"));
        let output = command.args(["bench", what]).args(&wrong).output().expect("it runs");
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {output:?}");
    }
}
