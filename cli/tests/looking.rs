//! `list`, `info` and `top`, and what is said when something is not there.

mod common;

use std::os::unix::net::UnixListener;

use common::{Place, Running, eventually, expect_code, finish, json, stderr, stdout};
use nix::sys::signal::Signal;
use pagecast::ipc::socket::{ListenOptions, Listener};
use pagecast::ipc::wire::{PacketBuilder, RefusalCode, ToSubscriber};
use pagecast::{Publisher, PublisherOptions};

const CAPS: &str = "video/x-raw, format=(string)GRAY8, width=(int)64, height=(int)48";

#[test]
fn wrong_arguments_are_exit_code_2() {
    let place = Place::new();
    for args in [
        "",
        "nonsense",
        "recv",
        "recv ftp:cam0",
        "recv a/b",
        "recv .hidden",
        "recv cam0 --policy sometimes",
        "recv cam0 --credits 0",
        "recv cam0 --max-framerate 0",
        "recv cam0 --timeout -1",
        "top --interval 0",
        "list --timeout soon",
        "info",
        "pipe",
    ] {
        let output = place.run(args);
        expect_code(&output, 2);
        assert!(!stderr(&output).is_empty(), "{args} says why");
    }
}

#[test]
fn help_has_examples_and_exit_codes() {
    let place = Place::new();
    let output = place.run("--help");
    expect_code(&output, 0);
    assert!(stdout(&output).contains("Exit codes:"));
    let names = stdout(&output);
    let names = names.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let names: Vec<_> = names.lines().filter(|line| !line.starts_with("   ")).collect();
    assert!(names.len() > 5, "{names:?}");
    for name in names.iter().filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help")
    {
        let output = place.run(&format!("{name} --help"));
        expect_code(&output, 0);
        assert!(stdout(&output).contains("Examples:"), "{name} shows examples");
    }
}

#[test]
fn no_publisher_is_exit_code_3_and_says_what_to_do() {
    let place = Place::new();
    for args in ["recv cam0", "recv unix:cam0 -n 1", "info cam0", "pipe cam0"] {
        let output = place.run(args);
        expect_code(&output, 3);
        assert!(stderr(&output).contains("pagecast list"), "{args}: {}", stderr(&output));
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn list_tells_living_from_stale() {
    let place = Place::new();
    let output = place.run("list --json");
    expect_code(&output, 0);
    assert_eq!(json(&output), serde_json::json!([]));
    let output = place.run("list");
    expect_code(&output, 0);
    assert!(stderr(&output).contains("no publishers"));

    let _publishing = place.publish("cam0", CAPS, 64 * 48, 50);
    // A socket that nobody listens at any more.
    let options = pagecast::ipc::socket::ListenOptions::default();
    let listener = pagecast::ipc::socket::Listener::bind(&place.socket("dead"), &options).unwrap();
    let copy = place.path().join("copy");
    std::fs::rename(place.socket("dead"), &copy).unwrap();
    drop(listener);
    std::fs::rename(&copy, place.socket("dead")).unwrap();
    // Somebody else's socket.
    let _stream = UnixListener::bind(place.socket("stream")).unwrap();

    let output = place.run("list --json --timeout 30");
    expect_code(&output, 0);
    let found = json(&output);
    let state = |name: &str| {
        let found = found.as_array().unwrap().iter().find(|f| f["name"] == name).unwrap();
        found["state"].as_str().unwrap().to_owned()
    };
    assert_eq!(found.as_array().unwrap().len(), 3);
    assert_eq!([state("cam0"), state("dead"), state("stream")], ["alive", "stale", "error"]);
    let alive = &found[0];
    assert_eq!(alive["uri"], "unix:cam0");
    assert_eq!(alive["info"]["caps"], CAPS);
    assert_eq!(alive["info"]["publisher"]["pid"], std::process::id());
    let text = stdout(&place.run("list"));
    let dead = text.lines().find(|line| line.starts_with("dead")).unwrap();
    assert!(dead.contains("stale"), "{text}");
    assert!(!text.contains('\x1b'), "no escape codes in a pipe");
}

#[test]
fn info_has_the_names_of_all_statistics() {
    let place = Place::new();
    let publishing = place.publish("cam0", CAPS, 64 * 48, 50);
    let _receiving = Running::start(place.command("recv cam0 --policy drop-newest --credits 3"));
    eventually("frames", || publishing.publisher.info().subscribers.iter().any(|s| s.frames > 2));
    let output = place.run("info cam0 --json --timeout 30");
    expect_code(&output, 0);
    let info = json(&output);
    for name in [
        "pid",
        "frames",
        "bytes",
        "dropped",
        "copied",
        "fps",
        "held",
        "pool_total",
        "pool_free",
        "pool_limit",
        "backing",
        "faces",
        "access",
        "epoch",
        "evicted",
        "faults",
        "reclaimed",
        "not_carried",
    ] {
        assert!(info["publisher"].get(name).is_some(), "publisher.{name}");
    }
    let subscriber = &info["subscribers"][0];
    for name in ["id", "uid", "name", "dropped", "bytes", "held", "mailbox", "faces"] {
        assert!(subscriber.get(name).is_some(), "subscribers.{name}");
    }
    assert_eq!(subscriber["policy"], "drop-newest");
    assert_eq!(subscriber["credits"], 3);
    assert_eq!(subscriber["transport"], "unix");
    assert_eq!(info["publisher"]["backing"], "memfd");
    assert_eq!(info["publisher"]["access"], "enforced");
    assert_eq!(info["publisher"]["faces"][0], "memory");
    assert!(info["publisher"]["pool_total"].as_u64().is_some_and(|bytes| bytes > 0));
    // An observer is no subscriber.
    assert_eq!(info["subscribers"].as_array().unwrap().len(), 1);
    let text = stdout(&place.run("info cam0"));
    assert!(text.contains("drop-newest") && text.contains(CAPS), "{text}");
}

#[test]
fn top_shows_rates_of_publishers_and_subscribers() {
    let place = Place::new();
    let publishing = place.publish("cam0", CAPS, 64 * 48, 50);
    let receiving = Running::start(place.command("recv cam0"));
    eventually("frames", || publishing.publisher.info().subscribers.iter().any(|s| s.frames > 2));
    let pid = receiving.0.id().to_string();
    // Who does not answer soon enough is left out of one table, so not every one must have all.
    eventually("rates in the second table", || {
        let output = place.run("top -n 2 --interval 0.3");
        expect_code(&output, 0);
        let text = stdout(&output);
        let tables: Vec<_> = text.trim_end().split("\n\n").collect();
        assert_eq!(tables.len(), 2, "{text}");
        let lines: Vec<_> = tables[1].lines().collect();
        assert!(lines[0].starts_with("NAME") && lines[1].starts_with("cam0"), "{text}");
        let Some(line) = lines.get(2).filter(|line| line.contains(&pid)) else { return false };
        line.split_whitespace().nth(3).and_then(|fps| fps.parse().ok()).is_some_and(|fps: f64| fps > 1.0)
    });
    eventually("figures in JSON", || {
        let output = place.run("top -n 3 --interval 0.05 --json");
        expect_code(&output, 0);
        let text = stdout(&output);
        let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines.len(), 3);
        lines.iter().all(|line| line[0]["info"]["subscribers"][0]["frames"].is_u64())
    });
}

#[test]
fn what_a_publisher_says_of_itself_cannot_steer_a_terminal() {
    let place = Place::new();
    let options = PublisherOptions { name: "a\x1b[2Jb".to_owned(), ..PublisherOptions::default() };
    let publisher = Publisher::open(&format!("unix:{}", place.socket("cam0").display()), options).unwrap();
    publisher.set_caps("a\x1b]0;title\x07b").unwrap();
    for args in ["info cam0", "top -n 1"] {
        let text = stdout(&place.run(args));
        assert!(text.contains("a [2Jb") && !text.contains('\x1b'), "{args}: {text:?}");
    }
    // A refusal in such words.
    let listener = Listener::bind(&place.socket("rude"), &ListenOptions::default()).unwrap();
    let rude = place.command("recv rude").spawn().unwrap();
    let mut accepted = None;
    eventually("it comes", || {
        accepted = listener.accept().unwrap();
        accepted.is_some()
    });
    let (mut record, mut packet) = (Vec::new(), PacketBuilder::default());
    ToSubscriber::Refused(RefusalCode::Access, "no\x1b[2J\nnever".to_owned()).encode(&mut record);
    packet.push(&record);
    accepted.unwrap().send(&packet.bytes(0), &[]).unwrap();
    let output = finish(rude);
    expect_code(&output, 4);
    assert!(stderr(&output).contains("no [2J") && !stderr(&output).contains('\x1b'), "{:?}", stderr(&output));
}

#[test]
fn a_stopped_publisher_does_not_stop_those_who_look() {
    let place = Place::new();
    let _publishing = place.publish("cam0", CAPS, 64 * 48, 50);
    // Any process that has a publisher's socket and does not answer.
    let _mute = Listener::bind(&place.socket("mute"), &ListenOptions::default()).unwrap();
    let output = place.run("list --json --timeout 4");
    expect_code(&output, 0);
    let found = json(&output);
    assert_eq!((&found[0]["state"], &found[1]["state"]), (&"alive".into(), &"no answer".into()));
    expect_code(&place.run("info mute --timeout 0.3"), 5);
}

#[test]
fn ctrl_c_ends_top() {
    let place = Place::new();
    let mut running = Running::start(place.command("top --interval 100"));
    let mut stdout = running.0.stdout.take().unwrap();
    std::io::Read::read_exact(&mut stdout, &mut [0; 4]).unwrap();
    running.signal(Signal::SIGINT);
    assert_eq!(running.end().code(), Some(130));
}
