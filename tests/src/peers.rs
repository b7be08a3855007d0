//! Child processes with a role, and what they say on their standard output, line by line.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a child may take for anything; a test that passes never waits for it.
pub const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
struct Said {
    lines: VecDeque<String>,
    ended: bool,
}

#[derive(Debug, Default)]
struct Heard {
    said: Mutex<Said>,
    changed: Condvar,
    acknowledged: AtomicU64,
}

impl Heard {
    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listen(&self, from: impl std::io::Read) {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let mut said = self.said();
            match line.strip_prefix("ack ").and_then(|number| number.parse::<u64>().ok()) {
                Some(number) => self.acknowledged.store(number + 1, Ordering::SeqCst),
                None => said.lines.push_back(line),
            }
            drop(said);
            self.changed.notify_all();
        }
        self.said().ended = true;
        self.changed.notify_all();
    }
}

/// A child process that plays a role of [`crate::roles`]; it is killed when this is dropped.
#[derive(Debug)]
pub struct Peer {
    child: Child,
    stdin: Option<ChildStdin>,
    heard: Arc<Heard>,
    listener: Option<JoinHandle<()>>,
}

impl Peer {
    /// Starts `program` with `arguments`.
    pub fn start<A: AsRef<str>>(program: &str, arguments: &[A]) -> Self {
        Self::start_with_env(program, arguments, &[])
    }

    /// As [`Peer::start`], with additions to the environment.
    pub fn start_with_env<A: AsRef<str>>(program: &str, arguments: &[A], env: &[(&str, &str)]) -> Self {
        let mut command = Command::new(program);
        command.args(arguments.iter().map(AsRef::as_ref)).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.envs(env.iter().copied());
        let mut child = command.spawn().expect("a child process");
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().expect("its output"));
        let heard = Arc::new(Heard::default());
        let hears = heard.clone();
        let listener = std::thread::spawn(move || hears.listen(stdout));
        Self { child, stdin, heard, listener: Some(listener) }
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("a signal");
    }

    /// Stops it, and waits until the kernel says that it is stopped.
    pub fn stop(&self) {
        self.signal(Signal::SIGSTOP);
        crate::eventually("the child is stopped", || crate::proc::state(self.pid()) == 'T');
    }

    /// Kills it and waits for its end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Says a line to it.
    pub fn say(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("its input");
        // A child that is gone is noticed by what it does not answer.
        let _ = writeln!(stdin, "{line}").and_then(|()| stdin.flush());
    }

    /// How many frames it has acknowledged: the last one's number and one.
    pub fn acknowledged(&self) -> u64 {
        self.heard.acknowledged.load(Ordering::SeqCst)
    }

    /// Waits for the next line that begins with `prefix`, and returns what follows; earlier lines stay.
    ///
    /// # Errors
    /// If it ends or says nothing of the kind for [`PATIENCE`].
    pub fn try_expect(&self, prefix: &str) -> Result<String, String> {
        let deadline = Instant::now() + PATIENCE;
        let mut said = self.heard.said();
        loop {
            if let Some(at) = said.lines.iter().position(|line| line.starts_with(prefix)) {
                let line = said.lines.remove(at).unwrap_or_default();
                return Ok(line[prefix.len()..].trim_start().to_owned());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if said.ended || left.is_zero() {
                return Err(format!("no {prefix:?}; ended: {}; it said {:?}", said.ended, said.lines));
            }
            said = self.heard.changed.wait_timeout(said, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// As [`Peer::try_expect`].
    ///
    /// # Panics
    /// On its errors.
    pub fn expect(&self, prefix: &str) -> String {
        self.try_expect(prefix).unwrap_or_else(|error| panic!("process {}: {error}", self.pid()))
    }

    /// Whether it has said a line that begins so.
    pub fn has_said(&self, prefix: &str) -> bool {
        self.heard.said().lines.iter().any(|line| line.starts_with(prefix))
    }

    /// Forgets what it has acknowledged, which is counted anew by another publisher.
    pub fn start_over(&self) {
        self.heard.acknowledged.store(0, Ordering::SeqCst);
    }

    /// Waits until it has acknowledged `count` frames.
    ///
    /// # Errors
    /// If it complains, ends, or does not for [`PATIENCE`].
    pub fn try_follow(&self, count: u64) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        let mut said = self.heard.said();
        loop {
            if let Some(complaint) = said.lines.iter().find(|line| is_complaint(line)) {
                return Err(format!("process {}: {complaint}", self.pid()));
            }
            if self.acknowledged() >= count {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if said.ended || left.is_zero() {
                return Err(format!("process {} is at {} of {count}", self.pid(), self.acknowledged()));
            }
            said = self.heard.changed.wait_timeout(said, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// What a healthy subscriber says when something is wrong.
fn is_complaint(line: &str) -> bool {
    ["lost ", "bad ", "disconnected", "failed "].iter().any(|word| line.starts_with(word))
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.kill();
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}
