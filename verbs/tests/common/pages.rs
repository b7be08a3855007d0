//! Stamped pages.

use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use pagecast_verbs::Memory;

/// A stamp is in each block.
pub(crate) const BLOCK: usize = 64 << 10;
/// Bytes of a frame here.
pub(crate) const FRAME: usize = 16 * BLOCK;

/// Anonymous pages, read and written by bytes.
pub(crate) struct Pages {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: bytes are accessed by volatile reads and writes only.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

impl Pages {
    pub(crate) fn new(len: usize) -> Self {
        let flags = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping, which is in nobody's way.
        let base = unsafe { mmap_anonymous(None, len.try_into().unwrap(), flags, MapFlags::MAP_PRIVATE) };
        Self { base: base.unwrap().cast(), len }
    }

    pub(crate) fn write(&self, at: usize, byte: u8) {
        assert!(at < self.len);
        // SAFETY: inside the mapping.
        unsafe { self.base.add(at).write_volatile(byte) };
    }

    pub(crate) fn read(&self, at: usize) -> u8 {
        assert!(at < self.len);
        // SAFETY: inside the mapping.
        unsafe { self.base.add(at).read_volatile() }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`, and unmapped once.
        unsafe { munmap(self.base.cast(), self.len).unwrap() };
    }
}

// SAFETY: mapped until dropped, and never referred to.
unsafe impl Memory for Pages {
    fn base(&self) -> NonNull<u8> {
        self.base
    }
    fn len(&self) -> usize {
        self.len
    }
}

/// What byte `at` of frame `frame` is.
fn expected(frame: u32, at: usize) -> u8 {
    (frame as usize * 31 + at / BLOCK * 7 + at % 251) as u8
}

/// Where each block is stamped: its first and last bytes, and some between.
fn places(len: usize) -> impl Iterator<Item = usize> {
    (0..len).step_by(1024).flat_map(|at| [at, at + 1023])
}

/// Fills pages with what `check` expects.
pub(crate) fn stamp(pages: &Pages, frame: u32) {
    places(pages.len).for_each(|at| pages.write(at, expected(frame, at)));
}

/// Whether all of a frame is there.
pub(crate) fn check(pages: &Pages, frame: u32) -> Result<(), usize> {
    places(pages.len).find(|at| pages.read(*at) != expected(frame, *at)).map_or(Ok(()), Err)
}
