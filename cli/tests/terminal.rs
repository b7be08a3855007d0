//! What is seen on a terminal, a real pseudo terminal with the command in its foreground, and what in a pipe.

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use common::{Place, Running, eventually, expect_code, stderr, stdout};
use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::signal::Signal;

const CAPS: &str = "video/x-raw, format=(string)GRAY8, width=(int)64, height=(int)48";
const SIZE: usize = 64 * 48;

const OTHER_SCREEN: &str = "\x1b[?1049h";
const FIRST_SCREEN: &str = "\x1b[?1049l";
const HIDE_CURSOR: &str = "\x1b[?25l";
const SHOW_CURSOR: &str = "\x1b[?25h";
const HOME: &str = "\x1b[H";

/// A terminal with a command in it.
struct Terminal {
    keyboard: File,
    screen: Arc<Mutex<Vec<u8>>>,
    running: Running,
}

impl Terminal {
    /// `pagecast ARGS` on a terminal of so many columns.
    fn open(place: &Place, columns: u16, args: &str) -> Self {
        let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let OpenptyResult { master, slave } = openpty(&size, None).unwrap();
        let command = place.command(args);
        // setsid makes the terminal the one whose Ctrl-C the command gets.
        let mut on_terminal = Command::new("setsid");
        on_terminal.arg("--ctty").arg(command.get_program()).args(command.get_args());
        on_terminal.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        on_terminal.current_dir(place.path());
        let stdio = || Stdio::from(slave.try_clone().unwrap());
        on_terminal.stdin(stdio()).stdout(stdio()).stderr(stdio());
        let running = Running::start(on_terminal);
        let screen: Arc<Mutex<Vec<u8>>> = Arc::default();
        let (into, mut from) = (screen.clone(), File::from(master.try_clone().unwrap()));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // An error is how the last one's leaving shows.
            while let Ok(count @ 1..) = from.read(&mut bytes) {
                into.lock().unwrap().extend(&bytes[..count]);
            }
        });
        Self { keyboard: File::from(master), screen, running }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap()).into_owned()
    }

    fn shows(&self, what: &str, times: usize) {
        eventually(&format!("{what:?} {times} times"), || self.text().matches(what).count() >= times);
    }

    fn type_ctrl_c(&mut self) {
        self.keyboard.write_all(b"\x03").unwrap();
    }

    /// The exit code, and everything that was written.
    fn end(&mut self, last: &str) -> (Option<i32>, String) {
        let code = self.running.end().code();
        self.shows(last, 1);
        (code, self.text())
    }
}

#[test]
fn top_redraws_in_place_and_leaves_the_terminal_as_it_was() {
    let place = Place::new();
    let _publishing = place.publish("cam0", CAPS, SIZE, 50);
    for signal in [None, Some(Signal::SIGTERM)] {
        let mut terminal = Terminal::open(&place, 60, "top --interval 0.05");
        terminal.shows(HOME, 3);
        terminal.shows("cam0", 2);
        match signal {
            None => terminal.type_ctrl_c(),
            Some(signal) => terminal.running.signal(signal),
        }
        let (code, text) = terminal.end(FIRST_SCREEN);
        assert_eq!(code, Some(if signal.is_some() { 143 } else { 130 }), "{text}");
        assert!(text.starts_with(&format!("{OTHER_SCREEN}{HIDE_CURSOR}")), "{text:?}");
        assert!(text.contains("Ctrl-C ends"), "{text:?}");
        let last = |what: &str| text.rfind(what).unwrap_or_else(|| panic!("no {what:?}: {text:?}"));
        assert!(last(SHOW_CURSOR) > last(HIDE_CURSOR) && last(FIRST_SCREEN) > last(HOME), "{text:?}");
        let lines = text.split("\r\n").filter(|line| line.starts_with("cam0"));
        for line in lines {
            let line = line.split('\x1b').next().unwrap_or_default();
            assert!(line.chars().count() <= 60, "wider than the terminal: {line:?}");
        }
    }
}

#[test]
fn recv_prints_a_line_each_second_on_a_terminal_only() {
    let place = Place::new();
    let _publishing = place.publish("cam0", CAPS, SIZE, 50);
    let mut terminal = Terminal::open(&place, 100, "recv cam0 --latest");
    terminal.shows("dropped\r\n", 2);
    terminal.type_ctrl_c();
    let (code, text) = terminal.end("latency p50");
    assert_eq!(code, Some(130), "{text}");
    assert!(
        text.lines().filter(|line| line.contains(" frames  ") && line.contains(" fps  ")).count() >= 2,
        "{text}"
    );

    // As long in a pipe: two lines in all.
    let output = place.run("recv cam0 --latest --max-framerate 5 -n 12");
    expect_code(&output, 0);
    let text = stdout(&output);
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.starts_with("12 frames") && !text.contains('\x1b'), "{text}");
}

#[test]
fn pipe_writes_no_raw_video_to_a_terminal() {
    let place = Place::new();
    let publishing = place.publish("cam0", CAPS, SIZE, 50);
    for args in ["pipe cam0", "pipe cam0 --y4m"] {
        let (code, text) = Terminal::open(&place, 100, args).end("terminal");
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains("| ffmpeg") && text.len() < 1000, "{text}");
    }
    assert_eq!(publishing.publisher.info().publisher.admitted, 0, "it did not even ask for frames");
    let output = place.run("pipe cam0 -n 2 --latest");
    expect_code(&output, 0);
    assert_eq!((output.stdout.len(), stderr(&output).as_str()), (2 * SIZE, ""));
}

#[test]
fn tables_have_a_bold_head_on_a_terminal_and_are_plain_in_a_pipe() {
    let place = Place::new();
    let _publishing = place.publish("cam0", CAPS, SIZE, 50);
    for (args, last, bold) in [("list", "cam0", "\x1b[1mNAME"), ("doctor", "\x1b[0m", "\x1b[3")] {
        let (_, text) = Terminal::open(&place, 100, args).end(last);
        assert!(text.contains(bold) && text.contains("\x1b[0m"), "{text:?}");
    }
    for args in ["list", "info cam0", "top -n 2 --interval 0.05", "doctor"] {
        let output = place.run(args);
        let (text, notes) = (stdout(&output), stderr(&output));
        assert!(!text.is_empty() && !text.contains('\x1b') && !notes.contains('\x1b'), "{text:?} {notes:?}");
    }
}
