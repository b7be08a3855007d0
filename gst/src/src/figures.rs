//! What other threads may ask of the element while it waits for frames.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use pagecast::Subscriber;
use pagecast::ipc::wire::Welcome;
use pagecast::rate::RateMeter;
use pagecast::remote::RoundTripFigures;

use super::imp::lock;
use super::times::LATEST;

/// What a frame may take from the publisher's publication to here, in nanoseconds; the sinks wait as long.
pub(super) const WAY: u64 = 10_000_000;

/// Answer to a latency query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Latency {
    pub(super) live: bool,
    pub(super) min: u64,
    pub(super) max: Option<u64>,
}

#[derive(Default)]
struct Connected {
    welcome: Option<Welcome>,
    /// Whether times are those of the clock; `None` before there was a publisher.
    live: Option<bool>,
    frame: Option<u64>,
    publisher: u64,
    rate: RateMeter,
    access: &'static str,
}

/// Figures and what was agreed with the publisher.
#[derive(Default)]
pub(super) struct Figures {
    connected: Mutex<Connected>,
    copied: AtomicU64,
    /// Frames whose device took too long.
    late: AtomicU64,
    layout_unknown: AtomicBool,
}

impl Figures {
    pub(super) fn reset(&self) {
        *lock(&self.connected) = Connected::default();
        self.copied.store(0, Ordering::Relaxed);
        self.late.store(0, Ordering::Relaxed);
    }

    /// Downstream may be able to take other layouts than before.
    pub(super) fn layout_unknown(&self) {
        self.layout_unknown.store(true, Ordering::SeqCst);
    }

    pub(super) fn take_layout_unknown(&self) -> bool {
        self.layout_unknown.swap(false, Ordering::SeqCst)
    }

    pub(super) fn count_copied(&self) {
        self.copied.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_late(&self) {
        self.late.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_frame(&self, access: &'static str) {
        let mut connected = lock(&self.connected);
        connected.rate.tick(Instant::now());
        connected.access = access;
    }

    /// A link stands; returns whether the latency is another now.
    pub(super) fn connected(&self, welcome: &Welcome, live: bool) -> bool {
        let mut connected = lock(&self.connected);
        let before = connected.latency(false);
        connected.welcome = Some(welcome.clone());
        connected.live = Some(live);
        connected.latency(false) != before
    }

    /// The publisher is live after all.
    pub(super) fn found_live(&self) {
        lock(&self.connected).live = Some(true);
    }

    pub(super) fn disconnected(&self) {
        lock(&self.connected).welcome = None;
    }

    /// Frames last so long, in nanoseconds; returns whether the latency is another now.
    pub(super) fn frame_lasts(&self, duration: Option<u64>) -> bool {
        let mut connected = lock(&self.connected);
        let before = connected.latency(false);
        connected.frame = duration;
        connected.latency(false) != before
    }

    /// The publisher said what its own latency is.
    pub(super) fn publisher_latency(&self, latency: u64) {
        lock(&self.connected).publisher = latency;
    }

    /// The answer to a latency query; `live` is what the element is set to.
    pub(super) fn latency(&self, live: bool) -> Latency {
        lock(&self.connected).latency(live)
    }

    /// The `stats` property.
    pub(super) fn structure(&self, subscriber: Option<&Subscriber>) -> gst::Structure {
        let figures = subscriber.map(Subscriber::figures).unwrap_or_default();
        let latency = &figures.latency_us;
        let latency = gst::Structure::builder("latency")
            .field("p50", latency.p50)
            .field("p99", latency.p99)
            .field("p999", latency.p999)
            .field("max", latency.max)
            .build();
        let connected = lock(&self.connected);
        let mut out = gst::Structure::builder("application/x-pagecastsrc-stats")
            .field("connected", connected.welcome.is_some())
            .field("frames", figures.frames)
            .field("dropped", figures.dropped + self.late.load(Ordering::Relaxed))
            .field("copied", self.copied.load(Ordering::Relaxed))
            .field("bytes", figures.bytes)
            .field("reconnects", figures.reconnects)
            .field("epoch", figures.epoch)
            .field("fps", connected.rate.per_second(Instant::now()))
            .field("transport", &figures.transport)
            .field("latency_us", latency)
            .field("publisher_latency", connected.publisher)
            .build();
        if let Some(welcome) = &connected.welcome {
            out.set("credits", welcome.credits);
            out.set("mailbox", welcome.mailbox);
            out.set("policy", welcome.policy.map(|policy| policy.to_string()).unwrap_or_default());
            out.set("live", welcome.live);
            out.set("publisher", &welcome.name);
            out.set("pid", welcome.pid);
            let faces = welcome.faces.iter_names().map(|(name, _)| name.to_lowercase().replace('_', "-"));
            out.set("faces", faces.collect::<Vec<_>>().join(","));
        }
        // What is below it is not known; without one, nothing is.
        if let Some(uncertainty) = figures.uncertainty_us {
            out.set("uncertainty_us", uncertainty);
        }
        if let Some(remote) = &figures.remote {
            out.set("peer", &remote.peer);
            out.set("wire_bytes", remote.wire_bytes);
            if let Some(why) = &remote.fallback {
                out.set("fallback", why);
            }
            if let Some(rtt) = remote.rtt_us {
                out.set("rtt_us", round_trip(&rtt));
            }
        }
        if !connected.access.is_empty() {
            out.set("access", connected.access);
        }
        out
    }
}

/// How long a message takes there and back, in microseconds.
pub(crate) fn round_trip(rtt: &RoundTripFigures) -> gst::Structure {
    gst::Structure::builder("rtt").field("last", rtt.last).field("least", rtt.least).build()
}

impl Connected {
    fn latency(&self, live: bool) -> Latency {
        if !self.live.unwrap_or(live) {
            return Latency::default();
        }
        // As many frames as this pipeline may hold and the publisher keeps for it.
        let held = self.welcome.as_ref().map(|welcome| u64::from(welcome.credits + welcome.mailbox));
        let lasts = |(held, frame): (u64, u64)| WAY.saturating_add(held.saturating_mul(frame)).min(LATEST);
        let max = held.zip(self.frame).map(lasts);
        Latency { live: true, min: WAY, max }
    }
}
