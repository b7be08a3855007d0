//! `recv` and `pipe` against a publisher in this process.

mod common;

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use common::{Place, Publishing, Running, eventually, expect_code, finish, json, stderr, stdout};
use nix::sys::signal::Signal;
use pagecast::{Description, Plane};

const GRAY: &str =
    "video/x-raw, format=(string)GRAY8, width=(int)64, height=(int)48, framerate=(fraction)100/1";
const GRAY_SIZE: usize = 64 * 48;

/// More frames than a subscriber may hold at once were sent to it: so it has had some.
fn has_frames(publishing: &Publishing) -> bool {
    let subscribers = publishing.publisher.info().subscribers;
    subscribers.iter().any(|subscriber| subscriber.frames > u64::from(subscriber.credits))
}

#[test]
fn recv_counts_frames_and_bytes() {
    let place = Place::new();
    let _publishing = place.publish("cam0", GRAY, GRAY_SIZE, 100);
    let output = place.run("recv cam0 -n 20 --policy block --json");
    expect_code(&output, 0);
    let summary = json(&output);
    assert_eq!(summary["frames"], 20);
    assert_eq!(summary["bytes"], 20 * GRAY_SIZE);
    assert_eq!(summary["dropped"], 0);
    assert_eq!(summary["caps"], GRAY);
    assert!(summary["latency_us"]["p50"].is_number());
    assert!(summary.get("checked").is_none());

    let output = place.run("recv unix:cam0 -n 3");
    expect_code(&output, 0);
    assert!(stdout(&output).starts_with(&format!("3 frames, {}", "9.0 KiB")), "{}", stdout(&output));
}

#[test]
fn check_finds_the_wrong_byte() {
    // The stamp as this project defines it, written here a second time.
    fn stamp(bytes: &mut [u8], number: u64) {
        for (page, bytes) in bytes.chunks_mut(4096).enumerate() {
            let value = (number << 20 | page as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            bytes[..8].copy_from_slice(&value.to_le_bytes());
        }
    }
    let place = Place::new();
    let size = 5 * 4096;
    let publish = |name, spoil: Option<u64>| {
        place.publish_with(name, GRAY, 100, move |lease, number| {
            let bytes = &mut lease.as_mut_slice()[..size];
            stamp(bytes, number);
            if spoil.is_some_and(|spoil| number % 10 == spoil) {
                bytes[2 * 4096 + 7] ^= 1;
            }
            (size, Description::default())
        })
    };
    let _good = publish("good", None);
    let _bad = publish("bad", Some(3));
    let output = place.run("recv good -n 25 --policy block --check --json");
    expect_code(&output, 0);
    assert_eq!((&json(&output)["checked"], &json(&output)["wrong"]), (&25.into(), &0.into()));
    let output = place.run("recv bad -n 25 --policy block --check --json");
    expect_code(&output, 1);
    assert!(json(&output)["wrong"].as_u64().is_some_and(|wrong| (2..=3).contains(&wrong)));
    assert!(stderr(&output).contains("page 2"), "{}", stderr(&output));
    let _plain = place.publish("plain", GRAY, GRAY_SIZE, 100);
    expect_code(&place.run("recv plain -n 2 --check"), 1);
}

#[test]
fn no_frames_in_time_is_exit_code_5() {
    let place = Place::new();
    let mut publishing = place.publish("cam0", GRAY, GRAY_SIZE, 100);
    publishing.pause();
    let output = place.run("recv cam0 --timeout 0.3");
    expect_code(&output, 5);
    assert!(stderr(&output).contains("no frame"), "{}", stderr(&output));
}

#[test]
fn ctrl_c_ends_recv_with_a_summary() {
    let place = Place::new();
    let publishing = place.publish("cam0", GRAY, GRAY_SIZE, 100);
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let running = place.command("recv cam0 --json").spawn().unwrap();
        eventually("a subscriber with frames", || has_frames(&publishing));
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(running.id() as i32), signal).unwrap();
        let output = finish(running);
        expect_code(&output, code);
        assert!(json(&output)["frames"].as_u64().is_some_and(|frames| frames > 0));
        eventually("it has left", || publishing.publisher.subscribers() == 0);
    }
}

#[test]
fn the_end_of_the_publisher_is_the_end_of_recv() {
    let place = Place::new();
    let publishing = place.publish("cam0", GRAY, GRAY_SIZE, 100);
    let running = place.command("recv cam0").spawn().unwrap();
    eventually("a subscriber", || publishing.publisher.subscribers() == 1);
    drop(publishing);
    expect_code(&finish(running), 0);
}

#[test]
fn reconnect_waits_and_goes_on_with_the_next_publisher() {
    let place = Place::new();
    let mut running = place.command("recv cam0 --reconnect -n 1000000 --json").spawn().unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert!(running.try_wait().unwrap().is_none(), "it waits for the publisher");
    for _ in 0..2 {
        let publishing = place.publish("cam0", GRAY, GRAY_SIZE, 100);
        eventually("frames", || has_frames(&publishing));
    }
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(running.id() as i32), Signal::SIGINT).unwrap();
    let output = finish(running);
    expect_code(&output, 130);
    let summary = json(&output);
    assert!(summary["frames"].as_u64().is_some_and(|frames| frames >= 6), "{summary}");
}

#[test]
fn a_rate_limit_is_kept_and_loses_nothing() {
    let place = Place::new();
    let publishing = place.publish("cam0", GRAY, GRAY_SIZE, 200);
    let output = place.run("recv cam0 -n 5 --max-framerate 20 --json");
    expect_code(&output, 0);
    let summary = json(&output);
    assert_eq!(summary["frames"], 5);
    // Five frames are four intervals of 50 ms; the first one may be shorter.
    assert!(summary["seconds"].as_f64().is_some_and(|seconds| seconds > 0.12), "{summary}");
    assert!(publishing.publisher.info().publisher.frames > 10);
    expect_code(&place.run("recv cam0 -n 5 --latest"), 0);
}

#[test]
fn pipe_writes_frames_without_padding() {
    let place = Place::new();
    let _publishing = place.publish_with("cam0", GRAY, 100, |lease, number| {
        let bytes = lease.as_mut_slice();
        bytes[..10_000].fill(0xee);
        for line in 0..48 {
            bytes[100 + line * 80..][..64].fill(number as u8);
        }
        let planes = [Plane { offset: 100, stride: 80 }].into_iter().collect();
        (10_000, Description { planes, ..Description::default() })
    });
    let output = place.run("pipe cam0 -n 3");
    expect_code(&output, 0);
    assert_eq!(output.stdout.len(), 3 * GRAY_SIZE);
    for (number, frame) in output.stdout.chunks(GRAY_SIZE).enumerate() {
        assert!(frame.iter().all(|byte| *byte == frame[0] && *byte != 0xee), "frame {number}");
    }
    let output = place.run("pipe cam0 -n 2 --y4m");
    expect_code(&output, 0);
    let header = b"YUV4MPEG2 W64 H48 F100:1 Ip A1:1 Cmono\n";
    assert!(output.stdout.starts_with(header));
    assert_eq!(output.stdout.len(), header.len() + 2 * (6 + GRAY_SIZE));
}

#[test]
fn pipe_writes_other_streams_as_they_are() {
    let place = Place::new();
    let _publishing = place.publish("text", "text/x-raw, format=utf8", 7, 100);
    let output = place.run("pipe text -n 4");
    expect_code(&output, 0);
    assert_eq!(output.stdout.len(), 28);
    let output = place.run("pipe text -n 4 --y4m");
    expect_code(&output, 1);
    assert!(stderr(&output).contains("needs raw video"), "{}", stderr(&output));
}

#[test]
fn a_reader_that_goes_away_ends_pipe_cleanly() {
    let place = Place::new();
    let publishing = place.publish("cam0", GRAY, GRAY_SIZE, 100);
    let mut running = Running::start(place.command("pipe cam0"));
    let mut reader = running.0.stdout.take().unwrap();
    std::io::Read::read_exact(&mut reader, &mut [0; GRAY_SIZE]).unwrap();
    drop(reader);
    assert_eq!(running.end().code(), Some(0));
    let mut text = String::new();
    std::io::Read::read_to_string(&mut running.0.stderr.take().unwrap(), &mut text).unwrap();
    assert!(!text.contains("panicked"), "{text}");
    eventually("it has left", || publishing.publisher.subscribers() == 0);
}

#[test]
fn head_is_no_reason_to_panic() {
    let place = Place::new();
    let _publishing = place.publish("cam0", GRAY, GRAY_SIZE, 100);
    for args in ["top --interval 0.05", "top --interval 0.05 --json"] {
        let mut command = place.command(args);
        command.stdout(Stdio::piped());
        let mut running = Running::start(command);
        let mut line = String::new();
        BufReader::new(running.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(!line.is_empty());
        assert_eq!(running.end().code(), Some(0), "{args}");
        let mut text = String::new();
        std::io::Read::read_to_string(&mut running.0.stderr.take().unwrap(), &mut text).unwrap();
        assert!(text.is_empty(), "{text}");
    }
}

#[test]
fn ffmpeg_reads_what_pipe_writes() {
    let Ok(probe) = std::process::Command::new("ffprobe").arg("-version").output() else {
        return common::skip("ffprobe is not installed");
    };
    assert!(probe.status.success());
    let place = Place::new();
    let formats =
        [("I420", "yuv420p"), ("NV12", "yuv420p"), ("Y42B", "yuv422p"), ("I420_10LE", "yuv420p10le")];
    for (format, pix_fmt) in formats {
        let caps = format!("video/x-raw, format={format}, width=322, height=242, framerate=30000/1001");
        let _publishing = place.publish("cam0", &caps, 400_000, 200);
        let output = place.run("pipe cam0 -n 4 --y4m");
        expect_code(&output, 0);
        let path = place.path().join("a.y4m");
        std::fs::write(&path, &output.stdout).unwrap();
        let entries = "stream=width,height,r_frame_rate,pix_fmt,nb_read_frames";
        let probe = std::process::Command::new("ffprobe")
            .args(["-v", "error", "-count_frames", "-show_entries", entries, "-of", "json"])
            .arg(&path)
            .output()
            .unwrap();
        let probe: serde_json::Value = serde_json::from_slice(&probe.stdout).unwrap();
        let stream = &probe["streams"][0];
        assert_eq!(stream["width"], 322, "{probe}");
        assert_eq!(stream["height"], 242, "{probe}");
        assert_eq!(stream["pix_fmt"], pix_fmt);
        assert_eq!(stream["r_frame_rate"], "30000/1001");
        assert_eq!(stream["nb_read_frames"], "4");
    }
}

#[cfg(feature = "gstreamer")]
#[test]
fn a_pipeline_gets_the_bytes_of_every_frame() {
    let place = Place::new();
    let publishing = place.publish("cam0", GRAY, GRAY_SIZE, 100);
    expect_code(&place.run("recv cam0 -n 7 --policy block filesink location=a.raw"), 0);
    let bytes = std::fs::read(place.path().join("a.raw")).unwrap();
    assert_eq!(bytes.len(), 7 * GRAY_SIZE);
    for (number, frame) in bytes.chunks(GRAY_SIZE).enumerate() {
        let expected = bytes[0].wrapping_add(number as u8);
        assert!(frame.iter().all(|byte| *byte == expected), "frame {number}");
    }
    // All of it in one word.
    let command = place.command_of(["recv", "cam0", "-n", "3", "identity ! filesink location=b.raw"]);
    expect_code(&finish({ command }.spawn().unwrap()), 0);
    assert_eq!(common::size(&place.path().join("b.raw")), 3 * GRAY_SIZE as u64);

    let running = place.command("recv cam0 fakesink").spawn().unwrap();
    eventually("frames", || has_frames(&publishing));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(running.id() as i32), Signal::SIGINT).unwrap();
    expect_code(&finish(running), 130);
    let output = place.run("recv cam0 nonsensesink");
    expect_code(&output, 2);
    assert!(stderr(&output).contains("nonsensesink"), "{}", stderr(&output));
}

#[cfg(feature = "gstreamer")]
#[test]
fn a_pipeline_without_frames_ends_as_recv_does() {
    let place = Place::new();
    let output = place.run("recv cam0 fakesink");
    expect_code(&output, 3);
    assert!(stderr(&output).contains("pagecast list"), "{}", stderr(&output));
    let mut publishing = place.publish("cam0", GRAY, GRAY_SIZE, 100);
    publishing.pause();
    let output = place.run("recv cam0 --timeout 0.5 fakesink");
    expect_code(&output, 5);
    assert!(stderr(&output).contains("no frame"), "{}", stderr(&output));
    expect_code(&place.run("recv cam0 --json fakesink"), 2);
}
