//! `pagecast demo`: it passes here, defects make it fail, and it leaves nothing behind however it ends.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Several at a time would only slow each other down.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

fn demo(place: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pagecast"));
    command.args(["demo", "--quick"]).args(arguments);
    command.arg("--out").arg(place.join("out"));
    command.env("TMPDIR", place).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn report(place: &Path, output: &Output) -> Value {
    let text = fs::read_to_string(place.join("out/report.json")).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn failed(report: &Value) -> Vec<&str> {
    let checks = report["checks"].as_array().expect("checks");
    let failed = checks.iter().filter(|check| check["held"] == false);
    failed.map(|check| check["name"].as_str().expect("a name")).collect()
}

/// What is left in the temporary folder beside the results.
fn left_behind(place: &Path) -> Vec<String> {
    let entries = fs::read_dir(place).expect("the folder").flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name != "out")
        .collect()
}

#[test]
fn two_at_once_pass_and_leave_nothing_but_their_results() {
    let _alone = alone();
    let places = [tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder")];
    let began = Instant::now();
    let start = |at: usize, more: &[&str]| demo(places[at].path(), more).spawn().expect("it starts");
    let children = [start(0, &[]), start(1, &["--no-compare", "--keep"])];
    for (child, place) in children.into_iter().zip(&places) {
        let output = child.wait_with_output().expect("it ends");
        let text = String::from_utf8_lossy(&output.stdout);
        let report = report(place.path(), &output);
        assert_eq!(failed(&report), Vec::<&str>::new(), "{text}");
        assert_eq!(output.status.code(), Some(0), "{text}");
        assert_eq!(report["held"], true);
        assert!(report["checks"].as_array().expect("checks").len() >= 17, "{report:#}");
        assert!(!text.contains('\x1b'), "no colours in a pipe: {text}");
        let picture = fs::File::open(place.path().join("out/snapshot.png")).expect("a picture");
        let reader = png::Decoder::new(BufReader::new(picture)).read_info().expect("a PNG");
        assert_eq!((reader.info().width, reader.info().height), (480, 270));
        assert_eq!(left_behind(place.path()), Vec::<String>::new());
    }
    assert!(
        places[1]
            .path()
            .join("out")
            .read_dir()
            .expect("out")
            .flatten()
            .any(|entry| { entry.file_name().to_string_lossy().starts_with("recording") })
    );
    // 15 s and what it takes to start, twice, on processors that may have much other work.
    assert!(began.elapsed() < Duration::from_secs(300), "{:?}", began.elapsed());
}

#[cfg(debug_assertions)]
#[test]
fn a_broken_publisher_fails_the_check_that_is_for_it() {
    let _alone = alone();
    let defects = [
        ("reuse-early", &["every page right"][..]),
        ("corrupt", &["every page right", "by TCP: every page right"]),
        ("drop-frame", &["verifier lost nothing", "by TCP: nothing lost"]),
    ];
    let start = |(defect, checks): (&'static str, &'static [&'static str])| {
        let place = tempfile::tempdir().expect("a folder");
        let command = demo(place.path(), &["--no-compare", "--break", defect]).spawn();
        (defect, checks, place, command.expect("it starts"))
    };
    for (defect, checks, place, child) in defects.map(start) {
        let output = child.wait_with_output().expect("it ends");
        let report = report(place.path(), &output);
        assert_eq!(output.status.code(), Some(1), "{defect}: {report:#}");
        assert_eq!(report["held"], false);
        let text = String::from_utf8_lossy(&output.stdout);
        for check in checks {
            assert!(failed(&report).contains(check), "{defect}: {report:#}");
            let said = |line: &str| line.starts_with(check) && line.contains("FAILED");
            assert!(text.lines().any(said), "{check}: {text}");
        }
    }
}

/// A demonstration in the middle of its scene, and the processes it has started.
fn in_the_middle(place: &Path) -> (Child, Vec<i32>) {
    let mut child = demo(place, &["--no-compare"]).spawn().expect("it starts");
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut lines = lines.map_while(Result::ok);
    let stopped = lines.find(|line| line.contains("SIGSTOP")).expect("one is stopped");
    assert!(stopped.contains("recorder"), "{stopped}");
    let id = child.id();
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).expect("children");
    let children: Vec<i32> = children.split_whitespace().map(|pid| pid.parse().expect("a pid")).collect();
    assert_eq!(children.len(), 7, "a publisher with three subscribers, a relay with two");
    // Nobody reads any more, but the pipe stays open: what ends it is the signal.
    std::thread::spawn(move || lines.for_each(drop));
    (child, children)
}

fn all_gone(children: &[i32]) -> bool {
    let until = Instant::now() + Duration::from_secs(30);
    let lives = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // A zombie without parent is about to be collected by init.
        !stat.is_empty() && !stat.contains(") Z ")
    };
    while children.iter().any(lives) {
        if Instant::now() > until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

#[test]
fn ctrl_c_ends_everybody_and_cleans_up() {
    let _alone = alone();
    let place = tempfile::tempdir().expect("a folder");
    let (mut child, children) = in_the_middle(place.path());
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).expect("a signal");
    let status = child.wait().expect("it ends");
    assert_eq!(status.code(), Some(130));
    assert!(all_gone(&children), "{children:?}");
    assert_eq!(left_behind(place.path()), Vec::<String>::new());
}

#[test]
fn its_workers_do_not_outlive_it_even_if_it_is_killed() {
    let _alone = alone();
    let place = tempfile::tempdir().expect("a folder");
    let (mut child, children) = in_the_middle(place.path());
    child.kill().expect("a signal");
    child.wait().expect("it ends");
    assert!(all_gone(&children), "one of them is stopped: {children:?}");
}
