//! Registered memory.

use std::any::Any;
use std::ffi::{c_int, c_void};
use std::fmt;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use nix::errno::Errno;

use crate::ffi::*;
use crate::memlock::{Allowance, whole_pages};
use crate::{DeviceError, ProtectionDomain, RegisterError};

/// Bytes of one region.
pub const MAX_REGION: u64 = 1 << 40;

/// Memory that can be registered.
///
/// # Safety
/// `base()..base() + len()` is mapped, does not move, and stays so until the value is dropped. Nobody makes a reference to
/// bytes that a peer may write meanwhile (a region with [`Access::Receive`] or [`Access::Local`]).
pub unsafe trait Memory: Send + Sync + 'static {
    /// Where it starts.
    fn base(&self) -> NonNull<u8>;
    /// Its length in bytes.
    fn len(&self) -> usize;
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What the device may do with the pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read them, to send.
    Source,
    /// Also write what is received into a posted receive.
    Local,
    /// Also write what a peer sends to the address it has. Nobody may read remotely.
    Receive,
}

impl Access {
    fn flags(self) -> c_int {
        match self {
            Self::Source => 0,
            Self::Local => IBV_ACCESS_LOCAL_WRITE,
            Self::Receive => IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE,
        }
    }
}

/// Pages that a device knows: the `mr` face of a buffer. It keeps what it registers, and queue pairs keep it while work
/// with it is in flight.
pub struct MemoryRegion {
    mr: NonNull<ibv_mr>,
    address: u64,
    length: u64,
    access: Access,
    domain: Arc<ProtectionDomain>,
    /// Dropped after the registration.
    _memory: Arc<dyn Any + Send + Sync>,
}

// SAFETY: the MR is only read after it was made, and libibverbs' calls on it are thread-safe.
unsafe impl Send for MemoryRegion {}
// SAFETY: as above.
unsafe impl Sync for MemoryRegion {}

impl fmt::Debug for MemoryRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // keys are secrets: whoever has a writable one may write
        f.debug_struct("MemoryRegion")
            .field("length", &self.length)
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}

impl MemoryRegion {
    /// Registers all of `memory`.
    pub fn register<M: Memory>(
        domain: &Arc<ProtectionDomain>,
        memory: Arc<M>,
        access: Access,
    ) -> Result<Arc<Self>, RegisterError> {
        let (base, length) = (memory.base(), memory.len());
        check_size(length as u64)?;
        let pages = whole_pages(base.addr().get() as u64, length as u64);
        Allowance::now().check(pages)?;
        // SAFETY: `Memory` promises that these bytes are mapped while `memory` lives, and the region keeps it.
        let mr = unsafe {
            (domain.table().reg_mr)(
                domain.pd.as_ptr(),
                base.as_ptr().cast::<c_void>(),
                length,
                access.flags(),
            )
        };
        let mr = NonNull::new(mr).ok_or_else(|| refused("ibv_reg_mr", length as u64, Errno::last()))?;
        Ok(Self::made(mr, base.addr().get() as u64, length as u64, access, domain, memory))
    }

    /// Registers `length` bytes of a dma-buf from `offset` on, without a mapping of them. Peers and slices address them from
    /// 0 on. `keeper` lives as long as the region.
    pub fn register_dma_buf(
        domain: &Arc<ProtectionDomain>,
        fd: BorrowedFd<'_>,
        offset: u64,
        length: u64,
        access: Access,
        keeper: Arc<dyn Any + Send + Sync>,
    ) -> Result<Arc<Self>, RegisterError> {
        check_size(length)?;
        let register = domain.table().reg_dmabuf_mr.ok_or(RegisterError::NoDmaBuf(Errno::ENOSYS))?;
        let size = usize::try_from(length).map_err(|_| too_large(length))?;
        // SAFETY: the domain is alive; the kernel takes its own reference to the dma-buf and checks the range.
        let mr = unsafe { register(domain.pd.as_ptr(), offset, size, 0, fd.as_raw_fd(), access.flags()) };
        let mr = NonNull::new(mr).ok_or_else(|| match Errno::last() {
            errno @ (Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EPROTONOSUPPORT | Errno::ENOTTY) => {
                RegisterError::NoDmaBuf(errno)
            }
            errno => refused("ibv_reg_dmabuf_mr", length, errno),
        })?;
        Ok(Self::made(mr, 0, length, access, domain, keeper))
    }

    fn made(
        mr: NonNull<ibv_mr>,
        address: u64,
        length: u64,
        access: Access,
        domain: &Arc<ProtectionDomain>,
        memory: Arc<dyn Any + Send + Sync>,
    ) -> Arc<Self> {
        Arc::new(Self { mr, address, length, access, domain: domain.clone(), _memory: memory })
    }

    /// Where it starts, as the device and peers address it.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Its length in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The key for requests of this machine.
    pub fn lkey(&self) -> u32 {
        // SAFETY: the MR lives as long as `self`, and nobody writes it.
        unsafe { (*self.mr.as_ptr()).lkey }
    }

    /// The key for requests of a peer: who has it may write, if the access says so.
    pub fn rkey(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.mr.as_ptr()).rkey }
    }

    /// What the device may do with it.
    pub fn access(&self) -> Access {
        self.access
    }

    /// Its domain.
    pub fn domain(&self) -> &Arc<ProtectionDomain> {
        &self.domain
    }
}

impl Drop for MemoryRegion {
    fn drop(&mut self) {
        // SAFETY: made by this table, freed once; no work with it is in flight, since queue pairs keep such regions.
        let code = unsafe { (self.domain.table().dereg_mr)(self.mr.as_ptr()) };
        // The device may still reach the pages: they must never be anything else. Removed devices report success.
        if code != 0 {
            std::mem::forget(self._memory.clone());
            std::mem::forget(self.domain.clone());
        }
    }
}

fn check_size(size: u64) -> Result<(), RegisterError> {
    match size {
        0 => Err(RegisterError::ZeroSize),
        size if size > MAX_REGION => Err(too_large(size)),
        _ => Ok(()),
    }
}

fn too_large(size: u64) -> RegisterError {
    RegisterError::TooLarge { size, limit: MAX_REGION }
}

fn refused(call: &'static str, size: u64, errno: Errno) -> RegisterError {
    match errno {
        Errno::ENOMEM => RegisterError::OutOfMemory { size },
        Errno::EFAULT => RegisterError::BadPages,
        errno => DeviceError::from_errno(call, errno).into(),
    }
}
