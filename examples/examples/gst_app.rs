//! An application with GStreamer pipelines of its own: it draws into our pages, feeds them through an
//! `appsrc` to `pagecastsink`, and reads what it published with `pagecastsrc` and an `appsink`, as any other
//! process could. The elements are linked into the program; no plugin is installed.
//!
//! ```sh
//! cargo run -p pagecast-examples --example gst_app -- --frames 120 --clients 2
//! cargo run -p pagecast-examples --example subscribe -- --uri unix:gst-app    # beside it: the second client
//! ```

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gst::prelude::*;
use pagecast::{Pool, PoolOptions};
use pagecast_examples::{Outcome, draw, is_drawn, option, pipeline, play};

const WIDTH: usize = 320;
const HEIGHT: usize = 240;
const CAPS: &str = "video/x-raw,format=GRAY8,width=320,height=240,framerate=60/1";

fn main() -> Outcome {
    gst::init()?;
    gstpagecast::plugin_register_static()?;
    let uri = option("--uri", "unix:gst-app".to_owned())?;
    let frames = option("--frames", 120_u64)?;

    let clients = option("--clients", 1_u32)?;

    let publisher = pipeline(&format!(
        "appsrc name=in format=time caps={CAPS} block=true max-buffers=4 \
         ! pagecastsink name=sink uri={uri} policy=block block-deadline=30000000000 sync=false wait-for-clients={clients}"
    ))?;
    let source = publisher.by_name("in").and_downcast::<gst_app::AppSrc>().ok_or("no appsrc")?;
    play(&publisher)?;
    let reader = read(&uri)?;

    let pool = Pool::new(PoolOptions::default());
    for number in 0..frames {
        let mut lease = pool.acquire_by(WIDTH * HEIGHT, Some(patience()), || true)?;
        draw(&mut lease.as_mut_slice()[..WIDTH * HEIGHT], WIDTH, number);
        // From here on the page belongs to the pipeline; it is free again when everybody let go of it.
        let memory = gstpagecast::memory::from_lease(lease, 0, WIDTH * HEIGHT).ok_or("no memory")?;
        let mut buffer = gst::Buffer::new();
        {
            let buffer = buffer.get_mut().ok_or("shared already")?;
            buffer.append_memory(memory);
            buffer.set_pts(gst::ClockTime::SECOND * number / 60);
            buffer.set_offset(number);
        }
        source.push_buffer(buffer)?;
    }
    source.end_of_stream()?;
    let (received, wrong) = reader.join().map_err(|_| "the reader panicked")??;
    let stats: gst::Structure = publisher.by_name("sink").ok_or("no sink")?.property("stats");
    let copied: u64 = stats.get("copied")?;
    println!(
        "frames {frames}, received {received}, wrong {wrong}, copied {copied}, buffers {}",
        pool.figures().buffers
    );
    publisher.set_state(gst::State::Null)?;
    Ok(())
}

fn patience() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

/// Ends with the frames that arrived, and how many of them were wrong.
type Reader = JoinHandle<Result<(u64, u64), String>>;

/// Counts the frames that arrive until the stream's end, and those that are not what was drawn.
fn read(uri: &str) -> Result<Reader, Box<dyn std::error::Error>> {
    let reader = pipeline(&format!("pagecastsrc uri={uri} ! appsink name=out sync=false max-buffers=2"))?;
    let out = reader.by_name("out").and_downcast::<gst_app::AppSink>().ok_or("no appsink")?;
    play(&reader)?;
    Ok(std::thread::spawn(move || {
        let (mut received, mut wrong) = (0, 0);
        while let Some(sample) = out.try_pull_sample(gst::ClockTime::from_seconds(10)) {
            let buffer = sample.buffer().ok_or("no buffer")?;
            let picture = buffer.map_readable().map_err(|error| error.to_string())?;
            wrong += u64::from(!is_drawn(&picture, WIDTH, received));
            received += 1;
        }
        reader.set_state(gst::State::Null).map_err(|error| error.to_string())?;
        Ok((received, wrong))
    }))
}
