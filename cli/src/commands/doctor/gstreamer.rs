//! GStreamer and the elements that are of use.

use super::Check;
use crate::convert;

/// The oldest GStreamer that Pagecast is built for.
const OLDEST: (u32, u32) = (1, 22);

/// Elements, what for, and where Debian has them.
const ELEMENTS: &[(&str, &[&str], &str, &str)] = &[
    (
        "gst base",
        &["videotestsrc", "videoconvert", "videoscale", "uridecodebin", "appsink"],
        "serve --test, serve --file and demo",
        "gstreamer1.0-plugins-base",
    ),
    ("gst good", &["pngenc", "jpegenc"], "snapshot", "gstreamer1.0-plugins-good"),
    ("gst peers", &["shmsink", "shmsrc"], "the comparison in demo and bench", "gstreamer1.0-plugins-bad"),
];

pub(super) fn checks() -> Vec<Check> {
    const NAME: &str = "gstreamer";
    if let Err(failure) = convert::init() {
        let remedy = "install GStreamer 1.22 or newer (libgstreamer1.0-0, gstreamer1.0-plugins-base)";
        return vec![Check::fail(NAME, failure.to_string(), remedy)];
    }
    let (major, minor, micro, _) = gst::version();
    let text = format!("{major}.{minor}.{micro}");
    let mut checks = vec![match (major, minor) >= OLDEST {
        true => Check::pass(NAME, text),
        false => Check::fail(NAME, text, "1.22 or newer is needed"),
    }];
    checks.push(plugin());
    checks.extend(ELEMENTS.iter().map(|(name, elements, purpose, package)| {
        let missing: Vec<_> = elements.iter().filter(|e| !exists(e)).copied().collect();
        match missing.as_slice() {
            [] => Check::pass(name, elements.join(", ")),
            missing => {
                let remedy = format!("install {package}: for {purpose}");
                Check::warn(name, format!("missing: {}", missing.join(", ")), remedy)
            }
        }
    }));
    checks
}

fn exists(element: &str) -> bool {
    gst::ElementFactory::find(element).is_some()
}

/// Whether programs other than this one find our elements.
fn plugin() -> Check {
    const NAME: &str = "gst plugin";
    // This program brings them along, so that only a registry that was not touched yet can tell.
    if exists("pagecastsink") && exists("pagecastsrc") {
        return Check::pass(NAME, "gst-launch-1.0 and others find pagecastsink and pagecastsrc");
    }
    let remedy =
        "cargo cinstall -p gst-plugin-pagecast, or put the folder of libgstpagecast.so into GST_PLUGIN_PATH";
    Check::warn(NAME, "this command has the elements built in; gst-launch-1.0 does not find them", remedy)
}
