//! Publishes a moving test pattern to whoever subscribes.
//!
//! ```sh
//! cargo run -p pagecast-examples --example publish -- --uri unix:demo --frames 600 --size 640x480
//! ```
//!
//! `--fps 0` runs freely and holds frames for slow subscribers; `--wait 1` begins with the first of them.
//! Other hosts: `--uri tcp://10.0.0.1 --network 10.0.0.0/8 --insecure`.

use std::time::{Duration, Instant};

use pagecast::{Description, Frame, Plane, Pool, PoolOptions, Publisher, PublisherOptions, Times};
use pagecast_examples::{Outcome, draw, option, remote, size};

fn main() -> Outcome {
    let uri = option("--uri", "unix:demo".to_owned())?;
    let frames = option("--frames", 600_u64)?;
    let fps = option("--fps", 60_u32)?;
    let (width, height) = size(&option("--size", "640x480".to_owned())?)?;

    // The pool's limit is the budget: what subscribers may hold together never exceeds it.
    let pool = Pool::new(PoolOptions::default());
    // Who is slow may hold a free-running publisher for so long at a time; then it loses frames.
    let block_deadline = Some(Duration::from_secs(30));
    let options =
        PublisherOptions { live: fps > 0, block_deadline, remote: remote()?, ..PublisherOptions::default() };
    let publisher = Publisher::open(&uri, options)?;
    publisher.set_pool(&pool);
    publisher
        .set_caps(&format!("video/x-raw, format=GRAY8, width={width}, height={height}, framerate={fps}/1"))?;
    println!("publishing {width}x{height} at {uri}");
    publisher.wait_for_subscribers(option("--wait", 0)?, Some(Duration::from_secs(30)));

    let interval = Duration::from_secs(1).checked_div(fps).unwrap_or_default();
    let start = Instant::now();
    for number in 0..frames {
        let mut lease = pool.acquire(width * height)?;
        // The only time that the pixels are written.
        draw(&mut lease.as_mut_slice()[..width * height], width, number);
        let frame = Frame::builder()
            .describe(describe(number, interval, width, height))
            .lease(lease, width * height)
            .build()?;
        publisher.publish(&frame)?;
        let due = start + interval * (number as u32 + 1);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    publisher.publish_event("eos", &[])?;
    let info = publisher.info().publisher;
    println!("frames {}, dropped {}, buffers {}", info.frames, info.dropped, pool.figures().buffers);
    publisher.close(Duration::from_secs(2));
    Ok(())
}

fn describe(number: u64, interval: Duration, width: usize, height: usize) -> Description {
    let times = Times {
        pts: Some(number * interval.as_nanos() as u64),
        captured: Some(pagecast::clock::monotonic_ns()),
        ..Times::default()
    };
    Description {
        times,
        offset: Some(number),
        width: width as u32,
        height: height as u32,
        planes: [Plane { offset: 0, stride: width as i32 }].into_iter().collect(),
        ..Description::default()
    }
}
