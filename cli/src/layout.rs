//! Where the lines of raw video are, and how long they are without padding. GStreamer is not needed for it.

use pagecast::{Frame, ReadError};

use crate::caps::Caps;

/// One plane of a format: samples of so many bytes, subsampled by powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    across: u32,
    down: u32,
    bytes: usize,
}

const fn part(across: u32, down: u32, bytes: usize) -> Part {
    Part { across, down, bytes }
}

/// Formats by their GStreamer names.
const FORMATS: &[(&[&str], &[Part])] = &[
    (&["I420", "YV12"], &[part(0, 0, 1), part(1, 1, 1), part(1, 1, 1)]),
    (&["Y42B"], &[part(0, 0, 1), part(1, 0, 1), part(1, 0, 1)]),
    (&["Y41B"], &[part(0, 0, 1), part(2, 0, 1), part(2, 0, 1)]),
    (&["Y444", "GBR"], &[part(0, 0, 1), part(0, 0, 1), part(0, 0, 1)]),
    (&["A420"], &[part(0, 0, 1), part(1, 1, 1), part(1, 1, 1), part(0, 0, 1)]),
    (&["I420_10LE", "I420_12LE"], &[part(0, 0, 2), part(1, 1, 2), part(1, 1, 2)]),
    (&["I422_10LE", "I422_12LE"], &[part(0, 0, 2), part(1, 0, 2), part(1, 0, 2)]),
    (&["Y444_10LE", "Y444_12LE", "Y444_16LE", "GBR_10LE"], &[part(0, 0, 2), part(0, 0, 2), part(0, 0, 2)]),
    (&["NV12", "NV21"], &[part(0, 0, 1), part(1, 1, 2)]),
    (&["NV16", "NV61"], &[part(0, 0, 1), part(1, 0, 2)]),
    (&["NV24"], &[part(0, 0, 1), part(0, 0, 2)]),
    (&["P010_10LE"], &[part(0, 0, 2), part(1, 1, 4)]),
    (&["YUY2", "UYVY", "YVYU", "VYUY"], &[part(1, 0, 4)]),
    (&["GRAY8"], &[part(0, 0, 1)]),
    (&["GRAY16_LE", "GRAY16_BE", "RGB16", "BGR16", "RGB15", "BGR15"], &[part(0, 0, 2)]),
    (&["RGB", "BGR", "v308"], &[part(0, 0, 3)]),
    (&["RGBA", "BGRA", "ARGB", "ABGR", "RGBx", "BGRx", "xRGB", "xBGR", "AYUV", "VUYA"], &[part(0, 0, 4)]),
    (&["ARGB64", "AYUV64"], &[part(0, 0, 8)]),
];

/// Lines of one plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lines {
    /// Where the plane begins.
    pub(crate) offset: usize,
    /// Bytes from one line to the next.
    pub(crate) stride: usize,
    /// Bytes of a line that mean something.
    pub(crate) row: usize,
    /// Lines.
    pub(crate) count: usize,
}

/// A raw picture: format and size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Picture {
    /// GStreamer's name of the format.
    pub(crate) format: String,
    /// Pixels across.
    pub(crate) width: usize,
    /// Pixels down.
    pub(crate) height: usize,
    parts: &'static [Part],
}

/// Why frames of these caps cannot be taken apart.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LayoutError {
    /// The format is not in the table.
    #[error("raw video of format {0} is not known here: convert it with GStreamer's videoconvert")]
    Format(String),
    /// The caps say no format or size.
    #[error("the caps of the raw video say no {0}")]
    Missing(&'static str),
    /// The frame is not as its caps say.
    #[error("the frame has {found} bytes, its caps and planes need {needed}")]
    TooShort { found: usize, needed: usize },
    /// Lines that run upwards.
    #[error("planes with negative strides are not supported")]
    Upwards,
}

impl Picture {
    /// What the caps say; `None` if they are not of raw video.
    pub(crate) fn of(caps: &Caps) -> Result<Option<Self>, LayoutError> {
        if caps.media != "video/x-raw" {
            return Ok(None);
        }
        let format = caps.get("format").ok_or(LayoutError::Missing("format"))?;
        let size = |name| caps.number(name).filter(|n| *n > 0).ok_or(LayoutError::Missing(name));
        let (width, height) = (size("width")? as usize, size("height")? as usize);
        let parts = FORMATS.iter().find(|(names, _)| names.contains(&format)).map(|(_, parts)| *parts);
        let parts = parts.ok_or_else(|| LayoutError::Format(format.to_owned()))?;
        Ok(Some(Self { format: format.to_owned(), width, height, parts }))
    }

    /// Length of a line without padding, and lines, of each plane.
    pub(crate) fn planes(&self) -> impl Iterator<Item = (usize, usize)> {
        let shrink = |size: usize, by: u32| size.div_ceil(1 << by);
        self.parts.iter().map(move |p| (shrink(self.width, p.across) * p.bytes, shrink(self.height, p.down)))
    }

    /// Where the lines are when nothing else is said: GStreamer's default layout.
    pub(crate) fn default_lines(&self) -> Vec<Lines> {
        // GStreamer pads these as if their chroma were subsampled downwards.
        let odd_one = u32::from(self.format.starts_with("I422_1"));
        let vertical = self.parts.iter().map(|part| part.down).max().unwrap_or(0).max(odd_one);
        let mut offset = 0;
        let mut all = Vec::new();
        for ((row, count), part) in self.planes().zip(self.parts) {
            // Pictures are padded to whole chroma samples, and lines to four bytes.
            let whole = self.width.next_multiple_of(1 << self.widest());
            let stride = whole.div_ceil(1 << part.across) * part.bytes;
            let stride = match self.parts.len() {
                1 => row.next_multiple_of(4),
                _ => stride.next_multiple_of(4),
            };
            let padded = self.height.next_multiple_of(1 << vertical) >> part.down;
            all.push(Lines { offset, stride, row, count });
            offset += stride * padded;
        }
        all
    }

    fn widest(&self) -> u32 {
        self.parts.iter().map(|part| part.across).max().unwrap_or(0)
    }

    /// Where the lines of a frame are.
    pub(crate) fn lines(&self, frame: &Frame) -> Result<Vec<Lines>, LayoutError> {
        let planes = &frame.description().planes;
        let mut lines = self.default_lines();
        if planes.len() == lines.len() {
            for (lines, plane) in lines.iter_mut().zip(planes) {
                lines.offset = plane.offset as usize;
                lines.stride = usize::try_from(plane.stride).map_err(|_| LayoutError::Upwards)?;
            }
        }
        let end =
            |l: &Lines| l.stride.saturating_mul(l.count - 1).saturating_add(l.offset.saturating_add(l.row));
        let (found, needed) = (frame.size(), lines.iter().map(end).max().unwrap_or(0));
        if needed > found { Err(LayoutError::TooShort { found, needed }) } else { Ok(lines) }
    }
}

/// Appends the planes of a frame without padding.
pub(crate) fn pack(frame: &Frame, lines: &[Lines], out: &mut Vec<u8>) -> Result<(), ReadError> {
    let guard = frame.read()?;
    for plane in lines {
        let start = out.len();
        out.resize(start + plane.row * plane.count, 0);
        let whole = plane.stride == plane.row;
        let step = if whole { plane.row * plane.count } else { plane.row };
        for (number, row) in out[start..].chunks_mut(step.max(1)).enumerate() {
            guard.copy_to(plane.offset + number * plane.stride, row)?;
        }
    }
    guard.finish()?;
    Ok(())
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
