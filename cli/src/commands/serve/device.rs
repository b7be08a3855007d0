//! What a camera gives, without GStreamer.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use pagecast::{Publisher, PublisherOptions};
use pagecast_camera::{Camera, CameraError, CameraOptions, Mode, Step};

use super::Serve;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::note;
use crate::signals;

/// How long subscribers may take to give back what they hold when it ends.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long a signal may go unnoticed while no picture comes.
const LOOK: Duration = Duration::from_millis(250);

/// The sources that are no camera, which is the first: clap's `requires` does not see through the group of sources.
const OTHERS: &[&str] = super::SOURCES.split_at(1).1;

/// Where the camera is, and what it is to capture.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct Device {
    /// A camera: a V4L2 node that captures video.
    #[arg(long, value_name = "/dev/videoN")]
    pub(super) device: Option<PathBuf>,
    /// What the camera is to capture, e.g. 1280x720@30:NV12; what is left out is as the camera has it.
    #[arg(long, value_name = "WxH@FPS:FORMAT", requires = "device", conflicts_with_all = OTHERS)]
    mode: Option<Mode>,
    /// Buffers that the camera's driver is asked for.
    #[arg(long, value_name = "N", requires = "device", conflicts_with_all = OTHERS, default_value_t = 16, value_parser = clap::value_parser!(u32).range(2..=32))]
    buffers: u32,
    /// Buffers that stay with the driver: from here on pictures are copied into the pool.
    #[arg(long, value_name = "N", requires = "device", conflicts_with_all = OTHERS, default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=32))]
    reserve: u32,
}

impl Serve {
    /// Publishes pictures of the camera until a signal comes.
    pub(super) fn run_device(&self, path: &Path) -> Outcome {
        #[cfg(feature = "gstreamer")]
        if !self.renditions.is_empty() {
            crate::pipeline::init()?;
        }
        let mut camera = Camera::open(path, self.camera_options())?;
        let uri = self.uris()?;
        let publisher = Arc::new(Publisher::open(&uri, self.publisher_options()?)?);
        camera.prepare(&publisher)?;
        let stop = publisher.clone();
        let _registration = signals::on_end(move || stop.set_flushing(true));
        note(format_args!("{}: {}", path.display(), camera.describe().unwrap_or_default()));
        if let (Some(wanted), Some(got)) =
            (self.camera.mode.as_ref().and_then(|mode| mode.rate), camera.format().rate)
            && wanted != got
        {
            note(format_args!("warning: the camera gives {}/{} pictures per second", got.0, got.1));
        }
        note(format_args!("serving {uri} (Ctrl-C ends); receive it with: pagecast recv {}", self.name));
        #[cfg(feature = "gstreamer")]
        let renditions = self.start_renditions()?;
        let ended = self.capture(&mut camera, &publisher);
        #[cfg(feature = "gstreamer")]
        let ended = super::renditions::end(renditions).and(ended);
        let (own, figures) = (camera.figures(), publisher.info().publisher);
        drop(camera);
        publisher.set_flushing(false);
        publisher.close(FAREWELL);
        note(format_args!(
            "{} frames published, {} copied, {} dropped for subscribers; {} left out, {} missing in the driver's count, which always had {} buffers",
            figures.frames,
            figures.copied,
            figures.dropped,
            own.left,
            own.lost,
            own.fewest.unwrap_or_default()
        ));
        ended
    }

    fn capture(&self, camera: &mut Camera, publisher: &Publisher) -> Outcome {
        let mut missing = self.wait_for_clients.unwrap_or(0) as usize;
        while signals::caught().is_none() {
            match camera.step(Some(LOOK))? {
                Step::Frame(frame) if publisher.subscribers() >= missing => {
                    missing = 0;
                    match camera.publish(publisher, &frame) {
                        Err(_) if signals::caught().is_some() => {}
                        published => published?,
                    }
                }
                Step::Gone(reason) => note(format_args!("{reason}; waiting for it to come back")),
                Step::Left => camera.tell(publisher),
                Step::Back => {
                    note(format_args!("the camera is back: {}", camera.describe().unwrap_or_default()));
                    camera.prepare(publisher)?;
                }
                _ => {}
            }
        }
        Ok(Exit::Ok)
    }

    fn camera_options(&self) -> CameraOptions {
        let Device { buffers, reserve, .. } = self.camera;
        let mut options = CameraOptions { buffers, reserve, ..CameraOptions::default() };
        options.mode = self.camera.mode.clone().unwrap_or_default();
        options.pool.backing = self.backing.clone().unwrap_or(options.pool.backing);
        options.pool.limit = self.pool_limit.unwrap_or(options.pool.limit);
        options
    }

    fn publisher_options(&self) -> Result<PublisherOptions, Failure> {
        let usual = PublisherOptions::default();
        Ok(PublisherOptions {
            policy: self.policy.unwrap_or(usual.policy),
            block_deadline: self.block_deadline.map(Duration::from_secs_f64).or(usual.block_deadline),
            credits: self.credits,
            limit: self.pool_limit.unwrap_or(usual.limit),
            hold_timeout: self.hold_timeout.filter(|seconds| *seconds > 0.0).map(Duration::from_secs_f64),
            max_subscribers: self.max_clients.unwrap_or(usual.max_subscribers),
            perms: self.perms.unwrap_or(usual.perms),
            remote: self.remote.options(self.listen.iter().map(String::as_str))?,
            ..usual
        })
    }
}

impl From<CameraError> for Failure {
    fn from(error: CameraError) -> Self {
        match error {
            CameraError::NoDevice { .. } | CameraError::NoCamera { .. } | CameraError::NoMode { .. } => {
                Self::usage(error)
            }
            CameraError::Publish(error) => error.into(),
            error => Self::failed(error),
        }
    }
}
