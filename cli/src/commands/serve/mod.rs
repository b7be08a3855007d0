//! `pagecast serve`.

#[cfg(feature = "camera")]
mod device;
#[cfg(feature = "gstreamer")]
mod pipeline;
#[cfg(feature = "gstreamer")]
mod renditions;

use clap::{ArgGroup, Args};
use pagecast::ipc::socket::{Uri, UriError};
use pagecast::{BackingChoice, Policy};

use crate::address;
use crate::exit::{Failure, Outcome};

/// Where frames can come from, in this build; a camera first.
const SOURCES: &[&str] = &[
    #[cfg(feature = "camera")]
    "device",
    #[cfg(feature = "gstreamer")]
    "pipeline",
    #[cfg(feature = "gstreamer")]
    "file",
    #[cfg(feature = "gstreamer")]
    "test",
];

#[derive(Debug, Args)]
#[cfg_attr(
    feature = "gstreamer",
    command(override_usage = "pagecast serve [OPTIONS] NAME PIPELINE…\n       \
                              pagecast serve [OPTIONS] NAME --file CLIP [--loop]\n       \
                              pagecast serve [OPTIONS] NAME --test WxH[@FPS][:FORMAT]\n       \
                              pagecast serve [OPTIONS] NAME --device /dev/videoN [--mode WxH@FPS:FORMAT]")
)]
#[command(group = ArgGroup::new("source").required(true).args(SOURCES))]
#[command(after_help = "\
The words after NAME are a pipeline as for gst-launch-1.0; `! pagecastsink` is
appended unless there is one. Options come before the pipeline. --device needs
no GStreamer: the camera driver's own buffers are published, and return to it
when their last subscriber has let go. A camera that is unplugged is waited for.

Examples:
  pagecast serve cam0 v4l2src ! videoconvert
  pagecast serve cam0 --device /dev/video0 --mode 1280x720@30
  pagecast serve cam0 --test 1920x1080@60:NV12
  pagecast serve cam0 --rendition cam0-720p=1280x720 --rendition cam0-h264=h264 --test 1920x1080
  pagecast serve clip --file clip.mp4 --loop
  pagecast serve cam0 --policy block --credits 4 videotestsrc is-live=true
  pagecast serve cam0 --listen unix:/run/cam0.sock --perms 660 --test 640x480
  pagecast serve cam0 --listen tcp://127.0.0.1:7174 --test 640x480
  pagecast serve cam0 --listen tcp://0.0.0.0 --network 10.0.0.0/8 --test 640x480
  pagecast serve cam0 'videotestsrc ! tee name=t ! queue ! pagecastsink t. ! queue ! autovideosink'")]
pub(crate) struct Serve {
    /// The publisher's name, found by `pagecast list`.
    #[arg(value_name = "NAME", value_parser = name)]
    name: String,
    #[cfg(feature = "camera")]
    #[command(flatten)]
    camera: device::Device,
    #[cfg(feature = "gstreamer")]
    #[command(flatten)]
    source: pipeline::Source,
    /// Publish another form of the same stream, too: NAME=WxH[@FPS], NAME=h264[:KILOBITS] or 'NAME=ELEMENTS…'.
    #[cfg(feature = "gstreamer")]
    #[arg(long = "rendition", value_name = "NAME=FORM")]
    renditions: Vec<renditions::Rendition>,
    /// Further addresses to serve at.
    #[arg(long, value_name = "URI", value_delimiter = ',', value_parser = address::parse)]
    listen: Vec<String>,
    /// What happens to subscribers that fall behind: auto, block, drop-oldest, drop-newest, latest.
    #[arg(long, value_name = "POLICY")]
    policy: Option<Policy>,
    /// How long a subscriber of policy block may hold the stream at a time; then it loses frames.
    #[arg(long, value_name = "SECONDS", value_parser = super::seconds)]
    block_deadline: Option<f64>,
    /// Frames that a subscriber may hold.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    credits: Option<u32>,
    /// Where the pages come from: auto, memfd, hugetlb, dma-heap[:NAME], drm-dumb[:DEVICE]; with --device those of copies.
    #[arg(long, value_name = "BACKING")]
    backing: Option<BackingChoice>,
    /// The most bytes of pages, e.g. 512M or 2G.
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pool_limit: Option<u64>,
    /// Cut off who holds more than it may for so long; 0 is never.
    #[arg(long, value_name = "SECONDS", value_parser = super::seconds)]
    hold_timeout: Option<f64>,
    /// Subscribers at a time.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    max_clients: Option<u32>,
    /// Begin when so many subscribers are there.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    wait_for_clients: Option<u32>,
    /// Permissions of the socket, octal: 600 lets in its owner only, 660 a group.
    #[arg(long, value_name = "OCTAL", value_parser = super::octal)]
    perms: Option<u32>,
    #[command(flatten)]
    remote: address::Remote,
}

/// A name is not an address here, but that of a publisher in the runtime folder.
fn name(text: &str) -> Result<String, UriError> {
    let text = text.strip_prefix("unix:").unwrap_or(text);
    Uri::unix(text)?;
    Ok(text.to_owned())
}

fn bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let shift = match unit.to_ascii_uppercase().as_str() {
        "" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        _ => return Err(format!("{text:?} is no size: 64M, 2G or a number of bytes")),
    };
    let number: Option<u64> = number.parse().ok();
    let size = number.and_then(|number| number.checked_mul(1 << shift)).filter(|size| *size >= 4096);
    size.ok_or_else(|| format!("{text:?} is no size of at least 4096 bytes"))
}

impl Serve {
    pub(crate) fn run(self) -> Outcome {
        #[cfg(feature = "camera")]
        if let Some(path) = &self.camera.device {
            return self.run_device(path);
        }
        #[cfg(feature = "gstreamer")]
        return self.run_pipeline();
        #[cfg(not(feature = "gstreamer"))]
        Err(Failure::usage("this build has no pipelines: give --device"))
    }

    /// All addresses to serve at, the name first.
    fn uris(&self) -> Result<String, Failure> {
        let first = Uri::unix(&self.name).map_err(Failure::usage)?.to_string();
        let uris: Vec<&str> =
            std::iter::once(first.as_str()).chain(self.listen.iter().map(String::as_str)).collect();
        Ok(uris.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_permissions_are_read() {
        let sizes = ["4096", "64K", "512M", "2GiB", "4095", "1T", "M", "", "99999999999G"].map(bytes);
        let sizes = sizes.map(Result::ok);
        assert_eq!(
            sizes,
            [Some(4096), Some(64 << 10), Some(512 << 20), Some(2 << 30), None, None, None, None, None]
        );
        assert_eq!(
            ["600", "0660", "888", "1777", "-1"].map(super::super::octal).map(Result::ok),
            [Some(0o600), Some(0o660), None, None, None]
        );
    }
}
