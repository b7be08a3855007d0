//! Two hosts: network namespaces with a cable between them.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::peers::Peer;

/// The address of the first host.
pub const FIRST: &str = "10.79.0.1";
/// The address of the second.
pub const SECOND: &str = "10.79.0.2";

/// Namespaces of this test's own, gone with it.
#[derive(Debug)]
pub struct Hosts {
    names: [String; 2],
}

impl Hosts {
    /// Two new hosts; the reason if this process may not make them.
    ///
    /// # Errors
    /// What `ip` said.
    pub fn new() -> Result<Self, String> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let names = ["a", "b"].map(|end| format!("pagecast-{}-{number}{end}", std::process::id()));
        let hosts = Self { names };
        let [a, b] = &hosts.names;
        ip(&format!("netns add {a}"))?;
        ip(&format!("netns add {b}"))?;
        ip(&format!("link add cable netns {a} type veth peer name cable netns {b}"))?;
        for (name, address) in [(a, FIRST), (b, SECOND)] {
            ip(&format!("-n {name} addr add {address}/24 dev cable"))?;
            ip(&format!("-n {name} link set cable up"))?;
            ip(&format!("-n {name} link set lo up"))?;
        }
        Ok(hosts)
    }

    /// A command that runs `program` on the first host (0) or the second (1).
    ///
    /// # Panics
    /// If there is no such host.
    pub fn command(&self, host: usize, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.names[host], program]);
        command
    }

    /// A process that plays a role there.
    ///
    /// # Panics
    /// If there is no such host.
    pub fn start<A: AsRef<str>>(&self, host: usize, program: &str, arguments: &[A]) -> Peer {
        let words = ["netns", "exec", &self.names[host], program].into_iter();
        let all: Vec<&str> = words.chain(arguments.iter().map(AsRef::as_ref)).collect();
        Peer::start("ip", &all)
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = ip(&format!("netns del {name}"));
        }
    }
}

fn ip(arguments: &str) -> Result<(), String> {
    let output =
        Command::new("ip").args(arguments.split(' ')).output().map_err(|error| format!("ip: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("ip {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}
