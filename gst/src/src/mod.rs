//! `pagecastsrc`: frames that another process publishes, without a copy.
//!
//! ```text
//! gst-launch-1.0 videotestsrc is-live=true ! videoconvert ! pagecastsink uri=unix:cam0
//! gst-launch-1.0 pagecastsrc uri=unix:cam0 ! videoconvert ! autovideosink
//! gst-launch-1.0 -e pagecastsrc uri=unix:cam0 ! videoconvert ! x264enc ! mp4mux ! filesink location=cam0.mp4
//! gst-launch-1.0 pagecastsrc uri=unix:cam0 latest=true max-framerate=5/1 ! videoconvert ! pngenc ! multifilesink
//! ```
//!
//! The publisher may be started before or after the source, and again later: the source waits for it
//! (`reconnect`). The memory of its buffers is the publisher's: it is read-only, goes back when the last
//! reference to it goes, and is mapped once. Elements that write in place get a copy from GStreamer.
//!
//! # Times
//!
//! *A live publisher*: a frame's presentation time is the running time of this pipeline at the moment the
//! publisher's pipeline would show it, its configured latency included, whatever clocks the two pipelines
//! have. The segment is one that begins at 0, and a `LATENCY` query is answered with what the way across
//! takes, as the publisher's own latency is in the times already.
//!
//! *A publisher that is not live*: presentation times and segments are the publisher's. Running time is, too,
//! for who sees the stream from its first frame on; who comes later sees frames at once, as the segment's
//! base or offset is changed so that running time begins with the first frame. In the same way the next life
//! of a publisher goes on where the one before it ended.
//!
//! `is-live` says which of the two it is; while it is not set, the publisher's word counts. `do-timestamp`
//! replaces all times by those of arrival.
//!
//! # Faces
//!
//! Downstream decides (`face=auto`): memory that only the publisher can write, or dma-bufs where downstream names
//! `memory:DMABuf` before system memory, takes nothing else, or the publisher has nothing else. The same picture goes by
//! three names: `format=NV12`; `memory:DMABuf` with `format=NV12`; and from GStreamer 1.24 on `memory:DMABuf` with
//! `format=DMA_DRM` and `drm-format=NV12`. The first that downstream takes is used. Pixels that do not lie line by line have
//! only the last, with their modifier: it comes as the publisher said it, and who cannot take it gets an error that names
//! it and what would be taken.
//!
//! A frame whose device still writes it (a dma-buf says so by its fences, which GStreamer does not have) goes downstream
//! when the device is done; after five seconds it is lost, and counted in `dropped`. Fences of devices downstream are in the
//! dma-buf, too: the publisher's pages rest until they have signalled.
//!
//! # Messages
//!
//! `pagecast-connected` (uri, publisher, epoch, live, policy, credits) and `pagecast-disconnected` (uri,
//! reason) are posted when a link begins and ends. `pagecast-lost` (uri, reason) follows if the publisher went
//! without a word (it was killed) and the source does not wait for another (`reconnect=false`): then the end of
//! the stream, which the source sends so that downstream can finish its work, is not the publisher's. A frame before which others were lost has the flag DISCONT.

mod caps;
mod devices;
mod figures;
mod flow;
mod imp;
mod layout;
mod link;
mod offers;
mod receive;
mod settings;
mod stream;
mod times;

pub(crate) use figures::round_trip;

use gst::glib;
use gst::prelude::*;

pub use settings::{AskedFace, AskedPolicy, SocketType};

glib::wrapper! {
    /// The source element.
    pub struct PagecastSrc(ObjectSubclass<imp::PagecastSrc>)
        @extends gst_base::PushSrc, gst_base::BaseSrc, gst::Element, gst::Object;
}

/// Makes the element known to GStreamer.
///
/// # Errors
/// If GStreamer refuses it.
pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(Some(plugin), "pagecastsrc", gst::Rank::NONE, PagecastSrc::static_type())
}
