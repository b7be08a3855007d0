//! What pixels are, and how they lie in memory, as caps say it.

use std::fmt;

use drm_fourcc::{DrmFourcc, DrmModifier};

use super::PictureError;

/// What the pixels of a picture are, in the words of DRM. Its text is that of `drm-format` in caps: `NV12` where they lie
/// line by line, else with the modifier, `NV12:0x0100000000000002`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pixels {
    /// What they are.
    pub fourcc: DrmFourcc,
    /// How they lie in memory.
    pub modifier: DrmModifier,
}

impl Pixels {
    /// What caps (as text) say: `format`, or `drm-format` of those with `format=DMA_DRM`.
    ///
    /// # Errors
    /// [`PictureError::NoFormat`] if they name none, [`PictureError::Unknown`] if it has no code of DRM.
    pub fn of_caps(caps: &str) -> Result<Self, PictureError> {
        if let Some(format) = field(caps, "drm-format") {
            return drm_format(&format).ok_or(PictureError::Unknown(format));
        }
        let none = || PictureError::NoFormat { caps: caps.to_owned() };
        let format = field(caps, "format").ok_or_else(none)?;
        let known = FORMATS.iter().find(|(name, _)| *name == format);
        let (_, fourcc) = known.ok_or(PictureError::Unknown(format))?;
        Ok(Self { fourcc: *fourcc, modifier: DrmModifier::Linear })
    }

    /// Whether they lie line by line, so that a program without their driver can read them.
    pub fn is_linear(&self) -> bool {
        self.modifier == DrmModifier::Linear
    }

    /// What GStreamer calls them in `format`; `None` if it has no name for them, as for all that are not linear.
    pub fn format(&self) -> Option<&'static str> {
        let known = FORMATS.iter().find(|(_, fourcc)| *fourcc == self.fourcc);
        known.filter(|_| self.is_linear()).map(|(name, _)| *name)
    }
}

impl fmt::Display for Pixels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = (self.fourcc as u32).to_le_bytes();
        code.iter().try_for_each(|letter| write!(f, "{}", char::from(*letter)))?;
        if self.is_linear() { Ok(()) } else { write!(f, ":{:#018x}", u64::from(self.modifier)) }
    }
}

/// Four letters, and a colon with the modifier in hexadecimal digits where it is not linear.
fn drm_format(text: &str) -> Option<Pixels> {
    let (code, modifier) = match text.split_once(':') {
        Some((code, number)) => (code, u64::from_str_radix(number.strip_prefix("0x")?, 16).ok()?),
        None => (text, 0),
    };
    let code: [u8; 4] = format!("{code:<4}").into_bytes().try_into().ok()?;
    let fourcc = DrmFourcc::try_from(u32::from_le_bytes(code)).ok()?;
    Some(Pixels { fourcc, modifier: DrmModifier::from(modifier) })
}

/// The value of a field of caps: `name=value` or `name=(type)value`, perhaps in quotes and with backslashes.
fn field(caps: &str, name: &str) -> Option<String> {
    let fields = caps.split([',', ';']).filter_map(|field| field.split_once('='));
    let (_, value) = fields.into_iter().find(|(key, _)| key.trim() == name)?;
    let value = value.trim();
    let value = match value.strip_prefix('(').and_then(|typed| typed.split_once(')')) {
        Some((_, value)) => value.trim(),
        None => value,
    };
    Some(value.trim_matches('"').replace('\\', "")).filter(|value| !value.is_empty())
}

/// Formats of raw video by their names in caps. GStreamer names components in the order of bytes, DRM in that of a little-endian number.
const FORMATS: &[(&str, DrmFourcc)] = &[
    ("YUY2", DrmFourcc::Yuyv),
    ("YVYU", DrmFourcc::Yvyu),
    ("UYVY", DrmFourcc::Uyvy),
    ("VYUY", DrmFourcc::Vyuy),
    ("NV12", DrmFourcc::Nv12),
    ("NV21", DrmFourcc::Nv21),
    ("NV16", DrmFourcc::Nv16),
    ("NV61", DrmFourcc::Nv61),
    ("NV24", DrmFourcc::Nv24),
    ("YUV9", DrmFourcc::Yuv410),
    ("YVU9", DrmFourcc::Yvu410),
    ("Y41B", DrmFourcc::Yuv411),
    ("I420", DrmFourcc::Yuv420),
    ("YV12", DrmFourcc::Yvu420),
    ("Y42B", DrmFourcc::Yuv422),
    ("Y444", DrmFourcc::Yuv444),
    ("P010_10LE", DrmFourcc::P010),
    ("GRAY8", DrmFourcc::R8),
    ("GRAY16_LE", DrmFourcc::R16),
    ("RGB16", DrmFourcc::Rgb565),
    ("BGR16", DrmFourcc::Bgr565),
    ("RGB", DrmFourcc::Bgr888),
    ("BGR", DrmFourcc::Rgb888),
    ("RGBA", DrmFourcc::Abgr8888),
    ("RGBx", DrmFourcc::Xbgr8888),
    ("BGRA", DrmFourcc::Argb8888),
    ("BGRx", DrmFourcc::Xrgb8888),
    ("ARGB", DrmFourcc::Bgra8888),
    ("xRGB", DrmFourcc::Bgrx8888),
    ("ABGR", DrmFourcc::Rgba8888),
    ("xBGR", DrmFourcc::Rgbx8888),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_are_read_from_caps() {
        let said =
            |caps: &str| Pixels::of_caps(caps).map(|pixels| (pixels.fourcc, u64::from(pixels.modifier)));
        let raw = "video/x-raw, format=(string)NV12, width=(int)640, framerate=(fraction)30/1";
        assert_eq!(said(raw), Ok((DrmFourcc::Nv12, 0)));
        assert_eq!(said("video/x-raw,width=8,format=BGRx"), Ok((DrmFourcc::Xrgb8888, 0)));
        let tiled =
            "video/x-raw(memory:DMABuf), format=(string)DMA_DRM, drm-format=(string)NV12:0x0100000000000002";
        assert_eq!(said(tiled), Ok((DrmFourcc::Nv12, 0x0100_0000_0000_0002)));
        assert_eq!(said("video/x-raw, drm-format=\"R8\""), Ok((DrmFourcc::R8, 0)));
        for unknown in ["video/x-raw, format=v210", "video/x-raw, drm-format=ZZZZZ", "a, drm-format=NV12:7"] {
            assert!(matches!(Pixels::of_caps(unknown), Err(PictureError::Unknown(_))), "{unknown}");
        }
        for none in ["", "application/x-test", "video/x-raw, format=, width=3", "video/x-raw, informat=NV12"]
        {
            assert!(matches!(Pixels::of_caps(none), Err(PictureError::NoFormat { .. })), "{none}");
        }
    }

    #[test]
    fn pixels_are_written_as_gstreamer_reads_them() {
        let again = |text: &str| {
            let pixels = Pixels::of_caps(&format!("video/x-raw, format=DMA_DRM, drm-format={text}"));
            pixels.map(|pixels| (pixels.to_string(), pixels.format())).unwrap()
        };
        assert_eq!(again("NV12"), ("NV12".to_owned(), Some("NV12")));
        assert_eq!(again("NV12:0x0"), ("NV12".to_owned(), Some("NV12")), "linear needs no modifier");
        assert_eq!(again("XR24:0x100000000000002"), ("XR24:0x0100000000000002".to_owned(), None));
        // Four letters, of which the last may be blanks; caps write them with backslashes.
        assert_eq!(again(r#"(string)"R8\ \ ""#), ("R8  ".to_owned(), Some("GRAY8")));
        for (name, fourcc) in FORMATS {
            let pixels = Pixels { fourcc: *fourcc, modifier: DrmModifier::Linear };
            assert_eq!((pixels.format(), again(&pixels.to_string()).1), (Some(*name), Some(*name)));
        }
    }
}
