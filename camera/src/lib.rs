//! V4L2 cameras as a source of frames: the driver's own buffers go out, and return to it when their last holder has
//! let go of them.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use pagecast::{Publisher, PublisherOptions};
//! use pagecast_camera::{Camera, CameraOptions, Step};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut camera = Camera::open("/dev/video0", CameraOptions::default())?;
//! let publisher = Publisher::open("unix:cam0", PublisherOptions::default())?;
//! camera.prepare(&publisher)?;
//! loop {
//!     match camera.step(Some(Duration::from_secs(1)))? {
//!         Step::Frame(frame) => camera.publish(&publisher, &frame)?,
//!         Step::Gone(reason) => eprintln!("the camera is gone: {reason}"),
//!         Step::Back => camera.prepare(&publisher)?,
//!         _ => {}
//!     }
//! }
//! # }
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`device`] | a node of `/dev`, and what it can do |
//! | [`format`](mod@format) | pixel formats: caps and planes; no I/O |
//! | [`color`] | colours and fields, in caps; no I/O |
//! | [`capture`] | buffers that the driver fills, one life of the stream |
//! | [`camera`] | frames of these buffers, copies from the reserve on, and a camera that comes back |
#![deny(unsafe_op_in_unsafe_fn)]

pub mod camera;
pub mod capture;
pub mod color;
pub mod device;
pub mod error;
pub mod format;
mod look;
mod parm;

pub use camera::{Camera, CameraOptions, Step};
pub use device::{Device, Mode};
pub use error::CameraError;
