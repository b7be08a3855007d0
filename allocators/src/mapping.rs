//! The one place where pages are mapped and their bytes touched.
//!
//! Every `unsafe` block here rests on one invariant, the **mapping invariant**: a [`Mapping`] is
//! made only of a descriptor whose file can no longer get shorter than the mapping (a memfd of our
//! own that is sealed before anyone else gets it, a memfd checked to be sealed, or a dma-buf, whose
//! size is fixed). So every byte of it can be touched without SIGBUS until it is dropped. Others
//! may *write* these bytes at any time; so they are copied with volatile accesses, and a `&[u8]`
//! comes only from an unsafe function whose caller knows that nobody does.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use memmap2::{Advice, MmapOptions, MmapRaw};

use crate::AccessError;
use crate::error::errno_of;

/// The mapping of a buffer in this process. Unmapped on drop.
#[derive(Debug)]
pub struct Mapping {
    raw: MmapRaw,
    len: usize,
    writable: bool,
}

impl Mapping {
    /// Maps `len` bytes for reading and writing. The caller keeps the mapping invariant.
    pub(crate) fn writable(fd: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        let raw = MmapOptions::new().len(len).map_raw(fd.as_raw_fd())?;
        Ok(Self { raw, len, writable: true })
    }

    /// Maps `len` bytes for reading. The caller keeps the mapping invariant. With huge pages
    /// whole pages must be mapped: munmap of a part fails, and would leak the mapping.
    pub(crate) fn read_only(fd: BorrowedFd<'_>, len: usize, page_size: usize) -> io::Result<Self> {
        let whole = len.next_multiple_of(page_size);
        let raw = MmapOptions::new().len(whole).map_raw_read_only(fd.as_raw_fd())?;
        Ok(Self { raw, len, writable: false })
    }

    /// Makes the kernel allocate and map every page now, or say why not: the first frame must
    /// fault no more, and a page that cannot be had must be an error, never SIGBUS.
    ///
    /// `allocate` is called where the kernel (before 5.14) has no MADV_POPULATE_WRITE; it must
    /// give the file all its pages.
    pub(crate) fn populate(
        &self,
        page_size: usize,
        allocate: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        match self.advise(Advice::PopulateWrite) {
            Err(error) if errno_of(&error) == nix::errno::Errno::EINVAL => {
                self.populate_by_touching(page_size, allocate)
            }
            done => done,
        }
    }

    /// What [`populate`](Self::populate) does on old kernels.
    pub(crate) fn populate_by_touching(
        &self,
        page_size: usize,
        allocate: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        allocate()?;
        self.touch(page_size);
        Ok(())
    }

    /// Maps every page that the file has now; best effort.
    pub(crate) fn populate_for_reading(&self) {
        // Without it (before 5.14) the first read of each page faults: slower, not wrong.
        let _ = self.advise(Advice::PopulateRead);
    }

    fn advise(&self, advice: Advice) -> io::Result<()> {
        loop {
            match self.raw.advise(advice) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }

    fn touch(&self, page_size: usize) {
        for offset in (0..self.len).step_by(page_size) {
            // SAFETY: offset < len, the mapping is writable, and by the mapping invariant it is
            // backed. Nobody else has these pages yet.
            unsafe { self.raw.as_mut_ptr().add(offset).write_volatile(0) };
        }
    }

    /// The first byte. Others may write behind it: see [`slice`](Self::slice).
    pub fn as_ptr(&self) -> *const u8 {
        self.raw.as_ptr()
    }

    /// The first byte, for writing; `None` if the pages are mapped read-only.
    pub fn as_mut_ptr(&self) -> Option<*mut u8> {
        self.writable.then(|| self.raw.as_mut_ptr())
    }

    /// Bytes that may be touched.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never: there are no buffers without bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the pages can be written through this mapping.
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    fn check(&self, offset: usize, len: usize) -> Result<(), AccessError> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len => Ok(()),
            _ => Err(AccessError::OutOfBounds { offset, len, size: self.len }),
        }
    }

    /// Copies bytes out of the pages. If someone writes them meanwhile, old and new bytes may mix.
    pub fn copy_to(&self, offset: usize, to: &mut [u8]) -> Result<(), AccessError> {
        self.check(offset, to.len())?;
        // SAFETY: the range was checked, so by the mapping invariant it can be read; `to` is
        // exclusively borrowed private memory of the same length.
        unsafe { copy_out(self.as_ptr().add(offset), to.as_mut_ptr(), to.len()) };
        Ok(())
    }

    /// Copies bytes into the pages.
    pub fn copy_from(&self, offset: usize, from: &[u8]) -> Result<(), AccessError> {
        self.check(offset, from.len())?;
        let start = self.as_mut_ptr().ok_or(AccessError::ReadOnly)?;
        // SAFETY: the range was checked and is mapped for writing, so by the mapping invariant it
        // can be written; `from` is private memory of the same length.
        unsafe { copy_in(from.as_ptr(), start.add(offset), from.len()) };
        Ok(())
    }

    /// The bytes themselves.
    ///
    /// # Safety
    /// For as long as the slice lives nobody may write these bytes: neither this process nor any
    /// other, nor a device. A held frame of an enforced face gives that; a cooperative one as far
    /// as its holders are trusted.
    pub unsafe fn slice(&self, offset: usize, len: usize) -> Result<&[u8], AccessError> {
        self.check(offset, len)?;
        // SAFETY: the range was checked and is backed (mapping invariant); the caller vouches that
        // nobody writes it.
        Ok(unsafe { std::slice::from_raw_parts(self.as_ptr().add(offset), len) })
    }

    /// The bytes themselves, for writing.
    ///
    /// # Safety
    /// For as long as the slice lives nobody else may write *or read* these bytes: the caller is
    /// the exclusive writer of a buffer that is not published yet.
    #[expect(clippy::mut_from_ref, reason = "the caller vouches for exclusiveness")]
    pub unsafe fn slice_mut(&self, offset: usize, len: usize) -> Result<&mut [u8], AccessError> {
        self.check(offset, len)?;
        let start = self.as_mut_ptr().ok_or(AccessError::ReadOnly)?;
        // SAFETY: the range was checked, is mapped for writing and backed (mapping invariant); the
        // caller vouches that nobody else touches it.
        Ok(unsafe { std::slice::from_raw_parts_mut(start.add(offset), len) })
    }
}

const WORD: usize = size_of::<u64>();

/// Copies shared bytes into private memory, a word at a time where they are aligned.
///
/// # Safety
/// `shared` must be mapped and `private` writable and unshared for `len` bytes.
unsafe fn copy_out(shared: *const u8, private: *mut u8, len: usize) {
    let head = shared.align_offset(WORD).min(len);
    let words_end = head + (len - head) / WORD * WORD;
    // SAFETY: all offsets are below `len`; `shared + head` is aligned to a word, and private
    // memory is accessed unaligned.
    unsafe {
        for at in (0..head).chain(words_end..len) {
            private.add(at).write(ptr::read_volatile(shared.add(at)));
        }
        for at in (head..words_end).step_by(WORD) {
            let word = ptr::read_volatile(shared.add(at).cast::<u64>());
            private.add(at).cast::<u64>().write_unaligned(word);
        }
    }
}

/// Copies private bytes into shared memory, a word at a time where that is aligned.
///
/// # Safety
/// `shared` must be mapped for writing and `private` readable for `len` bytes.
unsafe fn copy_in(private: *const u8, shared: *mut u8, len: usize) {
    let head = shared.align_offset(WORD).min(len);
    let words_end = head + (len - head) / WORD * WORD;
    // SAFETY: all offsets are below `len`; `shared + head` is aligned to a word, and private
    // memory is accessed unaligned.
    unsafe {
        for at in (0..head).chain(words_end..len) {
            ptr::write_volatile(shared.add(at), private.add(at).read());
        }
        for at in (head..words_end).step_by(WORD) {
            let word = private.add(at).cast::<u64>().read_unaligned();
            ptr::write_volatile(shared.add(at).cast::<u64>(), word);
        }
    }
}
