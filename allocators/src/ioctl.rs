//! The ioctls of /dev/udmabuf, of dma-heaps and of dma-bufs, as safe functions.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

/// `struct udmabuf_create` of linux/udmabuf.h.
#[repr(C)]
pub(crate) struct UdmabufCreate {
    memfd: u32,
    flags: u32,
    offset: u64,
    size: u64,
}

const _: () = assert!(size_of::<UdmabufCreate>() == 24);

/// `struct dma_buf_sync` of linux/dma-buf.h.
#[repr(C)]
pub(crate) struct DmaBufSync {
    flags: u64,
}

/// `struct dma_heap_allocation_data` of linux/dma-heap.h.
#[repr(C)]
pub(crate) struct DmaHeapAllocation {
    len: u64,
    fd: u32,
    fd_flags: u32,
    heap_flags: u64,
}

const _: () = assert!(size_of::<DmaHeapAllocation>() == 24);

const UDMABUF_FLAGS_CLOEXEC: u32 = 1;

mod raw {
    use super::{DmaBufSync, DmaHeapAllocation, UdmabufCreate};

    nix::ioctl_write_ptr_bad!(
        udmabuf_create,
        nix::request_code_write!(b'u', 0x42, size_of::<UdmabufCreate>()),
        UdmabufCreate
    );
    nix::ioctl_readwrite!(dma_heap_allocate, b'H', 0, DmaHeapAllocation);
    nix::ioctl_write_ptr!(dma_buf_sync, b'b', 0, DmaBufSync);
}

/// Makes a dma-buf of the first `size` bytes of a memfd.
pub(crate) fn udmabuf_create(
    device: BorrowedFd<'_>,
    memfd: BorrowedFd<'_>,
    size: usize,
) -> Result<OwnedFd, Errno> {
    let request = UdmabufCreate {
        memfd: memfd.as_raw_fd().cast_unsigned(),
        flags: UDMABUF_FLAGS_CLOEXEC,
        offset: 0,
        size: size as u64,
    };
    // SAFETY: the request has the layout that the kernel reads, and outlives the call.
    let fd = unsafe { raw::udmabuf_create(device.as_raw_fd(), &request) }?;
    // SAFETY: on success the kernel returns a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes a dma-buf of `size` bytes from a heap.
pub(crate) fn dma_heap_allocate(heap: BorrowedFd<'_>, size: usize) -> Result<OwnedFd, Errno> {
    let fd_flags = (libc::O_RDWR | libc::O_CLOEXEC).cast_unsigned();
    let mut request = DmaHeapAllocation { len: size as u64, fd: 0, fd_flags, heap_flags: 0 };
    // SAFETY: the request has the layout that the kernel reads and writes, and outlives the call.
    unsafe { raw::dma_heap_allocate(heap.as_raw_fd(), &mut request) }?;
    // SAFETY: on success the kernel put a new descriptor there that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(request.fd.cast_signed()) })
}

/// Begins or ends CPU access to a dma-buf; waits for the devices.
pub(crate) fn dma_buf_sync(fd: BorrowedFd<'_>, flags: u64) -> Result<(), Errno> {
    let request = DmaBufSync { flags };
    loop {
        // SAFETY: the request has the layout that the kernel reads, and outlives the call.
        match unsafe { raw::dma_buf_sync(fd.as_raw_fd(), &request) } {
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            done => return done.map(drop),
        }
    }
}
