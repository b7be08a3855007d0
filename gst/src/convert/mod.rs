//! What travels beside the bytes: buffer flags, metas and events, in both directions.
//!
//! | GStreamer | on the link |
//! |---|---|
//! | caps | sticky `caps`: the caps as text |
//! | stream-start, segment, TOC | sticky `stream-start`, `segment`, `toc`: a structure as text |
//! | tags | sticky `tag` and `tag-global`: the tag list as text |
//! | other sticky events | sticky `event:NAME`: type number, newline, structure |
//! | EOS, gap, flush and all others | event with the name of its type: type number, newline, structure |
//! | `GstVideoMeta` | width, height and planes of the frame |
//! | other metas | meta of the same name as the meta's API, see [`metas`] |
//!
//! Text is what `gst_structure_to_string` makes, so any GStreamer can read it. What comes from a link is
//! checked before GStreamer sees it; what makes no sense is left out.

pub mod events;
pub mod flags;
pub mod metas;
pub(crate) mod pixels;
mod raw;
pub mod request;
mod segment;
mod start;
mod text;
mod toc;

/// The structure in bytes from a link.
fn structure(data: &[u8]) -> Option<gst::Structure> {
    text::of(data)?.parse().ok()
}

/// The caps in text from a link.
pub fn caps(text: &str) -> Option<gst::Caps> {
    text::checked(text)?.parse().ok()
}
