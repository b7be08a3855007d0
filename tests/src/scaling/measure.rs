//! The costs of a hop on this machine, from real publishers, relays and subscribers over Unix links.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pagecast::clock::monotonic_ns;
use pagecast::{
    Description, Frame, Message, Pool, PoolOptions, Publisher, PublisherOptions, Relay, RelayOptions,
    Subscriber, SubscriberOptions,
};

use super::Costs;
use crate::Place;

/// Larger than what waits for company.
const SIZE: usize = 32 * 1024;
const WARM_UP: u64 = 30;
const PATIENCE: Option<Duration> = Some(Duration::from_secs(20));

/// The median latency from publication to subscribers, over all of them: `leaves` of one publisher, or of a relay that is
/// its only subscriber.
///
/// # Panics
/// If no frames flow.
pub fn latency(leaves: usize, relay: bool, frames: u64, interval: Duration) -> Duration {
    let place = Place::new();
    let (first, second) = (place.uri("first"), place.uri("second"));
    let publisher = Publisher::open(&first, PublisherOptions::default()).expect("a publisher");
    let pool = Pool::new(PoolOptions::default());
    publisher.set_pool(&pool);
    let between = relay.then(|| {
        let relay = Arc::new(Relay::open(&first, &second, RelayOptions::default()).expect("a relay"));
        let works = relay.clone();
        (relay, std::thread::spawn(move || works.run().expect("relaying")))
    });
    let from = if relay { second } else { first };
    let receivers: Vec<_> = (0..leaves).map(|_| receiver(&from, frames)).collect();
    let ready = match &between {
        Some((relay, _)) => relay.publisher().wait_for_subscribers(leaves, PATIENCE),
        None => publisher.wait_for_subscribers(leaves, PATIENCE),
    };
    assert!(ready, "not all subscribers came");
    let mut next = Instant::now();
    for _ in 0..WARM_UP + frames {
        let lease = pool.acquire(SIZE).expect("a buffer");
        let mut description = Description::default();
        description.times.captured = Some(monotonic_ns());
        let frame = Frame::builder().describe(description).lease(lease, SIZE).build();
        publisher.publish(&frame.expect("a frame")).expect("published");
        next += interval;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    let mut all: Vec<u64> =
        receivers.into_iter().flat_map(|thread| thread.join().expect("a receiver")).collect();
    all.sort_unstable();
    if let Some((relay, thread)) = between {
        relay.stop();
        let _ = thread.join();
    }
    Duration::from_nanos(all[all.len() / 2])
}

fn receiver(uri: &str, frames: u64) -> std::thread::JoinHandle<Vec<u64>> {
    let subscriber = Subscriber::open(uri, SubscriberOptions::default()).expect("a subscriber");
    while !matches!(subscriber.recv(PATIENCE), Ok(Message::Connected(_))) {}
    std::thread::spawn(move || {
        let mut seen = Vec::new();
        for number in 0..WARM_UP + frames {
            let Ok(frame) = subscriber.next_frame(PATIENCE) else { break };
            let born = frame.description().times.captured.unwrap_or(0);
            if number >= WARM_UP {
                seen.push(monotonic_ns().saturating_sub(born));
            }
        }
        seen
    })
}

/// The costs of a local hop: with one subscriber a frame waits for one send, with `many` for half of them and a half.
pub fn costs(one: Duration, all: Duration, many: usize) -> Costs {
    let sends = (many as f64 + 1.0) / 2.0 - 1.0;
    let per_send = all.saturating_sub(one).div_f64(sends.max(0.5));
    Costs { hop: one.saturating_sub(per_send), per_send, bandwidth: f64::INFINITY }
}
