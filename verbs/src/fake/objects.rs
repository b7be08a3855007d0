//! The C structures that the fake hands out. Each begins with the one that verbs.h declares.

use std::ffi::{CString, c_int};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::World;
use crate::ffi::*;

#[repr(C)]
pub(super) struct FakeDevice {
    pub(super) base: ibv_device,
    pub(super) name: CString,
    pub(super) world: c_int,
    pub(super) index: usize,
    pub(super) address: IpAddr,
}

#[repr(C)]
pub(super) struct FakeContext {
    pub(super) base: ibv_context,
    pub(super) device: &'static FakeDevice,
    pub(super) world: Arc<World>,
    pub(super) event: OwnedFd,
}

#[repr(C)]
pub(super) struct FakeChannel {
    pub(super) base: ibv_comp_channel,
    pub(super) event: OwnedFd,
    /// The one completion queue of this crate's channels.
    pub(super) queue: *mut ibv_cq,
}

/// Pages of a registered dma-buf.
pub(super) struct Mapping {
    pub(super) base: usize,
    pub(super) length: usize,
}

#[repr(C)]
pub(super) struct FakeRegion {
    pub(super) base: ibv_mr,
    pub(super) mapping: Option<Mapping>,
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if let Some(base) = std::ptr::NonNull::new(self.base as *mut std::ffi::c_void) {
            // SAFETY: mapped by `reg_dmabuf_mr`, and unmapped once.
            let _ = unsafe { nix::sys::mman::munmap(base, self.length) };
        }
    }
}

/// An eventfd that counts.
pub(super) fn event() -> Option<OwnedFd> {
    Some(EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_SEMAPHORE).ok()?.into())
}

/// Counts one up.
pub(super) fn signal(fd: RawFd) {
    // SAFETY: eight bytes from a live array; the descriptor is open while the model knows it.
    unsafe { libc::write(fd, 1u64.to_ne_bytes().as_ptr().cast(), 8) };
}

/// Counts one down; false with `errno` where there is none.
pub(super) fn take(fd: &OwnedFd) -> bool {
    let mut count = [0u8; 8];
    // SAFETY: eight bytes into a live array.
    unsafe { libc::read(fd.as_raw_fd(), count.as_mut_ptr().cast(), 8) == 8 }
}
