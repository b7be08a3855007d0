//! A device that imports dma-bufs: the kernel's virtual GPU (vgem).

use std::fs::{self, File};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;
use std::process::Command;

/// What the kernel says of all dma-bufs.
pub const BUFINFO: &str = "/sys/kernel/debug/dma_buf/bufinfo";

/// `struct drm_prime_handle` of drm/drm.h.
#[repr(C)]
struct PrimeHandle {
    handle: u32,
    flags: u32,
    fd: i32,
}

/// `struct drm_vgem_fence_attach` of drm/vgem_drm.h.
#[repr(C)]
struct FenceAttach {
    handle: u32,
    flags: u32,
    fence: u32,
    pad: u32,
}

/// `struct drm_vgem_fence_signal` of drm/vgem_drm.h.
#[repr(C)]
struct FenceSignal {
    fence: u32,
    flags: u32,
}

mod raw {
    nix::ioctl_readwrite!(prime_fd_to_handle, b'd', 0x2e, super::PrimeHandle);
    nix::ioctl_readwrite!(vgem_fence_attach, b'd', 0x41, super::FenceAttach);
    nix::ioctl_write_ptr!(vgem_fence_signal, b'd', 0x42, super::FenceSignal);
}

/// Work of the device on a buffer, which lasts until it is told to finish, or ten seconds.
#[derive(Clone, Copy, Debug)]
pub struct Work(u32);

/// An open vgem device. What it imported stays attached until it is dropped.
#[derive(Debug)]
pub struct Importer(File);

impl Importer {
    /// The machine's vgem device.
    ///
    /// # Errors
    /// Why there is none.
    pub fn open() -> Result<Self, String> {
        let is_vgem = |name: &str| {
            let device = fs::canonicalize(format!("/sys/class/drm/{name}/device"));
            device.is_ok_and(|device| device.ends_with("vgem"))
        };
        let cards = fs::read_dir("/sys/class/drm").map_err(|error| format!("no DRM devices: {error}"))?;
        let names = cards.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        let name = names.filter(|name| name.starts_with("card")).find(|name| is_vgem(name));
        let path = Path::new("/dev/dri").join(name.ok_or("there is no vgem device")?);
        let file = File::options().read(true).write(true).open(&path);
        file.map(Self).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Imports a dma-buf: the device attaches to it and maps it.
    ///
    /// # Panics
    /// If the device refuses it.
    pub fn import(&self, dma_buf: BorrowedFd<'_>) -> u32 {
        let mut request = PrimeHandle { handle: 0, flags: 0, fd: dma_buf.as_raw_fd() };
        // SAFETY: the request has the layout that the kernel reads and writes, and outlives the call.
        unsafe { raw::prime_fd_to_handle(self.0.as_raw_fd(), &mut request) }.expect("imported");
        request.handle
    }
}

impl Importer {
    /// The device begins to write what was imported, and does not end.
    ///
    /// # Panics
    /// If it cannot, as when it does already.
    pub fn begin_work(&self, handle: u32) -> Work {
        let mut request = FenceAttach { handle, flags: 1, fence: 0, pad: 0 };
        // SAFETY: the request has the layout that the kernel reads and writes, and outlives the call.
        unsafe { raw::vgem_fence_attach(self.0.as_raw_fd(), &mut request) }.expect("work");
        Work(request.fence)
    }

    /// The device is done.
    ///
    /// # Panics
    /// If it was done before.
    pub fn finish(&self, work: Work) {
        let request = FenceSignal { fence: work.0, flags: 0 };
        // SAFETY: the request has the layout that the kernel reads, and outlives the call.
        unsafe { raw::vgem_fence_signal(self.0.as_raw_fd(), &request) }.expect("it was at work");
    }
}

/// Mounts debugfs where it is not yet.
///
/// # Panics
/// If that cannot be done.
pub fn mount_debugfs() {
    if !Path::new(BUFINFO).exists() {
        let mount = Command::new("mount").args(["-t", "debugfs", "debugfs", "/sys/kernel/debug"]).status();
        assert!(mount.is_ok_and(|status| status.success()), "debugfs cannot be mounted");
    }
}

/// The lines on a dma-buf in debugfs, by its inode: who exported it, and which devices are attached.
///
/// # Panics
/// If debugfs cannot be read.
pub fn kernel_says(inode: u64) -> String {
    mount_debugfs();
    let text = fs::read_to_string(BUFINFO).expect("bufinfo");
    let is_it = |line: &&str| line.split_whitespace().nth(5) == Some(&format!("{inode:08}"));
    let lines = text.lines().skip_while(|line| !is_it(line));
    lines.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
}
