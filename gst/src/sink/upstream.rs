//! What upstream is going to do with our pages.

use gst::glib;
use gst::prelude::*;

/// How many elements and borders of bins are looked at.
const FAR: usize = 32;

/// Whether a driver upstream imports our pages as dma-bufs (`io-mode=dmabuf-import` of the V4L2 elements): the
/// ALLOCATION query does not say so, and the driver takes no other memory.
pub(super) fn imports(sink: &gst::Pad) -> bool {
    let mut pad = sink.clone();
    for _ in 0..FAR {
        let Some(peer) = pad.peer() else { return false };
        match next(peer) {
            Next::Pad(further) => pad = further,
            Next::Element(element) if writes_imports(&element) => return true,
            Next::Element(element) => match element.sink_pads().as_slice() {
                [only] => pad = only.clone(),
                _ => return false,
            },
            Next::Nothing => return false,
        }
    }
    false
}

enum Next {
    Element(gst::Element),
    /// A pad whose peer is further upstream.
    Pad(gst::Pad),
    Nothing,
}

/// What is behind a source pad; a bin's border is only passed.
fn next(source: gst::Pad) -> Next {
    if let Some(ghost) = source.downcast_ref::<gst::GhostPad>() {
        // Its inner side faces what is in the bin.
        let inner = ghost.internal().map(|inner| inner.upcast::<gst::Pad>());
        return inner.map_or(Next::Nothing, Next::Pad);
    }
    if let Some(proxy) = source.downcast_ref::<gst::ProxyPad>() {
        let outer = proxy.internal().map(|outer| outer.upcast::<gst::Pad>());
        return outer.map_or(Next::Nothing, Next::Pad);
    }
    source.parent_element().map_or(Next::Nothing, Next::Element)
}

fn writes_imports(element: &gst::Element) -> bool {
    ["io-mode", "capture-io-mode"].into_iter().any(|name| {
        if element.find_property(name).is_none() {
            return false;
        }
        let value = element.property_value(name);
        glib::EnumValue::from_value(&value).is_some_and(|(_, mode)| mode.nick() == "dmabuf-import")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(description: &str) -> bool {
        gst::init().unwrap();
        let bin = gst::parse::bin_from_description(description, false).unwrap();
        let sink = bin.by_name("sink").unwrap();
        imports(&sink.static_pad("sink").unwrap())
    }

    #[test]
    fn a_driver_that_imports_is_found_behind_filters_and_borders() {
        gst::init().unwrap();
        let registry = gst::Registry::get();
        if registry.find_feature("v4l2src", gst::ElementFactory::static_type()).is_none() {
            return;
        }
        assert!(found("v4l2src io-mode=dmabuf-import ! fakesink name=sink"));
        assert!(found("v4l2src io-mode=dmabuf-import ! capsfilter ! queue ! fakesink name=sink"));
        assert!(found("( v4l2src io-mode=dmabuf-import ! identity ) ! ( queue ! fakesink name=sink )"));
        assert!(!found("v4l2src io-mode=dmabuf ! fakesink name=sink"));
        assert!(!found("( v4l2src io-mode=mmap ! identity ) ! ( queue ! fakesink name=sink )"));
        assert!(!found("videotestsrc ! queue ! fakesink name=sink"));
        assert!(!found("fakesink name=sink"));
    }
}
