//! `pagecast bench` with few and tiny frames: every figure is there, and the files are what they say.

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
        ["--frames", "0"],
        ["--runs", "0"],
        ["--pace", "slow"],
    ];
    let local = local.map(|wrong| ("local", wrong));
    for (what, wrong) in local.into_iter().chain(remote.map(|wrong| ("remote", wrong))) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pagecast"));
        let output = command.args(["bench", what]).args(wrong).output().expect("it runs");
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {output:?}");
    }
}
