//! The same stream in other forms, each published under a name of its own: made once, however many read it.

use std::str::FromStr;
use std::thread::JoinHandle;

use pagecast::ipc::socket::Uri;

use super::Serve;
use crate::exit::{Failure, Outcome};
use crate::output::note;
use crate::pipeline::{self, Runner};

/// Kilobits per second of H.264 where none are given.
const KILOBITS: u32 = 4000;
/// Pictures from one key frame to the next; newcomers ask for one of their own.
const KEY_INTERVAL: u32 = 60;

/// `NAME=FORM`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rendition {
    name: String,
    form: Form,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    /// Scaled; with fewer pictures per second, if that is given.
    Scaled { width: u32, height: u32, rate: Option<u32> },
    /// Encoded.
    H264 { kilobits: u32 },
    /// Whatever these elements make of it.
    Elements(String),
}

impl FromStr for Rendition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is no rendition: NAME=WIDTHxHEIGHT[@FPS], NAME=h264[:KILOBITS] or 'NAME=ELEMENTS…', e.g. cam0-720p=1280x720"
            )
        };
        let (name, form) = text.split_once('=').ok_or_else(wrong)?;
        let name = super::name(name.trim()).map_err(|error| error.to_string())?;
        Ok(Self { name, form: Form::parse(form.trim()).ok_or_else(wrong)? })
    }
}

impl Form {
    fn parse(text: &str) -> Option<Self> {
        let number = |text: &str, most: u32| text.parse::<u32>().ok().filter(|n| (1..=most).contains(n));
        if text == "h264" {
            return Some(Self::H264 { kilobits: KILOBITS });
        }
        if let Some(kilobits) = text.strip_prefix("h264:") {
            return Some(Self::H264 { kilobits: number(kilobits, 1_000_000)? });
        }
        if !text.starts_with(|c: char| c.is_ascii_digit()) {
            return Some(Self::Elements(text.to_owned())).filter(|_| !text.is_empty());
        }
        let (size, rate) = match text.split_once('@') {
            Some((size, rate)) => (size, Some(number(rate, 1000)?)),
            None => (text, None),
        };
        let (width, height) = size.split_once('x')?;
        Some(Self::Scaled { width: number(width, 32_767)?, height: number(height, 32_767)?, rate })
    }

    /// The elements between the source and the sink.
    fn elements(&self) -> String {
        match self {
            Self::Scaled { width, height, rate: None } => {
                format!("videoscale ! video/x-raw,width={width},height={height}")
            }
            // Fewer pictures first: those that go are not scaled.
            Self::Scaled { width, height, rate: Some(rate) } => format!(
                "videorate drop-only=true ! video/x-raw,framerate={rate}/1 ! videoscale ! video/x-raw,width={width},height={height}"
            ),
            Self::H264 { kilobits } => format!(
                "videoconvert ! x264enc tune=zerolatency speed-preset=veryfast bitrate={kilobits} key-int-max={KEY_INTERVAL} ! h264parse config-interval=-1"
            ),
            Self::Elements(elements) => elements.clone(),
        }
    }
}

/// A rendition at work.
pub(super) struct Running {
    name: String,
    pipeline: gst::Pipeline,
    thread: JoinHandle<Outcome>,
}

impl Serve {
    /// Begins to make all renditions; they wait for the stream.
    pub(super) fn start_renditions(&self) -> Result<Vec<Running>, Failure> {
        // All are looked at before the first begins.
        let made = self.renditions.iter().map(|rendition| Ok((rendition, self.rendition(rendition)?)));
        let made = made.collect::<Result<Vec<_>, Failure>>()?;
        let start = |(rendition, pipeline): (&Rendition, gst::Pipeline)| {
            let name = rendition.name.clone();
            let thread = std::thread::Builder::new().name(format!("rendition-{name}"));
            let own = pipeline.clone();
            let called = name.clone();
            let run = move || {
                let told = |failure: &Failure| {
                    note(format_args!("the rendition {called} has ended, the others go on: {failure}"));
                };
                Runner::new(own).run().inspect_err(told)
            };
            let thread = thread.spawn(run).map_err(Failure::failed)?;
            note(format_args!(
                "serving unix:{name} as well: {} of unix:{}",
                rendition.form.elements(),
                self.name
            ));
            Ok(Running { name, pipeline, thread })
        };
        made.into_iter().map(start).collect()
    }

    fn rendition(&self, rendition: &Rendition) -> Result<gst::Pipeline, Failure> {
        let (of, name) = (&self.name, &rendition.name);
        if name == of || self.renditions.iter().filter(|other| other.name == *name).count() > 1 {
            return Err(Failure::usage(format_args!("two streams cannot both be called {name}")));
        }
        let elements = rendition.form.elements();
        let words =
            [format!("pagecastsrc uri=unix:{of} reconnect=true ! {elements} ! pagecastsink sync=false")];
        let pipeline = pipeline::words(&words).and_then(|words| pipeline::parse(&words));
        let pipeline =
            pipeline.map_err(|failure| Failure::usage(format_args!("the rendition {name}: {failure}")))?;
        let sink = self.sink(&pipeline)?;
        self.configure(&sink, &Uri::unix(name).map_err(Failure::usage)?.to_string())?;
        Ok(pipeline)
    }
}

/// Ends them all, as the stream has ended; how the first that failed did.
pub(super) fn end(all: Vec<Running>) -> Result<(), Failure> {
    all.iter().for_each(|running| pipeline::ask_to_end(&running.pipeline));
    let ended = all.into_iter().map(|Running { name, thread, .. }| {
        let result = thread.join().unwrap_or_else(|_| Err(Failure::failed("it panicked")));
        result.map(drop).map_err(|failure| Failure::failed(format_args!("the rendition {name}: {failure}")))
    });
    // Every one of them, not only up to the first failure.
    ended.collect::<Vec<_>>().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renditions_are_read() {
        let form = |text: &str| text.parse::<Rendition>().map(|rendition| (rendition.name, rendition.form));
        let scaled = |rate| Form::Scaled { width: 1280, height: 720, rate };
        assert_eq!(form("a=1280x720"), Ok(("a".to_owned(), scaled(None))));
        assert_eq!(form("a = 1280x720@15"), Ok(("a".to_owned(), scaled(Some(15)))));
        assert_eq!(form("a=h264"), Ok(("a".to_owned(), Form::H264 { kilobits: KILOBITS })));
        assert_eq!(form("unix:a=h264:500"), Ok(("a".to_owned(), Form::H264 { kilobits: 500 })));
        let elements = Form::Elements("videoflip video-direction=90r".to_owned());
        assert_eq!(form("a=videoflip video-direction=90r"), Ok(("a".to_owned(), elements)));
        for wrong in ["", "a", "a=", "=640x480", "a=640", "a=0x8", "a=8x8@", "a=8x8@0", "a=h264:", "a=h264:0"]
        {
            assert!(form(wrong).is_err(), "{wrong}");
        }
    }
}
