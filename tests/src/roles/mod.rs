//! What child processes do: `ROLE URI [key=value…]`. They are told what to do by lines on standard input,
//! and answer by lines on standard output; the end of their input ends them.

mod hostile;
mod proxy;
mod publisher;
mod raw;
mod raw_rdma;
mod recorder;
mod stallers;
mod subscriber;
mod times;
mod writer;

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::sync::mpsc::{Receiver, channel};

use nix::sys::prctl::{set_dumpable, set_pdeathsig};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};
use pagecast::RemoteOptions;
use pagecast::remote::{AllowList, Identity};

pub use raw::Raw;

/// The arguments of a role.
#[derive(Debug, Default)]
pub struct Options(HashMap<String, String>);

impl Options {
    /// The value of `key`, if it was given.
    ///
    /// # Panics
    /// If it means nothing.
    pub fn get<T: std::str::FromStr>(&self, key: &str) -> Option<T> {
        let value = self.0.get(key)?;
        Some(value.parse().unwrap_or_else(|_| panic!("{key}={value}")))
    }

    /// `identity` (a folder), `insecure=true`, and `networks` from which others may come, separated by commas.
    fn remote(&self) -> RemoteOptions {
        let networks = self.0.get("networks").map(|list| AllowList::parse(list).expect("networks"));
        RemoteOptions {
            networks: networks.unwrap_or_default(),
            identity: self.0.get("identity").map(|folder| Identity::open(folder).expect("an identity")),
            insecure: self.get("insecure").unwrap_or_default(),
        }
    }
}

/// The entry of the child process.
///
/// # Panics
/// On arguments that mean nothing.
pub fn main() {
    // A test that dies leaves nobody behind, not even who is stopped.
    let _ = set_pdeathsig(Signal::SIGKILL);
    let mut arguments = std::env::args().skip(1);
    let (role, uri) = (arguments.next().expect("a role"), arguments.next().expect("a URI"));
    let pairs = arguments.filter_map(|argument| {
        argument.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()))
    });
    let options = Options(pairs.collect());
    become_ordinary(&options);
    match role.as_str() {
        "publisher" => publisher::run(&uri, &options),
        "subscriber" => subscriber::run(&uri, &options),
        "times" => times::run(&uri, &options),
        "victim" => subscriber::run_victim(&uri, &options),
        "prey" => raw::run_prey(&uri, &options),
        "raw-rdma" => raw_rdma::run(&uri, &options),
        "hog" => raw::run_hog(),
        "hostile" => hostile::run(&uri, &options),
        "proxy" => proxy::run(&uri, &options),
        "recorder" => recorder::run(&uri, &options),
        "stallers" => stallers::run(&uri, &options),
        "writer" => writer::run(&uri, &options),
        other => panic!("no such role: {other}"),
    }
}

/// `nofile`, `memlock`, `uid`: as an ordinary user with few descriptors, and few bytes that may be locked.
fn become_ordinary(options: &Options) {
    if let Some(limit) = options.get("memlock") {
        setrlimit(Resource::RLIMIT_MEMLOCK, limit, limit).expect("a limit of locked memory");
    }
    if let Some(limit) = options.get("nofile") {
        setrlimit(Resource::RLIMIT_NOFILE, limit, limit).expect("a limit of open files");
    }
    if let Some(uid) = options.get::<u32>("uid") {
        setgroups(&[]).and_then(|()| setgid(Gid::from_raw(uid))).expect("another group");
        setuid(Uid::from_raw(uid)).expect("another user");
        // Both are taken away with the user; without the first, /proc/self/fd is not ours.
        set_dumpable(true).expect("dumpable");
        let _ = set_pdeathsig(Signal::SIGKILL);
    }
}

/// Says a line to the test.
pub fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// The lines of standard input; its end ends the process.
fn commands() -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
        std::process::exit(0);
    });
    receiver
}

/// Waits for the end of standard input.
fn stay() -> ! {
    for _ in std::io::stdin().lock().lines() {}
    std::process::exit(0);
}
