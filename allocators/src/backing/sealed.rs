//! How a memfd becomes pages that we write, others only read, and devices import.
//!
//! The order is what matters: seal the size, map writable, make the dma-buf, *then* seal against
//! writing. Our mapping stays writable; every later one of the memfd is read-only. In another
//! order the kernel refuses the mapping or the dma-buf.
//!
//! Until a memfd has its seals, a process of the same user can open it in /proc and change it. What
//! was changed is no buffer: it is thrown away, and another one made.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag, fallocate, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::stat::{FileStat, Mode, fchmod, fstat};
use nix::unistd::ftruncate;

use super::{BackingKind, Wants, headroom, rounded};
use crate::buffer::{OwnedFace, Parts};
use crate::error::errno_of;
use crate::mapping::Mapping;
use crate::{AccessMode, AllocError, Buffer, FaceAbsent, inspect, udmabuf};

/// A step to leave out: for tests that must be able to fail, and for machines that lack it.
#[cfg(feature = "fault-injection")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Subscribers can map the pages writable.
    NoWriteSeal,
    /// Anyone can shrink the file under a reader.
    NoSizeSeals,
    /// Other users can open the file by its path in /proc.
    NoChmod,
    /// The dma-buf is made after the last seal.
    DmaBufLast,
    /// As on a kernel before 5.14: no MADV_POPULATE_WRITE, no MFD_NOEXEC_SEAL. Not a defect.
    OldKernel,
    /// As in a sandbox without /proc. Not a defect.
    NoProc,
}

/// The steps that are left out: none, but in tests.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    no_write_seal: bool,
    no_size_seals: bool,
    no_chmod: bool,
    dma_buf_last: bool,
    old_kernel: bool,
    no_proc: bool,
}

#[cfg(feature = "fault-injection")]
impl From<Fault> for Faults {
    fn from(fault: Fault) -> Self {
        Self {
            no_write_seal: fault == Fault::NoWriteSeal,
            no_size_seals: fault == Fault::NoSizeSeals,
            no_chmod: fault == Fault::NoChmod,
            dma_buf_last: fault == Fault::DmaBufLast,
            old_kernel: fault == Fault::OldKernel,
            no_proc: fault == Fault::NoProc,
        }
    }
}

/// How often a buffer is begun anew when somebody changes it before it is sealed.
const ATTEMPTS: u32 = 64;
const DISTURBED: AllocError = AllocError::Disturbed { attempts: ATTEMPTS };

/// How one kind of memfd buffer is made.
pub(super) struct Recipe {
    pub(super) kind: BackingKind,
    pub(super) flags: MFdFlags,
    /// Bytes of a page as the kernel has it.
    pub(super) page_size: usize,
    /// Sizes are multiples of this, which is a multiple of a page.
    pub(super) granule: usize,
    pub(super) faults: Faults,
}

impl Recipe {
    pub(super) fn build(&self, size: usize, wants: &Wants) -> Result<Buffer, AllocError> {
        let size = self.checked_size(size)?;
        for _ in 1..ATTEMPTS {
            match self.attempt(size, wants) {
                Err(AllocError::Disturbed { .. }) => {}
                done => return done,
            }
        }
        self.attempt(size, wants)
    }

    fn attempt(&self, size: usize, wants: &Wants) -> Result<Buffer, AllocError> {
        let memfd = self.create(size)?;
        let mapping = Mapping::writable(memfd.as_fd(), size).map_err(|error| match errno_of(&error) {
            Errno::EPERM => DISTURBED, // sealed against writing, by somebody else
            errno => AllocError::from_errno("mmap", errno, size),
        })?;
        self.populate(&memfd, &mapping, size)?;
        let populated = stat(&memfd)?.st_blocks;
        let mut dma_buf = self.dma_buf_face(&memfd, size, wants, !self.faults.dma_buf_last)?;
        if !self.faults.no_write_seal {
            seal(&memfd, SealFlag::F_SEAL_FUTURE_WRITE | SealFlag::F_SEAL_SEAL)?;
        }
        if self.faults.dma_buf_last {
            dma_buf = self.dma_buf_face(&memfd, size, wants, true)?;
        }
        if let (true, Err(absent)) = (wants.importable, &dma_buf) {
            return Err(AllocError::Conflict {
                backing: self.kind,
                want: "buffers that devices can import",
                why: absent.to_string(),
            });
        }
        let stat = stat(&memfd)?;
        // A hole would be filled by another page than the dma-buf's, or, with huge pages, by none: SIGBUS.
        if stat.st_blocks < populated {
            return Err(DISTURBED);
        }
        Ok(Buffer::new(Parts {
            size,
            page_size: self.page_size,
            backing: self.kind,
            identity: inspect::identity_of(&stat),
            memory: Some(OwnedFace { fd: self.face_fd(memfd, size)?, access: AccessMode::Enforced }),
            dma_buf,
            mapping: Some(mapping),
        }))
    }

    /// The size in whole pages, if there can be such a buffer.
    fn checked_size(&self, size: usize) -> Result<usize, AllocError> {
        let size = rounded(size, self.granule)?;
        // Beyond it ftruncate does not just fail: the kernel kills the process with SIGXFSZ.
        if let Ok((limit, _)) = getrlimit(Resource::RLIMIT_FSIZE)
            && size as u64 > limit
        {
            return Err(AllocError::FileSizeLimit { size, limit });
        }
        // Huge pages are not taken from free memory, and are reserved by mmap.
        if self.kind == BackingKind::Memfd
            && headroom::available().is_some_and(|available| size as u64 > available)
        {
            return Err(AllocError::OutOfMemory { size });
        }
        Ok(size)
    }

    /// A memfd of that size, and nobody can change the size any more.
    fn create(&self, size: usize) -> Result<OwnedFd, AllocError> {
        let flags = self.flags | MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        // Since 6.3 a memfd says whether it may be executed, and `vm.memfd_noexec` may insist.
        let noexec = flags | MFdFlags::from_bits_retain(libc::MFD_NOEXEC_SEAL);
        let failed = |call| move |errno| AllocError::from_errno(call, errno, size);
        let created =
            if self.faults.old_kernel { Err(Errno::EINVAL) } else { memfd_create(c"pagecast", noexec) };
        let memfd = match created {
            Err(Errno::EINVAL) => memfd_create(c"pagecast", flags),
            created => created,
        };
        let memfd = memfd.map_err(failed("memfd_create"))?;
        if !self.faults.no_chmod {
            // A memfd is born open to everyone who can reach it through /proc.
            fchmod(&memfd, Mode::S_IRUSR | Mode::S_IWUSR).map_err(failed("fchmod"))?;
        }
        match ftruncate(&memfd, size.cast_signed() as libc::off_t) {
            Err(Errno::EPERM) => return Err(DISTURBED),
            done => done.map_err(failed("ftruncate"))?,
        }
        if !self.faults.no_size_seals {
            seal(&memfd, SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW)?;
        }
        if stat(&memfd)?.st_size.cast_unsigned() != size as u64 {
            return Err(DISTURBED);
        }
        Ok(memfd)
    }

    fn populate(&self, memfd: &OwnedFd, mapping: &Mapping, size: usize) -> Result<(), AllocError> {
        let allocate = || {
            fallocate(memfd, FallocateFlags::empty(), 0, size.cast_signed() as libc::off_t)
                .map_err(std::io::Error::from)
        };
        mapping
            .populate(self.page_size, allocate)
            .map_err(|error| AllocError::from_errno("madvise(MADV_POPULATE_WRITE)", errno_of(&error), size))
    }

    fn dma_buf_face(
        &self,
        memfd: &OwnedFd,
        size: usize,
        wants: &Wants,
        now: bool,
    ) -> Result<Result<OwnedFace, FaceAbsent>, AllocError> {
        if !now || !(wants.importable || wants.offer_dma_buf) {
            return Ok(Err(FaceAbsent::NotWanted));
        }
        let face =
            udmabuf::create(memfd.as_fd(), size).map(|fd| OwnedFace { fd, access: AccessMode::Cooperative });
        match face.as_ref().err().and_then(FaceAbsent::exhausted) {
            Some(errno) => Err(AllocError::from_errno("udmabuf", errno, size)),
            None => Ok(face),
        }
    }

    /// What subscribers get: a second, read-only opening; ours is closed. Without /proc it is the
    /// sealed memfd itself, which cannot be written either.
    fn face_fd(&self, memfd: OwnedFd, size: usize) -> Result<OwnedFd, AllocError> {
        if self.faults.no_proc {
            return Ok(memfd);
        }
        match inspect::reopen_read_only(memfd.as_fd()) {
            Ok(read_only) => Ok(read_only),
            Err(errno @ (Errno::EMFILE | Errno::ENFILE)) => Err(AllocError::from_errno("open", errno, size)),
            Err(_) => Ok(memfd),
        }
    }
}

fn seal(memfd: &OwnedFd, seals: SealFlag) -> Result<(), AllocError> {
    match fcntl(memfd, FcntlArg::F_ADD_SEALS(seals)) {
        Ok(_) => Ok(()),
        Err(Errno::EPERM) => Err(DISTURBED), // somebody has sealed the seals
        Err(errno) => Err(AllocError::System { call: "fcntl(F_ADD_SEALS)", errno }),
    }
}

fn stat(memfd: &OwnedFd) -> Result<FileStat, AllocError> {
    fstat(memfd).map_err(|errno| AllocError::System { call: "fstat", errno })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MAX_BUFFER_SIZE;

    fn checked(kind: BackingKind, size: u64) -> Result<usize, AllocError> {
        let (flags, faults) = (MFdFlags::empty(), Faults::default());
        let recipe = Recipe { kind, flags, page_size: 4096, granule: 4096, faults };
        recipe.checked_size(usize::try_from(size).unwrap())
    }

    #[test]
    fn the_largest_size_is_allowed_and_one_byte_more_is_not() {
        let largest = checked(BackingKind::Hugetlb, MAX_BUFFER_SIZE);
        assert_eq!(largest.unwrap() as u64, MAX_BUFFER_SIZE);
        let more = checked(BackingKind::Hugetlb, MAX_BUFFER_SIZE + 1);
        assert!(matches!(more, Err(AllocError::TooLarge { .. })), "{more:?}");
    }

    #[test]
    fn more_ordinary_pages_than_the_machine_has_are_refused_before_they_are_touched() {
        let largest = checked(BackingKind::Memfd, MAX_BUFFER_SIZE);
        match headroom::available() {
            Some(available) if available < MAX_BUFFER_SIZE => {
                assert!(matches!(largest, Err(AllocError::OutOfMemory { .. })), "{largest:?}");
            }
            _ => assert!(largest.is_ok(), "{largest:?}"),
        }
    }
}
