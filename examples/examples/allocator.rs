//! Frames of any GStreamer pipeline, published without `pagecastsink`: the application answers the pipeline's
//! ALLOCATION query with our allocator, a decoder (or converter, or source) fills our pages, and what comes
//! out of the `appsink` is published as it is.
//!
//! ```sh
//! cargo run -p pagecast-examples --example allocator -- --uri unix:decoded \
//!     --pipeline "videotestsrc num-buffers=300 ! jpegenc ! jpegdec"
//! cargo run -p pagecast-examples --example subscribe -- --uri unix:decoded --frames 100    # beside it
//! ```
//!
//! With a camera: `--pipeline "v4l2src num-buffers=300"`. A source that insists on memory of its own is served, too: dma-bufs and sealed memfds are passed on,
//! anything else is copied once. The last line says how many frames were what.

use std::time::Duration;

use gst::prelude::*;
use gstpagecast::memory::{PoolAllocator, find};
use pagecast::{Description, Frame, Plane, Pool, PoolOptions, Publisher, PublisherOptions, Times};
use pagecast_examples::{Outcome, option};

/// Pages that are left to copies when upstream asks for more and more.
const RESERVE: u32 = 2;

fn main() -> Outcome {
    gst::init()?;
    let pipeline = option("--pipeline", "videotestsrc num-buffers=300 ! jpegenc ! jpegdec".to_owned())?;
    let pool = Pool::new(PoolOptions::default());
    let publisher =
        Publisher::open(&option("--uri", "unix:decoded".to_owned())?, PublisherOptions::default())?;
    publisher.set_pool(&pool);

    let text = format!("{pipeline} ! appsink name=out sync=false");
    let pipeline = gst::parse::launch(&text)?.downcast::<gst::Pipeline>().map_err(|_| "not a pipeline")?;
    let out = pipeline.by_name("out").and_downcast::<gst_app::AppSink>().ok_or("no appsink")?;
    offer(&out.static_pad("sink").ok_or("no pad")?, &PoolAllocator::new(&pool, RESERVE));

    pipeline.set_state(gst::State::Paused)?;
    publisher.wait_for_subscribers(option("--wait", 0)?, Some(Duration::from_secs(30)));
    pipeline.set_state(gst::State::Playing)?;
    let mut counts = Counts::default();
    while let Ok(sample) = out.pull_sample() {
        if let Some(caps) = sample.caps() {
            publisher.set_caps(&caps.to_string())?;
        }
        let buffer = sample.buffer_owned().ok_or("no buffer")?;
        let info = sample.caps().and_then(|caps| gst_video::VideoInfo::from_caps(caps).ok());
        drop(sample);
        publisher.publish(&counts.frame(buffer, info.as_ref(), &pool)?)?;
    }
    publisher.publish_event("eos", &[])?;
    let Counts { filled, passed, copied } = counts;
    println!(
        "frames {}, in our pages {filled}, passed on {passed}, copied {copied}",
        filled + passed + copied
    );
    publisher.close(Duration::from_secs(2));
    pipeline.set_state(gst::State::Null)?;
    Ok(())
}

/// Answers the ALLOCATION query that arrives at `pad` with our allocator.
fn offer(pad: &gst::Pad, allocator: &PoolAllocator) {
    let allocator: gst::Allocator = allocator.clone().upcast();
    pad.add_probe(gst::PadProbeType::QUERY_DOWNSTREAM, move |_, info| {
        let Some(query) = info.query_mut() else { return gst::PadProbeReturn::Ok };
        let gst::QueryViewMut::Allocation(query) = query.view_mut() else { return gst::PadProbeReturn::Ok };
        query.add_allocation_param(Some(&allocator), gst::AllocationParams::default());
        query.add_allocation_meta::<gst_video::VideoMeta>(None);
        gst::PadProbeReturn::Handled
    });
}

#[derive(Default)]
struct Counts {
    filled: u64,
    passed: u64,
    copied: u64,
}

impl Counts {
    fn frame(
        &mut self,
        buffer: gst::Buffer,
        info: Option<&gst_video::VideoInfo>,
        pool: &Pool,
    ) -> Result<Frame, Box<dyn std::error::Error>> {
        let builder = Frame::builder().describe(describe(&buffer, info));
        let Some(pages) = buffer.iter_memories().map(find).collect::<Option<Vec<_>>>() else {
            self.copied += 1;
            let size = buffer.size();
            let mut lease = pool.acquire(size)?;
            let copied = buffer.copy_to_slice(0, &mut lease.as_mut_slice()[..size]);
            copied.map_err(|copied| format!("{copied} of {size} bytes could be read"))?;
            return Ok(builder.lease(lease, size).build()?);
        };
        let foreign = pages.iter().any(|page| page.foreign);
        *if foreign { &mut self.passed } else { &mut self.filled } += 1;
        let segments = pages
            .into_iter()
            .fold(builder, |builder, page| builder.segment(page.buffer, page.offset, page.length));
        // The buffer goes back to its pool when the last subscriber has returned the frame.
        Ok(segments.owner(buffer).build()?)
    }
}

fn describe(buffer: &gst::BufferRef, info: Option<&gst_video::VideoInfo>) -> Description {
    let nanoseconds = |time: Option<gst::ClockTime>| time.map(gst::ClockTime::nseconds);
    let (pts, dts) = (nanoseconds(buffer.pts()), nanoseconds(buffer.dts()));
    let mut description = Description {
        times: Times { pts, dts, duration: nanoseconds(buffer.duration()), ..Times::default() },
        ..Description::default()
    };
    let Some(info) = info else { return description };
    (description.width, description.height) = (info.width(), info.height());
    // A decoder may lay its lines out differently from what the caps imply: then the meta says how.
    let (offsets, strides) = match buffer.meta::<gst_video::VideoMeta>() {
        Some(meta) => (meta.offset().to_vec(), meta.stride().to_vec()),
        None => (info.offset().to_vec(), info.stride().to_vec()),
    };
    let planes = offsets.into_iter().zip(strides);
    description.planes = planes.map(|(at, stride)| Plane { offset: at as u64, stride }).collect();
    description
}
