//! What can go wrong with a camera, and what to do about it.

use std::path::PathBuf;

use nix::errno::Errno;
use pagecast::{FrameError, PoolError, PublishError, ReadError};

/// What can go wrong with a camera.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CameraError {
    /// There is no such node.
    #[error("{}: there is no such device; `pagecast doctor` lists the cameras", path.display())]
    NoDevice {
        /// The node.
        path: PathBuf,
    },
    /// This user may not open it.
    #[error("{}: permission denied; join the group that owns it (ls -l {}), usually video", path.display(), path.display())]
    Forbidden {
        /// The node.
        path: PathBuf,
    },
    /// Another program captures from it.
    #[error("{}: another program is using the camera; end it first (fuser -v {})", path.display(), path.display())]
    Busy {
        /// The node.
        path: PathBuf,
    },
    /// It is something else.
    #[error("{}: {why}; `pagecast doctor` lists the cameras", path.display())]
    NoCamera {
        /// The node.
        path: PathBuf,
        /// What it is, or lacks.
        why: &'static str,
    },
    /// It has no such mode.
    #[error("{}: the camera has no mode {wanted}; it has {has}", path.display())]
    NoMode {
        /// The node.
        path: PathBuf,
        /// What was asked for.
        wanted: String,
        /// What there is.
        has: String,
    },
    /// It was unplugged, or its driver is gone.
    #[error("{}: the camera is gone", path.display())]
    Gone {
        /// The node.
        path: PathBuf,
    },
    /// The driver has given up the stream. It goes on when it is begun anew.
    #[error("{}: the driver reports an error and gives no pictures any more (VIDIOC_DQBUF: EIO)", path.display())]
    Stopped {
        /// The node.
        path: PathBuf,
    },
    /// The driver refused something.
    #[error("{}: {call}: {}", path.display(), errno.desc())]
    System {
        /// The node.
        path: PathBuf,
        /// What was tried.
        call: &'static str,
        /// What the kernel said.
        errno: Errno,
    },
    /// The driver says something that cannot be.
    #[error("{}: the driver says what cannot be: {what}", path.display())]
    Driver {
        /// The node.
        path: PathBuf,
        /// What.
        what: String,
    },
    /// A picture cannot be a frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A picture cannot be copied.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// There can be no pages for copies.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// Its frames cannot be published.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

impl CameraError {
    /// Whether the camera may come again.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Gone { .. } | Self::NoDevice { .. } | Self::Stopped { .. })
    }
}
