//! A frame as those describe it who import dma-bufs: Vulkan, EGL, wgpu, VA-API, CUDA, KMS.

use std::os::fd::BorrowedFd;

use drm_fourcc::{DrmFourcc, DrmModifier};
use pagecast_allocators::FaceKind;

use super::{Frame, Segment};

/// A picture in dma-bufs. Each API asks for the same values under names of its own:
///
/// | here | EGL (`EGL_EXT_image_dma_buf_import`) | Vulkan (`VK_EXT_image_drm_format_modifier`) | VA-API (`VADRMPRIMESurfaceDescriptor`) |
/// |---|---|---|---|
/// | `fourcc` | `EGL_LINUX_DRM_FOURCC_EXT` | the `VkFormat` of it | `fourcc` |
/// | `modifier` | `EGL_DMA_BUF_PLANE0_MODIFIER_LO/HI_EXT` | `drmFormatModifier` | `objects[].drm_format_modifier` |
/// | `fd` | `EGL_DMA_BUF_PLANE0_FD_EXT` | `VkImportMemoryFdInfoKHR`, of a duplicate | `objects[].fd` |
/// | `offset` | `EGL_DMA_BUF_PLANE0_OFFSET_EXT` | `VkSubresourceLayout::offset` | `layers[].offset[]` |
/// | `stride` | `EGL_DMA_BUF_PLANE0_PITCH_EXT` | `VkSubresourceLayout::rowPitch` | `layers[].pitch[]` |
///
/// wgpu imports by Vulkan, CUDA a linear buffer by `cuImportExternalMemory`. An import may be kept and used again
/// while [`buffer`](PicturePlane::buffer) is the same and its frames are held while the device reads.
#[derive(Clone, Debug)]
pub struct Picture<'a> {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// What its pixels are.
    pub fourcc: DrmFourcc,
    /// How they lie in memory.
    pub modifier: DrmModifier,
    /// Its planes, in the order of the format.
    pub planes: Vec<PicturePlane<'a>>,
}

/// A plane of a [`Picture`].
#[derive(Clone, Copy, Debug)]
pub struct PicturePlane<'a> {
    /// The dma-buf that it is in. Several planes may be in one; who keeps it beyond the frame duplicates it.
    pub fd: BorrowedFd<'a>,
    /// The buffer that this is, the same number whenever it comes round again on a link.
    pub buffer: u64,
    /// Where the plane begins in the dma-buf, in bytes.
    pub offset: u64,
    /// Bytes from one line to the next.
    pub stride: u32,
}

/// Why a frame is no [`Picture`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PictureError {
    /// It came without a dma-buf.
    #[error(
        "a part of the frame is in no dma-buf: subscribe with FaceSet::DMA_BUF, and see that the publisher lets you"
    )]
    NotDmaBuf,
    /// Its size or planes are not known.
    #[error("the publisher did not say how the picture lies in its bytes (width, height, planes)")]
    NoLayout,
    /// A plane goes on in another buffer.
    #[error("plane {0} lies in two buffers, which no importer takes")]
    Split(usize),
    /// A plane does not fit what importers take.
    #[error("plane {0} runs upwards or has no line length, which no importer takes")]
    Stride(usize),
    /// Its format is not known.
    #[error("the caps name no format: {caps:?}")]
    NoFormat {
        /// The caps, as far as they are known.
        caps: String,
    },
    /// Its format has no code of DRM.
    #[error("the format {0:?} has no fourcc of DRM: convert it, or read it with the CPU")]
    Unknown(String),
}

/// What the caps say of the pixels.
fn pixels(caps: &str) -> Result<(DrmFourcc, DrmModifier), PictureError> {
    if let Some(format) = field(caps, "drm-format") {
        let unknown = || PictureError::Unknown(format.to_owned());
        let (code, modifier) =
            format.split_once(':').map_or((format, None), |(code, number)| (code, Some(number)));
        let number = |text: &str| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok();
        let modifier = match modifier {
            Some(text) => DrmModifier::from(number(text).ok_or_else(unknown)?),
            None => DrmModifier::Linear,
        };
        let code: [u8; 4] = format!("{code:<4}").into_bytes().try_into().map_err(|_| unknown())?;
        let fourcc = DrmFourcc::try_from(u32::from_le_bytes(code)).map_err(|_| unknown())?;
        return Ok((fourcc, modifier));
    }
    let format = field(caps, "format").ok_or_else(|| PictureError::NoFormat { caps: caps.to_owned() })?;
    let known = FORMATS.iter().find(|(name, _)| *name == format);
    let (_, fourcc) = known.ok_or_else(|| PictureError::Unknown(format.to_owned()))?;
    Ok((*fourcc, DrmModifier::Linear))
}

/// The value of a field of caps: `name=value` or `name=(type)value`, perhaps in quotes.
fn field<'a>(caps: &'a str, name: &str) -> Option<&'a str> {
    let fields = caps.split([',', ';']).filter_map(|field| field.split_once('='));
    let (_, value) = fields.into_iter().find(|(key, _)| key.trim() == name)?;
    let value = value.trim();
    let value = match value.strip_prefix('(').and_then(|typed| typed.split_once(')')) {
        Some((_, value)) => value.trim(),
        None => value,
    };
    Some(value.trim_matches('"')).filter(|value| !value.is_empty())
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

impl Frame {
    /// The frame as importers of dma-bufs need it.
    ///
    /// # Errors
    /// [`PictureError`]: what is missing, and who could say it.
    pub fn picture(&self) -> Result<Picture<'_>, PictureError> {
        let said = self.description();
        if said.planes.is_empty() || said.width == 0 || said.height == 0 {
            return Err(PictureError::NoLayout);
        }
        let (fourcc, modifier) = pixels(self.caps().unwrap_or_default())?;
        let mut planes = Vec::with_capacity(said.planes.len());
        for (at, plane) in said.planes.iter().enumerate() {
            let (Segment { buffer, offset, length }, within) =
                self.segment_at(plane.offset).ok_or(PictureError::NoLayout)?;
            let later = said.planes.iter().map(|plane| plane.offset).filter(|offset| *offset > plane.offset);
            let end = later.min().unwrap_or(self.size() as u64);
            if within + (end - plane.offset) > *length as u64 {
                return Err(PictureError::Split(at));
            }
            let face = buffer.face(FaceKind::DmaBuf).ok_or(PictureError::NotDmaBuf)?;
            planes.push(PicturePlane {
                fd: face.fd,
                buffer: buffer.id().get(),
                offset: *offset as u64 + within,
                stride: u32::try_from(plane.stride)
                    .ok()
                    .filter(|stride| *stride > 0)
                    .ok_or(PictureError::Stride(at))?,
            });
        }
        Ok(Picture { width: said.width, height: said.height, fourcc, modifier, planes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_are_read_from_caps() {
        let linear = |caps: &str| pixels(caps).map(|(fourcc, modifier)| (fourcc, u64::from(modifier)));
        let raw = "video/x-raw, format=(string)NV12, width=(int)640, framerate=(fraction)30/1";
        assert_eq!(linear(raw), Ok((DrmFourcc::Nv12, 0)));
        assert_eq!(linear("video/x-raw,width=8,format=BGRx"), Ok((DrmFourcc::Xrgb8888, 0)));
        let tiled =
            "video/x-raw(memory:DMABuf), format=(string)DMA_DRM, drm-format=(string)NV12:0x0100000000000002";
        assert_eq!(linear(tiled), Ok((DrmFourcc::Nv12, 0x0100_0000_0000_0002)));
        assert_eq!(linear("video/x-raw, drm-format=\"R8\""), Ok((DrmFourcc::R8, 0)));
        for unknown in ["video/x-raw, format=v210", "video/x-raw, drm-format=ZZZZZ", "a, drm-format=NV12:7"] {
            assert!(matches!(pixels(unknown), Err(PictureError::Unknown(_))), "{unknown}");
        }
        for none in ["", "application/x-test", "video/x-raw, format=, width=3", "video/x-raw, informat=NV12"]
        {
            assert!(matches!(pixels(none), Err(PictureError::NoFormat { .. })), "{none}");
        }
    }
}
