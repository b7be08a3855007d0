//! Metas of the core library.

use gst::meta::{MetaAPI, ReferenceTimestampMeta};

use super::Form;

pub(super) const REFERENCE_TIMESTAMP: Form = Form {
    api: ReferenceTimestampMeta::meta_api,
    write: |meta| {
        let meta = meta.downcast_ref::<ReferenceTimestampMeta>()?;
        let mut out = gst::Structure::builder("reference-timestamp")
            .field("reference", meta.reference().to_string())
            .field("timestamp", meta.timestamp().nseconds())
            .build();
        if let Some(duration) = meta.duration() {
            out.set("duration", duration.nseconds());
        }
        Some(out)
    },
    read: |from, buffer| {
        let reference = crate::convert::caps(&from.get::<String>("reference").ok()?)?;
        let timestamp = from.get::<u64>("timestamp").ok().filter(|time| *time != u64::MAX)?;
        let duration = from.get::<u64>("duration").ok().filter(|time| *time != u64::MAX);
        let time = gst::ClockTime::from_nseconds;
        ReferenceTimestampMeta::add(buffer, &reference, time(timestamp), duration.map(time));
        Some(())
    },
};
