//! What the examples share: reading a command line, without a library for it.

use std::fmt::Display;
use std::str::FromStr;

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
