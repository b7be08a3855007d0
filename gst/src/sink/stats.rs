//! The `stats` structure.

use pagecast::publisher::{ForeignPool, SubscriberInfo};

use super::running::Running;
use crate::src::round_trip;

/// Adds the publisher's figures to those of the base class.
pub(super) fn extend(mut stats: gst::Structure, running: &Running) -> gst::Structure {
    let info = running.publisher().info();
    let figures = &info.publisher;
    stats.set("uri", &info.uri);
    stats.set("frames", figures.frames);
    stats.set("bytes", figures.bytes);
    stats.set("clients-dropped", figures.dropped);
    stats.set("copied", figures.copied);
    stats.set("fps", figures.fps);
    stats.set("held", figures.held as u64);
    stats.set("pool_total", figures.pool_total);
    stats.set("pool_free", figures.pool_free);
    stats.set("pool_limit", figures.pool_limit);
    stats.set("backing", figures.backing.as_deref().unwrap_or_default());
    stats.set("epoch", figures.epoch);
    stats.set("evicted", figures.evicted);
    stats.set("faults", figures.faults);
    stats.set("reclaimed", figures.reclaimed);
    if let Some(foreign) = &figures.foreign {
        stats.set("foreign", foreign_pool(foreign));
    }
    stats.set("refused-pages", running.allocator().refused());
    stats.set("fallbacks", gst::Array::new(figures.fallbacks.iter()));
    let mut not_carried = gst::Structure::new_empty("not_carried");
    for (name, count) in &figures.not_carried {
        not_carried.set(name.as_str(), *count);
    }
    stats.set("not_carried", not_carried);
    stats.set("clients", gst::Array::new(info.subscribers.iter().map(client)));
    stats
}

fn foreign_pool(figures: &ForeignPool) -> gst::Structure {
    gst::Structure::builder("foreign")
        .field("buffers", figures.buffers)
        .field("reserve", figures.reserve)
        .field_if_some("fewest", figures.fewest)
        .field("missed", figures.missed)
        .field("left_out", figures.left_out)
        .build()
}

fn client(info: &SubscriberInfo) -> gst::Structure {
    let client = gst::Structure::builder("client")
        .field("id", info.id)
        .field("pid", info.pid)
        .field("uid", info.uid)
        .field("name", &info.name)
        .field("transport", &info.transport)
        .field("policy", &info.policy)
        .field("frames", info.frames)
        .field("dropped", info.dropped)
        .field("skipped", info.skipped)
        .field("stalls", info.stalls)
        .field("bytes", info.bytes)
        .field("held", info.held as u64)
        .field("credits", info.credits)
        .field("mailbox", info.mailbox as u64)
        .field("faces", gst::Array::new(info.faces.iter()))
        .field_if_some("peer", info.peer.as_ref())
        .field_if_some("fallback", info.fallback.as_ref())
        .field_if_some("rtt_us", info.rtt_us.as_ref().map(round_trip))
        .field_if_some("wire_bytes", info.wire_bytes);
    client.build()
}
