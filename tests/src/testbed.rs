//! The testbed's two RDMA devices: looks at them from outside, and what can happen to them.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pagecast::verbs::Verbs;

use crate::skip;

/// The address of `rxe0`, on interface `vm0`.
pub const OWN: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The address of `rxe1`, on interface `vm1`.
pub const OTHER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

/// The two devices, for one test at a time.
#[derive(Debug)]
pub struct Testbed {
    /// The library that opens them.
    pub verbs: Verbs,
    _alone: MutexGuard<'static, ()>,
}

/// The devices; where they are not, the test is skipped.
pub fn testbed() -> Option<Testbed> {
    static ONE: Mutex<()> = Mutex::new(());
    let alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let found = Verbs::open().map_err(|error| error.to_string()).and_then(|verbs| {
        let has = |own| verbs.device_for(IpAddr::V4(own)).map(drop).map_err(|error| error.to_string());
        has(OWN).and_then(|()| has(OTHER)).map(|()| verbs)
    });
    found.map_err(|why| skip(&why)).ok().map(|verbs| Testbed { verbs, _alone: alone })
}

/// What a command says.
///
/// # Panics
/// If it fails.
pub fn run(command: &str) -> String {
    let output = words(command).output().expect(command);
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// A command without quotes, in words.
pub fn words(command: &str) -> Command {
    let mut words = command.split(' ');
    let mut built = Command::new(words.next().unwrap_or_default());
    built.args(words);
    built
}

/// Objects of both devices that the kernel knows of, without its own.
pub fn objects() -> usize {
    let count = |kind| {
        let all = run(&format!("rdma resource show {kind}"));
        all.lines().filter(|line| line.contains(" pid ")).count()
    };
    count("mr") + count("qp") + count("cq")
}

/// Bytes that have come to an interface.
///
/// # Panics
/// If there is no such interface.
pub fn arrived(interface: &str) -> u64 {
    let path = format!("/sys/class/net/{interface}/statistics/rx_bytes");
    std::fs::read_to_string(path).expect("an interface").trim().parse().expect("a number")
}

/// Something that is done to the network, and undone when this is dropped, which must succeed.
#[derive(Debug)]
pub struct Trouble(&'static [&'static str]);

impl Trouble {
    /// Runs these commands.
    ///
    /// # Panics
    /// If one fails.
    pub fn begin(commands: &[&str], undo: &'static [&'static str]) -> Self {
        let trouble = Self(undo);
        commands.iter().for_each(|command| drop(run(command)));
        trouble
    }
}

impl Drop for Trouble {
    fn drop(&mut self) {
        for command in self.0 {
            // A test that fails already may have left nothing to undo.
            match std::thread::panicking() {
                true => drop(words(command).status()),
                false => drop(run(command)),
            }
        }
    }
}
