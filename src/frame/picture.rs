//! A frame as those describe it who import dma-bufs: Vulkan, EGL, wgpu, VA-API, CUDA, KMS.

use std::os::fd::BorrowedFd;

use drm_fourcc::{DrmFourcc, DrmModifier};
use pagecast_allocators::FaceKind;

use super::{Frame, Pixels, Segment};

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
        let Pixels { fourcc, modifier } = Pixels::of_caps(self.caps().unwrap_or_default())?;
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
