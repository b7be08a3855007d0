//! Receives the frames of a publisher and says what came.
//!
//! ```sh
//! cargo run -p pagecast-examples --example subscribe -- --uri unix:demo --frames 300
//! cargo run -p pagecast-examples --example subscribe -- --uri unix:demo --frames 300 --async
//! cargo run -p pagecast-examples --example subscribe -- --uri tcp://10.0.0.1 --insecure
//! ```

use std::time::Duration;

use pagecast::{AsyncSubscriber, Frame, Message, RecvError, Subscriber, SubscriberOptions};
use pagecast_examples::{Outcome, flag, option, remote};

const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> Outcome {
    let uri = option("--uri", "unix:demo".to_owned())?;
    let frames = option("--frames", u64::MAX)?;
    let options = SubscriberOptions { remote: remote()?, ..SubscriberOptions::default() };
    if flag("--async") { on_a_runtime(&uri, options, frames) } else { blocking(&uri, options, frames) }
}

fn blocking(uri: &str, options: SubscriberOptions, frames: u64) -> Outcome {
    let subscriber = Subscriber::open(uri, options)?;
    let mut sum = 0;
    for _ in 0..frames {
        match subscriber.next_frame(Some(PATIENCE)) {
            Ok(frame) => sum += add(&frame)?,
            Err(RecvError::Closed) => break, // the stream's end
            Err(error) => return Err(error.into()),
        }
    }
    report(&subscriber, sum);
    Ok(())
}

fn on_a_runtime(uri: &str, options: SubscriberOptions, frames: u64) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut subscriber = AsyncSubscriber::open(uri, options)?;
        let (mut sum, mut received) = (0, 0);
        while received < frames {
            match tokio::time::timeout(PATIENCE, subscriber.recv()).await?? {
                Message::Frame(frame) => {
                    sum += add(&frame)?;
                    received += 1;
                }
                Message::Event(event) if event.name == "eos" => break,
                _ => {}
            }
        }
        report(subscriber.subscriber(), sum);
        Ok(())
    })
}

/// Reads a frame where it is. It goes back to the publisher when it is dropped.
fn add(frame: &Frame) -> Result<u64, Box<dyn std::error::Error>> {
    let guard = frame.read()?;
    let mut sum = 0;
    for segment in 0..frame.segments().len() {
        match guard.bytes(segment) {
            Some(bytes) => sum += bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>(),
            // Pages that others can write: no slice, a copy.
            None => return Ok(frame.to_vec()?.iter().map(|byte| u64::from(*byte)).sum()),
        }
    }
    guard.finish()?; // what was read is valid only now
    Ok(sum)
}

fn report(subscriber: &Subscriber, sum: u64) {
    let figures = subscriber.figures();
    println!("caps {}", subscriber.stream().caps().unwrap_or("unknown"));
    println!("frames {}, dropped {}, bytes {}, sum {sum}", figures.frames, figures.dropped, figures.bytes);
    println!("latency p50 {} us, p99 {} us", figures.latency_us.p50, figures.latency_us.p99);
}
