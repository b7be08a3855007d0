//! Caps of raw video in their several forms: `format=NV12` for who reads lines of pixels, `drm-format` with a modifier for
//! who imports dma-bufs.

use gst_video::VideoInfo;
use pagecast::Pixels;

pub(crate) const DMA_BUF: &str = "memory:DMABuf";
const SYSTEM: &str = "memory:SystemMemory";
const FORMAT: &str = "format";
pub(crate) const DRM_FORMAT: &str = "drm-format";
const DMA_DRM: &str = "DMA_DRM";

/// What the caps say if they are of raw video.
fn raw_video(caps: &gst::CapsRef) -> Option<&gst::StructureRef> {
    caps.structure(0).filter(|structure| structure.name() == "video/x-raw")
}

/// Of raw video, what is said of the pixels, as `drm-format` has it.
pub(crate) fn drm_format(caps: &gst::CapsRef) -> Option<String> {
    let said = raw_video(caps)?;
    said.get(DRM_FORMAT).ok().or_else(|| Some(Pixels::of_caps(&caps.to_string()).ok()?.to_string()))
}

/// Whether the pixels lie in a way that only an importer of dma-bufs can know.
pub(crate) fn is_opaque(caps: &gst::CapsRef) -> bool {
    raw_video(caps).is_some_and(|said| said.has_field(DRM_FORMAT)) && plain(caps).is_none()
}

/// The same raw video in memory that the CPU reads; `None` where it cannot.
pub(crate) fn plain(caps: &gst::CapsRef) -> Option<gst::Caps> {
    let said = raw_video(caps)?;
    let format = match said.has_field(DRM_FORMAT) {
        true => Some(Pixels::of_caps(&caps.to_string()).ok()?.format()?),
        false => None,
    };
    Some(with(caps, false, |structure| {
        if let Some(format) = format {
            structure.remove_field(DRM_FORMAT);
            structure.set(FORMAT, format);
        }
    }))
}

/// The same raw video in dma-bufs with `format`, as GStreamer before 1.24 has it.
pub(crate) fn of_dma_bufs(caps: &gst::CapsRef) -> Option<gst::Caps> {
    let plain = plain(caps)?;
    Some(with(&plain, true, |_| ()))
}

/// The same raw video in dma-bufs with `drm-format`, as GStreamer has it from 1.24 on.
pub(crate) fn of_dma_drm(caps: &gst::CapsRef) -> Option<gst::Caps> {
    let drm_format = drm_format(caps)?;
    Some(with(caps, true, |structure| {
        structure.set(FORMAT, DMA_DRM);
        structure.set(DRM_FORMAT, drm_format);
    }))
}

/// Caps of raw video with a change, in dma-bufs or not.
fn with(caps: &gst::CapsRef, dma_buf: bool, change: impl FnOnce(&mut gst::StructureRef)) -> gst::Caps {
    let mut caps = caps.to_owned();
    let changed = caps.make_mut();
    if let Some(structure) = changed.structure_mut(0) {
        change(structure);
    }
    if let Some(features) = changed.features_mut(0) {
        features.remove(DMA_BUF);
        if dma_buf {
            features.remove(SYSTEM);
            features.add(DMA_BUF);
        }
    }
    caps
}

/// What GStreamer's video library makes of caps of raw video whose pixels the CPU can read.
pub(crate) fn info(caps: &gst::CapsRef) -> Option<VideoInfo> {
    let plain = plain(caps)?;
    let info = VideoInfo::from_caps(&plain).ok()?;
    Some(info).filter(|info| info.format() != gst_video::VideoFormat::Encoded)
}

/// The format of `GstVideoMeta` where only `drm-format` says what the pixels are; `None` before GStreamer 1.24.
pub(crate) fn opaque_format() -> Option<gst_video::VideoFormat> {
    let format = gst_video::VideoFormat::from_string(DMA_DRM);
    Some(format).filter(|format| *format != gst_video::VideoFormat::Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caps(text: &str) -> gst::Caps {
        gst::init().unwrap();
        text.parse().unwrap()
    }

    fn same(made: Option<gst::Caps>, text: &str) {
        let expected = caps(text);
        assert!(made.as_ref().is_some_and(|made| made.is_strictly_equal(&expected)), "{made:?}, not {text}");
    }

    #[test]
    fn linear_pixels_go_by_three_names() {
        const NAMES: [&str; 3] = [
            "video/x-raw, format=NV12, width=8, height=4",
            "video/x-raw(memory:DMABuf), format=NV12, width=8, height=4",
            "video/x-raw(memory:DMABuf), format=DMA_DRM, drm-format=NV12, width=8, height=4",
        ];
        for name in NAMES {
            let caps = caps(name);
            same(plain(&caps), NAMES[0]);
            same(of_dma_bufs(&caps), NAMES[1]);
            same(of_dma_drm(&caps), NAMES[2]);
            assert!(!is_opaque(&caps));
            assert_eq!(info(&caps).map(|info| info.size()), Some(48));
            assert_eq!(drm_format(&caps).as_deref(), Some("NV12"));
        }
        same(
            of_dma_drm(&caps("video/x-raw, format=GRAY8")),
            r#"video/x-raw(memory:DMABuf), format=DMA_DRM, drm-format="R8\ \ ""#,
        );
    }

    #[test]
    fn other_layouts_have_one_name() {
        for format in ["NV12:0x0100000000000002", "ZZZZ:0x0900000000000001", "ZZZZ", "C8"] {
            let text =
                format!("video/x-raw(memory:DMABuf), format=DMA_DRM, drm-format={format}, width=8, height=4");
            let caps = caps(&text);
            assert!(is_opaque(&caps), "{text}");
            same(of_dma_drm(&caps), &text);
            assert_eq!((plain(&caps), of_dma_bufs(&caps), info(&caps)), (None, None, None), "{text}");
        }
    }

    #[test]
    fn what_has_no_code_keeps_its_format() {
        let v210 = caps("video/x-raw, format=v210, width=8, height=4");
        same(of_dma_bufs(&v210), "video/x-raw(memory:DMABuf), format=v210, width=8, height=4");
        same(plain(&v210), "video/x-raw, format=v210, width=8, height=4");
        assert!(of_dma_drm(&v210).is_none() && !is_opaque(&v210));
        for other in ["audio/x-raw, format=S16LE", "video/x-h264, drm-format=NV12", "image/jpeg"] {
            let caps = caps(other);
            assert!(plain(&caps).is_none() && of_dma_drm(&caps).is_none() && !is_opaque(&caps), "{other}");
        }
        let overlay = caps("video/x-raw(memory:DMABuf, meta:GstVideoOverlayComposition), format=NV12");
        same(plain(&overlay), "video/x-raw(meta:GstVideoOverlayComposition), format=NV12");
    }
}
