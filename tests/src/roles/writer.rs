//! `writer`: tries every way to write into the pages it was given.

use std::fs::{self, File, OpenOptions};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag, fallocate, fcntl};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, mprotect, munmap};
use nix::unistd::ftruncate;

use super::{Options, Raw, become_ordinary, say, stay};
use crate::peers::PATIENCE;

const LENGTH: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

/// Says `wrote` and what succeeded. Options: `publisher`, its process; `later_uid`, whom to be once it has
/// joined; `broken=true`: the publisher does not seal its pages.
pub(super) fn run(uri: &str, options: &Options) {
    let broken = options.get("broken").unwrap_or(false);
    let mut raw = Raw::join(uri);
    raw.frame();
    if let Some(uid) = options.get::<u32>("later_uid") {
        become_ordinary(&Options([("uid".to_owned(), uid.to_string())].into()));
    }
    let mut wrote = Vec::new();
    let mut files = 0;
    for fd in &raw.fds {
        attempt("given", fd.as_fd(), &mut wrote);
    }
    let own = fds_of(std::process::id());
    let theirs = fds_of(options.get("publisher").expect("the publisher's process"));
    for (whose, paths) in [("own", own), ("publisher", theirs)] {
        for path in paths {
            // By what is open here: the publisher's number may soon stand for another buffer, one that is just being made.
            let Some(found) = find(&path) else { continue };
            if !broken {
                wait_until_made(&found);
            }
            files += 1;
            let path = format!("/proc/self/fd/{}", found.as_raw_fd());
            for writable in [true, false] {
                let opened = OpenOptions::new().read(true).write(writable).open(&path);
                let Ok(file) = opened else { continue };
                attempt(&format!("reopen {whose}"), file.as_fd(), &mut wrote);
            }
            // Opened for writing only, and to be emptied by opening it.
            for flags in [0, nix::libc::O_TRUNC] {
                let opened = OpenOptions::new().write(true).custom_flags(flags).open(&path);
                let Ok(file) = opened else { continue };
                attempt(&format!("reopen {whose}"), file.as_fd(), &mut wrote);
            }
        }
    }
    wrote.sort();
    wrote.dedup();
    say(&format!("tried {} given, {files} reopened", raw.fds.len()));
    say(&format!("wrote {wrote:?}"));
    stay();
}

/// The memfds of a process, as far as they can be seen.
fn fds_of(pid: u32) -> Vec<std::path::PathBuf> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).filter(|path| is_memfd(path)).collect()
}

fn is_memfd(path: &Path) -> bool {
    fs::read_link(path).is_ok_and(|to| to.to_string_lossy().starts_with("/memfd:"))
}

/// What is behind a path: opened for reading, or as far as that is allowed; `None` if it is closed by now, or no memfd.
fn find(path: &Path) -> Option<File> {
    let no_more_than_the_path = || OpenOptions::new().read(true).custom_flags(nix::libc::O_PATH).open(path);
    let file = File::open(path).or_else(|_| no_more_than_the_path()).ok()?;
    is_memfd(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd()))).then_some(file)
}

/// A buffer that its owner is just making is nobody's frame yet: it is looked at when the owner is done with it.
fn wait_until_made(file: &File) {
    let deadline = Instant::now() + PATIENCE;
    let seals = || fcntl(file, FcntlArg::F_GET_SEALS).map(SealFlag::from_bits_truncate);
    while seals().is_ok_and(|seals| !seals.contains(SealFlag::F_SEAL_SEAL)) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn attempt(how: &str, fd: BorrowedFd<'_>, wrote: &mut Vec<String>) {
    let mut note = |way: &str, done: bool| {
        if done {
            wrote.push(format!("{how}: {way}"));
        }
    };
    note("mmap", maps_writable(fd));
    note("mprotect", becomes_writable(fd));
    let file = File::from(fd.try_clone_to_owned().expect("another descriptor"));
    note("pwrite", file.write_at(&[0xee; 64], 0).is_ok());
    note("shrink", ftruncate(fd, 0).is_ok());
    note("grow", ftruncate(fd, 1 << 30).is_ok());
    let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    note("punch a hole", fallocate(fd, punch, 0, 4096).is_ok());
    note("allocate", fallocate(fd, FallocateFlags::empty(), 0, 1 << 30).is_ok());
    note("seal", fcntl(fd, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_GROW)).is_ok());
    note("send into", sends_into(fd));
}

fn maps_writable(fd: BorrowedFd<'_>) -> bool {
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice, which nobody refers to.
    let mapped = unsafe { mmap(None, LENGTH, protection, MapFlags::MAP_SHARED, fd, 0) };
    // SAFETY: the mapping was made above and is used by nobody.
    mapped.map(|at| unsafe { munmap(at, LENGTH.get()) }).is_ok()
}

fn becomes_writable(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: a new mapping at an address of the kernel's choice, which nobody refers to.
    let mapped = unsafe { mmap(None, LENGTH, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, fd, 0) };
    let Ok(at) = mapped else { return false };
    // SAFETY: the mapping was made above, and nothing in Rust refers to it.
    let writable =
        unsafe { mprotect(at, LENGTH.get(), ProtFlags::PROT_READ | ProtFlags::PROT_WRITE) }.is_ok();
    // SAFETY: as above.
    let _ = unsafe { munmap(at, LENGTH.get()) };
    writable
}

fn sends_into(fd: BorrowedFd<'_>) -> bool {
    let Ok(source) = File::open("/proc/self/exe") else { return false };
    let into = fd.as_raw_fd();
    // SAFETY: both descriptors are open; the kernel reads no memory of ours.
    let sent = unsafe { nix::libc::sendfile(into, source.as_raw_fd(), std::ptr::null_mut(), 64) };
    sent > 0
}
