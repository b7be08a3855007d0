//! Programs of others that measure the same network: started, watched, and gone with us.

use std::io::Read;
use std::net::{IpAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::consume::PATIENCE;
use crate::workers::child::Control;
use crate::workers::usage::Usage;

/// What a program printed, and whether it called that a success.
pub(super) struct Ended {
    pub(super) output: String,
    pub(super) success: bool,
    /// From its start to its end.
    pub(super) usage: Usage,
}

/// A program that does not outlive us.
pub(super) struct Program {
    name: &'static str,
    child: Child,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a program can be started.
pub(super) fn is_installed(name: &str) -> bool {
    let quiet = Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    quiet.is_ok()
}

/// A port that is free now; nobody else is likely to take it before a program does.
pub(super) fn free_port(address: IpAddr) -> Result<u16, String> {
    let free = TcpListener::bind((address, 0)).and_then(|listener| listener.local_addr());
    free.map(|address| address.port()).map_err(|error| error.to_string())
}

impl Program {
    pub(super) fn start(name: &'static str, arguments: &[String]) -> Result<Self, String> {
        let mut command = Command::new(name);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        let child = command.spawn().map_err(|error| format!("{name}: {error}"))?;
        Ok(Self { name, child })
    }

    /// Waits until it listens.
    pub(super) fn wait_for_listener(&mut self, port: u16) -> Result<(), String> {
        let until = Instant::now() + PATIENCE;
        let tables = || {
            ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| std::fs::read_to_string(path).unwrap_or_default())
        };
        while !tables().iter().any(|table| has_listener(table, port)) {
            let ended = !matches!(self.child.try_wait(), Ok(None));
            if ended || Instant::now() > until {
                return Err(format!("{}: its server does not listen", self.name));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Waits for its end.
    pub(super) fn end(mut self, control: &Control) -> Result<Ended, String> {
        let text = |error: &dyn std::fmt::Display| format!("{}: {error}", self.name);
        let mut out = self.child.stdout.take().ok_or("no output")?;
        let reader = std::thread::spawn(move || {
            let mut output = Vec::new();
            out.read_to_end(&mut output).map(|_| output)
        });
        let status = loop {
            if let Some(status) = self.child.try_wait().map_err(|error| text(&error))? {
                break status;
            }
            if control.stopped() {
                return Err("stopped before the end".to_owned());
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let output = reader.join().map_err(|_| "its output could not be read".to_owned())?;
        let output = String::from_utf8_lossy(&output.map_err(|error| text(&error))?).into_owned();
        Ok(Ended { output, success: status.success(), usage: Usage::of_children() })
    }
}

/// Whether a table of sockets, as the kernel prints it, has one that listens at this port.
fn has_listener(table: &str, port: u16) -> bool {
    let address = format!(":{port:04X}");
    table.lines().skip(1).any(|line| {
        let mut fields = line.split_whitespace();
        fields.nth(1).is_some_and(|local| local.ends_with(&address)) && fields.nth(1) == Some("0A")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_seen_in_the_kernels_table_and_a_connection_is_none() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = std::net::TcpStream::connect(address).unwrap();
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        assert!(has_listener(&table, address.port()));
        assert!(!has_listener(&table, client.local_addr().unwrap().port()));
    }
}
