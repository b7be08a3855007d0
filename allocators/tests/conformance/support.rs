//! Subjects, skips, and one test at a time.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sys::memfd::{MFdFlags, memfd_create};
use pagecast_allocators::{
    Backing, BackingChoice, Buffer, Face, FaceKind, Fault, HugetlbBacking, MemfdBacking, PageSize, open,
};

/// A backing under test, with a name by which a child process can make it again.
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    pub(crate) backing: Box<dyn Backing>,
    /// Whether its buffers lie in huge pages only.
    pub(crate) huge: bool,
}

/// Huge pages that the cases need at the same time.
const HUGE_PAGES_NEEDED: u64 = 8;

fn subject_of(name: &'static str, backing: impl Backing + 'static, huge: bool) -> Subject {
    Subject { name, backing: Box::new(backing), huge }
}

/// The subject of that name. The `broken-*` ones leave a step out, and must be caught; the others
/// that do must pass.
pub(crate) fn subject(name: &str) -> Subject {
    match name {
        "memfd" => subject_of("memfd", MemfdBacking::new(), false),
        // As on machines with such pages.
        "memfd_64k" => {
            let pages = PageSize::new(64 << 10).expect("no page is larger");
            subject_of("memfd_64k", MemfdBacking::with_pages(pages), false)
        }
        "hugetlb" => subject_of("hugetlb", HugetlbBacking::new(), true),
        "auto" => subject_of("auto", open(BackingChoice::Auto), false),
        "broken-write-seal" => broken("broken-write-seal", Fault::NoWriteSeal),
        "broken-size-seals" => broken("broken-size-seals", Fault::NoSizeSeals),
        "broken-chmod" => broken("broken-chmod", Fault::NoChmod),
        "broken-order" => broken("broken-order", Fault::DmaBufLast),
        "old-kernel" => broken("old-kernel", Fault::OldKernel),
        "without-proc" => broken("without-proc", Fault::NoProc),
        "broken-huge-write-seal" => {
            let backing = HugetlbBacking::broken(Fault::NoWriteSeal);
            subject_of("broken-huge-write-seal", backing, true)
        }
        name => crate::devices::subject(name).unwrap_or_else(|| panic!("no subject {name}")),
    }
}

fn broken(name: &'static str, fault: Fault) -> Subject {
    subject_of(name, MemfdBacking::broken(fault), false)
}

/// Runs one case alone: cases count descriptors, and huge pages of the whole machine.
pub(crate) fn run(name: &str, case: fn(&Subject)) {
    let _alone = alone();
    let subject = subject(name);
    if subject.huge && !huge_pages() {
        return;
    }
    case(&subject);
}

pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says what is not tested here, on a line of its own, past libtest's capture.
pub(crate) fn skip(why: &str) {
    assert!(std::env::var_os("PAGECAST_TESTBED").is_none(), "the testbed must not skip: {why}");
    let thread = std::thread::current();
    let line = format!("\nSKIP: {}: {why}\n", thread.name().unwrap_or("?"));
    std::io::stdout().write_all(line.as_bytes()).unwrap();
}

pub(crate) fn huge_pages() -> bool {
    let free = HugetlbBacking::pages_available();
    if free < HUGE_PAGES_NEEDED {
        skip(&format!("{HUGE_PAGES_NEEDED} free huge pages of 2 MiB needed, {free} here"));
    }
    free >= HUGE_PAGES_NEEDED
}

pub(crate) fn root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        skip("must be root");
    }
    root
}

/// The dma-buf face, or a skip where the machine has none.
pub(crate) fn dma_buf_face(buffer: &Buffer) -> Option<Face<'_>> {
    let face = buffer.face(FaceKind::DmaBuf);
    if face.is_none() {
        skip(&format!("no dma-buf face: {}", buffer.absent(FaceKind::DmaBuf).unwrap()));
    }
    face
}

pub(crate) fn memory_face(buffer: &Buffer) -> Face<'_> {
    buffer.face(FaceKind::Memory).expect("a memory face")
}

pub(crate) fn dup(fd: impl AsFd) -> OwnedFd {
    fd.as_fd().try_clone_to_owned().unwrap()
}

/// A memfd as a stranger makes it: no seals, mode 0777.
pub(crate) fn plain_memfd(size: i64, flags: MFdFlags) -> OwnedFd {
    let flags = flags | MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let fd = memfd_create(c"stranger", flags).unwrap();
    nix::unistd::ftruncate(&fd, size).unwrap();
    fd
}

/// Every byte of page `page` in round `round`.
pub(crate) fn pattern(page: usize, round: u8) -> u8 {
    u8::try_from(page % 251).unwrap() ^ round.wrapping_mul(37) ^ 0x5a
}

/// Fills the owner's pages; each page gets its own value.
pub(crate) fn fill(buffer: &Buffer, round: u8) {
    let mapping = buffer.mapping().expect("an owner's mapping");
    for (page, offset) in (0..buffer.size()).step_by(4096).enumerate() {
        mapping.copy_from(offset, &[pattern(page, round); 4096]).unwrap();
    }
}

/// Panics unless every page holds what [`fill`] wrote.
pub(crate) fn assert_filled(read: impl Fn(usize, &mut [u8]), size: usize, round: u8) {
    for (page, offset) in (0..size).step_by(4096).enumerate() {
        let mut seen = [0; 4096];
        read(offset, &mut seen);
        assert_eq!(seen, [pattern(page, round); 4096], "page {page}, round {round}");
    }
}
