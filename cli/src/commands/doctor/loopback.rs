//! Frames from a publisher to a subscriber, as everything else does it.

use std::time::{Duration, Instant};

use pagecast::{
    AccessMode, Frame, Policy, Pool, PoolOptions, Publisher, PublisherOptions, Subscriber, SubscriberOptions,
};

use super::Check;
use crate::stamp;

const FRAMES: u64 = 100;
const SIZE: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn check() -> Check {
    const NAME: &str = "loopback";
    match run() {
        Ok(detail) => Check::pass(NAME, detail),
        Err(why) => Check::fail(NAME, why, "see the lines above; RUST_BACKTRACE=1 and -vv tell more"),
    }
}

type Error = Box<dyn std::error::Error + Send + Sync>;

fn run() -> Result<String, String> {
    let uri = format!("unix:doctor-{}", std::process::id());
    let options =
        PublisherOptions { policy: Policy::Block, force_policy: true, ..PublisherOptions::default() };
    let publisher = Publisher::open(&uri, options).map_err(|error| error.to_string())?;
    let pool = Pool::new(PoolOptions::default());
    publisher.set_pool(&pool);
    std::thread::scope(|scope| {
        let receiver = scope.spawn(|| receive(&uri));
        let sent = send(&publisher, &pool);
        let received = receiver.join().unwrap_or_else(|_| Err("the subscriber panicked".into()));
        sent.and(received).map_err(|error| error.to_string())
    })
    .map(|(access, p50)| {
        format!("{FRAMES} frames of 1 MiB, every page right, {access}, latency p50 {p50:.0} us")
    })
}

fn send(publisher: &Publisher, pool: &Pool) -> Result<(), Error> {
    if !publisher.wait_for_subscribers(1, Some(PATIENCE)) {
        return Err("no subscriber came".into());
    }
    for number in 0..FRAMES {
        let deadline = Instant::now() + PATIENCE;
        let mut lease = pool.acquire_by(SIZE, Some(deadline), || true)?;
        stamp::write(&mut lease.as_mut_slice()[..SIZE], number);
        publisher.publish(&Frame::builder().lease(lease, SIZE).build()?)?;
    }
    publisher.close(PATIENCE);
    Ok(())
}

fn receive(uri: &str) -> Result<(AccessMode, f64), Error> {
    let subscriber = Subscriber::open(uri, SubscriberOptions::default())?;
    let mut access = AccessMode::Enforced;
    for expected in 0..FRAMES {
        let frame = subscriber.next_frame(Some(PATIENCE))?;
        let number = stamp::check(&frame)?;
        if number != expected {
            return Err(format!("frame {number} came instead of {expected}").into());
        }
        if frame.access() != AccessMode::Enforced {
            access = frame.access();
        }
    }
    Ok((access, subscriber.figures().latency_us.p50))
}
