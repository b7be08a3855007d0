//! Other processes for the tests: this test program once more, in a role.
//!
//! The child talks in lines that begin with `@`, since the test harness writes to the same output, and
//! an alarm ends it whatever happens, so that no test waits for ever.

use std::fs::File;
use std::io::{BufRead, BufReader, Lines, Write};
use std::os::fd::OwnedFd;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Uid, alarm, geteuid, setgroups, setresgid, setresuid};

const ROLE: &str = "PAGECAST_TEST_ROLE";
const ARGUMENT: &str = "PAGECAST_TEST_ARGUMENT";
const SECONDS: u32 = 120;

/// A user and a group that own nothing.
pub(crate) const STRANGER_UID: u32 = 65_533;
pub(crate) const STRANGER_GID: u32 = 65_532;
pub(crate) const STRANGER_GROUPS: [u32; 2] = [65_530, 65_531];

pub(crate) struct Child {
    process: std::process::Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Child {
    pub(crate) fn start(role: &str, argument: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["child::entry", "--exact", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env(ARGUMENT, argument)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = process.stdin.take().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, input, output }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.process.id() as i32
    }

    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
    }

    /// The next line that the child says; panics when it ends without one.
    pub(crate) fn hear(&mut self) -> String {
        let said = self.output.find_map(|line| line.unwrap().strip_prefix('@').map(str::to_owned));
        said.unwrap_or_else(|| panic!("the child ended without a word: {:?}", self.process.wait()))
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// For a child: says a line to its parent.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout();
    writeln!(out, "\n@{line}").unwrap();
    out.flush().unwrap();
}

/// For a child: the next line from its parent, `None` when the parent is gone.
pub(crate) fn listen_to_parent() -> Option<String> {
    let mut line = String::new();
    let read = std::io::stdin().read_line(&mut line).unwrap();
    (read > 0).then(|| line.trim_end().to_owned())
}

/// For a child: gives up root for good.
pub(crate) fn become_stranger() {
    setgroups(&STRANGER_GROUPS.map(Gid::from_raw)).unwrap();
    let (uid, gid) = (Uid::from_raw(STRANGER_UID), Gid::from_raw(STRANGER_GID));
    setresgid(gid, gid, gid).unwrap();
    setresuid(uid, uid, uid).unwrap();
}

/// For a child: leaves no more than `count` descriptors to be opened; the rest is in use by what is
/// returned.
pub(crate) fn leave_fds(count: usize) -> Vec<OwnedFd> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 128, hard).unwrap();
    let mut filler = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        filler.push(OwnedFd::from(file));
    }
    assert!(filler.len() > count);
    filler.truncate(filler.len() - count);
    filler
}

/// Whether this is root, which a test needs to become somebody else.
pub(crate) fn can_become_stranger(test: &str) -> bool {
    let root = geteuid().is_root();
    if !root {
        // past libtest's capture
        let line = format!("\nSKIP: {test}: only root can start a process of another user\n");
        std::io::stdout().write_all(line.as_bytes()).unwrap();
    }
    root
}

#[test]
fn entry() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let argument = std::env::var(ARGUMENT).unwrap();
    alarm::set(SECONDS);
    match role.as_str() {
        "hold" => super::paths::hold(&argument),
        "permissions" => super::paths::permissions(&argument),
        "race" => super::races::race(),
        "stranger" => super::peers::stranger(&argument),
        "in-flight" => super::limits::in_flight(),
        "lost-fds" => super::limits::lost_fds(),
        "accept-without-fds" => super::limits::accept_without_fds(&argument),
        "raise" => super::limits::raise(),
        other => panic!("no role {other:?}"),
    }
}
