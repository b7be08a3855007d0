//! What a subscriber may ask upstream of the publisher for. Only what hurts no other subscriber: a key unit.

use gst_video::UpstreamForceKeyUnitEvent;

use super::structure;

/// The name of a request for a key unit.
pub const FORCE_KEY_UNIT: &str = "force-key-unit";

/// The request that an upstream event stands for; `None` if it stays in its pipeline.
pub fn outgoing(event: &gst::Event) -> Option<(&'static str, Vec<u8>)> {
    if !gst_video::ForceKeyUnitEvent::is(event) {
        return None;
    }
    let key_unit = UpstreamForceKeyUnitEvent::parse(event).ok()?;
    let out = gst::Structure::builder(FORCE_KEY_UNIT)
        .field("all-headers", key_unit.all_headers)
        .field("count", key_unit.count)
        .build();
    Some((FORCE_KEY_UNIT, out.to_string().into_bytes()))
}

/// The upstream event that a request stands for.
pub fn incoming(name: &str, data: &[u8]) -> Option<gst::Event> {
    if name != FORCE_KEY_UNIT {
        return None;
    }
    let from = structure(data);
    let all_headers = from.as_ref().and_then(|from| from.get("all-headers").ok()).unwrap_or(true);
    let count = from.as_ref().and_then(|from| from.get("count").ok()).unwrap_or(0);
    Some(UpstreamForceKeyUnitEvent::builder().all_headers(all_headers).count(count).build())
}
