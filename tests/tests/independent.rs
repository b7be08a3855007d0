//! A publisher in its own process, and subscribers written from docs/protocol.md alone.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use pagecast_independent::{Failure, Frame, Hello, Link, Message};
use pagecast_tests::{PAGE, Place, eventually, stamp};

const PATIENCE: Duration = Duration::from_secs(30);
/// Long enough to see that nothing more comes.
const QUIET: Duration = Duration::from_millis(100);
/// A picture's worth of pages, the last one not whole.
const SIZE: usize = 100_000;

/// A publisher's process, gone with this.
struct Publisher {
    process: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    path: PathBuf,
    _place: Place,
}

impl Publisher {
    fn open(settings: &str) -> Self {
        let place = Place::new();
        let path = place.path().join("socket");
        let mut process = Command::new(env!("CARGO_BIN_EXE_pagecast-test-publisher"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let orders = process.stdin.take().expect("its input");
        let answers = BufReader::new(process.stdout.take().expect("its output"));
        let mut publisher = Self { process, orders, answers, path, _place: place };
        let pid = publisher.order(&format!("open {} {settings}", publisher.uri()));
        assert_eq!(pid, u64::from(publisher.process.id()));
        publisher
    }

    fn uri(&self) -> String {
        format!("unix:{}", self.path.display())
    }

    fn begin(&mut self, order: &str) {
        writeln!(self.orders, "{order}").expect("told");
    }

    fn end(&mut self) -> u64 {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("an answer");
        let number = line.trim().strip_prefix("ok ").unwrap_or_else(|| panic!("publisher: {line:?}"));
        number.parse().expect("a number")
    }

    fn order(&mut self, order: &str) -> u64 {
        self.begin(order);
        self.end()
    }

    fn join(&self, hello: &Hello) -> Link {
        Link::connect(&self.path, hello).expect("welcome")
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn credits(credits: u32) -> Hello {
    Hello { credits, ..Hello::default() }
}

/// Checks every page of a frame, and that the link was whole after the last byte; its number.
fn check(link: &Link, frame: &Frame) -> u64 {
    let number = check_pages(frame);
    assert!(!link.is_cut());
    number
}

fn check_pages(frame: &Frame) -> u64 {
    let number = frame.record.offset.expect("its number");
    let bytes = frame.bytes();
    for (page, bytes) in bytes.chunks(PAGE).enumerate() {
        let expected = stamp(number, page as u64).to_le_bytes();
        let len = bytes.len().min(8);
        assert_eq!(bytes[..len], expected[..len], "frame {number}, page {page}");
    }
    assert!(!bytes.is_empty());
    number
}

fn refusal(result: Result<Message, Failure>) -> (u16, String) {
    match result {
        Err(Failure::Refused(code, text)) => (code, text),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn three_hundred_frames_arrive_whole_in_pages_that_are_used_again() {
    let mut publisher = Publisher::open("policy=block");
    let mut link = publisher.join(&Hello::default());
    assert_eq!(link.welcome.version, 1);
    assert_eq!(link.welcome.pid, publisher.process.id());
    assert_eq!((link.welcome.policy, link.welcome.name.as_str()), (2, "tested"));
    publisher.begin(&format!("frames 0 300 {SIZE}"));
    let (mut last, mut inodes) = (None, std::collections::BTreeSet::new());
    for expected in 0..300 {
        let frame = link.frame(PATIENCE).expect("a frame");
        assert_eq!(check(&link, &frame), expected);
        assert_eq!(frame.bytes().len(), SIZE);
        assert!(last < Some(frame.record.id), "numbers rise");
        assert!(frame.record.times[5].is_some(), "when it was published");
        last = Some(frame.record.id);
        inodes.extend(frame.segments.iter().map(|(pages, ..)| pages.inode));
        link.give_back(&[frame.record.id]).expect("given back");
    }
    assert_eq!(publisher.end(), 300);
    // What it may hold, what may wait for it, the one in the producer's hands, and what it has just returned: the
    // publisher's own thread may be stopped between taking that in and letting go of it.
    let most = (2 * link.welcome.credits + link.welcome.mailbox) as usize + 1;
    assert!(inodes.len() <= most && inodes.len() == link.buffers(), "{} buffers of {most}", inodes.len());
}

#[test]
fn a_changed_stamp_is_found() {
    let mut publisher = Publisher::open("");
    let mut link = publisher.join(&Hello::default());
    publisher.order(&format!("frames 5 1 {SIZE}"));
    let mut frame = link.frame(PATIENCE).expect("a frame");
    frame.record.offset = Some(6);
    let wrong = std::panic::catch_unwind(|| check_pages(&frame));
    assert!(wrong.is_err(), "the check can fail");
}

#[test]
fn credits_bound_what_is_held_and_a_slow_reader_loses_only_its_own() {
    let mut publisher = Publisher::open("policy=drop-oldest mailbox=4");
    let mut slow = publisher.join(&credits(3));
    assert_eq!((slow.welcome.policy, slow.welcome.credits, slow.welcome.mailbox), (3, 3, 4));
    let mut quick = publisher.join(&Hello::default());
    for number in 0..100 {
        publisher.order(&format!("frames {number} 1 {SIZE}"));
        let frame = quick.frame(PATIENCE).expect("a frame");
        assert_eq!(check(&quick, &frame), number);
        quick.give_back(&[frame.record.id]).expect("given back");
    }
    let held: Vec<Frame> = (0..3).map(|_| slow.frame(PATIENCE).expect("a frame")).collect();
    assert!(matches!(slow.next(QUIET), Err(Failure::Timeout)), "three credits, three frames");
    let numbers: Vec<u64> = held.iter().map(|frame| check(&slow, frame)).collect();
    assert_eq!(numbers, [0, 1, 2], "what is held is not written over");
    let ids: Vec<u64> = held.iter().map(|frame| frame.record.id).collect();
    slow.give_back(&ids).expect("given back");
    let later = (0..3).map(|_| slow.frame(PATIENCE).expect("a frame")).collect::<Vec<_>>();
    let later: Vec<u64> = later.iter().map(|frame| check(&slow, frame)).collect();
    assert_eq!(later, [96, 97, 98], "the mailbox kept the newest four");
    assert_eq!(publisher.order("dropped"), 93);
}

#[test]
fn a_late_joiner_gets_what_holds_before_its_first_frame() {
    let mut publisher = Publisher::open("");
    publisher.order("sticky caps application/x-old");
    publisher.order("sticky caps application/x-test");
    publisher.order("sticky segment time");
    publisher.order(&format!("frames 0 10 {SIZE}"));
    let mut link = publisher.join(&Hello::default());
    publisher.order(&format!("frames 10 1 {SIZE}"));
    publisher.order("event mark here");
    publisher.order("sticky caps application/x-new");
    publisher.order(&format!("frames 11 1 {SIZE}"));
    let mut seen = Vec::new();
    while seen.len() < 6 {
        seen.push(match link.next(PATIENCE).expect("a message") {
            Message::Sticky(name, value) | Message::Event(name, value) => {
                format!("{name}={}", String::from_utf8(value).expect("text"))
            }
            Message::Frame(frame) => check(&link, &frame).to_string(),
            _ => continue,
        });
    }
    seen[..2].sort();
    assert_eq!(
        seen,
        ["caps=application/x-test", "segment=time", "10", "mark=here", "caps=application/x-new", "11"]
    );
}

#[test]
fn a_retired_buffer_stays_readable_while_a_frame_needs_it() {
    let mut publisher = Publisher::open("");
    let mut link = publisher.join(&Hello::default());
    publisher.order(&format!("frames 0 1 {SIZE}"));
    let kept = link.frame(PATIENCE).expect("a frame");
    publisher.order(&format!("frames 1 1 {SIZE}"));
    let returned = link.frame(PATIENCE).expect("a frame");
    assert_eq!(link.buffers(), 2);
    link.give_back(&[returned.record.id]).expect("given back");
    drop(returned);
    eventually("the returned buffer is gone", || publisher.order("trim") == 1);
    // The next new buffer comes with the news of what is gone.
    publisher.order(&format!("frames 2 1 {}", 3 * SIZE));
    let mut retired = 0;
    let larger = loop {
        match link.next(PATIENCE).expect("a message") {
            Message::Retired(_) => retired += 1,
            Message::Frame(frame) => break frame,
            _ => {}
        }
    };
    assert_eq!(check(&link, &larger), 2);
    assert_eq!(check(&link, &kept), 0);
    link.give_back(&[kept.record.id, larger.record.id]).expect("given back");
    eventually("all buffers are gone", || publisher.order("trim") == 0);
    publisher.order(&format!("frames 3 1 {SIZE}"));
    let newest = loop {
        match link.next(PATIENCE).expect("a message") {
            Message::Retired(_) => retired += 1,
            Message::Frame(frame) => break frame,
            _ => {}
        }
    };
    assert_eq!((retired, link.buffers()), (3, 1));
    assert_eq!(check(&link, &newest), 3);
    assert_eq!(check(&link, &kept), 0, "our mapping outlives the publisher's");
}

#[test]
fn every_refusal_has_its_code() {
    let mut publisher = Publisher::open("max-subscribers=1");
    let code = |publisher: &Publisher, hello: &Hello| match Link::connect(&publisher.path, hello) {
        Err(Failure::Refused(code, text)) => {
            assert!(!text.is_empty() && text.len() <= 1024);
            code
        }
        other => panic!("not refused: {other:?}"),
    };
    assert_eq!(code(&publisher, &Hello { versions: (7, 9), ..Hello::default() }), 1);
    assert_eq!(code(&publisher, &Hello { faces: 0, ..Hello::default() }), 4);
    let mut link = publisher.join(&Hello::default());
    assert_eq!(code(&publisher, &Hello::default()), 3);
    let observer = Hello { role: 1, ..Hello::default() };
    let mut observer = publisher.join(&observer);
    assert_eq!((observer.welcome.policy, observer.welcome.credits), (0, 0));
    let info = String::from_utf8(observer.query(PATIENCE).expect("info")).expect("text");
    assert!(info.contains("\"subscribers\"") && info.contains("independent"), "{info}");
    publisher.order("close");
    assert_eq!(refusal(link.next(PATIENCE)).0, 7);
    assert!(matches!(link.next(PATIENCE), Err(Failure::Closed)));
}

#[test]
fn another_user_has_no_access() {
    if !nix::unistd::geteuid().is_root() {
        let line = "\nSKIP: another_user_has_no_access: only root can be somebody else\n";
        std::io::stdout().write_all(line.as_bytes()).expect("written");
        return;
    }
    let publisher = Publisher::open("perms=666");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(publisher.path.parent().expect("its folder"), open).expect("permissions");
    let path = publisher.path.clone();
    let stranger = std::thread::spawn(move || {
        // SAFETY: the bare system call changes this thread's user alone, and the thread ends after this.
        let changed = unsafe { nix::libc::syscall(nix::libc::SYS_setresuid, 65_534, 65_534, 65_534) };
        assert_eq!(changed, 0);
        Link::connect(&path, &Hello::default())
    });
    match stranger.join().expect("a thread") {
        Err(Failure::Refused(code, text)) => assert_eq!(code, 2, "{text}"),
        other => panic!("not refused: {other:?}"),
    }
    publisher.join(&Hello::default());
}

#[test]
fn the_command_receives_frames_in_a_process_of_its_own() {
    let mut publisher = Publisher::open("policy=block");
    let mut command = Command::new(command());
    let command = command.arg(&publisher.path).arg("50").stdout(Stdio::piped());
    let subscriber = command.spawn().expect("a process");
    publisher.order("wait 1");
    publisher.order(&format!("frames 0 50 {SIZE}"));
    let output = subscriber.wait_with_output().expect("its end");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("frames 50, bytes 5000000"), "{text}");
}

/// The program of the other package; made if only this package's tests are.
fn command() -> PathBuf {
    let tests = std::env::current_exe().expect("a path");
    let folder = tests.ancestors().nth(2).expect("the folder of programs");
    let path = folder.join("pagecast-independent");
    if !path.exists() {
        let build = ["build", "--quiet", "--package", "pagecast-independent"];
        assert!(Command::new(env!("CARGO")).args(build).status().is_ok_and(|status| status.success()));
    }
    path
}

#[test]
fn returning_twice_ends_only_ones_own_link() {
    let mut publisher = Publisher::open("");
    let (mut bad, mut good) = (publisher.join(&Hello::default()), publisher.join(&Hello::default()));
    publisher.order(&format!("frames 0 1 {SIZE}"));
    let frame = bad.frame(PATIENCE).expect("a frame");
    bad.give_back(&[frame.record.id, frame.record.id]).expect("sent");
    let (code, text) = refusal(bad.next(PATIENCE));
    assert_eq!(code, 5, "{text}");
    assert!(matches!(bad.next(PATIENCE), Err(Failure::Closed)));
    assert!(bad.is_cut());
    for number in 1..100 {
        let frame = good.frame(PATIENCE).expect("a frame");
        assert_eq!(check(&good, &frame), number - 1);
        good.give_back(&[frame.record.id]).expect("given back");
        publisher.order(&format!("frames {number} 1 {SIZE}"));
    }
}

#[test]
fn who_holds_for_too_long_is_evicted_and_told_why() {
    let mut publisher = Publisher::open("policy=drop-oldest hold-timeout-ms=50");
    let mut link = publisher.join(&Hello { keep: 1, ..credits(4) });
    publisher.order(&format!("frames 0 4 {SIZE}"));
    let held: Vec<Frame> = (0..4).map(|_| link.frame(PATIENCE).expect("a frame")).collect();
    let mut next = 4;
    eventually("it is cut off", || {
        publisher.order(&format!("frames {next} 1 {SIZE}"));
        next += 1;
        link.is_cut()
    });
    let (code, text) = refusal(link.next(PATIENCE));
    assert_eq!(code, 6);
    assert!(text.contains("held"), "it says why: {text}");
    assert!(held.iter().all(|frame| !frame.bytes().is_empty()), "pages stay mapped, whatever is in them");
    assert_eq!(publisher.order("subscribers"), 0);
}

#[test]
fn one_who_keeps_no_more_than_its_allowance_is_never_evicted() {
    let mut publisher = Publisher::open("hold-timeout-ms=20");
    let mut link = publisher.join(&Hello { keep: 1, ..credits(4) });
    publisher.order(&format!("frames 0 1 {SIZE}"));
    let kept = link.frame(PATIENCE).expect("a frame");
    for number in 1..60 {
        publisher.order(&format!("frames {number} 1 {SIZE}"));
        let frame = link.frame(PATIENCE).expect("a frame");
        assert_eq!(check(&link, &frame), number);
        link.give_back(&[frame.record.id]).expect("given back");
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(check(&link, &kept), 0);
}
