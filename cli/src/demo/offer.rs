//! What this machine offers, and what of it the demonstration uses.

use std::fs::OpenOptions;

use pagecast::{FaceKind, Pool, PoolOptions};

use super::picture::SIZE;
use crate::bench::Machine;
use crate::exit::Failure;
use crate::output;

/// Says it.
pub(super) fn tell(machine: &Machine) -> Result<(), Failure> {
    output::line(format_args!("This machine: {}", machine.line()))?;
    let can_open = |path: &str| OpenOptions::new().read(true).write(true).open(path).is_ok();
    let yes = |offered: bool| if offered { "yes" } else { "no" };
    output::line(format_args!(
        "It offers: {} free huge pages, /dev/udmabuf {}, shmsink {}, unixfdsink {}",
        machine.huge_pages_free,
        yes(can_open("/dev/udmabuf")),
        yes(has_element("shmsink")),
        yes(has_element("unixfdsink")),
    ))?;
    let pool = Pool::new(PoolOptions::default());
    let lease = pool.acquire(SIZE).map_err(Failure::failed)?;
    let buffer = lease.buffer();
    let faces: Vec<String> = buffer.faces().map(|face| face.to_string()).collect();
    let access = buffer.face(FaceKind::Memory).map_or_else(String::new, |face| face.access.to_string());
    output::line(format_args!(
        "Used here: {} backing, face {} ({access}), unix link; no root, no configuration",
        buffer.backing(),
        faces.join(" and "),
    ))?;
    for fallback in pool.fallbacks() {
        output::line(format_args!(
            "note: {} instead of {}: {}",
            fallback.to, fallback.from, fallback.reason
        ))?;
    }
    Ok(())
}

#[cfg(feature = "gstreamer")]
fn has_element(name: &str) -> bool {
    crate::workers::gst_init().is_ok() && gst::ElementFactory::find(name).is_some()
}

#[cfg(not(feature = "gstreamer"))]
fn has_element(_name: &str) -> bool {
    false
}
