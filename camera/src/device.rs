//! A node of `/dev`, and what it can do.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode as Permissions;
use v4l2r::bindings::{
    V4L2_CTRL_FLAG_DISABLED, v4l2_fmtdesc, v4l2_fract, v4l2_frmivalenum, v4l2_frmsizeenum, v4l2_queryctrl,
};
use v4l2r::ioctl::{
    self, Capabilities, Capability, CtrlId, FrmIvalTypes, FrmSizeTypes, IntoErrno, QueryCtrlFlags,
};
use v4l2r::{Format as RawFormat, PixelFormat, QueueType};

use crate::format::{self, Format, FourCc, Memory};
use crate::{CameraError, look, parm};

/// Entries of a driver's list that are looked at.
const MOST: u32 = 256;

/// What a user asks of a camera; whatever is left out is as the driver has it, or as suits us best.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mode {
    /// Width and height.
    pub size: Option<(u32, u32)>,
    /// Pictures per second, as a fraction.
    pub rate: Option<(u32, u32)>,
    /// A pixel format, by V4L2's four letters or GStreamer's word.
    pub format: Option<String>,
}

impl FromStr for Mode {
    type Err = String;

    /// `WIDTHxHEIGHT[@FPS][:FORMAT]`; each of the three may be left out.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("{text:?} is no mode of a camera: [WIDTHxHEIGHT][@FPS][:FORMAT], e.g. 1280x720@30:NV12")
        };
        let number =
            |text: &str| text.parse::<u32>().ok().filter(|n| (1..=65_535).contains(n)).ok_or_else(wrong);
        let (rest, format) = match text.split_once(':') {
            Some((rest, format)) => (rest, Some(format)),
            None => (text, None),
        };
        let (size, rate) = match rest.split_once('@') {
            Some((size, rate)) => (size, Some(rate)),
            None => (rest, None),
        };
        let size = match (size, size.split_once('x')) {
            ("", _) => None,
            (_, Some((width, height))) => Some((number(width)?, number(height)?)),
            _ => return Err(wrong()),
        };
        let rate = match rate.map(|rate| rate.split_once('/').unwrap_or((rate, "1"))) {
            Some((above, below)) => Some((number(above)?, number(below)?)),
            None => None,
        };
        let format = format.map(str::to_owned);
        if format.as_ref().is_some_and(|format| format.is_empty())
            || (size, rate, &format) == (None, None, &None)
        {
            return Err(wrong());
        }
        Ok(Self { size, rate, format })
    }
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some((width, height)) = self.size {
            write!(f, "{width}x{height}")?;
        }
        match self.rate {
            Some((above, 1)) => write!(f, "@{above}")?,
            Some((above, below)) => write!(f, "@{above}/{below}")?,
            None => {}
        }
        self.format.as_ref().map_or(Ok(()), |format| write!(f, ":{format}"))
    }
}

/// A size, with the most pictures per second it gives, if that is known.
pub type SizeAndRate = ((u32, u32), Option<(u32, u32)>);

/// The sizes that a camera has in one pixel format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sizes {
    /// These.
    These(Vec<SizeAndRate>),
    /// Everything between the two.
    Between((u32, u32), (u32, u32)),
}

/// A setting of a camera.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// What the driver calls it.
    pub name: String,
    /// From, to, and what it has been at the start.
    pub range: (i32, i32, i32),
}

/// An open node that captures video into buffers.
#[derive(Debug)]
pub struct Device {
    path: PathBuf,
    fd: OwnedFd,
    card: String,
    driver: String,
    queue: QueueType,
}

impl Device {
    /// Opens a node.
    ///
    /// # Errors
    /// If it is not there, may not be opened, or is no camera.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, CameraError> {
        let path = path.as_ref().to_owned();
        let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let opened = open(&path, flags, Permissions::empty());
        let fd = opened.map_err(|errno| match errno {
            Errno::ENOENT | Errno::ENODEV | Errno::ENXIO => CameraError::NoDevice { path: path.clone() },
            Errno::EACCES | Errno::EPERM => CameraError::Forbidden { path: path.clone() },
            Errno::EBUSY => CameraError::Busy { path: path.clone() },
            errno => CameraError::System { path: path.clone(), call: "open", errno },
        })?;
        let no_camera = |why| CameraError::NoCamera { path: path.clone(), why };
        let about = ioctl::querycap::<Capability>(&fd).map_err(|_| no_camera("this is no V4L2 device"))?;
        let can = about.device_caps();
        let queue = if can.contains(Capabilities::VIDEO_CAPTURE) {
            QueueType::VideoCapture
        } else if can.contains(Capabilities::VIDEO_CAPTURE_MPLANE) {
            QueueType::VideoCaptureMplane
        } else {
            return Err(no_camera("this device does not capture video"));
        };
        if !can.contains(Capabilities::STREAMING) {
            return Err(no_camera("this camera does not stream into buffers"));
        }
        Ok(Self { path, fd, card: about.card, driver: about.driver, queue })
    }

    /// The node.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the driver calls the camera.
    pub fn card(&self) -> &str {
        &self.card
    }

    /// The driver.
    pub fn driver(&self) -> &str {
        &self.driver
    }

    /// Whether a picture's planes may lie in several buffers.
    pub fn is_multi_planar(&self) -> bool {
        self.queue.is_multiplanar()
    }

    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    pub(crate) fn queue(&self) -> QueueType {
        self.queue
    }

    /// What a failed call means.
    pub(crate) fn failed(&self, call: &'static str, errno: Errno) -> CameraError {
        let path = self.path.clone();
        match errno {
            Errno::ENODEV | Errno::ENXIO => CameraError::Gone { path },
            Errno::EBUSY => CameraError::Busy { path },
            errno => CameraError::System { path, call, errno },
        }
    }

    /// The pixel formats it has.
    pub fn formats(&self) -> Vec<FourCc> {
        let format = |index| ioctl::enum_fmt::<v4l2_fmtdesc>(&self.fd, self.queue, index).ok();
        (0..MOST).map_while(format).map(|about| FourCc::from_u32(about.pixelformat)).collect()
    }

    /// Those of its formats that frames can have, the preferred one first.
    fn usable_formats(&self) -> Vec<FourCc> {
        let mut formats = self.formats();
        formats.retain(|format| format::rank(*format).is_some());
        formats.sort_by_key(|format| format::rank(*format));
        formats
    }

    /// The sizes it has in a format.
    pub fn sizes(&self, format: FourCc) -> Sizes {
        let format = PixelFormat::from_u32(format.to_u32());
        let mut these = Vec::new();
        for index in 0..MOST {
            let Ok(raw) = ioctl::enum_frame_sizes::<v4l2_frmsizeenum>(&self.fd, index, format) else { break };
            match raw.size() {
                Some(FrmSizeTypes::Discrete(size)) => {
                    let size = (size.width, size.height);
                    these.push((size, self.fastest(format, size)));
                }
                Some(FrmSizeTypes::StepWise(step)) => {
                    return Sizes::Between(
                        (step.min_width, step.min_height),
                        (step.max_width, step.max_height),
                    );
                }
                None => break,
            }
        }
        Sizes::These(these)
    }

    /// The most pictures per second at a size.
    fn fastest(&self, format: PixelFormat, (width, height): (u32, u32)) -> Option<(u32, u32)> {
        let mut best = None::<(u32, u32)>;
        for index in 0..MOST {
            let raw = ioctl::enum_frame_intervals::<v4l2_frmivalenum>(&self.fd, index, format, width, height);
            let Ok(raw) = raw else { break };
            let (interval, last) = match raw.intervals() {
                Some(FrmIvalTypes::Discrete(interval)) => (rate_of(*interval), false),
                Some(FrmIvalTypes::StepWise(step)) => (rate_of(step.min), true),
                None => break,
            };
            best = [best, interval]
                .into_iter()
                .flatten()
                .max_by(|a, b| per_second(*a).total_cmp(&per_second(*b)));
            if last {
                break;
            }
        }
        best
    }

    /// Its settings.
    pub fn controls(&self) -> Vec<Control> {
        let mut controls = Vec::new();
        let mut last = 0;
        while controls.len() < MOST as usize {
            let Ok(id) = CtrlId::new(last) else { break };
            let next = ioctl::queryctrl::<v4l2_queryctrl>(&self.fd, id, QueryCtrlFlags::NEXT);
            let Ok(control) = next else { break };
            if control.id <= last {
                break;
            }
            last = control.id;
            // A class of controls has a name and no range.
            if control.flags & V4L2_CTRL_FLAG_DISABLED == 0 && control.maximum > control.minimum {
                let end = control.name.iter().position(|byte| *byte == 0).unwrap_or(control.name.len());
                let name = String::from_utf8_lossy(&control.name[..end]).into_owned();
                controls
                    .push(Control { name, range: (control.minimum, control.maximum, control.default_value) });
            }
        }
        controls
    }

    /// Brings the driver to a mode.
    ///
    /// # Errors
    /// [`CameraError::NoMode`] if it has none like that, [`CameraError::Busy`] if somebody else captures.
    pub fn set(&self, wanted: &Mode) -> Result<Format, CameraError> {
        let failed = |call, errno: Errno| self.failed(call, errno);
        let now = ioctl::g_fmt::<RawFormat>(&self.fd, self.queue)
            .map_err(|error| failed("VIDIOC_G_FMT", errno(error)))?;
        let formats = self.usable_formats();
        let four_cc = match &wanted.format {
            Some(name) => format::named(name).find(|format| formats.contains(format)),
            None => formats.first().copied(),
        };
        let four_cc = four_cc.ok_or_else(|| self.no_mode(wanted))?;
        let (width, height) = wanted.size.unwrap_or((now.width, now.height));
        let asked =
            RawFormat::from((PixelFormat::from_u32(four_cc.to_u32()), (width as usize, height as usize)));
        let got = ioctl::s_fmt::<_, RawFormat>(&mut self.fd.as_fd(), (self.queue, &asked))
            .map_err(|error| failed("VIDIOC_S_FMT", errno(error)))?;
        if got.pixelformat != asked.pixelformat
            || wanted.size.is_some_and(|size| size != (got.width, got.height))
        {
            return Err(self.no_mode(wanted));
        }
        let memory = got.plane_fmt.iter();
        let memory =
            memory.map(|plane| Memory { stride: plane.bytesperline, size: plane.sizeimage }).collect();
        let rate = self.set_rate(wanted.rate)?;
        let (color, fields) = look::at(&self.fd, self.queue);
        Ok(Format { four_cc, size: (got.width, got.height), rate, memory, color, fields })
    }

    /// The rate nearest to `wanted`, where the driver has a say in it.
    fn set_rate(&self, wanted: Option<(u32, u32)>) -> Result<Option<(u32, u32)>, CameraError> {
        if let Some((above, below)) = wanted {
            match parm::set_interval(
                &self.fd,
                self.queue,
                v4l2_fract { numerator: below, denominator: above },
            ) {
                Ok(()) | Err(Errno::EINVAL | Errno::ENOTTY) => {}
                Err(errno) => return Err(self.failed("VIDIOC_S_PARM", errno)),
            }
        }
        Ok(parm::interval(&self.fd, self.queue).and_then(rate_of))
    }

    fn no_mode(&self, wanted: &Mode) -> CameraError {
        let has = self.modes(wanted.format.as_deref());
        CameraError::NoMode { path: self.path.clone(), wanted: wanted.to_string(), has }
    }

    /// All formats that frames can have, and the sizes of one: of `format`, or of the one that is preferred.
    pub fn modes(&self, format: Option<&str>) -> String {
        let formats = self.usable_formats();
        let wanted = format.and_then(|name| format::named(name).find(|format| formats.contains(format)));
        match wanted.or(formats.first().copied()) {
            Some(one) => {
                let names: Vec<String> = formats.iter().map(FourCc::to_string).collect();
                format!("{one}{}; formats {}", self.sizes(one), names.join(" "))
            }
            None => "no format that is known here".to_owned(),
        }
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What the kernel said. (v4l2r has a type of its own for it.)
pub(crate) fn errno(error: impl IntoErrno) -> Errno {
    Errno::from_raw(error.into_errno())
}

/// Pictures per second of the time between two; `None` if that is nothing.
pub(crate) fn rate_of(interval: v4l2_fract) -> Option<(u32, u32)> {
    let (above, below) = (interval.denominator, interval.numerator);
    if above == 0 || below == 0 {
        return None;
    }
    let divisor = greatest_common_divisor(above, below);
    Some((above / divisor, below / divisor))
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

fn per_second((above, below): (u32, u32)) -> f64 {
    f64::from(above) / f64::from(below)
}

impl std::fmt::Display for Sizes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Between(least, most) => write!(f, " {}x{} to {}x{}", least.0, least.1, most.0, most.1),
            Self::These(sizes) => sizes.iter().try_for_each(|((width, height), rate)| {
                write!(f, " {width}x{height}")?;
                match rate {
                    Some(rate) => write!(f, "@{}", (per_second(*rate) * 100.0).round() / 100.0),
                    None => Ok(()),
                }
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_read_and_printed() {
        for text in ["1280x720@30:NV12", "640x480", "@15", ":YUYV", "640x480:MJPG", "8x8@30000/1001"] {
            assert_eq!(text.parse::<Mode>().unwrap().to_string(), text);
        }
        for wrong in ["", "x", "8", "8x", "0x8", "8x8@", "8x8@0", "8x8@1/0", "8x8:", "70000x1", "@", ":"] {
            assert!(wrong.parse::<Mode>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn intervals_become_rates() {
        let fract = |numerator, denominator| rate_of(v4l2_fract { numerator, denominator });
        assert_eq!(fract(1001, 30_000), Some((30_000, 1001)));
        assert_eq!(fract(10, 300), Some((30, 1)));
        assert_eq!((fract(0, 30), fract(1, 0)), (None, None));
    }

    #[test]
    fn what_is_no_camera_says_so() {
        let failure = |path: &str| Device::open(path).unwrap_err().to_string();
        assert!(failure("/dev/video77").contains("no such device"));
        assert!(failure("/dev/null").contains("no V4L2 device"));
    }
}
