//! `pagecast bench local` with few and tiny frames: every figure is there, and the files are what they say.

use std::process::{Command, Output};

use serde_json::Value;

fn bench(arguments: &[&str]) -> (Output, Value, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let (json, svg) = (folder.path().join("b.json"), folder.path().join("b.svg"));
    let output = Command::new(env!("CARGO_BIN_EXE_pagecast"))
        .args(["bench", "local", "--runs", "1", "--frames", "20", "--warmup", "4", "--sizes", "320x240"])
        .args(arguments)
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
    let (output, report, svg) = bench(&["--library", "--consumers", "1,2", "--fps", "30"]);
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
    let (output, report, _) = bench(&["--library", "--consumers", "3", "--pace", "free", "--full-read"]);
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
    let (output, report, _) = bench(&arguments);
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
fn wrong_usage_is_told_apart() {
    for wrong in [["--consumers", "0"], ["--consumers", "65"], ["--sizes", "7x7"], ["--backing", "paper"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pagecast"));
        let output = command.args(["bench", "local"]).args(wrong).output().expect("it runs");
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {output:?}");
    }
}
