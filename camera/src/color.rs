//! How the colours and fields of pictures are told in caps; no I/O.
//!
//! Source: the kernel's userspace API guide, part "Video for Linux", "Colorspaces" and "Field Order", and its rules for what
//! a driver leaves to them (`V4L2_MAP_…_DEFAULT` of linux/videodev2.h).

use v4l2r::bindings::*;

/// What a driver says of the colours of its pictures, in V4L2's numbers; 0 leaves it to the colour space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Color {
    /// The colour space.
    pub space: u32,
    /// How RGB becomes YCbCr.
    pub encoding: u32,
    /// Which numbers are black and white.
    pub quantization: u32,
    /// The transfer function.
    pub transfer: u32,
}

/// GStreamer's numbers of range, matrix, transfer function and primaries.
type Numbers = (u8, u8, u8, u8);

/// What goes by a name there.
const NAMES: [(Numbers, &str); 6] = [
    ((2, 4, 16, 4), "bt601"),
    ((2, 3, 5, 1), "bt709"),
    ((2, 5, 6, 5), "smpte240m"),
    ((1, 1, 7, 1), "sRGB"),
    ((2, 6, 11, 7), "bt2020"),
    ((2, 6, 14, 7), "bt2100-pq"),
];

impl Color {
    /// GStreamer's word for it, or its four numbers; `None` for a colour space that it does not have.
    pub fn colorimetry(&self, is_rgb: bool) -> Option<String> {
        let (matrix, full) = self.matrix(is_rgb);
        let numbers = (if full { 1 } else { 2 }, matrix, self.transfer(), self.primaries()?);
        let named = NAMES.iter().find(|(those, _)| *those == numbers);
        let (range, matrix, transfer, primaries) = numbers;
        Some(match named {
            Some((_, name)) => (*name).to_owned(),
            None => format!("{range}:{matrix}:{transfer}:{primaries}"),
        })
    }

    fn primaries(&self) -> Option<u8> {
        #[expect(non_upper_case_globals, reason = "the kernel's names")]
        Some(match self.space {
            v4l2_colorspace_V4L2_COLORSPACE_REC709
            | v4l2_colorspace_V4L2_COLORSPACE_JPEG
            | v4l2_colorspace_V4L2_COLORSPACE_SRGB => 1,
            v4l2_colorspace_V4L2_COLORSPACE_470_SYSTEM_M => 2,
            v4l2_colorspace_V4L2_COLORSPACE_470_SYSTEM_BG => 3,
            v4l2_colorspace_V4L2_COLORSPACE_SMPTE170M => 4,
            v4l2_colorspace_V4L2_COLORSPACE_SMPTE240M => 5,
            v4l2_colorspace_V4L2_COLORSPACE_BT2020 => 7,
            v4l2_colorspace_V4L2_COLORSPACE_OPRGB => 8,
            _ => return None,
        })
    }

    /// GStreamer's number of the matrix, and whether black is 0.
    #[expect(non_upper_case_globals, reason = "the kernel's names")]
    fn matrix(&self, is_rgb: bool) -> (u8, bool) {
        let encoding = match (self.encoding, self.space) {
            (v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_DEFAULT, space) => match space {
                v4l2_colorspace_V4L2_COLORSPACE_REC709 => v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_709,
                v4l2_colorspace_V4L2_COLORSPACE_BT2020 => v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_BT2020,
                v4l2_colorspace_V4L2_COLORSPACE_SMPTE240M => v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_SMPTE240M,
                _ => v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_601,
            },
            (encoding, _) => encoding,
        };
        let full = match self.quantization {
            v4l2_quantization_V4L2_QUANTIZATION_DEFAULT => {
                is_rgb || self.space == v4l2_colorspace_V4L2_COLORSPACE_JPEG
            }
            quantization => quantization == v4l2_quantization_V4L2_QUANTIZATION_FULL_RANGE,
        };
        let matrix = match encoding {
            _ if is_rgb => 1,
            v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_709 | v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_XV709 => 3,
            v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_SMPTE240M => 5,
            v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_BT2020
            | v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_BT2020_CONST_LUM => 6,
            _ => 4,
        };
        (matrix, full)
    }

    /// GStreamer's number of the transfer function. V4L2 has one for BT.601, BT.709 and BT.2020, which is the same curve.
    #[expect(non_upper_case_globals, reason = "the kernel's names")]
    fn transfer(&self) -> u8 {
        let transfer = match (self.transfer, self.space) {
            (v4l2_xfer_func_V4L2_XFER_FUNC_DEFAULT, space) => match space {
                v4l2_colorspace_V4L2_COLORSPACE_OPRGB => v4l2_xfer_func_V4L2_XFER_FUNC_OPRGB,
                v4l2_colorspace_V4L2_COLORSPACE_SMPTE240M => v4l2_xfer_func_V4L2_XFER_FUNC_SMPTE240M,
                v4l2_colorspace_V4L2_COLORSPACE_SRGB | v4l2_colorspace_V4L2_COLORSPACE_JPEG => {
                    v4l2_xfer_func_V4L2_XFER_FUNC_SRGB
                }
                _ => v4l2_xfer_func_V4L2_XFER_FUNC_709,
            },
            (transfer, _) => transfer,
        };
        match (transfer, self.space) {
            (v4l2_xfer_func_V4L2_XFER_FUNC_709, v4l2_colorspace_V4L2_COLORSPACE_SMPTE170M) => 16,
            (v4l2_xfer_func_V4L2_XFER_FUNC_709, v4l2_colorspace_V4L2_COLORSPACE_BT2020) => 11,
            (v4l2_xfer_func_V4L2_XFER_FUNC_709, _) => 5,
            (v4l2_xfer_func_V4L2_XFER_FUNC_SRGB, _) => 7,
            (v4l2_xfer_func_V4L2_XFER_FUNC_OPRGB, _) => 12,
            (v4l2_xfer_func_V4L2_XFER_FUNC_SMPTE240M, _) => 6,
            (v4l2_xfer_func_V4L2_XFER_FUNC_NONE, _) => 1,
            (v4l2_xfer_func_V4L2_XFER_FUNC_SMPTE2084, _) => 14,
            _ => 0,
        }
    }
}

/// How the two fields of a picture lie in it, if it has two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fields {
    /// The driver does not say, or in a way that caps do not have.
    #[default]
    Unknown,
    /// It has none: all lines are of one moment.
    Progressive,
    /// Line by line in turn; which of them is the earlier is not known.
    Interleaved,
    /// The same, and the upper line's field is the earlier.
    TopFirst,
    /// The same, and the lower line's field is the earlier.
    BottomFirst,
}

impl Fields {
    /// Of V4L2's number.
    pub fn of(field: u32) -> Self {
        #[expect(non_upper_case_globals, reason = "the kernel's names")]
        match field {
            v4l2_field_V4L2_FIELD_NONE => Self::Progressive,
            v4l2_field_V4L2_FIELD_INTERLACED => Self::Interleaved,
            v4l2_field_V4L2_FIELD_INTERLACED_TB => Self::TopFirst,
            v4l2_field_V4L2_FIELD_INTERLACED_BT => Self::BottomFirst,
            _ => Self::Unknown,
        }
    }

    /// The fields of caps that say so.
    pub(crate) fn caps(self) -> &'static str {
        match self {
            Self::Unknown => "",
            Self::Progressive => ", interlace-mode=progressive",
            Self::Interleaved => ", interlace-mode=interleaved",
            Self::TopFirst => ", interlace-mode=interleaved, field-order=top-field-first",
            Self::BottomFirst => ", interlace-mode=interleaved, field-order=bottom-field-first",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn color(space: u32, encoding: u32, quantization: u32, transfer: u32) -> Color {
        Color { space, encoding, quantization, transfer }
    }

    #[test]
    fn what_a_driver_leaves_out_follows_from_its_colour_space() {
        let yuv = |space| color(space, 0, 0, 0).colorimetry(false);
        let known =
            [(1, "bt601"), (3, "bt709"), (2, "smpte240m"), (8, "2:4:7:1"), (7, "1:4:7:1"), (10, "bt2020")];
        for (space, name) in known {
            assert_eq!(yuv(space).as_deref(), Some(name), "{space}");
        }
        assert_eq!(color(8, 0, 0, 0).colorimetry(true).as_deref(), Some("sRGB"));
        for unknown in [0, 4, 11, 12, 99] {
            assert_eq!(yuv(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn what_a_driver_says_counts() {
        assert_eq!(color(3, 1, 1, 2).colorimetry(false).as_deref(), Some("1:4:7:1"));
        assert_eq!(color(10, 0, 2, 7).colorimetry(false).as_deref(), Some("bt2100-pq"));
        assert_eq!(color(1, 0, 2, 0).colorimetry(true).as_deref(), Some("2:1:16:4"));
    }

    #[test]
    fn fields_are_told_as_far_as_caps_can() {
        assert_eq!(Fields::of(1).caps(), ", interlace-mode=progressive");
        assert!(Fields::of(8).caps().ends_with("top-field-first"));
        for number in [0, 2, 5, 7, 77] {
            assert_eq!(Fields::of(number), Fields::Unknown);
        }
    }
}
