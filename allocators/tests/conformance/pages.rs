//! What the kernel says about the pages behind a mapping.

use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use memmap2::{MmapOptions, MmapRaw};
use nix::unistd::{SysconfVar, sysconf};

/// A second mapping of the same file, as any reader would make it.
pub(crate) fn map_read(fd: BorrowedFd<'_>, len: usize) -> MmapRaw {
    MmapOptions::new().len(len).map_raw_read_only(fd.as_raw_fd()).unwrap()
}

/// Reads bytes that others may write.
pub(crate) fn read(map: &MmapRaw, offset: usize, to: &mut [u8]) {
    assert!(offset + to.len() <= map.len());
    for (i, byte) in to.iter_mut().enumerate() {
        // SAFETY: within the mapping (asserted), whose file is sealed or of fixed size.
        *byte = unsafe { map.as_ptr().add(offset + i).read_volatile() };
    }
}

/// Writes through a mapping that the test made writable.
pub(crate) fn write(map: &MmapRaw, offset: usize, byte: u8) {
    assert!(offset < map.len());
    // SAFETY: within the mapping (asserted), which the caller made with PROT_WRITE.
    unsafe { map.as_mut_ptr().add(offset).write_volatile(byte) };
}

/// One entry of /proc/self/pagemap per page of the machine.
fn pagemap(start: *const u8, len: usize) -> Vec<u64> {
    let page = usize::try_from(sysconf(SysconfVar::PAGE_SIZE).unwrap().unwrap()).unwrap();
    let mut raw = vec![0; len.div_ceil(page) * 8];
    let file = File::open("/proc/self/pagemap").unwrap();
    file.read_exact_at(&mut raw, (start.addr() / page * 8) as u64).unwrap();
    raw.chunks_exact(8).map(|entry| u64::from_ne_bytes(entry.try_into().unwrap())).collect()
}

/// Whether every page is mapped: touching it faults no more.
pub(crate) fn all_present(start: *const u8, len: usize) -> bool {
    pagemap(start, len).iter().all(|entry| entry >> 63 == 1)
}

/// Page frame numbers (zero unless root).
pub(crate) fn frames(start: *const u8, len: usize) -> Vec<u64> {
    pagemap(start, len).iter().map(|entry| entry & ((1 << 55) - 1)).collect()
}
