//! The text of sticky values, events and requests, as the elements get it; a letter in front says which.
#![no_main]

use gstpagecast::convert::events::{self, Outgoing};
use gstpagecast::convert::request;
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: { pagecast_fuzz::start_gstreamer() }, |data: &[u8]| {
    let Some((which, data)) = data.split_first() else { return };
    let sticky = match which {
        b'c' => events::CAPS,
        b's' => events::SEGMENT,
        b'S' => events::STREAM_START,
        b't' => events::TAG,
        b'T' => events::TAG_GLOBAL,
        b'o' => events::TOC,
        b'x' => "event:other",
        b'r' => {
            request::incoming(request::FORCE_KEY_UNIT, data);
            return;
        }
        _ => {
            if let Some(event) = events::event(data) {
                travels(&event);
            }
            return;
        }
    };
    if let Some(event) = events::sticky(sticky, data) {
        assert!(event.is_sticky());
        travels(&event);
    }
});

/// An event that was accepted can travel on, and is then accepted again.
fn travels(event: &gst::Event) {
    // what the source looks at itself
    match event.view() {
        gst::EventView::Gap(gap) => drop(gap.get()),
        gst::EventView::FlushStop(stop) => drop(stop.resets_time()),
        _ => {}
    }
    let again = match events::outgoing(event) {
        Outgoing::Sticky { name, data } => events::sticky(&name, &data),
        Outgoing::Event { data, .. } => events::event(&data),
        Outgoing::NotCarried(_) => return,
    };
    if let Some(again) = again {
        assert_eq!(again.type_(), event.type_());
    }
}
