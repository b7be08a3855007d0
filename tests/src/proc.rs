//! What the kernel says of a process.

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::Duration;

use nix::libc;

/// Descriptors of a process, by what they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fds {
    /// Those that are no memfds: sockets, pidfds, files.
    pub others: usize,
    /// Memfds: pages of a pool, or of a publisher.
    pub memfds: usize,
    /// Bytes of all memfds, each once.
    pub memfd_bytes: u64,
}

/// The descriptors of process `pid`.
pub fn fds(pid: i32) -> Fds {
    let mut fds = Fds::default();
    let mut sizes = HashMap::new();
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return fds };
    for entry in entries.flatten() {
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        if target.to_string_lossy().starts_with("/memfd:") {
            fds.memfds += 1;
            if let Ok(meta) = fs::metadata(entry.path()) {
                sizes.insert((meta.dev(), meta.ino()), meta.len());
            }
        } else if !target.starts_with("/proc") {
            fds.others += 1;
        }
    }
    fds.memfd_bytes = sizes.values().sum();
    fds
}

/// All descriptors of process `pid`; one more where it looks at itself.
pub fn descriptors(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Mappings of memfds, so of pages, in process `pid`.
pub fn memfd_mappings(pid: i32) -> usize {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    maps.lines().filter(|line| line.contains("memfd:")).count()
}

/// Bytes of memfds that process `pid` has mapped and would have to fault in.
pub fn memfd_bytes_missing(pid: i32) -> u64 {
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap_or_default();
    let kib =
        |line: &str| line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0);
    let (mut of_memfd, mut missing) = (false, 0);
    for line in smaps.lines() {
        match line.split(' ').next() {
            Some("Size:") if of_memfd => missing += kib(line),
            Some("Rss:") if of_memfd => missing -= kib(line),
            // A mapping begins with its addresses.
            Some(word) if !word.ends_with(':') => of_memfd = line.contains("memfd:"),
            _ => {}
        }
    }
    missing * 1024
}

/// Where process `pid` has mapped the memfd with this inode.
pub fn mapped_at(pid: i32, inode: u64) -> Option<u64> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let is_it = |line: &&str| {
        let mut words = line.split_whitespace().skip(4);
        words.next() == Some(&inode.to_string())
            && words.next().is_some_and(|path| path.starts_with("/memfd:"))
    };
    u64::from_str_radix(maps.lines().find(is_it)?.split('-').next()?, 16).ok()
}

/// The page frame numbers behind `bytes` at `address` of process `pid`: the places in the machine's memory. Only root is
/// told; a page that is not there is 0.
///
/// # Panics
/// If the process cannot be looked into.
pub fn page_frames(pid: i32, address: u64, bytes: usize) -> Vec<u64> {
    let file = fs::File::open(format!("/proc/{pid}/pagemap")).expect("pagemap");
    let mut entries = vec![0; bytes.div_ceil(crate::PAGE) * 8];
    file.read_exact_at(&mut entries, address / crate::PAGE as u64 * 8).expect("entries");
    let entries = entries.as_chunks::<8>().0.iter().map(|entry| u64::from_ne_bytes(*entry));
    entries.map(|entry| if entry >> 63 == 1 { entry & ((1 << 55) - 1) } else { 0 }).collect()
}

/// Threads of process `pid`.
pub fn threads(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count)
}

/// Mappings of process `pid`.
pub fn mappings(pid: i32) -> usize {
    fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default().lines().count()
}

/// Proportional set size of process `pid` without pages of memfds, in bytes.
pub fn private_bytes(pid: i32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let kib = |field: &str| {
        let line = rollup.lines().find_map(|line| line.strip_prefix(field));
        line.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok()).unwrap_or(0)
    };
    (kib("Pss_Anon:") + kib("Pss_File:")) * 1024
}

/// CPU time that process `pid` has had.
pub fn cpu_time(pid: i32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let words = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ').skip(11).take(2));
    let ticks: u64 = words.into_iter().flatten().filter_map(|word| word.parse::<u64>().ok()).sum();
    // USER_HZ is 100 on every architecture that this runs on.
    Duration::from_millis(ticks * 10)
}

/// The state letter of process `pid`; a space if it is gone.
pub fn state(pid: i32) -> char {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()).unwrap_or(' ')
}

/// The machine's shared memory in use, in bytes.
pub fn shmem_bytes() -> u64 {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = meminfo.lines().find_map(|line| line.strip_prefix("Shmem:"));
    line.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Bytes that this process has sent, and the other ends have acknowledged, on its TCP connections of that own address.
pub fn tcp_bytes_sent(own: SocketAddr) -> u64 {
    let open = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let numbers = open.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    // A copy is open for as long as it is looked at, whoever closes the original.
    let copies = numbers.filter_map(|number: i32| nix::unistd::dup(borrowed(number)).ok());
    copies
        .map(std::net::TcpStream::from)
        .filter(|s| s.local_addr().is_ok_and(|a| a == own))
        .map(|s| acked(&s))
        .sum()
}

fn borrowed(number: i32) -> std::os::fd::BorrowedFd<'static> {
    // SAFETY: it is used for one call, which refuses a number that is closed.
    unsafe { std::os::fd::BorrowedFd::borrow_raw(number) }
}

/// `tcpi_bytes_acked`.
fn acked(stream: &std::net::TcpStream) -> u64 {
    const AT: usize = 120;
    let (mut info, mut length) = ([0u8; 256], 256);
    // SAFETY: the kernel writes no more than `length` bytes, which `info` has.
    let code = unsafe {
        let (level, name) = (libc::IPPROTO_TCP, libc::TCP_INFO);
        libc::getsockopt(stream.as_raw_fd(), level, name, info.as_mut_ptr().cast(), &mut length)
    };
    let counted = info[AT..AT + 8].try_into().map_or(0, u64::from_ne_bytes);
    if code == 0 && length as usize >= AT + 8 { counted } else { 0 }
}
