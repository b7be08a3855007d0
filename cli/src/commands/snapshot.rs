//! `pagecast snapshot`.

use std::cell::RefCell;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use pagecast::{Frame, FrameFlags};

use super::receive::{self, Calls, Receive};
use crate::convert;
use crate::exit::{Exit, Failure, Outcome};
use crate::{address, output};

/// How long one picture may take to encode.
const PATIENCE: gst::ClockTime = gst::ClockTime::from_seconds(20);

#[derive(Debug, Args)]
#[command(after_help = "\
Works for raw video of every format that GStreamer can convert. The kind of
picture follows from the file's name: .png, or .jpg.

Examples:
  pagecast snapshot cam0
  pagecast snapshot cam0 -o front.png
  pagecast snapshot cam0 -o - > front.png")]
pub(crate) struct Snapshot {
    /// The publisher: unix:NAME, unix:/path, tcp://, rdma:// or remote://HOST:PORT, or NAME.
    #[arg(value_name = "URI", value_parser = address::parse)]
    uri: String,
    /// Where to write it; `-` is stdout (PNG).
    #[arg(short, long, value_name = "FILE", default_value = "snapshot.png")]
    output: PathBuf,
    /// Seconds to wait for a frame.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = super::seconds)]
    timeout: f64,
    #[command(flatten)]
    remote: address::Remote,
}

impl Snapshot {
    pub(crate) fn run(self) -> Outcome {
        let to_stdout = self.output == Path::new("-");
        let kind = if to_stdout { "image/png" } else { kind_of(&self.output)? };
        if to_stdout && output::is_terminal() {
            return Err(Failure::usage("stdout is a terminal: name a file (-o front.png)"));
        }
        convert::init()?;
        let Some(sample) = self.receive()? else { return Ok(Exit::Ok) };
        let picture = encode(&sample, kind)?;
        if to_stdout {
            let mut out = std::io::stdout().lock();
            out.write_all(&picture)?;
            out.flush()?;
        } else {
            let path = self.output.display();
            std::fs::write(&self.output, &picture)
                .map_err(|error| Failure::failed(format_args!("cannot write {path}: {error}")))?;
            output::note(format_args!("{path}: {}", output::bytes(picture.len() as u64)));
        }
        Ok(Exit::Ok)
    }

    /// One frame; `None` if a signal ended the wait.
    fn receive(&self) -> Result<Option<gst::Sample>, Failure> {
        let how = Receive::one(self.timeout, &self.remote);
        let sample = RefCell::new(None);
        let each = |frame: &Frame| {
            if frame.description().flags.contains(FrameFlags::GAP) || frame.size() == 0 {
                return Ok(false);
            }
            *sample.borrow_mut() = Some(convert::sample(frame)?);
            Ok(true)
        };
        receive::frames(&self.uri, &how, Calls { connected: || (), each, second: |_: &_| Ok(()) })?;
        match sample.into_inner() {
            None if crate::signals::caught().is_none() => {
                Err(Failure::new(Exit::Timeout, "the stream ended before a frame came"))
            }
            sample => Ok(sample),
        }
    }
}

/// The media type that a file's name asks for.
fn kind_of(path: &Path) -> Result<&'static str, Failure> {
    let extension = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
    match extension.as_deref() {
        Some("png") => Ok("image/png"),
        Some("jpg" | "jpeg") => Ok("image/jpeg"),
        _ => Err(Failure::usage(format_args!("{}: name it .png or .jpg", path.display()))),
    }
}

fn encode(sample: &gst::Sample, kind: &str) -> Result<Vec<u8>, Failure> {
    let caps = sample.caps().map(|caps| caps.to_string()).unwrap_or_default();
    if !caps.starts_with("video/x-raw") {
        return Err(Failure::failed(format_args!(
            "this is no raw video but {caps}: decode it, e.g. with `pagecast recv URI decodebin ! …`"
        )));
    }
    let target = gst::Caps::new_empty_simple(kind);
    let picture = gst_video::convert_sample(sample, &target, Some(PATIENCE)).map_err(|error| {
        Failure::failed(format_args!(
            "cannot make a picture of {caps}: {error}; `pagecast doctor` shows missing elements"
        ))
    })?;
    let buffer = picture.buffer().ok_or_else(|| Failure::failed("the encoder made no picture"))?;
    let map = buffer.map_readable().map_err(Failure::failed)?;
    Ok(map.to_vec())
}
