//! The processes of a run, and what the kernel says they use.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

/// A role of this program in a process of its own, gone with the value.
pub(crate) struct Process {
    name: String,
    child: Child,
    lines: Receiver<String>,
}

impl Process {
    /// Starts it, on host 2 by way of `$ON_HOST_2`, and waits until it says `ready`.
    pub(crate) fn start(name: &str, on_host_2: bool, arguments: &[String]) -> Result<Self, String> {
        let fail = |error: std::io::Error| format!("{name}: {error}");
        let program = std::env::current_exe().map_err(fail)?;
        let way = std::env::var("ON_HOST_2").unwrap_or_default();
        let mut words = way.split_whitespace().filter(|_| on_host_2);
        let mut command = match words.next() {
            Some(way) => {
                let mut command = Command::new(way);
                command.args(words).arg(&program);
                command
            }
            None => Command::new(&program),
        };
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(fail)?;
        let (sender, lines) = channel();
        if let Some(out) = child.stdout.take() {
            std::thread::spawn(move || {
                let lines = BufReader::new(out).lines().map_while(Result::ok);
                let _ = lines.map(|line| sender.send(line)).take_while(Result::is_ok).count();
            });
        }
        let mut process = Self { name: name.to_owned(), child, lines };
        match process.next(Instant::now() + Duration::from_secs(60))?.as_deref() {
            Some("ready") => Ok(process),
            Some(line) => Err(format!("{name} says {line:?}")),
            None => Err(format!("{name} was not ready within a minute")),
        }
    }

    /// The next line it says; `None` if there is none in time.
    pub(crate) fn next(&mut self, until: Instant) -> Result<Option<String>, String> {
        use std::sync::mpsc::RecvTimeoutError::{Disconnected, Timeout};
        match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(line) => Ok(Some(line)),
            Err(Timeout) => Ok(None),
            Err(Disconnected) => {
                let how =
                    self.child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
                Err(format!("{} ended ({how}); what it said stands above", self.name))
            }
        }
    }

    /// Seconds of CPU that it has used. Of a process behind `ssh` these are ssh's.
    pub(crate) fn cpu(&self) -> f64 {
        let clock = clock_getcpuclockid(Pid::from_raw(self.child.id() as i32));
        let used = clock.and_then(|clock| clock.now());
        used.map_or(0.0, |used| Duration::from(used).as_secs_f64())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
