//! A buffer's pages: checked as the document demands, then mapped once.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};

use memmap2::{MmapOptions, MmapRaw};
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::unistd::{Whence, lseek};

/// One mapped buffer.
#[derive(Debug)]
pub struct Pages {
    map: MmapRaw,
    /// Identifies the memory to somebody who compares it with the publisher's.
    pub inode: u64,
}

impl Pages {
    /// Checks and maps what was announced with `size` bytes and this face.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn map(fd: OwnedFd, size: u64, face: u16) -> Result<Self, String> {
        let wrong = |what: &str| Err(format!("an announced buffer {what}"));
        let errno = |errno: nix::Error| errno.to_string();
        let stat = nix::sys::stat::fstat(&fd).map_err(errno)?;
        match face {
            0 => {
                let seals = fcntl(&fd, FcntlArg::F_GET_SEALS).map_err(errno)?;
                if !SealFlag::from_bits_truncate(seals).contains(SealFlag::F_SEAL_SHRINK) {
                    return wrong("can be truncated");
                }
                let flags = OFlag::from_bits_truncate(fcntl(&fd, FcntlArg::F_GETFL).map_err(errno)?);
                if flags & OFlag::O_ACCMODE == OFlag::O_WRONLY {
                    return wrong("cannot be read");
                }
                if (stat.st_size as u64) < size {
                    return wrong("is too small");
                }
            }
            1 => {
                if (lseek(&fd, 0, Whence::SeekEnd).map_err(errno)? as u64) < size {
                    return wrong("is too small");
                }
            }
            _ => return wrong("has an unknown face"),
        }
        let file = File::from(fd);
        let map = MmapOptions::new()
            .len(usize::try_from(size).map_err(|_| "size")?)
            .map_raw_read_only(&file)
            .map_err(|error| format!("mmap of {}: {error}", file.as_raw_fd()))?;
        Ok(Self { map, inode: stat.st_ino })
    }

    /// Whether a part lies within.
    pub fn contains(&self, offset: u64, length: u64) -> bool {
        offset.checked_add(length).is_some_and(|end| end <= self.map.len() as u64)
    }

    /// A copy of one part, which must lie within.
    pub fn copy(&self, offset: u64, length: u64) -> Vec<u8> {
        assert!(self.contains(offset, length), "checked when the frame came");
        (offset..offset + length)
            .map(|at| {
                // SAFETY: `at` lies in the mapping, which cannot be truncated (the seal was checked) and
                // lives as long as `self`; volatile, since the publisher may write while we read.
                unsafe { self.map.as_ptr().add(at as usize).read_volatile() }
            })
            .collect()
    }
}
