//! Segments of every format as a structure.

use gst::ffi::GstSegment;
use gst::glib::translate::{FromGlib, IntoGlib};

use super::{raw, structure};

pub(super) fn write(segment: &gst::Segment) -> String {
    let parts = raw::segment_parts(segment);
    gst::Structure::builder("segment")
        .field("flags", parts.flags)
        .field("rate", parts.rate)
        .field("applied-rate", parts.applied_rate)
        .field("format", segment.format().into_glib())
        .field("base", parts.base)
        .field("offset", parts.offset)
        .field("start", parts.start)
        .field("stop", parts.stop)
        .field("time", parts.time)
        .field("position", parts.position)
        .field("duration", parts.duration)
        .build()
        .to_string()
}

pub(super) fn read(data: &[u8]) -> Option<gst::Segment> {
    let from = structure(data)?;
    let number = |name: &str| from.get::<u64>(name).ok();
    // SAFETY: a segment is plain numbers, and reserved pointers that are null.
    let mut parts: GstSegment = unsafe { std::mem::zeroed() };
    parts.flags = from.get::<u32>("flags").ok()?;
    parts.rate = from.get("rate").ok()?;
    parts.applied_rate = from.get("applied-rate").ok()?;
    parts.format = from.get::<i32>("format").ok()?;
    parts.base = number("base")?;
    parts.offset = number("offset")?;
    parts.start = number("start")?;
    parts.stop = number("stop")?;
    parts.time = number("time")?;
    parts.position = number("position")?;
    parts.duration = number("duration")?;
    is_sound(&parts).then(|| raw::segment(&parts))
}

/// GStreamer asserts these where it uses a segment.
fn is_sound(parts: &GstSegment) -> bool {
    // SAFETY: any number is a format or `Format::__Unknown`.
    let format = unsafe { gst::Format::from_glib(parts.format) };
    let known = [gst::Format::Time, gst::Format::Bytes, gst::Format::Default, gst::Format::Buffers];
    let rates = [parts.rate, parts.applied_rate];
    known.contains(&format)
        && rates.iter().all(|rate| rate.is_finite() && *rate != 0.0)
        && parts.start != u64::MAX
        && (parts.stop == u64::MAX || parts.start <= parts.stop)
        && (parts.rate > 0.0 || parts.stop != u64::MAX || parts.duration != u64::MAX)
}
