//! What the command's tests share: a private runtime folder, the command in it, and publishers.
#![allow(dead_code, reason = "every test file uses its part")]

pub(crate) mod nobody;

use std::fs::DirBuilder;
use std::io::Read;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pagecast::{Description, Frame, Policy, Pool, PoolOptions, Publisher, PublisherOptions};

/// No command of these tests may take longer.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// A runtime folder of its own.
pub(crate) struct Place(tempfile::TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("pagecast-cli").tempdir().unwrap();
        DirBuilder::new().mode(0o700).create(folder.path().join("pagecast")).unwrap();
        Self(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// The socket that belongs to a name.
    pub(crate) fn socket(&self, name: &str) -> PathBuf {
        self.path().join("pagecast").join(format!("{name}.sock"))
    }

    /// `pagecast ARGS`; each word of `args` is one argument.
    pub(crate) fn command(&self, args: &str) -> Command {
        self.command_of(args.split_whitespace())
    }

    pub(crate) fn command_of<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pagecast"));
        command.args(args).env("XDG_RUNTIME_DIR", self.path()).current_dir(self.path());
        command.env("XDG_CONFIG_HOME", self.path().join("config"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs `pagecast ARGS` to its end.
    pub(crate) fn run(&self, args: &str) -> Output {
        finish(self.command(args).spawn().unwrap())
    }

    /// Whether somebody answers at a name or a URI: a socket may be there before anybody listens.
    pub(crate) fn serves(&self, uri: &str) -> bool {
        self.ask(uri).status.success()
    }

    /// The figures of a publisher, however long they take.
    pub(crate) fn info(&self, uri: &str) -> serde_json::Value {
        json(&self.ask(uri))
    }

    fn ask(&self, uri: &str) -> Output {
        self.run(&format!("info {uri} --json --timeout 30"))
    }

    /// A publisher in this process that publishes `fps` frames per second of `size` bytes.
    pub(crate) fn publish(&self, name: &str, caps: &str, size: usize, fps: u32) -> Publishing {
        self.publish_with(name, caps, fps, move |lease, number| {
            let byte = number as u8;
            lease.as_mut_slice()[..size].fill(byte);
            (size, Description { offset: Some(number), ..Description::default() })
        })
    }

    /// As [`Place::publish`], with frames that somebody fills.
    pub(crate) fn publish_with(
        &self,
        name: &str,
        caps: &str,
        fps: u32,
        fill: impl Fn(&mut pagecast::Lease, u64) -> (usize, Description) + Send + 'static,
    ) -> Publishing {
        let uri = format!("unix:{}", self.socket(name).display());
        let options = PublisherOptions {
            policy: Policy::DropOldest,
            // Who asks for `block` loses nothing, however slow the machine is.
            block_deadline: Some(LIMIT),
            name: name.to_owned(),
            ..Default::default()
        };
        let publisher = Arc::new(Publisher::open(&uri, options).unwrap());
        let pool = Pool::new(PoolOptions { limit: 256 << 20, ..PoolOptions::default() });
        publisher.set_pool(&pool);
        publisher.set_caps(caps).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (theirs, until) = (publisher.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let mut number = 0;
            while !until.load(Ordering::SeqCst) {
                let mut lease = pool.acquire(4 << 20).unwrap();
                let (size, description) = fill(&mut lease, number);
                let frame = Frame::builder().describe(description).lease(lease, size).build().unwrap();
                theirs.publish(&frame).unwrap();
                number += 1;
                std::thread::sleep(Duration::from_secs(1) / fps);
            }
        });
        Publishing { publisher, stop, thread: Some(thread) }
    }
}

/// A publisher at work, until dropped.
pub(crate) struct Publishing {
    pub(crate) publisher: Arc<Publisher>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Publishing {
    /// Publishes no more frames.
    pub(crate) fn pause(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Publishing {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// A child that does not outlive its test.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        Self(command.spawn().unwrap())
    }

    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.0.id() as i32), signal).unwrap();
    }

    /// Waits for its end.
    pub(crate) fn end(&mut self) -> ExitStatus {
        wait(&mut self.0)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("it did not end within {LIMIT:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Lets a child with piped output run to its end.
pub(crate) fn finish(mut child: Child) -> Output {
    fn read(from: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = from.map(|mut from| from.read_to_end(&mut bytes));
            bytes
        })
    }
    let (stdout, stderr) = (read(child.stdout.take()), read(child.stderr.take()));
    let status = wait(&mut child);
    Output { status, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}

/// Says what is not tested here, on a line of its own, past libtest's capture.
pub(crate) fn skip(why: &str) {
    use std::io::Write;
    assert!(std::env::var_os("PAGECAST_TESTBED").is_none(), "the testbed must not skip: {why}");
    let line = format!("\nSKIP: {}: {why}\n", std::thread::current().name().unwrap_or("?"));
    let _ = std::io::stdout().write_all(line.as_bytes());
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Asserts the exit code, showing what was said where it is another.
#[track_caller]
pub(crate) fn expect_code(output: &Output, code: i32) {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), stderr(output));
    let out: String = out.chars().take(2000).collect();
    assert_eq!(output.status.code(), Some(code), "stdout: {out}\nstderr: {err}");
}

pub(crate) fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {}\n{}", String::from_utf8_lossy(&output.stdout), stderr(output))
    })
}

#[track_caller]
pub(crate) fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !is_true() {
        assert!(Instant::now() < deadline, "did not come true: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Bytes of a regular file or of nothing.
pub(crate) fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}
