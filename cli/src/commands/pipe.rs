//! `pagecast pipe`.

use std::io::Write;

use clap::Args;
use pagecast::Frame;

use super::receive::{self, Calls, Receive};
use crate::caps::Caps;
use crate::exit::{Exit, Failure, Outcome};
use crate::layout::{self, Picture};
use crate::{address, output, y4m};

#[derive(Debug, Args)]
#[command(after_help = "\
Raw video is written without padding, as ffmpeg's rawvideo wants it; anything
else as it is. With --y4m size, format and frame rate travel along. A reader
that goes away ends the command cleanly.

Examples:
  pagecast pipe cam0 --y4m | ffmpeg -i - -c:v libx264 out.mp4
  pagecast pipe cam0 --y4m | ffplay -
  pagecast pipe cam0 | ffmpeg -f rawvideo -pix_fmt nv12 -s 1920x1080 -r 60 -i - out.mkv
  pagecast pipe mic0 -n 500 > audio.raw")]
pub(crate) struct Pipe {
    /// The publisher: unix:NAME, unix:/path, tcp://, rdma:// or remote://HOST:PORT, or NAME.
    #[arg(value_name = "URI", value_parser = address::parse)]
    uri: String,
    /// Write YUV4MPEG2 instead of bare frames.
    #[arg(long)]
    y4m: bool,
    #[command(flatten)]
    how: Receive,
}

/// What is known of the stream once its first frame came.
enum Format {
    /// Nothing to take apart.
    Opaque,
    /// Lines without padding.
    Packed(Picture),
    /// With YUV4MPEG2's headers.
    Y4m(Box<y4m::Encoder>),
}

impl Pipe {
    pub(crate) fn run(self) -> Outcome {
        if output::is_terminal() {
            return Err(Failure::usage(
                "stdout is a terminal: write to a file (> frames.raw) or a pipe (| ffmpeg …)",
            ));
        }
        let mut writer = Writer { y4m: self.y4m, format: None, caps: None, bytes: Vec::new() };
        let each = |frame: &Frame| writer.frame(frame).map(|()| true);
        let calls = Calls { connected: || (), each, second: |_: &_| Ok(()) };
        let (_, figures) = receive::frames(&self.uri, &self.how, calls)?;
        match figures.dropped {
            0 => Ok(Exit::Ok),
            _ if self.how.leaves_out() => Ok(Exit::Ok),
            dropped => Err(Failure::failed(format_args!(
                "{dropped} frames were lost because the reader was too slow: --policy block holds the publisher instead"
            ))),
        }
    }
}

struct Writer {
    y4m: bool,
    caps: Option<String>,
    format: Option<Format>,
    bytes: Vec<u8>,
}

impl Writer {
    fn frame(&mut self, frame: &Frame) -> Result<(), Failure> {
        self.bytes.clear();
        if self.format.is_none() || self.caps.as_deref() != frame.caps() {
            self.begin(frame)?;
        }
        // Copied first: the page goes back before a slow reader holds us up.
        let result = match &mut self.format {
            Some(Format::Packed(picture)) => {
                let lines = picture.lines(frame).map_err(Failure::failed)?;
                layout::pack(frame, &lines, &mut self.bytes)
            }
            Some(Format::Y4m(encoder)) => return encoder.frame(frame).and_then(write),
            Some(Format::Opaque) | None => frame.to_vec().map(|bytes| self.bytes = bytes),
        };
        result.map_err(Failure::failed)?;
        write(&self.bytes)
    }

    /// Looks at new caps; writes a header where there is one.
    fn begin(&mut self, frame: &Frame) -> Result<(), Failure> {
        let text = frame.caps().unwrap_or_default();
        let caps = Caps::parse(text);
        let picture = Picture::of(&caps);
        let format = if self.y4m {
            Format::Y4m(Box::new(y4m::Encoder::new(&caps, text)?))
        } else {
            match picture.map_err(Failure::failed)? {
                Some(picture) => Format::Packed(picture),
                None => Format::Opaque,
            }
        };
        match &self.format {
            Some(before) if !before.goes_on_as(&format) => {
                let before = self.caps.as_deref().unwrap_or_default();
                return Err(Failure::failed(format_args!(
                    "the caps changed from {before} to {text}: a reader of bytes cannot follow, start again"
                )));
            }
            Some(_) => {}
            None => {
                if let Format::Y4m(encoder) = &format {
                    write(encoder.header().as_bytes())?;
                }
            }
        }
        self.format = Some(format);
        self.caps = frame.caps().map(str::to_owned);
        Ok(())
    }
}

impl Format {
    fn goes_on_as(&self, next: &Self) -> bool {
        match (self, next) {
            (Self::Opaque, Self::Opaque) => true,
            (Self::Packed(before), Self::Packed(next)) => before == next,
            (Self::Y4m(before), Self::Y4m(next)) => before.header() == next.header(),
            _ => false,
        }
    }
}

fn write(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)?;
    Ok(out.flush()?)
}
