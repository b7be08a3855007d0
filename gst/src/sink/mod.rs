//! `pagecastsink`: publishes what it gets to every process that connects.

mod copies;
mod frame;
mod imp;
mod running;
mod settings;
mod stats;
mod times;
mod upstream;

use gst::glib;
use gst::prelude::*;
use pagecast::BackingChoice;
use pagecast::allocators::UnknownName;

glib::wrapper! {
    /// Publishes what it gets to every process that connects, without a copy where upstream fills its pages.
    ///
    /// ```sh
    /// gst-launch-1.0 videotestsrc is-live=true ! video/x-raw,format=NV12 ! pagecastsink uri=unix:cam0
    /// gst-launch-1.0 v4l2src io-mode=dmabuf-import ! video/x-raw,format=NV12 ! pagecastsink uri=unix:cam0
    /// gst-launch-1.0 filesrc location=a.mp4 ! decodebin ! pagecastsink socket-path=/tmp/a policy=block
    /// ```
    pub struct PagecastSink(ObjectSubclass<imp::PagecastSink>)
        @extends gst_base::BaseSink, gst::Element, gst::Object;
}

/// What happens to a subscriber that falls behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "PagecastPolicy")]
#[repr(i32)]
pub enum Policy {
    /// Block where upstream is not live, drop-oldest where it is.
    #[default]
    #[enum_value(name = "Block if upstream is not live, drop-oldest if it is", nick = "auto")]
    Auto = 0,
    /// Hold the producer.
    #[enum_value(name = "Hold the producer, up to block-deadline", nick = "block")]
    Block = 1,
    /// The oldest waiting frame makes room.
    #[enum_value(name = "The frame that waited longest makes room", nick = "drop-oldest")]
    DropOldest = 2,
    /// The new frame is not taken.
    #[enum_value(name = "The new frame is left out", nick = "drop-newest")]
    DropNewest = 3,
    /// Only the newest frame waits.
    #[enum_value(name = "Only the newest frame waits", nick = "latest")]
    Latest = 4,
}

impl From<Policy> for pagecast::Policy {
    fn from(policy: Policy) -> Self {
        match policy {
            Policy::Auto => Self::Auto,
            Policy::Block => Self::Block,
            Policy::DropOldest => Self::DropOldest,
            Policy::DropNewest => Self::DropNewest,
            Policy::Latest => Self::Latest,
        }
    }
}

/// Where the pages come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "PagecastBacking")]
#[repr(i32)]
pub enum Backing {
    /// Huge pages where they are reserved, else ordinary ones.
    #[default]
    #[enum_value(name = "Huge pages where they are reserved, else ordinary pages", nick = "auto")]
    Auto = 0,
    /// Ordinary pages.
    #[enum_value(name = "Ordinary pages", nick = "memfd")]
    Memfd = 1,
    /// Huge pages.
    #[enum_value(
        name = "Huge pages; ordinary ones, with a note in stats, if there are none",
        nick = "hugetlb"
    )]
    Hugetlb = 2,
    /// A dma-heap.
    #[enum_value(
        name = "The dma-heap that backing-device names; clients get dma-bufs, which they can write",
        nick = "dma-heap"
    )]
    DmaHeap = 3,
    /// Dumb buffers of a DRM device.
    #[enum_value(
        name = "Dumb buffers of the DRM device that backing-device names; clients get dma-bufs, which they can write",
        nick = "drm-dumb"
    )]
    DrmDumb = 4,
}

impl Backing {
    /// The library's word for it.
    fn choice(self, device: Option<&str>) -> Result<BackingChoice, UnknownName> {
        let kind = match self {
            Self::Auto => return Ok(BackingChoice::Auto),
            Self::Memfd => return Ok(BackingChoice::Memfd),
            Self::Hugetlb => return Ok(BackingChoice::Hugetlb),
            Self::DmaHeap => "dma-heap",
            Self::DrmDumb => "drm-dumb",
        };
        match device {
            Some(device) => format!("{kind}:{device}").parse(),
            None => kind.parse(),
        }
    }
}

/// Registers the element.
pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    use gst::prelude::PluginApiExt;
    Policy::static_type().mark_as_plugin_api(gst::PluginAPIFlags::empty());
    Backing::static_type().mark_as_plugin_api(gst::PluginAPIFlags::empty());
    gst::Element::register(Some(plugin), "pagecastsink", gst::Rank::NONE, PagecastSink::static_type())
}
