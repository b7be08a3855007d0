//! `pagecast serve`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{ArgGroup, Args};
use gst::prelude::*;
use pagecast::ipc::socket::{Uri, UriError};
use pagecast::{BackingChoice, Policy};

use crate::exit::{Failure, Outcome};
use crate::pipeline::{self, Runner, set};
use crate::{address, output};

const SINK: &str = "pagecastsink";

/// Left to itself, videotestsrc chooses the largest format that it has.
const DEFAULT_FORMAT: &str = "NV12";

#[derive(Debug, Args)]
#[command(override_usage = "pagecast serve [OPTIONS] NAME PIPELINE…\n       \
                           pagecast serve [OPTIONS] NAME --file CLIP [--loop]\n       \
                           pagecast serve [OPTIONS] NAME --test WxH[@FPS][:FORMAT]")]
#[command(group = ArgGroup::new("source").required(true).args(["pipeline", "file", "test"]))]
#[command(after_help = "\
The words after NAME are a pipeline as for gst-launch-1.0; `! pagecastsink` is
appended unless there is one. Options come before the pipeline.

Examples:
  pagecast serve cam0 v4l2src ! videoconvert
  pagecast serve cam0 --test 1920x1080@60:NV12
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
    #[command(flatten)]
    source: Source,
    /// Further addresses to serve at.
    #[arg(long, value_name = "URI", value_delimiter = ',', value_parser = address::parse)]
    listen: Vec<String>,
    /// What happens to subscribers that fall behind: auto, block, drop-oldest, drop-newest, latest.
    #[arg(long, value_name = "POLICY")]
    policy: Option<Policy>,
    /// Frames that a subscriber may hold.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    credits: Option<u32>,
    /// Where the pages come from: auto, memfd, hugetlb, dma-heap[:NAME], drm-dumb[:DEVICE].
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

/// Where the frames come from.
#[derive(Debug, Args)]
#[group(skip)]
struct Source {
    /// A file to decode (its video), at its own pace.
    #[arg(long, value_name = "CLIP")]
    file: Option<PathBuf>,
    /// Begin the file again when it ends.
    #[arg(long = "loop")]
    repeat: bool,
    /// A live test picture: WIDTHxHEIGHT[@FPS][:FORMAT]; 30 fps and NV12 unless given.
    #[arg(long, value_name = "WxH@FPS:FORMAT")]
    test: Option<TestPicture>,
    /// What the test picture shows, as videotestsrc's `pattern`; a ball by default.
    #[arg(long, value_name = "PATTERN")]
    pattern: Option<String>,
    /// A pipeline as for gst-launch-1.0.
    #[arg(value_name = "PIPELINE", trailing_var_arg = true, allow_hyphen_values = true)]
    pipeline: Vec<String>,
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

/// What `--test` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct TestPicture {
    width: u32,
    height: u32,
    rate: String,
    format: String,
}

impl FromStr for TestPicture {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is no test picture: WIDTHxHEIGHT[@FPS][:FORMAT], e.g. 1920x1080@60:NV12");
        let (rest, format) = text.split_once(':').unwrap_or((text, DEFAULT_FORMAT));
        let (size, rate) = rest.split_once('@').unwrap_or((rest, "30"));
        let (width, height) = size.split_once('x').ok_or_else(wrong)?;
        let number =
            |text: &str| text.parse::<u32>().ok().filter(|n| (1..=32_767).contains(n)).ok_or_else(wrong);
        let (above, below) = rate.split_once('/').unwrap_or((rate, "1"));
        let whole = |text: &str| text.parse::<i32>().ok().filter(|n| *n > 0).ok_or_else(wrong);
        let rate = format!("{}/{}", whole(above)?, whole(below)?);
        let plain = |format: &str| {
            !format.is_empty() && format.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        if !plain(format) {
            return Err(wrong());
        }
        let format = format.to_owned();
        Ok(Self { width: number(width)?, height: number(height)?, rate, format })
    }
}

impl TestPicture {
    fn caps(&self) -> String {
        let Self { width, height, rate, format } = self;
        format!("video/x-raw,format={format},width={width},height={height},framerate={rate}")
    }
}

impl Source {
    /// The pipeline's words, up to our sink.
    fn words(&self) -> Result<Vec<String>, Failure> {
        // clap's `requires` does not see through the group of sources.
        if self.repeat && self.file.is_none() {
            return Err(Failure::usage("--loop is for --file"));
        }
        if self.pattern.is_some() && self.test.is_none() {
            return Err(Failure::usage("--pattern is for --test"));
        }
        if let Some(test) = &self.test {
            let pattern = format!("pattern={}", self.pattern.as_deref().unwrap_or("ball"));
            let words = ["videotestsrc", "is-live=true", &pattern, "!", &test.caps()];
            return Ok(words.map(str::to_owned).into());
        }
        let Some(file) = &self.file else { return pipeline::words(&self.pipeline) };
        let path = std::path::absolute(file).and_then(std::fs::canonicalize);
        let path = path.map_err(|error| Failure::usage(format_args!("{}: {error}", file.display())))?;
        let uri = gst::glib::filename_to_uri(&path, None).map_err(Failure::failed)?;
        // Only video is exposed, so that nothing else can be linked to the sink.
        let uri = format!("uri={uri}");
        let words = ["uridecodebin", &uri, "caps=video/x-raw(ANY)", "expose-all-streams=false"];
        Ok(words.map(str::to_owned).into())
    }
}

impl Serve {
    pub(crate) fn run(self) -> Outcome {
        pipeline::init()?;
        let mut words = self.source.words()?;
        if !words.iter().any(|word| word == SINK) {
            words.extend(["!".to_owned(), SINK.to_owned()]);
        }
        let pipeline = pipeline::parse(&words)?;
        let sink = self.sink(&pipeline)?;
        self.configure(&sink)?;
        let uri: String = sink.property::<Option<String>>("uri").unwrap_or_default();
        let mut runner = Runner::new(pipeline);
        runner.repeat = self.source.repeat;
        let recv = uri.split_whitespace().next().unwrap_or_default().to_owned();
        runner.playing = Some(Box::new(move || {
            output::note(format_args!("serving {uri} (Ctrl-C ends); receive it with: pagecast recv {recv}"));
        }));
        runner.ended = Some(Box::new(move || {
            let stats = sink.property::<gst::Structure>("stats");
            let figure = |name| stats.get::<u64>(name).unwrap_or(0);
            let (frames, copied) = (figure("frames"), figure("copied"));
            let dropped = figure("clients-dropped");
            output::note(format_args!(
                "{frames} frames published, {copied} copied, {dropped} dropped for subscribers"
            ));
        }));
        runner.run()
    }

    /// The sink that is ours: the first one that has no address yet.
    fn sink(&self, pipeline: &gst::Pipeline) -> Result<gst::Element, Failure> {
        let sinks = pipeline::made_by(pipeline, SINK);
        let free = |sink: &&gst::Element| {
            let unset = |name| sink.property::<Option<String>>(name).is_none_or(|value| value.is_empty());
            unset("uri") && unset("socket-path")
        };
        let ours = sinks.iter().find(free).cloned();
        ours.ok_or_else(|| {
            Failure::usage("every pagecastsink of the pipeline has an address: leave uri out of one")
        })
    }

    /// The sink's two properties for what pages are made of.
    fn backing(&self) -> (Option<String>, Option<String>) {
        let Some(text) = self.backing.as_ref().map(BackingChoice::to_string) else { return (None, None) };
        match text.split_once(':') {
            Some((kind, device)) => (Some(kind.to_owned()), Some(device.to_owned())),
            None => (Some(text), None),
        }
    }

    fn configure(&self, sink: &gst::Element) -> Result<(), Failure> {
        let first = Uri::unix(&self.name).map_err(Failure::usage)?.to_string();
        let uris: Vec<&str> =
            std::iter::once(first.as_str()).chain(self.listen.iter().map(String::as_str)).collect();
        sink.set_property("uri", uris.join(" "));
        let nanoseconds = |seconds: f64| (seconds * 1e9) as u64;
        let (backing, device) = self.backing();
        let options: [(&str, Option<String>); 12] = [
            ("policy", self.policy.map(|policy| policy.to_string())),
            ("credits", self.credits.map(|credits| credits.to_string())),
            ("backing", backing),
            ("backing-device", device),
            ("pool-limit", self.pool_limit.map(|bytes| bytes.to_string())),
            ("hold-timeout", self.hold_timeout.map(|seconds| nanoseconds(seconds).to_string())),
            ("max-clients", self.max_clients.map(|clients| clients.to_string())),
            ("wait-for-clients", self.wait_for_clients.map(|clients| clients.to_string())),
            ("perms", self.perms.map(|perms| perms.to_string())),
            ("insecure", self.remote.insecure.then(|| "true".to_owned())),
            ("networks", self.remote.networks()),
            ("identity", self.remote.identity_name(self.listen.iter().map(String::as_str))?),
        ];
        for (name, value) in options {
            if let Some(value) = value {
                set(sink, name, value)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_pictures_are_read() {
        let caps = |text: &str| text.parse::<TestPicture>().map(|picture| picture.caps());
        let full = "video/x-raw,format=NV12,width=1920,height=1080,framerate=60/1";
        assert_eq!(caps("1920x1080@60:NV12").as_deref(), Ok(full));
        assert_eq!(caps("8x6").as_deref(), Ok("video/x-raw,format=NV12,width=8,height=6,framerate=30/1"));
        assert_eq!(
            caps("8x6@30000/1001").as_deref(),
            Ok("video/x-raw,format=NV12,width=8,height=6,framerate=30000/1001")
        );
        for wrong in
            ["", "8", "8x", "x8", "0x8", "8x8@", "8x8@0", "8x8@1/0", "8x8:", "8x8:NV12,width=9", "40000x1"]
        {
            assert!(caps(wrong).is_err(), "{wrong}");
        }
    }

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
