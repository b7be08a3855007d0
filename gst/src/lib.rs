//! GStreamer elements that publish frames to, and receive them from, other processes without a copy.
//!
//! ```sh
//! gst-launch-1.0 videotestsrc ! pagecastsink uri=unix:cam0
//! gst-launch-1.0 pagecastsrc uri=unix:cam0 ! autovideosink
//! ```

use gst::glib;

mod clock;
pub mod convert;
pub mod memory;
mod pool;
mod remote;
pub mod sink;
pub mod src;

fn plugin_init(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    sink::register(plugin)?;
    src::register(plugin)
}

/// What makes this library a plugin.
#[allow(missing_docs, clippy::undocumented_unsafe_blocks, unreachable_pub, reason = "written by a macro")]
mod definition {
    use super::plugin_init;

    gst::plugin_define!(
        pagecast,
        env!("CARGO_PKG_DESCRIPTION"),
        plugin_init,
        env!("CARGO_PKG_VERSION"),
        "MIT/X11",
        env!("CARGO_PKG_NAME"),
        env!("CARGO_PKG_NAME"),
        "https://pagecast.invalid/",
        env!("BUILD_REL_DATE")
    );
}

/// Registers the plugin in a program that links this library.
///
/// # Errors
/// If GStreamer refuses it.
pub fn plugin_register_static() -> Result<(), glib::BoolError> {
    definition::plugin_desc::plugin_register_static()
}
