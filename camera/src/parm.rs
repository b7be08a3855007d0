//! The rate of a stream, which the kernel keeps in a union.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use v4l2r::QueueType;
use v4l2r::bindings::{v4l2_captureparm, v4l2_fract, v4l2_streamparm, v4l2_streamparm__bindgen_ty_1};
use v4l2r::ioctl;

use crate::device::errno;

/// The time between two pictures, as the driver has it; `None` if it does not say.
pub(crate) fn interval(fd: &OwnedFd, queue: QueueType) -> Option<v4l2_fract> {
    let parm: v4l2_streamparm = ioctl::g_parm(fd, queue).ok()?;
    // SAFETY: for a capture queue the kernel fills `capture`; it is integers only, of which every value is one.
    Some(unsafe { parm.parm.capture.timeperframe })
}

/// Asks for a time between two pictures; the driver takes the nearest it has.
pub(crate) fn set_interval(fd: &OwnedFd, queue: QueueType, interval: v4l2_fract) -> Result<(), Errno> {
    let capture = v4l2_captureparm { timeperframe: interval, ..Default::default() };
    let parm = v4l2_streamparm { type_: queue as u32, parm: v4l2_streamparm__bindgen_ty_1 { capture } };
    ioctl::s_parm::<_, v4l2_streamparm>(fd, parm).map(drop).map_err(errno)
}
