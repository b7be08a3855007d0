//! Tables of contents, which GStreamer itself cannot serialise.

use gst::glib::translate::{FromGlib, IntoGlib};

use super::{raw, structure};

/// How deep entries may lie within each other.
const MAX_DEPTH: usize = 16;

pub(super) fn write(event: &gst::event::Toc) -> String {
    let (toc, updated) = event.toc();
    let mut out = gst::Structure::builder("toc")
        .field("scope", toc.scope().into_glib())
        .field("updated", updated)
        .field("entries", entries(&toc.entries()))
        .build();
    set_tags(&mut out, toc.tags());
    out.to_string()
}

fn set_tags(out: &mut gst::Structure, tags: Option<gst::TagList>) {
    if let Some(text) = tags.and_then(|tags| raw::tag_list_text(&tags)) {
        out.set("tags", text);
    }
}

fn entries(from: &[gst::TocEntry]) -> gst::Array {
    gst::Array::new(from.iter().map(entry))
}

fn entry(from: &gst::TocEntry) -> gst::Structure {
    let mut out = gst::Structure::builder("entry")
        .field("type", from.entry_type().into_glib())
        .field("uid", from.uid())
        .field("entries", entries(&from.sub_entries()))
        .build();
    if let Some((start, stop)) = from.start_stop_times() {
        out.set("start", start);
        out.set("stop", stop);
    }
    if let Some((kind, count)) = from.loop_() {
        out.set("loop", kind.into_glib());
        out.set("repeat", count);
    }
    set_tags(&mut out, from.tags());
    out
}

pub(super) fn read(data: &[u8]) -> Option<gst::Event> {
    let from = structure(data)?;
    // SAFETY: any number is a scope or `TocScope::__Unknown`.
    let scope = unsafe { gst::TocScope::from_glib(from.get("scope").ok()?) };
    if !matches!(scope, gst::TocScope::Global | gst::TocScope::Current) {
        return None;
    }
    let mut toc = gst::Toc::new(scope);
    let out = toc.get_mut()?;
    out.set_tags(tags(&from));
    for sub in read_entries(&from, 0)? {
        out.append_entry(sub);
    }
    Some(gst::event::Toc::new(&toc, from.get("updated").unwrap_or(false)))
}

fn tags(from: &gst::StructureRef) -> Option<gst::TagList> {
    raw::tag_list(&from.get::<String>("tags").ok()?)
}

fn read_entries(from: &gst::StructureRef, depth: usize) -> Option<Vec<gst::TocEntry>> {
    if depth > MAX_DEPTH {
        return None;
    }
    let Ok(list) = from.get::<gst::Array>("entries") else { return Some(Vec::new()) };
    let entry = |value: &gst::glib::SendValue| {
        let from = value.get::<gst::Structure>().ok()?;
        read_entry(&from, depth)
    };
    list.iter().map(entry).collect()
}

fn read_entry(from: &gst::StructureRef, depth: usize) -> Option<gst::TocEntry> {
    // SAFETY: any number is a type or `TocEntryType::__Unknown`, which is not used below.
    let kind = unsafe { gst::TocEntryType::from_glib(from.get("type").ok()?) };
    if matches!(kind, gst::TocEntryType::__Unknown(_)) {
        return None;
    }
    let mut entry = gst::TocEntry::new(kind, &from.get::<String>("uid").ok()?);
    let out = entry.get_mut()?;
    if let (Ok(start), Ok(stop)) = (from.get("start"), from.get("stop")) {
        out.set_start_stop_times(start, stop);
    }
    if let (Ok(kind), Ok(count)) = (from.get::<i32>("loop"), from.get("repeat")) {
        // SAFETY: any number is a kind of loop or `TocLoopType::__Unknown`.
        out.set_loop(unsafe { gst::TocLoopType::from_glib(kind) }, count);
    }
    out.set_tags(tags(from));
    for sub in read_entries(from, depth + 1)? {
        out.append_sub_entry(sub);
    }
    Some(entry)
}
