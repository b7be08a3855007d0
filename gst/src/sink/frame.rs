//! From a buffer to what is said of the frame that is made of it.

use gst_video::VideoInfo;
use pagecast::ipc::wire::limits::MAX_SEGMENTS;
use pagecast::{Description, Plane, Times};

use crate::convert::{flags, metas};
use crate::memory::{Page, find};

/// The pages behind a buffer; `None` if one of its memories is no page, or there are too many.
pub(super) fn pages(buffer: &gst::BufferRef) -> Option<Vec<Page>> {
    if buffer.n_memory() > MAX_SEGMENTS {
        return None;
    }
    buffer.iter_memories().filter(|memory| memory.size() > 0).map(find).collect()
}

/// What is said of a frame.
pub(super) fn describe(
    buffer: &gst::BufferRef,
    times: Times,
    video: Option<&VideoInfo>,
    not_carried: impl FnMut(&str),
) -> Description {
    let mut description = Description {
        flags: flags::to_frame(buffer.flags()),
        times,
        offset: Some(buffer.offset()).filter(|offset| *offset != u64::MAX),
        offset_end: Some(buffer.offset_end()).filter(|offset| *offset != u64::MAX),
        ..Description::default()
    };
    metas::outgoing(buffer, &mut description, not_carried);
    let size = buffer.size();
    if let Some(info) = video.filter(|info| description.planes.is_empty() && size >= info.size()) {
        (description.width, description.height) = (info.width(), info.height());
        let planes = info.offset().iter().zip(info.stride());
        description.planes =
            planes.map(|(offset, stride)| Plane { offset: *offset as u64, stride: *stride }).collect();
    }
    // A plane that begins outside its frame would be a fault of ours.
    if description.planes.iter().any(|plane| plane.offset >= size as u64) {
        description.planes.clear();
    }
    description
}
