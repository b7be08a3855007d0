//! `serve`, together with `recv` and the others.
#![cfg(feature = "gstreamer")]

mod common;

use std::io::{BufRead, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{Place, Running, eventually, expect_code, finish, json, size, stderr, stdout};
use nix::sys::signal::Signal;

/// Whoever is slow on a busy machine loses nothing by that.
const PATIENT: &str = "--policy block --block-deadline 60";

/// A publisher of 320x240 NV12, 50 frames per second, that can be received.
fn serve(place: &Place, name: &str) -> Running {
    let serve = format!("serve {name} {PATIENT} --test 320x240@50:NV12");
    let running = Running::start(quiet(place.command(&serve)));
    wait_for(place, name);
    running
}

fn quiet(mut command: Command) -> Command {
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Waits until there is a publisher that has published something.
fn wait_for(place: &Place, name: &str) {
    eventually("a publisher with frames", || {
        let output = place.run(&format!("info {name} --json --timeout 30"));
        output.status.success()
            && json(&output)["publisher"]["frames"].as_u64().is_some_and(|frames| frames > 0)
    });
}

const NV12: u64 = 320 * 240 * 3 / 2;

#[test]
fn what_is_served_is_received() {
    let place = Place::new();
    let mut serving = serve(&place, "cam0");
    let output = place.run("recv cam0 -n 25 --json");
    expect_code(&output, 0);
    assert_eq!(json(&output)["bytes"], 25 * NV12);
    assert_eq!(json(&output)["dropped"], 0);
    let output = place.run("pipe cam0 -n 3");
    expect_code(&output, 0);
    assert_eq!(output.stdout.len() as u64, 3 * NV12);
    let picture = place.path().join("a.png");
    expect_code(&place.run(&format!("snapshot cam0 -o {}", picture.display())), 0);
    let reader =
        png::Decoder::new(std::io::BufReader::new(std::fs::File::open(picture).unwrap())).read_info();
    assert_eq!(reader.unwrap().info().size(), (320, 240));
    let info = place.info("cam0");
    assert_eq!(info["publisher"]["copied"], 0, "{info}");
    serving.signal(Signal::SIGINT);
    assert_eq!(serving.end().code(), Some(130));
    assert!(!place.socket("cam0").exists(), "the socket goes with its publisher");
}

#[test]
fn one_stream_is_served_in_several_forms() {
    let place = Place::new();
    let forms = "--rendition small=160x120@10 --rendition coded=h264:500 --rendition";
    let mut command = place.command(&format!("serve cam0 {forms}"));
    command.args(["turned=videoflip video-direction=90r", "--test", "320x240@50:NV12"]);
    let mut serving = Running::start(quiet(command));
    for (name, caps) in [
        ("cam0", "width=(int)320"),
        ("small", "width=(int)160"),
        ("coded", "video/x-h264"),
        ("turned", "width=(int)240"),
    ] {
        wait_for(&place, name);
        // As many as may be sent ahead: none of these can be lost.
        expect_code(&place.run(&format!("recv {name} -n 8")), 0);
        let info = place.info(name);
        assert!(info["caps"].as_str().is_some_and(|text| text.contains(caps)), "{name}: {info}");
        // What is scaled goes straight into the pages of its publisher.
        assert!(name == "coded" || info["publisher"]["copied"] == 0, "{info}");
    }
    // Three forms are three subscribers of one capture, and read its pages in this very process.
    let info = place.info("cam0");
    assert_eq!(info["subscribers"].as_array().map(Vec::len), Some(3), "{info}");
    assert!(info["subscribers"].as_array().unwrap().iter().all(|one| one["pid"] == serving.0.id()), "{info}");
    serving.signal(Signal::SIGINT);
    assert_eq!(serving.end().code(), Some(130));
    for name in ["cam0", "small", "coded", "turned"] {
        assert!(!place.socket(name).exists(), "the socket of {name} goes with its publisher");
    }
}

#[test]
fn the_end_of_a_stream_is_that_of_all_its_forms() {
    let place = Place::new();
    // It ends when it is told to.
    let source = "fdsrc fd=0 ! rawvideoparse format=nv12 width=320 height=240 framerate=30/1";
    let mut command = place.command("serve cam0 --rendition small=160x120");
    command.args(source.split_whitespace()).stdin(Stdio::piped());
    let mut serving = command.spawn().unwrap();
    let (mut pictures, ends) = (serving.stdin.take().unwrap(), Arc::new(AtomicBool::new(false)));
    let until = ends.clone();
    let camera = std::thread::spawn(move || {
        while !until.load(Ordering::SeqCst) && pictures.write_all(&[99; NV12 as usize]).is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    wait_for(&place, "small");
    let receiving = place.command("recv small --json").spawn().unwrap();
    eventually("a subscriber with frames", || {
        place.info("small")["subscribers"][0]["frames"].as_u64() > Some(0)
    });
    ends.store(true, Ordering::SeqCst);
    camera.join().unwrap();
    let received = finish(receiving);
    expect_code(&received, 0);
    assert!(json(&received)["frames"].as_u64().is_some_and(|frames| frames > 0));
    expect_code(&finish(serving), 0);
}

#[test]
fn renditions_that_cannot_be_are_named() {
    let place = Place::new();
    for (wrong, text) in [
        ("serve a --rendition b --test 64x64", "is no rendition"),
        ("serve a --rendition a=32x32 --test 64x64", "both be called a"),
        ("serve a --rendition b=32x32 --rendition b=h264 --test 64x64", "both be called b"),
        ("serve a --rendition b=nosuchelement --test 64x64", "the rendition b: "),
    ] {
        let output = place.run(wrong);
        expect_code(&output, 2);
        assert!(stderr(&output).contains(text), "{wrong}: {}", stderr(&output));
    }
}

#[test]
fn a_rendition_that_fails_is_told_at_once_and_the_others_go_on() {
    let place = Place::new();
    let mut command = place.command("serve cam0 --rendition small=32x32 --rendition");
    command.args(["bad=identity error-after=3", "--test", "64x64"]);
    let mut serving = Running::start(command);
    let said = std::io::BufReader::new(serving.0.stderr.take().expect("piped"));
    let mut lines = said.lines().map_while(Result::ok);
    let told = lines.find(|line| line.contains("the rendition bad has ended"));
    assert!(told.is_some_and(|line| line.contains("identity")), "what failed is named");
    wait_for(&place, "small");
    serving.signal(Signal::SIGINT);
    assert_eq!(serving.end().code(), Some(1));
}

#[test]
fn every_byte_of_a_pipeline_arrives() {
    let place = Place::new();
    let source = "videotestsrc num-buffers=40 pattern=ball ! video/x-raw,format=I420,width=320,height=242";
    let serving = place.command(&format!("serve cam0 {PATIENT} --wait-for-clients 2 {source}"));
    let mut serving = Running::start(serving);
    eventually("the publisher", || place.socket("cam0").exists());
    let all = place.command("recv cam0 --reconnect -n 40 filesink location=a.raw").spawn().unwrap();
    let counted = place.command("recv cam0 --reconnect -n 40 --json").spawn().unwrap();
    let (all, counted) = (finish(all), finish(counted));
    expect_code(&all, 0);
    expect_code(&counted, 0);
    assert_eq!(serving.end().code(), Some(0));
    let launched = Command::new("gst-launch-1.0")
        .arg("-q")
        .args(source.split_whitespace())
        .args(["!", "filesink", "location=b.raw"])
        .current_dir(place.path())
        .status()
        .unwrap();
    assert!(launched.success());
    let read = |name: &str| std::fs::read(place.path().join(name)).unwrap();
    let (ours, expected) = (read("a.raw"), read("b.raw"));
    assert_eq!(json(&counted)["bytes"], expected.len());
    assert!(ours == expected, "{} bytes, {} expected", ours.len(), expected.len());
}

#[test]
fn a_name_is_served_once() {
    let place = Place::new();
    let mut first = serve(&place, "cam0");
    let output = place.run("serve cam0 --test 320x240");
    expect_code(&output, 4);
    assert!(stderr(&output).contains("in use"), "{}", stderr(&output));
    assert!(stderr(&output).contains(&first.0.id().to_string()), "it names the process: {}", stderr(&output));
    expect_code(&place.run("recv cam0 -n 2"), 0);

    // A dead one's name is free again.
    first.signal(Signal::SIGKILL);
    assert_eq!(first.end().code(), None);
    let list = json(&place.run("list --json"));
    assert_eq!(list[0]["state"], "stale", "{list}");
    let _second = serve(&place, "cam0");
    expect_code(&place.run("recv cam0 -n 2"), 0);
}

#[test]
fn recv_sees_that_its_publisher_was_killed() {
    let place = Place::new();
    let mut serving = serve(&place, "cam0");
    let counting = place.command("recv cam0").spawn().unwrap();
    let piped = place.command("recv cam0 filesink location=a.raw").spawn().unwrap();
    eventually("two subscribers with frames", || {
        let info = place.info("cam0");
        let subscribers = info["subscribers"].as_array().cloned().unwrap_or_default();
        subscribers.iter().filter(|s| s["frames"].as_u64().is_some_and(|frames| frames > 8)).count() == 2
    });
    serving.signal(Signal::SIGKILL);
    serving.end();
    let output = finish(counting);
    expect_code(&output, 3);
    assert!(stderr(&output).contains("gone"), "{}", stderr(&output));
    // A pipeline gets the end of the stream, so that what it writes is complete, and yet nobody takes it for one.
    let output = finish(piped);
    expect_code(&output, 3);
    assert!(stderr(&output).contains("gone without an end"), "{}", stderr(&output));
    let written = size(&place.path().join("a.raw"));
    assert!(written > 0 && written.is_multiple_of(NV12), "{written}");
}

#[test]
fn sigterm_ends_serve_and_its_receivers_see_the_end() {
    let place = Place::new();
    let mut serving = serve(&place, "cam0");
    let plain = place.command("recv cam0").spawn().unwrap();
    let piped = place.command("recv cam0 fakesink").spawn().unwrap();
    eventually("two subscribers", || {
        place.info("cam0")["subscribers"].as_array().is_some_and(|all| all.len() == 2)
    });
    serving.signal(Signal::SIGTERM);
    assert_eq!(serving.end().code(), Some(143));
    expect_code(&finish(plain), 0);
    expect_code(&finish(piped), 0);
}

fn make_clip(path: &Path) {
    let pipeline =
        "videotestsrc num-buffers=10 ! video/x-raw,width=64,height=48,framerate=50/1 ! jpegenc ! matroskamux";
    let made = Command::new("gst-launch-1.0")
        .arg("-q")
        .args(pipeline.split_whitespace())
        .args(["!", "filesink", &format!("location={}", path.display())])
        .status();
    assert!(made.unwrap().success());
}

#[test]
fn a_file_is_served_once_or_for_ever() {
    let place = Place::new();
    make_clip(&place.path().join("a clip.mkv"));
    let file = ["--file", "a clip.mkv"];
    let serve = |name: &'static str| ["serve", name].into_iter().chain(PATIENT.split(' ')).chain(file);
    let mut once = Running::start(place.command_of(serve("once").chain(["--wait-for-clients", "1"])));
    let output = place.run("recv once --reconnect -n 10 --json");
    expect_code(&output, 0);
    assert_eq!(json(&output)["frames"], 10);
    assert_eq!(once.end().code(), Some(0));

    let mut looped = Running::start(place.command_of(serve("loop").chain(["--loop"])));
    let output = place.run("recv loop --reconnect -n 35 --json");
    expect_code(&output, 0);
    assert_eq!((&json(&output)["frames"], &json(&output)["out_of_order"]), (&35.into(), &0.into()));
    looped.signal(Signal::SIGINT);
    assert_eq!(looped.end().code(), Some(130));
}

#[test]
fn options_reach_the_sink() {
    let place = Place::new();
    let other = place.path().join("other.sock");
    let args = format!(
        "serve cam0 --listen unix:{} --policy drop-newest --credits 3 --backing memfd --pool-limit 64M \
         --hold-timeout 9 --max-clients 1 --perms 660 --test 64x48@50:GRAY8 --pattern black",
        other.display()
    );
    let _serving = Running::start(quiet(place.command(&args)));
    wait_for(&place, "cam0");
    expect_code(&place.run(&format!("recv {} -n 2", other.display())), 0);
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(&other).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o660);
    eventually("there is room again", || {
        place.info("cam0")["subscribers"].as_array().is_some_and(Vec::is_empty)
    });
    let _receiving = Running::start(quiet(place.command("recv cam0")));
    let mut info = serde_json::Value::Null;
    eventually("a subscriber", || {
        info = place.info("cam0");
        info["subscribers"].as_array().is_some_and(|all| !all.is_empty())
    });
    assert_eq!(info["publisher"]["pool_limit"], 64 << 20);
    assert_eq!(info["subscribers"][0]["policy"], "drop-newest");
    assert_eq!(info["subscribers"][0]["credits"], 3);
    let output = place.run("recv cam0 -n 1");
    expect_code(&output, 4);
    assert!(stderr(&output).contains("refused"), "{}", stderr(&output));
}

#[test]
fn what_cannot_be_served_says_why() {
    let place = Place::new();
    for (args, code, says) in [
        ("serve", 2, "PIPELINE"),
        ("serve cam0", 2, "PIPELINE"),
        ("serve a/b --test 8x8", 2, "no name"),
        ("serve cam0 --test 8x", 2, "WIDTHxHEIGHT"),
        ("serve cam0 --test 8x8 --file a.mkv", 2, "cannot be used with"),
        ("serve cam0 --loop videotestsrc", 2, "--loop"),
        ("serve cam0 --file nothing.mkv", 2, "nothing.mkv"),
        ("serve cam0 nonsensesrc", 2, "nonsensesrc"),
        ("serve cam0 --pool-limit 1X --test 8x8", 2, "no size"),
        ("serve cam0 --perms 999 --test 8x8", 2, "permissions"),
        ("serve cam0 --backing silk --test 8x8", 2, "hugetlb"),
        ("serve cam0 --test 8x8:XYZ", 2, "XYZ"),
        ("serve cam0 filesrc location=/nonexistent/file", 1, "/nonexistent/file"),
    ] {
        let output = place.run(args);
        expect_code(&output, code);
        assert!(stderr(&output).contains(says), "{args}: {}", stderr(&output));
    }
    assert_eq!(stdout(&place.run("list --json")).trim(), "[]");
    assert_eq!(size(&place.socket("cam0")), 0);
}
