//! Pixel formats of V4L2: what GStreamer calls them, and where their planes lie.
//!
//! Source: the kernel's userspace API guide, part "Video for Linux", "Image Formats".

use pagecast::Plane;

use crate::color::{Color, Fields};

/// A pixel format, by its four letters.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FourCc(pub [u8; 4]);

impl FourCc {
    /// Of the number that the kernel uses.
    pub const fn from_u32(number: u32) -> Self {
        Self(number.to_le_bytes())
    }

    /// The number that the kernel uses.
    pub const fn to_u32(self) -> u32 {
        u32::from_le_bytes(self.0)
    }
}

impl std::fmt::Display for FourCc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text: String =
            self.0.iter().map(|byte| if byte.is_ascii_graphic() { *byte as char } else { ' ' }).collect();
        f.write_str(text.trim_end())
    }
}

impl std::fmt::Debug for FourCc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// How the rows and planes of a picture lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// All samples of a pixel together.
    Packed,
    /// Luma, then chroma of both kinds in turn.
    SemiPlanar,
    /// Luma, then two planes of chroma at half the stride, with one row for so many of luma.
    Planar { rows: u32 },
    /// Not rows at all.
    Coded,
}

/// What is known of a format.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    four_cc: &'static [u8; 4],
    /// GStreamer's name of the format, or the whole media type of what is coded.
    name: &'static str,
    layout: Layout,
}

const fn raw(four_cc: &'static [u8; 4], name: &'static str, layout: Layout) -> Known {
    Known { four_cc, name, layout }
}

/// In the order of preference where the user names none: raw pictures first, and what needs the fewest bytes.
const KNOWN: [Known; 25] = [
    raw(b"NV12", "NV12", Layout::SemiPlanar),
    raw(b"NM12", "NV12", Layout::SemiPlanar),
    raw(b"YU12", "I420", Layout::Planar { rows: 2 }),
    raw(b"YM12", "I420", Layout::Planar { rows: 2 }),
    raw(b"YV12", "YV12", Layout::Planar { rows: 2 }),
    raw(b"YM21", "YV12", Layout::Planar { rows: 2 }),
    raw(b"NV21", "NV21", Layout::SemiPlanar),
    raw(b"NM21", "NV21", Layout::SemiPlanar),
    raw(b"YUYV", "YUY2", Layout::Packed),
    raw(b"UYVY", "UYVY", Layout::Packed),
    raw(b"YVYU", "YVYU", Layout::Packed),
    raw(b"NV16", "NV16", Layout::SemiPlanar),
    raw(b"NM16", "NV16", Layout::SemiPlanar),
    raw(b"422P", "Y42B", Layout::Planar { rows: 1 }),
    raw(b"RGB3", "RGB", Layout::Packed),
    raw(b"BGR3", "BGR", Layout::Packed),
    raw(b"XR24", "BGRx", Layout::Packed),
    raw(b"AR24", "BGRA", Layout::Packed),
    raw(b"XB24", "RGBx", Layout::Packed),
    raw(b"AB24", "RGBA", Layout::Packed),
    raw(b"GREY", "GRAY8", Layout::Packed),
    raw(b"Y16 ", "GRAY16_LE", Layout::Packed),
    raw(b"MJPG", "image/jpeg", Layout::Coded),
    raw(b"H264", "video/x-h264, stream-format=byte-stream, alignment=au", Layout::Coded),
    raw(b"HEVC", "video/x-h265, stream-format=byte-stream, alignment=au", Layout::Coded),
];

/// What is known of a format; `None` if frames of it could not be described.
pub fn known(four_cc: FourCc) -> Option<&'static Known> {
    KNOWN.iter().find(|known| *known.four_cc == four_cc.0)
}

/// How much a format is preferred where the user names none; less is more.
pub fn rank(four_cc: FourCc) -> Option<usize> {
    KNOWN.iter().position(|known| *known.four_cc == four_cc.0)
}

/// The formats that go by this name: four letters of V4L2, or GStreamer's word (`YUY2`, `I420`).
pub fn named(name: &str) -> impl Iterator<Item = FourCc> + '_ {
    let exact = |known: &&Known| {
        let (letters, word) = (FourCc(*known.four_cc).to_string(), known.name);
        [letters.as_str(), word].iter().any(|own| own.eq_ignore_ascii_case(name))
    };
    KNOWN.iter().filter(exact).map(|known| FourCc(*known.four_cc))
}

/// One plane of memory that the driver fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Bytes from one row to the next.
    pub stride: u32,
    /// Bytes that a picture takes.
    pub size: u32,
}

/// What the driver was brought to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    /// Pixels.
    pub four_cc: FourCc,
    /// Width and height, in pixels.
    pub size: (u32, u32),
    /// Pictures per second, as a fraction; `None` if the driver does not say.
    pub rate: Option<(u32, u32)>,
    /// The memory planes of one picture; one, or several in the multi-planar formats.
    pub memory: Vec<Memory>,
    /// Its colours.
    pub color: Color,
    /// Its fields.
    pub fields: Fields,
}

impl Format {
    /// Whether pictures are coded, and their sizes differ.
    pub fn is_coded(&self) -> bool {
        known(self.four_cc).is_none_or(|known| known.layout == Layout::Coded)
    }

    /// What GStreamer calls it; `None` if it has no name there.
    pub fn caps(&self) -> Option<String> {
        let Known { name, layout, .. } = known(self.four_cc)?;
        let media = match layout {
            Layout::Coded => (*name).to_owned(),
            _ => format!("video/x-raw, format={name}"),
        };
        let (width, height) = self.size;
        // 0/1 stands for a rate that is not known, or varies.
        let (above, below) = self.rate.unwrap_or((0, 1));
        let mut caps = format!("{media}, width={width}, height={height}, framerate={above}/{below}");
        if *layout != Layout::Coded {
            caps += self.fields.caps();
            // Without colours there is nothing to say of gray.
            let colorimetry = self.color.colorimetry(name.contains("RGB") || name.contains("BGR"));
            if let Some(colorimetry) = colorimetry.filter(|_| !name.starts_with("GRAY")) {
                caps += &format!(", colorimetry={colorimetry}");
            }
        }
        Some(caps)
    }

    /// How long a picture is shown, in nanoseconds.
    pub fn duration(&self) -> Option<u64> {
        let (above, below) = self.rate?;
        (u64::from(below) * 1_000_000_000).checked_div(u64::from(above))
    }

    /// Where the planes of a raw picture lie, if its memory planes follow each other; empty if it is coded.
    pub fn planes(&self) -> Vec<Plane> {
        let (Some(known), Some(first)) = (known(self.four_cc), self.memory.first()) else {
            return Vec::new();
        };
        let plane =
            |offset: u64, stride: u32| Plane { offset, stride: i32::try_from(stride).unwrap_or(i32::MAX) };
        if known.layout == Layout::Coded {
            return Vec::new();
        }
        if self.memory.len() > 1 {
            let mut before = 0;
            let next = |memory: &Memory| {
                let own = plane(before, memory.stride);
                before += u64::from(memory.size);
                own
            };
            return self.memory.iter().map(next).collect();
        }
        let (stride, height) = (first.stride, u64::from(self.size.1));
        let luma = u64::from(stride) * height;
        match known.layout {
            Layout::SemiPlanar => vec![plane(0, stride), plane(luma, stride)],
            Layout::Planar { rows } => {
                let chroma = u64::from(stride / 2) * height.div_ceil(u64::from(rows));
                vec![plane(0, stride), plane(luma, stride / 2), plane(luma + chroma, stride / 2)]
            }
            _ => vec![plane(0, stride)],
        }
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (width, height) = self.size;
        write!(f, "{width}x{height}")?;
        match self.rate {
            Some((above, 1)) => write!(f, "@{above}")?,
            Some((above, below)) => write!(f, "@{above}/{below}")?,
            None => {}
        }
        write!(f, ":{}", self.four_cc)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(four_cc: &[u8; 4], memory: &[(u32, u32)]) -> Format {
        let memory = memory.iter().map(|(stride, size)| Memory { stride: *stride, size: *size }).collect();
        let (color, fields) = (Color { space: 8, ..Color::default() }, Fields::Progressive);
        Format { four_cc: FourCc(*four_cc), size: (64, 6), rate: Some((30_000, 1001)), memory, color, fields }
    }

    fn offsets(format: &Format) -> Vec<(u64, i32)> {
        format.planes().iter().map(|plane| (plane.offset, plane.stride)).collect()
    }

    #[test]
    fn planes_follow_each_other_in_one_memory() {
        assert_eq!(offsets(&format(b"NV12", &[(80, 80 * 9)])), [(0, 80), (480, 80)]);
        assert_eq!(offsets(&format(b"YU12", &[(80, 80 * 9)])), [(0, 80), (480, 40), (480 + 120, 40)]);
        assert_eq!(offsets(&format(b"422P", &[(80, 80 * 12)])), [(0, 80), (480, 40), (480 + 240, 40)]);
        assert_eq!(offsets(&format(b"YUYV", &[(128, 128 * 6)])), [(0, 128)]);
    }

    #[test]
    fn several_memories_hold_a_plane_each() {
        assert_eq!(offsets(&format(b"NM12", &[(64, 4096), (64, 4096)])), [(0, 64), (4096, 64)]);
        let three = format(b"YM12", &[(64, 4096), (32, 1024), (32, 1024)]);
        assert_eq!(offsets(&three), [(0, 64), (4096, 32), (5120, 32)]);
    }

    #[test]
    fn what_is_coded_has_no_planes() {
        let coded = format(b"MJPG", &[(0, 1 << 20)]);
        assert!(coded.is_coded() && coded.planes().is_empty());
        assert_eq!(coded.caps().as_deref(), Some("image/jpeg, width=64, height=6, framerate=30000/1001"));
        assert_eq!(format(b"pBAA", &[(64, 64)]).caps(), None);
    }

    #[test]
    fn what_is_raw_has_colours_and_fields() {
        let told = |four_cc| format(four_cc, &[(64, 4096)]).caps().unwrap();
        let picture = "width=64, height=6, framerate=30000/1001, interlace-mode=progressive";
        assert_eq!(told(b"NV12"), format!("video/x-raw, format=NV12, {picture}, colorimetry=2:4:7:1"));
        assert_eq!(told(b"XR24"), format!("video/x-raw, format=BGRx, {picture}, colorimetry=sRGB"));
        assert_eq!(told(b"GREY"), format!("video/x-raw, format=GRAY8, {picture}"));
    }

    #[test]
    fn modes_are_printed_as_they_are_asked_for() {
        let mut nv12 = format(b"NV12", &[(64, 576)]);
        assert_eq!(nv12.to_string(), "64x6@30000/1001:NV12");
        assert_eq!(nv12.duration(), Some(33_366_666));
        nv12.rate = Some((25, 1));
        assert_eq!(nv12.to_string(), "64x6@25:NV12");
        nv12.rate = Some((0, 1));
        assert_eq!(nv12.duration(), None);
    }

    #[test]
    fn formats_go_by_two_names() {
        assert_eq!(named("yuy2").collect::<Vec<_>>(), [FourCc(*b"YUYV")]);
        assert_eq!(named("NV12").collect::<Vec<_>>(), [FourCc(*b"NV12"), FourCc(*b"NM12")]);
        assert_eq!(named("Y16").collect::<Vec<_>>(), [FourCc(*b"Y16 ")]);
        assert_eq!(named("jxl").count(), 0);
        assert!(KNOWN.iter().all(|known| rank(FourCc(*known.four_cc)).is_some()));
    }
}
