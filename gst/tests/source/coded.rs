//! A coded stream, of which somebody joins when no frame can be decoded by itself any more.

use gst::prelude::*;

use super::launch::Launched;
use super::{Pipeline, Place, eventually, pull};

/// A publisher at `uri`, in a process of its own; one who is there early, and one who comes late: it gets a frame to begin
/// with, and the tags that were sent long before.
pub(crate) fn joined_late(place: &Place, uri: &str) {
    // No second key frame comes by itself.
    let encode = "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=1000000";
    let line = format!(
        "videotestsrc is-live=true ! video/x-raw,width=64,height=64,framerate=50/1 ! {encode} \
         ! taginject tags=title=from-afar ! pagecastsink uri={uri}"
    );
    let _publisher = Launched::new(&place.file("publisher"), &line);
    let launch = |more: &str| format!("pagecastsrc uri={uri} name=src ! {more} ! appsink name=a sync=false");
    let early = Pipeline::playing(&launch("identity"));
    // After those that were asked for at the beginning, no frame can be decoded by itself.
    let (mut pulled, mut deltas) = (0, 0);
    while deltas < 50 {
        let delta = pull(&early.sink("a")).buffer().unwrap().flags().contains(gst::BufferFlags::DELTA_UNIT);
        (pulled, deltas) = (pulled + 1, if delta { deltas + 1 } else { 0 });
        assert!(pulled < 500, "key frames come by themselves");
    }
    let late = Pipeline::playing(&launch("identity name=i ! h264parse ! avdec_h264"));
    let sample = pull(&late.sink("a"));
    assert_eq!(sample.caps().unwrap().structure(0).unwrap().get("width"), Ok(64));
    let pad = late.element("i").static_pad("src").unwrap();
    eventually("its title", || {
        let tags = (0..).map_while(|at| pad.sticky_event::<gst::event::Tag>(at));
        tags.into_iter().any(|event| {
            event.tag().get::<gst::tags::Title>().is_some_and(|title| title.get() == "from-afar")
        })
    });
}
