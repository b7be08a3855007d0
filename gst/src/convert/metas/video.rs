//! Metas of the video library, and where a picture lies.

use gst::glib::translate::{FromGlib, IntoGlib};
use gst::meta::MetaAPI;
use gst_video::video_meta::VideoSeiUserDataUnregisteredMeta;
use gst_video::{
    ValidVideoTimeCode, VideoAffineTransformationMeta, VideoCaptionMeta, VideoCaptionType, VideoCropMeta,
    VideoMeta, VideoRegionOfInterestMeta, VideoTimeCodeFlags, VideoTimeCodeMeta,
};
use pagecast::{Description, Plane};

use super::Form;
use crate::convert::pixels;

/// If this is the meta that says where the picture lies, notes that. Of several (views) the first counts.
pub(super) fn describe(meta: &gst::MetaRef<'_, gst::Meta>, description: &mut Description) -> bool {
    let Some(meta) = meta.downcast_ref::<VideoMeta>() else { return false };
    if description.planes.is_empty() {
        (description.width, description.height) = (meta.width(), meta.height());
        let planes = meta.offset().iter().zip(meta.stride());
        description.planes =
            planes.map(|(offset, stride)| Plane { offset: *offset as u64, stride: *stride }).collect();
    }
    true
}

/// What is known of a frame's pixels.
#[derive(Clone, Copy, Debug)]
pub enum Video<'a> {
    /// They are none, or nothing is known of them.
    Unknown,
    /// They lie line by line.
    Lines(&'a gst_video::VideoInfo),
    /// They lie in a way that only importers know, who are told offsets and strides all the same.
    Opaque,
}

/// Adds the meta that says where the picture lies. `None` if what the frame says does not fit its bytes.
pub(super) fn locate(description: &Description, video: Video<'_>, buffer: &mut gst::BufferRef) -> Option<()> {
    match video {
        _ if description.planes.is_empty() => Some(()),
        Video::Unknown => Some(()),
        Video::Lines(info) => locate_lines(description, info, buffer),
        Video::Opaque => locate_opaque(description, buffer),
    }
}

fn locate_opaque(description: &Description, buffer: &mut gst::BufferRef) -> Option<()> {
    let planes = &description.planes;
    let inside = |plane: &Plane| plane.offset < buffer.size() as u64;
    if planes.len() > gst_video::ffi::GST_VIDEO_MAX_PLANES as usize || !planes.iter().all(inside) {
        return None;
    }
    add(description, pixels::opaque_format()?, buffer)
}

fn locate_lines(
    description: &Description,
    info: &gst_video::VideoInfo,
    buffer: &mut gst::BufferRef,
) -> Option<()> {
    let planes = &description.planes;
    let (width, height) = (description.width, description.height);
    let format = info.format_info();
    if planes.len() != info.n_planes() as usize || width < info.width() || height < info.height() {
        return None;
    }
    for (number, plane) in planes.iter().enumerate() {
        let end = plane_end(&format, number as u32, height, plane.offset as usize, plane.stride)?;
        if end > buffer.size() {
            return None;
        }
    }
    add(description, info.format(), buffer)
}

fn add(said: &Description, format: gst_video::VideoFormat, buffer: &mut gst::BufferRef) -> Option<()> {
    let offsets: Vec<usize> = said.planes.iter().map(|plane| plane.offset as usize).collect();
    let strides: Vec<i32> = said.planes.iter().map(|plane| plane.stride).collect();
    let flags = gst_video::VideoFrameFlags::empty();
    VideoMeta::add_full(buffer, flags, format, said.width, said.height, &offsets, &strides).ok().map(drop)
}

/// Where the last line of a plane begins at the earliest, plus one byte: every line must begin inside the
/// buffer. (How long the last line is depends on the format in more ways than this could check: tiles, packed
/// pixels; readers map whole frames, whose size GStreamer checks itself.)
fn plane_end(
    format: &gst_video::VideoFormatInfo,
    plane: u32,
    height: u32,
    offset: usize,
    stride: i32,
) -> Option<usize> {
    let is_tiled = format.flags().contains(gst_video::VideoFormatFlags::TILED);
    let component = format.plane().iter().position(|of| *of == plane);
    let lines = match component {
        Some(component) if !is_tiled => format.scale_height(component as u8, height),
        _ => 1,
    };
    let stride = usize::try_from(stride).ok()?;
    let last = stride.checked_mul(lines.saturating_sub(1) as usize)?;
    offset.checked_add(last)?.checked_add(1)
}

fn rectangle(name: &str, rect: (u32, u32, u32, u32)) -> gst::Structure {
    gst::Structure::builder(name)
        .field("x", rect.0)
        .field("y", rect.1)
        .field("width", rect.2)
        .field("height", rect.3)
        .build()
}

fn read_rectangle(from: &gst::StructureRef) -> Option<(u32, u32, u32, u32)> {
    let number = |name: &str| from.get::<u32>(name).ok();
    Some((number("x")?, number("y")?, number("width")?, number("height")?))
}

pub(super) const CROP: Form = Form {
    api: VideoCropMeta::meta_api,
    write: |meta| Some(rectangle("crop", meta.downcast_ref::<VideoCropMeta>()?.rect())),
    read: |from, buffer| {
        VideoCropMeta::add(buffer, read_rectangle(from)?);
        Some(())
    },
};

pub(super) const REGION_OF_INTEREST: Form = Form {
    api: VideoRegionOfInterestMeta::meta_api,
    write: |meta| {
        let meta = meta.downcast_ref::<VideoRegionOfInterestMeta>()?;
        let mut out = rectangle("region", meta.rect());
        out.set("type", meta.roi_type());
        out.set("id", meta.id());
        out.set("parent", meta.parent_id());
        out.set("params", gst::Array::new(meta.params().map(|param| param.to_owned())));
        Some(out)
    },
    read: |from, buffer| {
        let kind = from.get::<String>("type").ok()?;
        let params = from.get::<gst::Array>("params").ok()?;
        let params: Option<Vec<gst::Structure>> = params.iter().map(|param| param.get().ok()).collect();
        let params = params?;
        let mut meta = VideoRegionOfInterestMeta::add(buffer, &kind, read_rectangle(from)?);
        meta.set_id(from.get("id").unwrap_or(0));
        meta.set_parent_id(from.get("parent").unwrap_or(0));
        params.into_iter().for_each(|param| meta.add_param(param));
        Some(())
    },
};

pub(super) const TIME_CODE: Form = Form {
    api: VideoTimeCodeMeta::meta_api,
    write: |meta| {
        let code = meta.downcast_ref::<VideoTimeCodeMeta>()?.tc();
        let mut out = gst::Structure::builder("time-code")
            .field("fps", code.fps())
            .field("flags", code.flags().bits())
            .field("hours", code.hours())
            .field("minutes", code.minutes())
            .field("seconds", code.seconds())
            .field("frames", code.frames())
            .field("field-count", code.field_count())
            .build();
        if let Some(jam) = code.latest_daily_jam().and_then(|jam| jam.format("%FT%T.%f%:z").ok()) {
            out.set("daily-jam", jam);
        }
        Some(out)
    },
    read: |from, buffer| {
        let number = |name: &str| from.get::<u32>(name).ok();
        let jam = from.get::<String>("daily-jam").ok();
        let jam = jam.and_then(|jam| gst::glib::DateTime::from_iso8601(&jam, None).ok());
        let code = ValidVideoTimeCode::new(
            from.get::<gst::Fraction>("fps").ok().filter(|fps| fps.denom() > 0)?,
            jam.as_ref(),
            VideoTimeCodeFlags::from_bits_truncate(number("flags")?),
            number("hours")?,
            number("minutes")?,
            number("seconds")?,
            number("frames")?,
            number("field-count")?,
        );
        VideoTimeCodeMeta::add(buffer, &code.ok()?);
        Some(())
    },
};

pub(super) const CAPTION: Form = Form {
    api: VideoCaptionMeta::meta_api,
    write: |meta| {
        let meta = meta.downcast_ref::<VideoCaptionMeta>()?;
        Some(
            gst::Structure::builder("caption")
                .field("type", meta.caption_type().into_glib())
                .field("data", gst::Buffer::from_slice(meta.data().to_vec()))
                .build(),
        )
    },
    read: |from, buffer| {
        // SAFETY: any number is a type or `VideoCaptionType::__Unknown`, which is refused.
        let kind = unsafe { VideoCaptionType::from_glib(from.get("type").ok()?) };
        let data = from.get::<gst::Buffer>("data").ok()?;
        let data = data.map_readable().ok()?;
        if data.is_empty() || matches!(kind, VideoCaptionType::Unknown | VideoCaptionType::__Unknown(_)) {
            return None;
        }
        VideoCaptionMeta::add(buffer, kind, &data);
        Some(())
    },
};

pub(super) const AFFINE: Form = Form {
    api: VideoAffineTransformationMeta::meta_api,
    write: |meta| {
        let meta = meta.downcast_ref::<VideoAffineTransformationMeta>()?;
        let matrix = meta.matrix().iter().flatten().map(|cell| f64::from(*cell));
        Some(gst::Structure::builder("affine").field("matrix", gst::Array::new(matrix)).build())
    },
    read: |from, buffer| {
        let cells = from.get::<gst::Array>("matrix").ok()?;
        let cells: Option<Vec<f32>> =
            cells.iter().map(|cell| cell.get::<f64>().ok().map(|cell| cell as f32)).collect();
        let cells: [f32; 16] = cells?.try_into().ok()?;
        let rows = [0, 4, 8, 12].map(|row| [cells[row], cells[row + 1], cells[row + 2], cells[row + 3]]);
        VideoAffineTransformationMeta::add(buffer, Some(&rows));
        Some(())
    },
};

pub(super) const USER_DATA: Form = Form {
    api: VideoSeiUserDataUnregisteredMeta::meta_api,
    write: |meta| {
        let meta = meta.downcast_ref::<VideoSeiUserDataUnregisteredMeta>()?;
        Some(
            gst::Structure::builder("user-data")
                .field("uuid", gst::Buffer::from_slice(meta.uuid()))
                .field("data", gst::Buffer::from_slice(meta.data().to_vec()))
                .build(),
        )
    },
    read: |from, buffer| {
        let bytes = |name: &str| {
            let part = from.get::<gst::Buffer>(name).ok()?;
            let map = part.map_readable().ok()?;
            Some(map.to_vec())
        };
        let uuid: [u8; 16] = bytes("uuid")?.try_into().ok()?;
        let data = bytes("data").filter(|data| !data.is_empty())?;
        VideoSeiUserDataUnregisteredMeta::add(buffer, &uuid, &data);
        Some(())
    },
};
