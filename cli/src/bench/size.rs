//! How large frames are.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The fewest bytes of a frame: room for a stamp and a time.
const MIN_BYTES: usize = 4096;
/// The most: what a link to another host carries.
const MAX_BYTES: usize = 1 << 30;

/// A picture, or so many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum FrameSize {
    /// NV12.
    Picture { width: u32, height: u32 },
    /// Anything.
    Bytes { frame_bytes: usize },
}

impl FrameSize {
    /// Bytes of a frame.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::Picture { width, height } => width as usize * height as usize * 3 / 2,
            Self::Bytes { frame_bytes } => frame_bytes,
        }
    }

    /// Whether it is a picture, which pipelines need.
    pub(crate) fn is_picture(self) -> bool {
        matches!(self, Self::Picture { .. })
    }

    /// A picture's size, for clap.
    pub(crate) fn picture(text: &str) -> Result<Self, String> {
        let parsed = match text {
            "1080p" => Some((1920, 1080)),
            "4k" | "4K" => Some((3840, 2160)),
            _ => text.split_once('x').and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?))),
        };
        match parsed {
            Some((width @ 64..=16384, height @ 64..=16384)) if width % 4 == 0 && height % 2 == 0 => {
                Ok(Self::Picture { width, height })
            }
            _ => Err("a size is WIDTHxHEIGHT, 64x64 to 16384x16384; widths by 4, heights by 2".to_owned()),
        }
    }
}

impl FromStr for FrameSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Ok(frame_bytes) = text.parse::<usize>() else {
            return Self::picture(text).map_err(|error| format!("{error}; or 1080p, 4k, a number of bytes"));
        };
        match (MIN_BYTES..=MAX_BYTES).contains(&frame_bytes) {
            true => Ok(Self::Bytes { frame_bytes }),
            false => Err(format!("{MIN_BYTES} to {MAX_BYTES} bytes")),
        }
    }
}

impl fmt::Display for FrameSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Picture { width, height } => write!(f, "{width}x{height}"),
            Self::Bytes { frame_bytes } => write!(f, "{frame_bytes} bytes"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_checked() {
        let picture = |width, height| Ok(FrameSize::Picture { width, height });
        assert_eq!(FrameSize::picture("1920x1080"), picture(1920, 1080));
        assert_eq!("1080p".parse(), picture(1920, 1080));
        assert_eq!("4k".parse(), picture(3840, 2160));
        assert_eq!("4096".parse(), Ok(FrameSize::Bytes { frame_bytes: 4096 }));
        for wrong in ["", "1920", "63x64", "66x64", "1920x1081", "20000x100", "ax64"] {
            assert!(FrameSize::picture(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "0", "4095", "1073741825", "-1", "1e6", "8k", "64x"] {
            assert!(wrong.parse::<FrameSize>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn it_is_written_as_width_and_height_or_bytes() {
        let sizes = [FrameSize::Picture { width: 64, height: 66 }, FrameSize::Bytes { frame_bytes: 5000 }];
        assert_eq!(sizes.map(FrameSize::bytes), [6336, 5000]);
        for (size, json) in sizes.iter().zip([r#"{"width":64,"height":66}"#, r#"{"frame_bytes":5000}"#]) {
            assert_eq!(serde_json::to_string(size).unwrap(), json);
            assert_eq!(serde_json::from_str::<FrameSize>(json).unwrap(), *size);
        }
    }
}
