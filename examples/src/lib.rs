//! What the examples share: reading a command line, without a library for it.

use std::fmt::Display;
use std::str::FromStr;

use gst::prelude::*;
use pagecast::RemoteOptions;
use pagecast::remote::{AllowList, Identity, Network};

/// The blocks of Rust in README, as documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;

/// Why an example ended.
pub type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Whether `name` stands on the command line.
pub fn flag(name: &str) -> bool {
    std::env::args().any(|argument| argument == name)
}

/// The value after `name` on the command line, or else `usual`.
///
/// # Errors
/// If there is something that cannot be read.
pub fn option<T>(name: &str, usual: T) -> Result<T, String>
where
    T: FromStr,
    T::Err: Display,
{
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    if arguments.next().is_none() {
        return Ok(usual);
    }
    let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
    value.parse().map_err(|error| format!("{name} {value}: {error}"))
}

/// What holds for links to other hosts: `--identity FOLDER` (TLS; `pagecast keygen` makes it) or `--insecure` (clear text), and
/// `--network 10.0.0.0/8` (who may come).
///
/// # Errors
/// If the network is none, or the identity.
pub fn remote() -> Result<RemoteOptions, Box<dyn std::error::Error>> {
    let network = option("--network", String::new())?;
    let network = (!network.is_empty()).then(|| network.parse::<Network>()).transpose()?;
    let folder = option("--identity", String::new())?;
    let identity = (!folder.is_empty()).then(|| Identity::open(folder)).transpose()?;
    Ok(RemoteOptions { networks: AllowList::new(network), identity, insecure: flag("--insecure") })
}

/// A pipeline as `gst-launch-1.0` takes it.
///
/// # Errors
/// If there is no such pipeline.
pub fn pipeline(text: &str) -> Result<gst::Pipeline, Box<dyn std::error::Error>> {
    Ok(gst::parse::launch(text)?.downcast::<gst::Pipeline>().map_err(|_| "not a pipeline")?)
}

/// Lets it play.
///
/// # Errors
/// What an element says if it cannot.
pub fn play(pipeline: &gst::Pipeline) -> Outcome {
    if pipeline.set_state(gst::State::Playing).is_ok() {
        return Ok(());
    }
    let bus = pipeline.bus().ok_or("no bus")?;
    let told = bus.timed_pop_filtered(gst::ClockTime::SECOND, &[gst::MessageType::Error]);
    let _ = pipeline.set_state(gst::State::Null);
    Err(told.as_ref().and_then(failure).unwrap_or_else(|| "it does not play".to_owned()).into())
}

/// Waits for the end of the stream.
///
/// # Errors
/// What an element says if it fails.
pub fn wait(pipeline: &gst::Pipeline) -> Outcome {
    let bus = pipeline.bus().ok_or("no bus")?;
    let kinds = [gst::MessageType::Error, gst::MessageType::Eos];
    match bus.timed_pop_filtered(gst::ClockTime::NONE, &kinds).as_ref().and_then(failure) {
        Some(failure) => Err(failure.into()),
        None => Ok(()),
    }
}

/// What an element's message says, if it is of a failure.
pub fn failure(message: &gst::Message) -> Option<String> {
    let gst::MessageView::Error(error) = message.view() else { return None };
    let from = message.src().map(|src| src.name().to_string()).unwrap_or_default();
    Some(format!("{from}: {} ({})", error.error(), error.debug().unwrap_or_default()))
}

/// Width and height from a text like `640x480`.
///
/// # Errors
/// If it is none.
pub fn size(text: &str) -> Result<(usize, usize), String> {
    let parts = text.split_once('x').map(|(width, height)| (width.parse(), height.parse()));
    match parts {
        Some((Ok(width), Ok(height))) if width > 0 && height > 0 => Ok((width, height)),
        _ => Err(format!("{text}: write a size as 640x480")),
    }
}

/// Draws the test pattern: grey lines that move up by one with every frame.
pub fn draw(picture: &mut [u8], width: usize, frame: u64) {
    for (line, pixels) in picture.chunks_mut(width).enumerate() {
        pixels.fill((frame as usize + line) as u8);
    }
}

/// Whether a picture is the test pattern of this frame.
pub fn is_drawn(picture: &[u8], width: usize, frame: u64) -> bool {
    let mut lines = picture.chunks(width).enumerate();
    lines.all(|(line, pixels)| pixels.iter().all(|pixel| *pixel == (frame as usize + line) as u8))
}
