//! Buffers that the driver fills: one life of the stream.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use pagecast::allocators::{AccessError, Buffer, foreign};
use pagecast::{Frame, FrameBuilder, ReadError};
use v4l2r::bindings::{V4L2_BUF_FLAG_TIMESTAMP_MASK, V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC};
use v4l2r::ioctl::{
    self, BufferFlags, DqBufIoctlError, ExpbufFlags, PlaneMapping, QBufPlane, QBuffer, QueryBuffer,
    V4l2Buffer,
};
use v4l2r::memory::{MemoryType, MmapHandle};

use crate::device::errno;
use crate::format::Format;
use crate::{CameraError, Device};

/// The most buffers that a driver has at once (`VIDEO_MAX_FRAME`).
pub const MOST_BUFFERS: u32 = 32;

/// The pages of one buffer.
enum Pages {
    /// One dma-buf per memory plane.
    Exported(Vec<Arc<Buffer>>),
    /// The driver exports none: they can only be read here.
    Mapped(Vec<PlaneMapping>),
}

/// What a stream and its pictures share.
struct Session {
    device: Device,
    planes: usize,
    /// Pictures that are not with the driver.
    out: AtomicUsize,
    running: AtomicBool,
}

impl Session {
    /// Gives a buffer to the driver.
    fn queue(&self, index: u32) -> Result<(), CameraError> {
        let mut buffer = QBuffer::<MmapHandle>::new(self.device.queue(), index);
        buffer.planes = (0..self.planes).map(|_| QBufPlane::new(0)).collect();
        let queued = ioctl::qbuf::<_, ()>(self.device.fd(), buffer);
        let failed = |errno| self.device.failed("VIDIOC_QBUF", errno);
        queued.map_err(|error| failed(errno(error)))
    }
}

/// A stream that runs. Dropped, it ends; pictures that are still held stay what they are.
pub struct Capture {
    session: Arc<Session>,
    format: Format,
    pages: Vec<Arc<Pages>>,
    /// Since when the driver says nothing but that there is an error.
    failing: Mutex<Option<Instant>>,
}

/// A picture in one of the driver's buffers, which goes back to the driver when this is dropped.
pub struct Picture {
    session: Arc<Session>,
    pages: Arc<Pages>,
    index: u32,
    /// The driver's number of it; a gap is a picture that was lost for want of a buffer.
    pub sequence: u32,
    /// When it was captured: `CLOCK_MONOTONIC` in nanoseconds, if the driver says.
    pub captured: Option<u64>,
    /// Offset and length within each memory plane, in bytes.
    pub parts: Vec<(usize, usize)>,
}

impl Drop for Picture {
    fn drop(&mut self) {
        self.session.out.fetch_sub(1, Ordering::SeqCst);
        if self.session.running.load(Ordering::SeqCst) {
            // A driver that refuses is gone; whoever waits for the next picture is told.
            if let Err(error) = self.session.queue(self.index) {
                tracing::debug!("a buffer did not go back: {error}");
            }
        }
    }
}

impl Picture {
    /// Whether its pages can go out as they are.
    pub fn is_exported(&self) -> bool {
        matches!(&*self.pages, Pages::Exported(_))
    }

    /// Appends its pages as segments, if they can go out as they are.
    #[must_use]
    pub fn segments(&self, builder: FrameBuilder) -> FrameBuilder {
        let Pages::Exported(buffers) = &*self.pages else { return builder };
        let segments = buffers.iter().zip(&self.parts);
        segments.fold(builder, |builder, (buffer, (offset, length))| {
            builder.segment(buffer.clone(), *offset, *length)
        })
    }

    /// Bytes of all its planes.
    pub fn size(&self) -> usize {
        self.parts.iter().map(|(_, length)| length).sum()
    }

    /// Copies all its planes, one behind the other.
    ///
    /// # Errors
    /// If the pages cannot be mapped, or `out` is too small.
    pub fn copy_to(&self, out: &mut [u8]) -> Result<(), CameraError> {
        let (len, size) = (self.size(), out.len());
        let small = || ReadError::from(AccessError::OutOfBounds { offset: 0, len, size });
        let out = out.get_mut(..len).ok_or_else(small)?;
        match &*self.pages {
            Pages::Exported(_) => self.segments(Frame::builder()).build()?.copy_to(out)?,
            Pages::Mapped(mappings) => {
                let mut rest = out;
                for (mapping, (offset, length)) in mappings.iter().zip(&self.parts) {
                    let (head, tail) = rest.split_at_mut(*length);
                    head.copy_from_slice(&mapping[*offset..][..*length]);
                    rest = tail;
                }
            }
        }
        Ok(())
    }
}

impl Capture {
    /// Begins to capture in a format that [`Device::set`] gave, into `buffers` buffers or as many as the driver has.
    ///
    /// # Errors
    /// If the driver refuses; [`CameraError::Busy`] if somebody else captures.
    pub fn start(device: Device, format: Format, buffers: u32) -> Result<Self, CameraError> {
        let (fd, queue) = (device.fd(), device.queue());
        let wanted = buffers.clamp(2, MOST_BUFFERS);
        let count: usize = ioctl::reqbufs(fd, queue, MemoryType::Mmap, wanted)
            .map_err(|error| device.failed("VIDIOC_REQBUFS", errno(error)))?;
        let planes = format.memory.len().max(1);
        let pages = (0..count)
            .map(|index| pages_of(&device, index, planes).map(Arc::new))
            .collect::<Result<_, _>>()?;
        let session = Session { device, planes, out: AtomicUsize::new(0), running: AtomicBool::new(true) };
        (0..count as u32).try_for_each(|index| session.queue(index))?;
        ioctl::streamon(session.device.fd(), session.device.queue())
            .map_err(|error| session.device.failed("VIDIOC_STREAMON", errno(error)))?;
        Ok(Self { session: Arc::new(session), format, pages, failing: Mutex::default() })
    }

    /// What it captures.
    pub fn format(&self) -> &Format {
        &self.format
    }

    /// The camera.
    pub fn device(&self) -> &Device {
        &self.session.device
    }

    /// Buffers in all.
    pub fn buffers(&self) -> usize {
        self.pages.len()
    }

    /// Buffers that the driver can fill now.
    pub fn queued(&self) -> usize {
        self.pages.len().saturating_sub(self.session.out.load(Ordering::SeqCst))
    }

    /// Whether its pages go out as they are; else every picture must be copied.
    pub fn is_exported(&self) -> bool {
        self.pages.iter().all(|pages| matches!(&**pages, Pages::Exported(_)))
    }

    /// The next picture; `None` if none came within `timeout`. Pictures that the driver marks as damaged are left out.
    ///
    /// # Errors
    /// [`CameraError::Gone`] if the camera is not there any more, [`CameraError::Stopped`] if its driver has given up.
    pub fn next(&self, timeout: Option<Duration>) -> Result<Option<Picture>, CameraError> {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        loop {
            match self.dequeue()? {
                Some(picture) => return Ok(Some(picture)),
                None if !self.wait(deadline)? => return Ok(None),
                None => {}
            }
        }
    }

    /// Waits for a picture; `false` if the time is over.
    fn wait(&self, deadline: Option<Instant>) -> Result<bool, CameraError> {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            return Ok(false);
        }
        let timeout = left.map_or(PollTimeout::NONE, |left| {
            // Rounded up: a rest below a millisecond would spin.
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        let device = &self.session.device;
        if self.queued() == 0 {
            // Without a buffer the driver reports an error instead of waiting; one comes back soon, or never.
            std::thread::sleep(left.unwrap_or(STARVED).min(STARVED));
            return Ok(true);
        }
        let mut fds = [PollFd::new(device.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(device.failed("poll", errno)),
        }
        let seen = fds[0].revents().unwrap_or(PollFlags::empty());
        if seen.intersects(PollFlags::POLLHUP | PollFlags::POLLNVAL) {
            return Err(CameraError::Gone { path: device.path().to_owned() });
        }
        if seen.contains(PollFlags::POLLERR) {
            self.why()?;
        }
        Ok(true)
    }

    /// What an error in poll is about: an unplugged camera, or all buffers being elsewhere.
    fn why(&self) -> Result<(), CameraError> {
        let device = &self.session.device;
        match ioctl::querycap::<ioctl::Capability>(device.fd()) {
            Ok(_) => std::thread::sleep(STARVED),
            Err(_) => return Err(CameraError::Gone { path: device.path().to_owned() }),
        }
        Ok(())
    }

    fn dequeue(&self) -> Result<Option<Picture>, CameraError> {
        let device = &self.session.device;
        let buffer: V4l2Buffer = match ioctl::dqbuf(device.fd(), device.queue()) {
            Ok(buffer) => buffer,
            Err(ioctl::IoctlConvertError::IoctlError(DqBufIoctlError::NotReady)) => return Ok(None),
            Err(ioctl::IoctlConvertError::IoctlError(error)) => match errno(error) {
                Errno::EIO => return self.fails().map(|()| None),
                Errno::EPIPE => return Err(CameraError::Gone { path: device.path().to_owned() }),
                errno => return Err(device.failed("VIDIOC_DQBUF", errno)),
            },
            Err(ioctl::IoctlConvertError::ConversionError(error)) => {
                return Err(CameraError::Driver {
                    path: device.path().to_owned(),
                    what: format!("{error:?}"),
                });
            }
        };
        *self.failing() = None;
        let index = buffer.index();
        let Some(pages) = self.pages.get(index as usize) else {
            let what = format!("buffer {index} of {}", self.pages.len());
            return Err(CameraError::Driver { path: device.path().to_owned(), what });
        };
        self.session.out.fetch_add(1, Ordering::SeqCst);
        let picture = Picture {
            session: self.session.clone(),
            pages: pages.clone(),
            index,
            sequence: buffer.sequence(),
            captured: captured(&buffer),
            parts: self.parts(&buffer),
        };
        // Dropped, a damaged one goes back to the driver.
        Ok(Some(picture).filter(|_| !buffer.flags().contains(BufferFlags::ERROR)))
    }

    /// The driver says that there is an error. A hiccup of the hardware passes, and the buffer stays with the driver; but a driver
    /// that has given up says the same for ever.
    fn fails(&self) -> Result<(), CameraError> {
        let since = *self.failing().get_or_insert_with(Instant::now);
        if since.elapsed() >= HICCUP {
            return Err(CameraError::Stopped { path: self.device().path().to_owned() });
        }
        std::thread::sleep(STARVED);
        Ok(())
    }

    fn failing(&self) -> MutexGuard<'_, Option<Instant>> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the picture lies in each plane; a raw one always takes as much as the format says.
    fn parts(&self, buffer: &V4l2Buffer) -> Vec<(usize, usize)> {
        let part = |plane: v4l2r::ioctl::V4l2PlaneAccessor<'_>| {
            let offset = plane.data_offset.copied().unwrap_or(0).min(*plane.length);
            let used = (*plane.bytesused).saturating_sub(offset);
            (offset as usize, used as usize)
        };
        let mut parts: Vec<_> = buffer.planes_iter().map(part).collect();
        if !self.format.is_coded() {
            for ((offset, length), (memory, plane)) in
                parts.iter_mut().zip(self.format.memory.iter().zip(buffer.planes_iter()))
            {
                *length = (memory.size as usize).min((*plane.length as usize).saturating_sub(*offset));
            }
        }
        parts
    }
}

impl Drop for Capture {
    /// The driver writes no more, and others can have the camera, also while pictures of it are held.
    fn drop(&mut self) {
        self.session.running.store(false, Ordering::SeqCst);
        let (fd, queue) = (self.session.device.fd(), self.session.device.queue());
        let _ = ioctl::streamoff(fd, queue);
        let _ = ioctl::reqbufs::<()>(fd, queue, MemoryType::Mmap, 0);
    }
}

/// How long to wait for a buffer to come back.
const STARVED: Duration = Duration::from_millis(2);

/// How long a driver may report errors and nothing else.
const HICCUP: Duration = Duration::from_secs(1);

fn captured(buffer: &V4l2Buffer) -> Option<u64> {
    let clock = buffer.as_v4l2_buffer().flags & V4L2_BUF_FLAG_TIMESTAMP_MASK;
    let time = buffer.timestamp();
    let (seconds, micros) = (u64::try_from(time.tv_sec).ok()?, u64::try_from(time.tv_usec).ok()?);
    (clock == V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC).then_some(seconds * 1_000_000_000 + micros * 1000)
}

/// The pages of a buffer, exported if the driver can.
fn pages_of(device: &Device, index: usize, planes: usize) -> Result<Pages, CameraError> {
    let export = |plane| -> Option<Arc<Buffer>> {
        let flags = ExpbufFlags::CLOEXEC | ExpbufFlags::RDWR;
        let fd: OwnedFd = ioctl::expbuf(device.fd(), device.queue(), index, plane, flags).ok()?;
        foreign::import(fd.as_fd()).ok().map(Arc::new)
    };
    if let Some(buffers) = (0..planes).map(export).collect::<Option<Vec<_>>>() {
        return Ok(Pages::Exported(buffers));
    }
    let about: QueryBuffer = ioctl::querybuf(device.fd(), device.queue(), index)
        .map_err(|error| device.failed("VIDIOC_QUERYBUF", errno(error)))?;
    let map = |plane: &v4l2r::ioctl::QueryBufPlane| {
        ioctl::mmap(device, plane.mem_offset, plane.length)
            .map_err(|error| device.failed("mmap", errno(error)))
    };
    Ok(Pages::Mapped(about.planes.iter().map(map).collect::<Result<_, _>>()?))
}
