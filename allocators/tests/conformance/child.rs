//! Parts of cases that need a process of their own: another user, a low limit, a clean count.

use std::fs::Permissions;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::Subject;
use crate::{attack, devices, hostile, limits};

const ROLE: &str = "PAGECAST_CHILD";
const SUBJECT: &str = "PAGECAST_CHILD_SUBJECT";
const PARENT_FD: &str = "PAGECAST_CHILD_PARENT_FD";

/// A hang guard, not a measure: the emulated testbed is slow.
const PATIENCE: Duration = Duration::from_secs(100);

/// The user that nobody is.
const NOBODY: u32 = 65534;

fn command(role: &str, subject: &Subject, program: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .args(["child::entry", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .env(SUBJECT, subject.name)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs to the end.
fn finish(mut command: Command) -> Output {
    let mut child = command.spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

/// Panics with the child's words unless it passed one test.
fn expect_success(command: Command) {
    let output = finish(command);
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let passed = output.status.success() && stdout.contains("1 passed");
    assert!(passed, "child: {}\n{stdout}\n{stderr}", output.status);
}

/// Runs a role that must be killed by this signal.
pub(crate) fn expect_signal(role: &str, subject: &Subject, signal: i32) {
    let output = finish(command(role, subject, Path::new("/proc/self/exe")));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(signal), "child: {}\n{stderr}", output.status);
}

/// Runs a role of [`entry`] in a fresh process.
pub(crate) fn run(role: &str, subject: &Subject) {
    expect_success(command(role, subject, Path::new("/proc/self/exe")));
}

/// A child of the same user that got the descriptor, and knows our number of it.
pub(crate) fn attack_as_subscriber(subject: &Subject, fd: OwnedFd, ours: i32) {
    let mut command = command("attack", subject, Path::new("/proc/self/exe"));
    command.env(PARENT_FD, format!("/proc/{}/fd/{ours}", std::process::id())).stdin(fd);
    expect_success(command);
}

/// A child of another user that got the descriptor.
pub(crate) fn attack_as_nobody(subject: &Subject, fd: OwnedFd) {
    // Other users may not reach the build folder, so they get a copy of this program.
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("attacker");
    std::fs::copy("/proc/self/exe", &program).unwrap();
    for path in [folder.path(), &program] {
        std::fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
    let mut command = command("attack-as-nobody", subject, &program);
    command.uid(NOBODY).gid(NOBODY).current_dir("/").stdin(fd);
    expect_success(command);
}

#[test]
#[ignore = "runs as a child of other tests"]
fn entry() {
    let role = std::env::var(ROLE).expect("a role");
    let subject = crate::support::subject(&std::env::var(SUBJECT).expect("a subject"));
    match role.as_str() {
        "attack" => {
            let path = std::env::var(PARENT_FD).expect("a path");
            // The path must lead to the same file, or the attack below would prove nothing.
            let file = std::fs::File::open(&path).expect("the parent's descriptor");
            let (theirs, own) = (nix::sys::stat::fstat(&file), nix::sys::stat::fstat(std::io::stdin()));
            assert_eq!(theirs.unwrap().st_ino, own.unwrap().st_ino);
            assert_eq!(attack::through(std::io::stdin().as_fd()), [""; 0]);
            assert_eq!(attack::through_path("/proc/self/fd/0"), [""; 0]);
            assert_eq!(attack::through_path(&path), [""; 0]);
        }
        "attack-as-nobody" => {
            assert_eq!(nix::unistd::geteuid().as_raw(), NOBODY);
            assert_eq!(attack::through(std::io::stdin().as_fd()), [""; 0]);
            let open = std::fs::OpenOptions::new().write(true).open("/proc/self/fd/0");
            assert!(open.is_err(), "another user opened the pages for writing");
        }
        "leaks" => limits::count_leaks(&subject),
        "descriptors" => limits::exhaust_descriptors(&subject),
        "address-space" => limits::exhaust_address_space(&subject),
        "file-size" => limits::limit_file_size(&subject),
        "device-leaks" => devices::count_leaks(&subject),
        "device-descriptors" => devices::exhaust_descriptors(&subject),
        "hole" => hostile::read_a_hole(),
        role => panic!("no role {role}"),
    }
}
