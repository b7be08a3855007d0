//! The parent's side: starts workers, hears them, and ends every one of them.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;
use serde_json::Value;

use super::{Role, memory};
use crate::exit::{Exit, Failure};
use crate::signals;

/// How often a wait looks whether a signal asks us to end.
const LOOK: Duration = Duration::from_millis(50);
/// What is kept of a worker's stderr.
const STDERR_KEPT: usize = 4096;

/// What a worker reported.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    /// Which worker.
    pub(crate) worker: usize,
    /// What happened; `ended` when its process is about to end.
    pub(crate) event: String,
    /// More of it.
    pub(crate) data: Value,
}

#[derive(Deserialize)]
struct Line {
    event: String,
    #[serde(default)]
    data: Value,
}

struct Worker {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    stderr: Arc<Mutex<String>>,
    ended: bool,
}

/// Workers that end with this value.
pub(crate) struct Fleet {
    workers: Vec<Worker>,
    sender: Sender<Report>,
    reports: Receiver<Report>,
}

impl Fleet {
    pub(crate) fn new() -> Self {
        let (sender, reports) = channel();
        Self { workers: Vec::new(), sender, reports }
    }

    /// Starts a worker, in a process group of its own: Ctrl-C is for us, and we end the workers. Must be
    /// called from a thread that lives as long as the worker shall: the kernel watches the thread.
    pub(crate) fn start(&mut self, name: &str, role: &Role) -> Result<usize, Failure> {
        let fail = |error: std::io::Error| Failure::failed(format_args!("cannot start {name}: {error}"));
        let role = serde_json::to_string(role).map_err(Failure::failed)?;
        let program = std::env::current_exe().map_err(fail)?;
        let mut command = Command::new(program);
        command.arg("worker").arg("--parent").arg(std::process::id().to_string()).arg(role);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().map_err(fail)?;
        let number = self.workers.len();
        let stderr = Arc::new(Mutex::new(String::new()));
        if let Some(pipe) = child.stderr.take() {
            let kept = stderr.clone();
            std::thread::spawn(move || keep(pipe, &kept));
        }
        if let Some(pipe) = child.stdout.take() {
            let sender = self.sender.clone();
            std::thread::spawn(move || hear(number, pipe, &sender));
        }
        let stdin = child.stdin.take();
        self.workers.push(Worker { name: name.to_owned(), child, stdin, stderr, ended: false });
        Ok(number)
    }

    /// Says a word to a worker; one that has ended does not hear it.
    pub(crate) fn tell(&mut self, worker: usize, word: &str) {
        if let Some(stdin) = &mut self.workers[worker].stdin {
            let _ = writeln!(stdin, "{word}").and_then(|()| stdin.flush());
        }
    }

    /// The next report; `None` when there is none in time.
    pub(crate) fn next(&mut self, until: Instant) -> Result<Option<Report>, Failure> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.reports.recv_timeout(left.min(LOOK)) {
                Ok(report) => {
                    if report.event == "ended" {
                        self.workers[report.worker].ended = true;
                    }
                    return Ok(Some(report));
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    if signals::caught().is_some() {
                        return Err(Failure::silent(Exit::Ok));
                    }
                    if left.is_zero() {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Waits for one event from each of these workers; what else they say is dropped.
    pub(crate) fn collect(
        &mut self,
        workers: &[usize],
        event: &str,
        timeout: Duration,
    ) -> Result<Vec<Value>, String> {
        self.collect_each(workers, |_| event, timeout)
    }

    /// As [`Fleet::collect`], where each may have another event to say.
    pub(crate) fn collect_each<'a>(
        &mut self,
        workers: &[usize],
        event: impl Fn(usize) -> &'a str,
        timeout: Duration,
    ) -> Result<Vec<Value>, String> {
        let until = Instant::now() + timeout;
        let mut values: Vec<Option<Value>> = vec![None; workers.len()];
        while values.iter().any(Option::is_none) {
            let report = self.next(until).map_err(|failure| failure.to_string())?;
            let Some(report) = report else {
                let missing = values.iter().position(Option::is_none).unwrap_or(0);
                let (name, event) = (self.name(workers[missing]), event(workers[missing]));
                return Err(format!("{name} was not {event} within {} s", timeout.as_secs()));
            };
            let Some(at) = workers.iter().position(|worker| *worker == report.worker) else { continue };
            match report.event.as_str() {
                said if said == event(report.worker) => values[at] = Some(report.data),
                "failed" => return Err(self.complaint(report.worker, &report.data)),
                "ended" if values[at].is_none() => {
                    return Err(self.complaint(report.worker, &Value::Null));
                }
                _ => {}
            }
        }
        Ok(values.into_iter().flatten().collect())
    }

    /// Why a worker failed, in words.
    pub(crate) fn complaint(&self, worker: usize, data: &Value) -> String {
        let worker = &self.workers[worker];
        let stderr = worker.stderr.lock().unwrap_or_else(PoisonError::into_inner);
        let text = data.as_str().unwrap_or("ended unexpectedly");
        let rest = stderr.trim().lines().last().map(|line| format!(" ({line})")).unwrap_or_default();
        format!("{}: {text}{rest}", worker.name)
    }

    /// Its name.
    pub(crate) fn name(&self, worker: usize) -> &str {
        &self.workers[worker].name
    }

    /// Its process.
    pub(crate) fn pid(&self, worker: usize) -> Pid {
        Pid::from_raw(self.workers[worker].child.id() as i32)
    }

    /// Sends a signal to a worker that has not been waited for: its number cannot be another's yet.
    pub(crate) fn signal(&mut self, worker: usize, signal: Signal) -> bool {
        let gone = matches!(self.workers[worker].child.try_wait(), Ok(Some(_)) | Err(_));
        !gone && kill(self.pid(worker), signal).is_ok()
    }

    /// Waits until a worker's process has ended.
    pub(crate) fn wait_gone(&mut self, worker: usize, timeout: Duration) -> bool {
        let until = Instant::now() + timeout;
        while matches!(self.workers[worker].child.try_wait(), Ok(None)) {
            if Instant::now() > until {
                return false;
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        true
    }

    /// Asks workers to end, and kills those that do not in time.
    pub(crate) fn end(&mut self, workers: &[usize], patience: Duration) {
        let until = Instant::now() + patience;
        for worker in workers {
            self.tell(*worker, "stop");
            self.workers[*worker].stdin = None;
        }
        for worker in workers {
            let child = &mut self.workers[*worker].child;
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(2));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Ends all.
    pub(crate) fn end_all(&mut self, patience: Duration) {
        let all: Vec<usize> = (0..self.workers.len()).collect();
        self.end(&all, patience);
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            let _ = worker.child.kill();
        }
        for worker in &mut self.workers {
            let _ = worker.child.wait();
            memory::remove_left_by(worker.child.id() as i32);
        }
    }
}

fn hear(worker: usize, pipe: impl Read, sender: &Sender<Report>) {
    for line in BufReader::new(pipe).lines() {
        let Ok(line) = line else { break };
        // What libraries print on stdout is not for us.
        let Ok(Line { event, data }) = serde_json::from_str(&line) else { continue };
        if sender.send(Report { worker, event, data }).is_err() {
            return;
        }
    }
    let _ = sender.send(Report { worker, event: "ended".to_owned(), data: Value::Null });
}

fn keep(mut pipe: impl Read, kept: &Mutex<String>) {
    let mut bytes = [0; 1024];
    while let Ok(length @ 1..) = pipe.read(&mut bytes) {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_str(&String::from_utf8_lossy(&bytes[..length]));
        let excess = kept.len().saturating_sub(STDERR_KEPT);
        let cut = (excess..=kept.len()).find(|at| kept.is_char_boundary(*at)).unwrap_or(0);
        kept.drain(..cut);
    }
}
