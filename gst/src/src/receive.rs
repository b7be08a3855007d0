//! A received frame as a buffer.

use pagecast::{FaceKind, Frame};

use crate::convert::flags;
use crate::convert::metas::{self, Video};
use crate::memory::ReceivedMemory;

/// The buffer that a frame makes, with the publisher's times. Its memories are dma-bufs if the frame has them so and they
/// are `wanted`.
pub(super) fn buffer(
    frame: &Frame,
    wanted: FaceKind,
    video: Video<'_>,
    lost: impl FnMut(&str),
) -> Result<gst::Buffer, gst::glib::BoolError> {
    let description = frame.description();
    let times = &description.times;
    let mut buffer = gst::Buffer::new();
    let out = buffer.make_mut();
    for index in 0..frame.segments().len() {
        let memory = ReceivedMemory::wrap(frame, index, wanted);
        out.append_memory(memory.ok_or_else(|| gst::glib::bool_error!("its pages have no usable face"))?);
    }
    out.set_flags(flags::to_buffer(description.flags));
    out.set_pts(times.pts.map(gst::ClockTime::from_nseconds));
    out.set_dts(times.dts.map(gst::ClockTime::from_nseconds));
    out.set_duration(times.duration.map(gst::ClockTime::from_nseconds));
    out.set_offset(description.offset.unwrap_or(gst::ffi::GST_BUFFER_OFFSET_NONE));
    out.set_offset_end(description.offset_end.unwrap_or(gst::ffi::GST_BUFFER_OFFSET_NONE));
    metas::incoming(description, video, out, lost);
    Ok(buffer)
}
