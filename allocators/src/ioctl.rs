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

/// `struct dma_buf_export_sync_file` and `struct dma_buf_import_sync_file` of linux/dma-buf.h.
#[repr(C)]
pub(crate) struct DmaBufSyncFile {
    flags: u32,
    fd: i32,
}

/// `struct sync_file_info` of linux/sync_file.h.
#[repr(C)]
pub(crate) struct SyncFileInfo {
    name: [u8; 32],
    status: i32,
    flags: u32,
    num_fences: u32,
    pad: u32,
    sync_fence_info: u64,
}

const _: () = assert!(size_of::<SyncFileInfo>() == 56);

const UDMABUF_FLAGS_CLOEXEC: u32 = 1;

mod raw {
    use super::{DmaBufSync, DmaBufSyncFile, DmaHeapAllocation, SyncFileInfo, UdmabufCreate};

    nix::ioctl_write_ptr_bad!(
        udmabuf_create,
        nix::request_code_write!(b'u', 0x42, size_of::<UdmabufCreate>()),
        UdmabufCreate
    );
    nix::ioctl_readwrite!(dma_heap_allocate, b'H', 0, DmaHeapAllocation);
    nix::ioctl_write_ptr!(dma_buf_sync, b'b', 0, DmaBufSync);
    nix::ioctl_readwrite!(dma_buf_export_sync_file, b'b', 2, DmaBufSyncFile);
    nix::ioctl_write_ptr!(dma_buf_import_sync_file, b'b', 3, DmaBufSyncFile);
    nix::ioctl_readwrite!(sync_file_info, b'>', 4, SyncFileInfo);
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

/// The fence of what must be done before this kind of access, as a new sync_file.
pub(crate) fn dma_buf_export_sync_file(fd: BorrowedFd<'_>, flags: u32) -> Result<OwnedFd, Errno> {
    let mut request = DmaBufSyncFile { flags, fd: -1 };
    // SAFETY: the request has the layout that the kernel reads and writes, and outlives the call.
    unsafe { raw::dma_buf_export_sync_file(fd.as_raw_fd(), &mut request) }?;
    // SAFETY: on success the kernel put a new descriptor there that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(request.fd) })
}

/// Adds the fence of a sync_file to a dma-buf.
pub(crate) fn dma_buf_import_sync_file(
    fd: BorrowedFd<'_>,
    flags: u32,
    fence: BorrowedFd<'_>,
) -> Result<(), Errno> {
    let request = DmaBufSyncFile { flags, fd: fence.as_raw_fd() };
    // SAFETY: the request has the layout that the kernel reads, and outlives the call.
    unsafe { raw::dma_buf_import_sync_file(fd.as_raw_fd(), &request) }.map(drop)
}

/// Fails for what is no sync_file.
pub(crate) fn sync_file_info(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut request =
        SyncFileInfo { name: [0; 32], status: 0, flags: 0, num_fences: 0, pad: 0, sync_fence_info: 0 };
    // SAFETY: the request has the layout that the kernel reads and writes, and outlives the call; with room for no
    // fences the kernel writes nothing else.
    unsafe { raw::sync_file_info(fd.as_raw_fd(), &mut request) }.map(drop)
}
