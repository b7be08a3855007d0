//! YUV4MPEG2, the format in which raw video says what it is.

use pagecast::Frame;

use crate::caps::Caps;
use crate::exit::Failure;
use crate::layout::{self, Picture};

/// Before every picture.
const FRAME: &[u8] = b"FRAME\n";

/// How the planes of a format become those of YUV4MPEG2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Planes {
    /// As they are.
    Same,
    /// The second and third change places.
    Swapped,
    /// The second holds both chroma components, U (or V) first.
    Interleaved { v_first: bool },
}

/// GStreamer's format, the tag of its subsampling and how to get there.
const NATIVE: &[(&str, &str, Planes)] = &[
    ("I420", "420", Planes::Same),
    ("YV12", "420", Planes::Swapped),
    ("NV12", "420", Planes::Interleaved { v_first: false }),
    ("NV21", "420", Planes::Interleaved { v_first: true }),
    ("Y41B", "411", Planes::Same),
    ("Y42B", "422", Planes::Same),
    ("NV16", "422", Planes::Interleaved { v_first: false }),
    ("NV61", "422", Planes::Interleaved { v_first: true }),
    ("Y444", "444", Planes::Same),
    ("NV24", "444", Planes::Interleaved { v_first: false }),
    ("GRAY8", "mono", Planes::Same),
    ("I420_10LE", "420p10 XYSCSS=420P10", Planes::Same),
    ("I420_12LE", "420p12 XYSCSS=420P12", Planes::Same),
    ("I422_10LE", "422p10 XYSCSS=422P10", Planes::Same),
    ("I422_12LE", "422p12 XYSCSS=422P12", Planes::Same),
    ("Y444_10LE", "444p10 XYSCSS=444P10", Planes::Same),
    ("Y444_12LE", "444p12 XYSCSS=444P12", Planes::Same),
];

/// Turns frames into pictures of a YUV4MPEG2 stream.
pub(crate) struct Encoder {
    header: String,
    way: Way,
    bytes: Vec<u8>,
}

enum Way {
    Native(Picture, Planes),
    #[cfg(feature = "gstreamer")]
    Converted(Box<crate::convert::ToI420>),
}

impl Encoder {
    /// For frames of these caps, given parsed and as text.
    pub(crate) fn new(caps: &Caps, text: &str) -> Result<Self, Failure> {
        if caps.media != "video/x-raw" {
            let message =
                format!("--y4m needs raw video, this is {text:?}: leave --y4m out, or decode it first");
            return Err(Failure::failed(message));
        }
        let format = caps.get("format").unwrap_or_default();
        let (tag, way) = match NATIVE.iter().find(|(name, ..)| *name == format) {
            Some((_, tag, planes)) => {
                let picture = Picture::of(caps).map_err(Failure::failed)?;
                let picture = picture.ok_or_else(|| Failure::failed("no raw video"))?;
                (*tag, Way::Native(picture, *planes))
            }
            None => ("420", convert(text, format)?),
        };
        Ok(Self { header: header(caps, tag)?, way, bytes: Vec::new() })
    }

    /// What the stream begins with.
    pub(crate) fn header(&self) -> &str {
        &self.header
    }

    /// One picture, with what goes before it.
    pub(crate) fn frame(&mut self, frame: &Frame) -> Result<&[u8], Failure> {
        self.bytes.clear();
        self.bytes.extend_from_slice(FRAME);
        match &mut self.way {
            Way::Native(picture, planes) => {
                let lines = picture.lines(frame).map_err(Failure::failed)?;
                let luma = match planes {
                    Planes::Swapped => {
                        let swapped = [lines[0], lines[2], lines[1]];
                        layout::pack(frame, &swapped, &mut self.bytes).map_err(Failure::failed)?;
                        return Ok(&self.bytes);
                    }
                    _ => FRAME.len() + lines[0].row * lines[0].count,
                };
                layout::pack(frame, &lines, &mut self.bytes).map_err(Failure::failed)?;
                if let Planes::Interleaved { v_first } = planes {
                    let both = self.bytes.split_off(luma);
                    let component = |first: bool| both.iter().skip(usize::from(!first)).step_by(2);
                    self.bytes.extend(component(!*v_first));
                    self.bytes.extend(component(*v_first));
                }
            }
            #[cfg(feature = "gstreamer")]
            Way::Converted(converter) => converter.append(frame, &mut self.bytes)?,
        }
        Ok(&self.bytes)
    }
}

#[cfg(feature = "gstreamer")]
fn convert(text: &str, _format: &str) -> Result<Way, Failure> {
    Ok(Way::Converted(Box::new(crate::convert::ToI420::new(text)?)))
}

#[cfg(not(feature = "gstreamer"))]
fn convert(_text: &str, format: &str) -> Result<Way, Failure> {
    let known: Vec<_> = NATIVE.iter().map(|(name, ..)| *name).collect();
    Err(Failure::failed(format!(
        "format {format} has no YUV4MPEG2 form and this build has no GStreamer to convert it: publish one of {}",
        known.join(", ")
    )))
}

fn header(caps: &Caps, tag: &str) -> Result<String, Failure> {
    let size =
        |name| caps.number(name).ok_or_else(|| Failure::failed(format_args!("the caps say no {name}")));
    let (width, height) = (size("width")?, size("height")?);
    let (rate, per) = caps.fraction("framerate").filter(|(rate, _)| *rate > 0).unwrap_or((25, 1));
    let (across, down) = caps.fraction("pixel-aspect-ratio").unwrap_or((1, 1));
    let interlace = match (caps.get("interlace-mode"), caps.get("field-order")) {
        (None | Some("progressive"), _) => "p",
        (_, Some("top-field-first")) => "t",
        (_, Some("bottom-field-first")) => "b",
        _ => "?",
    };
    // Only 8-bit 4:2:0 says where its chroma samples sit.
    let site = match (tag, caps.get("chroma-site")) {
        ("420", Some("jpeg")) => "jpeg",
        ("420", Some("dv")) => "paldv",
        ("420", _) => "mpeg2",
        _ => "",
    };
    let full = caps.get("colorimetry").is_some_and(|text| text.starts_with("1:"));
    let range = if full { " XCOLORRANGE=FULL" } else { "" };
    Ok(format!(
        "YUV4MPEG2 W{width} H{height} F{rate}:{per} I{interlace} A{across}:{down} C{tag}{site}{range}\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pagecast::{Frame, Pool, PoolOptions};

    fn encode(caps: &str, bytes: &[u8]) -> (String, Vec<u8>) {
        let mut lease = Pool::new(PoolOptions::default()).acquire(bytes.len()).unwrap();
        lease.as_mut_slice()[..bytes.len()].copy_from_slice(bytes);
        let frame = Frame::builder().lease(lease, bytes.len()).build().unwrap();
        let mut encoder = Encoder::new(&Caps::parse(caps), caps).unwrap();
        let picture = encoder.frame(&frame).unwrap().strip_prefix(FRAME).unwrap().to_vec();
        (encoder.header().to_owned(), picture)
    }

    #[test]
    fn planes_come_in_order_y_u_v() {
        // 2x2: luma with a stride of 4, then chroma.
        let luma = [1, 2, 0, 0, 3, 4, 0, 0];
        let with = |chroma: &[u8]| [&luma, chroma].concat();
        let caps = |format| format!("video/x-raw, format={format}, width=2, height=2, framerate=30000/1001");
        let expected = [1, 2, 3, 4, 8, 9];
        let (header, picture) = encode(&caps("I420"), &with(&[8, 0, 0, 0, 9, 0, 0, 0]));
        assert_eq!(header, "YUV4MPEG2 W2 H2 F30000:1001 Ip A1:1 C420mpeg2\n");
        assert_eq!(picture, expected);
        assert_eq!(encode(&caps("YV12"), &with(&[9, 0, 0, 0, 8, 0, 0, 0])).1, expected);
        assert_eq!(encode(&caps("NV12"), &with(&[8, 9, 0, 0])).1, expected);
        assert_eq!(encode(&caps("NV21"), &with(&[9, 8, 0, 0])).1, expected);
        assert_eq!(encode(&caps("GRAY8"), &luma).1, expected[..4]);
    }

    #[test]
    fn what_is_no_raw_video_is_refused() {
        for text in ["", "audio/x-raw, rate=48000", "video/x-raw, format=I420, width=4"] {
            assert!(Encoder::new(&Caps::parse(text), text).is_err(), "{text}");
        }
    }
}
