//! The kernel's virtual camera (vivid), and what the kernel says of dma-bufs.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::importer::{BUFINFO, mount_debugfs};

/// Pixels of its pictures.
pub const WIDTH: u32 = 320;
/// Lines of its pictures.
pub const HEIGHT: u32 = 180;
/// Slow enough for an emulated machine.
pub const CAPS: &str = "video/x-raw,format=NV12,width=320,height=180,framerate=15/1";

/// The camera, for one test at a time.
#[derive(Debug)]
pub struct Camera {
    /// Its node.
    pub path: PathBuf,
    _alone: MutexGuard<'static, ()>,
}

impl Camera {
    /// The first vivid device, with a picture that does not move.
    ///
    /// # Panics
    /// If v4l2-ctl fails.
    pub fn find() -> Option<Self> {
        static ONE: Mutex<()> = Mutex::new(());
        let alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let is_vivid = |entry: &fs::DirEntry| {
            fs::read_to_string(entry.path().join("name")).is_ok_and(|name| name.starts_with("vivid"))
        };
        let devices = fs::read_dir("/sys/class/video4linux").into_iter().flatten().flatten();
        let found = devices.filter(is_vivid).map(|entry| Path::new("/dev").join(entry.file_name())).min();
        let camera = Self { path: found?, _alone: alone };
        camera.set_still();
        Some(camera)
    }

    /// A picture that does not move, as it is found.
    ///
    /// # Panics
    /// If v4l2-ctl fails.
    pub fn set_still(&self) {
        self.set("horizontal_movement=3,vertical_movement=3,test_pattern=0,osd_text_mode=2");
    }

    fn v4l2_ctl(&self, arguments: &[&str]) {
        let output = Command::new("v4l2-ctl").arg("-d").arg(&self.path).args(arguments).output();
        let output = output.expect("v4l2-ctl");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Loads its driver anew, with these options, when nobody uses it any more: some of what a process had goes a moment after
    /// its end.
    ///
    /// # Panics
    /// If that cannot be done.
    pub fn reload(&self, options: &[&str]) {
        let modprobe = |arguments: &[&str]| {
            let status = Command::new("/sbin/modprobe").args(arguments).status();
            status.is_ok_and(|status| status.success())
        };
        crate::eventually("nobody uses the driver", || modprobe(&["-r", "vivid"]));
        assert!(modprobe(&[&["vivid", "n_devs=1", "node_types=0x1"], options].concat()), "{options:?}");
        self.set_still();
    }

    /// Sets controls: `name=value,…`.
    ///
    /// # Panics
    /// If v4l2-ctl fails.
    pub fn set(&self, controls: &str) {
        self.v4l2_ctl(&["-c", controls]);
    }

    /// Takes another of its inputs: 0 is the camera's own, 1 a television's.
    ///
    /// # Panics
    /// If v4l2-ctl fails.
    pub fn input(&self, number: u32) {
        self.v4l2_ctl(&["-i", &number.to_string()]);
    }

    /// Text over the picture that is different in every frame, or none.
    ///
    /// # Panics
    /// If v4l2-ctl fails.
    pub fn show_counter(&self, shown: bool) {
        self.set(if shown { "osd_text_mode=0" } else { "osd_text_mode=2" });
    }

    /// One frame of a format, taken by v4l2-ctl into memory of its own.
    ///
    /// # Panics
    /// If v4l2-ctl fails.
    pub fn capture(&self, folder: &Path, format: &str) -> Vec<u8> {
        let file = folder.join("captured");
        let format = format!("width={WIDTH},height={HEIGHT},pixelformat={format}");
        let to = format!("--stream-to={}", file.display());
        self.v4l2_ctl(&["-v", &format, "--stream-mmap", "--stream-count=1", &to]);
        fs::read(&file).expect("a captured frame")
    }
}

/// A file that is out of the way until this is dropped.
#[derive(Debug)]
pub struct Hidden(&'static str);

impl Hidden {
    /// Puts it out of the way.
    ///
    /// # Panics
    /// If it cannot be renamed.
    pub fn new(path: &'static str) -> Self {
        fs::rename(path, Self::elsewhere(path)).expect("renamed");
        Self(path)
    }

    fn elsewhere(path: &str) -> String {
        format!("{path}.hidden")
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = fs::rename(Self::elsewhere(self.0), self.0);
    }
}

/// How many dma-bufs the machine has, as the kernel tells in debugfs.
///
/// # Panics
/// If it does not tell.
pub fn dma_bufs() -> usize {
    mount_debugfs();
    let text = fs::read_to_string(BUFINFO).expect("bufinfo");
    let total = text.lines().find_map(|line| line.strip_prefix("Total ")).expect("a total");
    total.split_whitespace().next().and_then(|count| count.parse().ok()).expect("a count")
}

/// The inodes of the dma-bufs that a process has mapped.
pub fn mapped_by(pid: i32) -> BTreeSet<u64> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let inode = |line: &str| line.split_whitespace().nth(4)?.parse().ok();
    maps.lines().filter(|line| line.contains("/dmabuf:")).filter_map(inode).collect()
}

/// The memfds that a process has mapped.
pub fn memfds_mapped_by(pid: i32) -> usize {
    crate::proc::memfd_mappings(pid)
}
