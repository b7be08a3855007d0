//! What a pipeline, a file or a test picture gives, published by a pagecastsink.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use gst::prelude::*;
use pagecast::BackingChoice;

use super::{Serve, renditions};
use crate::exit::{Failure, Outcome};
use crate::output;
use crate::pipeline::{self, Runner, set};

const SINK: &str = "pagecastsink";

/// Left to itself, videotestsrc chooses the largest format that it has.
const DEFAULT_FORMAT: &str = "NV12";

/// Where GStreamer gets the frames from.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct Source {
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
    /// Runs the pipeline to its end.
    pub(super) fn run_pipeline(&self) -> Outcome {
        pipeline::init()?;
        let mut words = self.source.words()?;
        if !words.iter().any(|word| word == SINK) {
            words.extend(["!".to_owned(), SINK.to_owned()]);
        }
        let pipeline = pipeline::parse(&words)?;
        let sink = self.sink(&pipeline)?;
        self.configure(&sink, &self.uris()?)?;
        if let Some(clients) = self.wait_for_clients {
            set(&sink, "wait-for-clients", clients)?;
        }
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
        let renditions = self.start_renditions()?;
        let ended = runner.run();
        renditions::end(renditions).and(ended)
    }

    /// The sink that is ours: the first one that has no address yet.
    pub(super) fn sink(&self, pipeline: &gst::Pipeline) -> Result<gst::Element, Failure> {
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

    pub(super) fn configure(&self, sink: &gst::Element, uri: &str) -> Result<(), Failure> {
        sink.set_property("uri", uri);
        let nanoseconds = |seconds: f64| (seconds * 1e9) as u64;
        let (backing, device) = self.backing();
        let options: [(&str, Option<String>); 12] = [
            ("policy", self.policy.map(|policy| policy.to_string())),
            ("block-deadline", self.block_deadline.map(|seconds| nanoseconds(seconds).to_string())),
            ("credits", self.credits.map(|credits| credits.to_string())),
            ("backing", backing),
            ("backing-device", device),
            ("pool-limit", self.pool_limit.map(|bytes| bytes.to_string())),
            ("hold-timeout", self.hold_timeout.map(|seconds| nanoseconds(seconds).to_string())),
            ("max-clients", self.max_clients.map(|clients| clients.to_string())),
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
}
