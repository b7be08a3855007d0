//! Downstream events.

use gst::glib::prelude::*;
use gst::glib::types::Type;
use pagecast::ipc::wire::limits::{MAX_EVENT_BYTES, MAX_NAME};

use super::{raw, segment, start, structure, text, toc};

/// The sticky value that holds caps.
pub const CAPS: &str = pagecast::stream::CAPS;
/// The sticky value that holds the segment.
pub const SEGMENT: &str = "segment";
/// The sticky value that holds the stream's id, flags and group.
pub const STREAM_START: &str = "stream-start";
/// The sticky value that holds the tags of the stream.
pub const TAG: &str = "tag";
/// The sticky value that holds tags of the whole medium.
pub const TAG_GLOBAL: &str = "tag-global";
/// The sticky value that holds the table of contents.
pub const TOC: &str = "toc";
/// What the names of all other sticky values begin with.
pub const OTHER: &str = "event:";
pub use pagecast::EOS;
/// The event that stands for a time without data.
pub const GAP: &str = "gap";

/// An event as it travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outgoing {
    /// Holds until it is replaced; late joiners get it.
    Sticky {
        /// The name of the value.
        name: String,
        /// The value.
        data: Vec<u8>,
    },
    /// Happens once.
    Event {
        /// The name of the event's type.
        name: String,
        /// Its content.
        data: Vec<u8>,
    },
    /// Cannot travel; the name says what it is.
    NotCarried(String),
}

/// How an event travels.
pub fn outgoing(event: &gst::EventRef) -> Outgoing {
    use gst::EventView;
    let sticky = |name: &str, text: String| limited(name.to_owned(), text, true);
    match event.view() {
        EventView::Caps(event) => sticky(CAPS, event.caps().to_string()),
        EventView::Segment(event) => sticky(SEGMENT, segment::write(event.segment())),
        EventView::StreamStart(event) => sticky(STREAM_START, start::write(event)),
        EventView::Toc(event) => sticky(TOC, toc::write(event)),
        EventView::Tag(event) => tags(event),
        // They refer to objects of this process.
        EventView::StreamCollection(_) | EventView::SinkMessage(_) => not_carried(event),
        EventView::Eos(_) => limited(EOS.to_owned(), plain(event), false),
        _ if event.is_sticky() => {
            let name = event.structure().map_or(event.type_().name().as_str(), |s| s.name().as_str());
            limited(format!("{OTHER}{name}"), plain(event), true)
        }
        _ if event.type_().is_downstream() => {
            limited(event.type_().name().as_str().to_owned(), plain(event), false)
        }
        _ => not_carried(event),
    }
}

fn not_carried(event: &gst::EventRef) -> Outgoing {
    Outgoing::NotCarried(event.type_().name().as_str().to_owned())
}

fn limited(name: String, text: String, sticky: bool) -> Outgoing {
    let data = text.into_bytes();
    if name.len() > MAX_NAME || data.len() > MAX_EVENT_BYTES {
        return Outgoing::NotCarried(name.chars().take(64).collect());
    }
    if sticky { Outgoing::Sticky { name, data } } else { Outgoing::Event { name, data } }
}

/// Type and content.
fn plain(event: &gst::EventRef) -> String {
    let content = event.structure().map(|structure| structure.to_string()).unwrap_or_default();
    format!("{}\n{content}", raw::event_kind(event))
}

/// Tags without those (cover pictures, usually) that are too large for a message.
fn tags(event: &gst::event::Tag) -> Outgoing {
    let mut tags = event.tag_owned();
    let name = if tags.scope() == gst::TagScope::Global { TAG_GLOBAL } else { TAG };
    let write = |tags: &gst::TagListRef| raw::tag_list_text(tags).map(String::from).unwrap_or_default();
    let mut text = write(&tags);
    while text.len() > MAX_EVENT_BYTES {
        let Some(largest) = largest(&tags) else { break };
        tags = without(&tags, &largest);
        text = write(&tags);
    }
    limited(name.to_owned(), text, true)
}

fn largest(tags: &gst::TagListRef) -> Option<String> {
    let size = |tag: &str| raw::tag_list_text(&select(tags, |name| name == tag)).map_or(0, |text| text.len());
    tags.iter_generic().map(|(name, _)| name.to_string()).max_by_key(|name| size(name))
}

fn without(tags: &gst::TagListRef, tag: &str) -> gst::TagList {
    select(tags, |name| name != tag)
}

fn select(tags: &gst::TagListRef, wanted: impl Fn(&str) -> bool) -> gst::TagList {
    let mut selected = gst::TagList::new();
    let out = selected.make_mut();
    out.set_scope(tags.scope());
    for (name, values) in tags.iter_generic().filter(|(name, _)| wanted(name)) {
        for value in values {
            // A value that was in a list fits a list.
            let _ = out.add_value(name, value, gst::TagMergeMode::Append);
        }
    }
    selected
}

/// The sticky event that a value from a link stands for; `None` if it makes none.
pub fn sticky(name: &str, data: &[u8]) -> Option<gst::Event> {
    let tag = |scope| {
        let mut tags = raw::tag_list(text::of(data)?)?;
        tags.get_mut()?.set_scope(scope);
        Some(gst::event::Tag::new(tags))
    };
    match name {
        CAPS => caps(data).map(|caps| gst::event::Caps::new(&caps)),
        SEGMENT => segment::read(data).map(|segment| gst::event::Segment::new(&segment)),
        STREAM_START => start::read(data),
        TOC => toc::read(data),
        TAG => tag(gst::TagScope::Stream),
        TAG_GLOBAL => tag(gst::TagScope::Global),
        _ if name.starts_with(OTHER) => event(data).filter(|event| event.is_sticky()),
        _ => None,
    }
}

/// The caps in a sticky value; `None` if they are not fixed.
pub fn caps(data: &[u8]) -> Option<gst::Caps> {
    super::caps(text::of(data)?).filter(|caps| caps.is_fixed())
}

/// The segment in a sticky value.
pub fn segment(data: &[u8]) -> Option<gst::Segment> {
    segment::read(data)
}

/// The event that an event from a link stands for; `None` if it makes none.
pub fn event(data: &[u8]) -> Option<gst::Event> {
    let (kind, content) = text::of(data)?.split_once('\n')?;
    let kind = kind.parse().ok().filter(|kind| raw::is_known_kind(*kind))?;
    let content = match content {
        "" => None,
        content => Some(structure(content.as_bytes())?),
    };
    raw::event(kind, content).filter(|event| event.type_().is_downstream() && is_plain(event))
}

/// Events that have a form of their own do not come in the general one. Of the others the fields that GStreamer, and
/// elements downstream, rely on are there, and are what they are taken for: parsing looks at neither.
fn is_plain(event: &gst::Event) -> bool {
    use gst::EventType as Kind;
    type Field = (&'static str, fn() -> Type);
    let needs: &[Field] = match event.type_() {
        Kind::Caps | Kind::Segment | Kind::StreamStart | Kind::Toc | Kind::Tag => return false,
        Kind::StreamCollection | Kind::SinkMessage => return false,
        Kind::Gap => &[("timestamp", u64::static_type), ("duration", u64::static_type)],
        Kind::FlushStop => &[("reset-time", bool::static_type)],
        Kind::SegmentDone => &[("format", gst::Format::static_type), ("position", i64::static_type)],
        Kind::StreamGroupDone => &[("group-id", u32::static_type)],
        Kind::Buffersize => &[
            ("format", gst::Format::static_type),
            ("minsize", i64::static_type),
            ("maxsize", i64::static_type),
            ("async", bool::static_type),
        ],
        Kind::Protection => &[("system_id", String::static_type), ("data", gst::Buffer::static_type)],
        Kind::InstantRateChange => &[("rate", f64::static_type), ("flags", gst::SegmentFlags::static_type)],
        _ => &[],
    };
    let has = |(name, kind): &Field| {
        let value = event.structure().and_then(|content| content.value(*name).ok());
        value.is_some_and(|value| value.type_() == kind())
    };
    needs.iter().all(has) && (event.type_() != Kind::Gap || begins(event))
}

/// A gap begins at some time.
fn begins(gap: &gst::EventRef) -> bool {
    let start = gap.structure().and_then(|content| content.get::<u64>("timestamp").ok());
    start.is_some_and(|start| start != gst::ffi::GST_CLOCK_TIME_NONE)
}

#[cfg(test)]
mod tests;
