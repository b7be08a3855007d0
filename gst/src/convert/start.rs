//! The stream-start event.

use super::{raw, structure};

pub(super) fn write(event: &gst::event::StreamStart) -> String {
    let mut out = gst::Structure::builder("stream-start")
        .field("stream-id", event.stream_id())
        .field("flags", event.stream_flags().bits())
        .build();
    if let Some(group) = event.structure().and_then(|content| content.get::<u32>("group-id").ok()) {
        out.set("group-id", group);
    }
    if let Some(stream) = event.stream() {
        out.set("stream-type", stream.stream_type().bits());
    }
    out.to_string()
}

pub(super) fn read(data: &[u8]) -> Option<gst::Event> {
    let from = structure(data)?;
    let id = from.get::<String>("stream-id").ok()?;
    let flags = gst::StreamFlags::from_bits_truncate(from.get::<u32>("flags").ok()?);
    let mut event = gst::event::StreamStart::builder(&id).flags(flags);
    if let Ok(kind) = from.get::<u32>("stream-type") {
        let kind = gst::StreamType::from_bits_truncate(kind);
        event = event.stream(gst::Stream::new(Some(&id), None, kind, flags));
    }
    let mut event = event.build();
    // The publisher's number does: its streams of one group share it here, too.
    if let Some(group) = from.get::<u32>("group-id").ok().filter(|group| *group != 0) {
        raw::set_group(event.get_mut()?, group);
    }
    Some(event)
}
