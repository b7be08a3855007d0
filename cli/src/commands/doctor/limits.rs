//! What the kernel and this user's limits allow.

use std::fs;

use nix::sys::resource::{Resource, getrlimit};
use pagecast::PageSize;
use pagecast::ipc::socket::{Seqpacket, name};
use pagecast::verbs::lockable;

use super::Check;
use super::pages::limit;
use crate::output::bytes;

/// A publisher with 64 subscribers and a pool of some hundred buffers fits below this.
const FILES: u64 = 4096;
/// A 4K frame, NV12.
const FRAME: u64 = 3840 * 2160 * 3 / 2;
/// A pool of some twenty of them.
const LOCKED: u64 = 256 << 20;
/// The kernel's default; the credits of a link are counted for it.
const SOCKET: u64 = 212_992;

pub(super) fn kernel() -> Check {
    const NAME: &str = "kernel";
    let Ok(uname) = nix::sys::utsname::uname() else {
        return Check::warn(NAME, "unknown", "Linux 5.10 or newer is what Pagecast is tested on");
    };
    let release = uname.release().to_string_lossy().into_owned();
    let machine = uname.machine().to_string_lossy().into_owned();
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let text = format!("Linux {release} {machine}, pages of {}", PageSize::of_machine());
    match version {
        _ if version >= (5, 10) => Check::pass(NAME, text),
        _ if version >= (5, 1) => {
            Check::warn(NAME, text, "Linux 5.10 or newer is what Pagecast is tested on")
        }
        _ => Check::fail(NAME, text, "Linux 5.1 is the oldest with sealed pages (F_SEAL_FUTURE_WRITE)"),
    }
}

pub(super) fn open_files() -> Check {
    const NAME: &str = "open files";
    let remedy =
        "raise the hard limit: ulimit -Hn 65536 (LimitNOFILE= in a systemd unit); many subscribers need it";
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, hard)) if hard >= FILES => {
            Check::pass(NAME, format!("{soft}, raised to {hard} when needed"))
        }
        Ok((soft, hard)) => Check::warn(NAME, format!("{soft}, at most {hard}"), remedy),
        Err(errno) => Check::warn(NAME, errno.to_string(), remedy),
    }
}

pub(super) fn locked_memory() -> Check {
    const NAME: &str = "locked memory";
    let remedy =
        "raise it (ulimit -l unlimited, or LimitMEMLOCK=infinity): needed only to register frames for RDMA";
    match getrlimit(Resource::RLIMIT_MEMLOCK) {
        Ok((soft, _)) if soft >= LOCKED => Check::pass(NAME, limit(soft)),
        Ok((soft, _)) if lockable().is_none() => {
            Check::pass(NAME, format!("{}, which does not bind this user", limit(soft)))
        }
        Ok((soft, hard)) => {
            let frames = format!("{} frames of 4K NV12", soft / FRAME);
            Check::warn(NAME, format!("{}, at most {}: {frames}", limit(soft), limit(hard)), remedy)
        }
        Err(errno) => Check::warn(NAME, errno.to_string(), remedy),
    }
}

pub(super) fn socket_buffers() -> Check {
    const NAME: &str = "wmem_max";
    let remedy =
        format!("sysctl net.core.wmem_max={SOCKET}: subscribers get fewer frames in flight otherwise");
    let text = fs::read_to_string("/proc/sys/net/core/wmem_max").unwrap_or_default();
    match text.trim().parse::<u64>() {
        Ok(size) if size >= SOCKET => Check::pass(NAME, bytes(size)),
        Ok(size) => Check::warn(NAME, bytes(size), remedy),
        // Network namespaces other than the first do not show it.
        Err(_) => Check::pass(NAME, "not shown here; the sockets' own sizes are used"),
    }
}

/// Whether the kernel tells when a peer's process has ended.
pub(super) fn pidfd() -> Check {
    const NAME: &str = "pidfd";
    let remedy = "Linux 5.3 or newer (allow pidfd_open in a sandbox): needed only for `quarantine`";
    match Seqpacket::pair().and_then(|(ours, _theirs)| ours.peer()) {
        Ok(peer) if peer.pidfd.is_some() => Check::pass(NAME, "the end of a subscriber's process is seen"),
        Ok(_) => Check::warn(NAME, "the kernel gives none", remedy),
        Err(error) => Check::fail(NAME, error.to_string(), "allow Unix sockets of type SOCK_SEQPACKET"),
    }
}

pub(super) fn runtime_folder() -> Check {
    const NAME: &str = "runtime folder";
    match name::create_runtime_dir() {
        Ok(path) => Check::pass(NAME, path.display().to_string()),
        Err(error) => {
            let remedy = "set XDG_RUNTIME_DIR to a folder of yours that nobody else can write, or use unix:/path addresses";
            Check::fail(NAME, error.to_string(), remedy)
        }
    }
}
