//! The few calls for which the bindings have no safe form.

use gst::glib::translate::{IntoGlib, IntoGlibPtr, ToGlibPtr, from_glib_full, from_glib_none};
use gst::{ffi, glib};

/// An event of any type; `None` if GStreamer does not know the type.
pub(super) fn event(kind: u32, structure: Option<gst::Structure>) -> Option<gst::Event> {
    let kind = kind as ffi::GstEventType;
    let structure = structure.map_or(std::ptr::null_mut(), |structure| structure.into_glib_ptr());
    // SAFETY: any number may be given as the type; the caller has checked that it is one of GStreamer's. The
    // structure is ours to give and has no parent.
    unsafe { from_glib_full(ffi::gst_event_new_custom(kind, structure)) }
}

/// Says which group of streams a stream-start event belongs to.
pub(super) fn set_group(event: &mut gst::EventRef, group: u32) {
    // SAFETY: the event is exclusively borrowed, so it is writable; the caller has checked that it is a
    // stream-start event.
    unsafe { ffi::gst_event_set_group_id(event.as_mut_ptr(), group) }
}

/// The number of an event's type.
pub(super) fn event_kind(event: &gst::EventRef) -> u32 {
    event.type_().into_glib() as u32
}

/// Whether an event's type is one that GStreamer has.
pub(super) fn is_known_kind(kind: u32) -> bool {
    // SAFETY: the function only looks the number up in a table.
    let flags = unsafe { ffi::gst_event_type_get_flags(kind as ffi::GstEventType) };
    flags & (ffi::GST_EVENT_TYPE_DOWNSTREAM | ffi::GST_EVENT_TYPE_UPSTREAM) != 0
}

/// The tag list that a text stands for.
pub(super) fn tag_list(text: &str) -> Option<gst::TagList> {
    // GStreamer asserts it
    if !text.starts_with("taglist") {
        return None;
    }
    let text = std::ffi::CString::new(super::text::checked(text)?).ok()?;
    // SAFETY: the text is terminated and is only read.
    unsafe { from_glib_full(ffi::gst_tag_list_new_from_string(text.as_ptr())) }
}

/// The text of a tag list.
pub(super) fn tag_list_text(tags: &gst::TagListRef) -> Option<glib::GString> {
    // SAFETY: the list is borrowed for the call, the text returned is ours.
    unsafe { from_glib_full(ffi::gst_tag_list_to_string(tags.as_ptr())) }
}

/// A segment of any format.
pub(super) fn segment(parts: &ffi::GstSegment) -> gst::Segment {
    // SAFETY: the segment is copied.
    unsafe { from_glib_none(std::ptr::from_ref(parts)) }
}

/// The fields of a segment of any format.
pub(super) fn segment_parts(segment: &gst::Segment) -> ffi::GstSegment {
    let stash = segment.to_glib_none();
    let pointer: *const ffi::GstSegment = stash.0;
    // SAFETY: a valid pointer to a plain struct, read by value.
    unsafe { pointer.read() }
}
