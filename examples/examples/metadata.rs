//! Inference metadata that travels with its picture: one process finds something in every frame and attaches it
//! as `GstVideoRegionOfInterestMeta` with a confidence; others, here or on other hosts, read it beside the pixels.
//!
//! ```sh
//! cargo run -p pagecast-examples --example metadata -- detect --uri "unix:ball tcp://10.0.0.1" --network 10.0.0.0/8 --insecure
//! cargo run -p pagecast-examples --example metadata -- show --uri tcp://10.0.0.1 --insecure
//! ```
//!
//! The detector is a simple one (what is bright is the ball), so that `show` can find out for itself whether
//! every region is right: `wrong` counts those that are not.

use gst::prelude::*;
use gst_video::video_meta::VideoRegionOfInterestMeta;
use pagecast_examples::{Outcome, flag, option, pipeline, play, wait};

const WIDTH: usize = 320;
const CAPS: &str = "video/x-raw,format=GRAY8,width=320,height=240,framerate=30/1";
/// What the meta calls it.
const BALL: &str = "ball";
const BRIGHT: u8 = 128;
const PATIENCE: gst::ClockTime = gst::ClockTime::from_seconds(30);

/// A rectangle: x, y, width, height.
type Region = (u32, u32, u32, u32);

fn main() -> Outcome {
    gst::init()?;
    gstpagecast::plugin_register_static()?;
    let (uri, networks) = (option("--uri", "unix:ball".to_owned())?, option("--network", String::new())?);
    let remote = format!("networks=\"{networks}\" insecure={}", flag("--insecure"));
    match std::env::args().nth(1).as_deref() {
        Some("detect") => detect(&uri, &remote),
        Some("show") => show(&uri, &remote),
        _ => Err("say what to do: detect or show".into()),
    }
}

/// Publishes what a test source shows, with what is seen in it.
fn detect(uri: &str, remote: &str) -> Outcome {
    let frames = option("--frames", 300)?;
    let pipeline = pipeline(&format!(
        "videotestsrc pattern=ball num-buffers={frames} ! {CAPS} ! identity name=detector \
         ! pagecastsink name=sink block-deadline=30000000000 uri=\"{uri}\" wait-for-clients={} {remote}",
        option("--wait", 1)?
    ))?;
    let pad = pipeline.by_name("detector").and_then(|one| one.static_pad("src")).ok_or("no detector")?;
    pad.add_probe(gst::PadProbeType::BUFFER, |_, info| {
        if let Some(buffer) = info.buffer_mut() {
            attach(buffer.make_mut());
        }
        gst::PadProbeReturn::Ok
    });
    play(&pipeline)?;
    let ended = wait(&pipeline);
    let stats: gst::Structure = pipeline.by_name("sink").ok_or("no sink")?.property("stats");
    pipeline.set_state(gst::State::Null)?;
    ended?;
    println!("frames {frames}, dropped {}", stats.get::<u64>("dropped")?);
    Ok(())
}

/// Says where the ball is; the pixels are not touched.
fn attach(buffer: &mut gst::BufferRef) {
    let found = buffer.map_readable().ok().and_then(|picture| find(&picture));
    let Some(((x, y, width, height), confidence)) = found else { return };
    let mut region = VideoRegionOfInterestMeta::add(buffer, BALL, (x, y, width, height));
    region.add_param(gst::Structure::builder("detection").field("confidence", confidence).build());
}

/// The smallest rectangle around what is bright, and which part of it is.
fn find(picture: &[u8]) -> Option<(Region, f64)> {
    let bright = || picture.iter().enumerate().filter(|(_, pixel)| **pixel >= BRIGHT).map(|(at, _)| at);
    let (left, right) = (bright().map(|at| at % WIDTH).min()?, bright().map(|at| at % WIDTH).max()?);
    let (top, bottom) = (bright().next()? / WIDTH, bright().next_back()? / WIDTH);
    let (width, height) = (right - left + 1, bottom - top + 1);
    let confidence = bright().count() as f64 / (width * height) as f64;
    Some(((left as u32, top as u32, width as u32, height as u32), confidence))
}

/// Receives pictures with regions until the stream's end.
fn show(uri: &str, remote: &str) -> Outcome {
    let pipeline =
        pipeline(&format!("pagecastsrc uri={uri} {remote} ! appsink name=out sync=false max-buffers=2"))?;
    let out = pipeline.by_name("out").and_downcast::<gst_app::AppSink>().ok_or("no appsink")?;
    play(&pipeline)?;
    let (mut frames, mut regions, mut wrong, mut last) = (0, 0, 0, None);
    while let Some(sample) = out.try_pull_sample(PATIENCE) {
        let buffer = sample.buffer().ok_or("no buffer")?;
        let told: Vec<_> = buffer.iter_meta::<VideoRegionOfInterestMeta>().map(|meta| read(&meta)).collect();
        frames += 1;
        regions += told.len();
        wrong += u64::from(told != find(&buffer.map_readable()?).into_iter().collect::<Vec<_>>());
        last = told.last().copied().or(last);
    }
    // Also after an error the stream ends; the bus knows which it was.
    let ended = if out.is_eos() { wait(&pipeline) } else { Err("no frame for half a minute".into()) };
    pipeline.set_state(gst::State::Null)?;
    ended?;
    println!("frames {frames}, regions {regions}, wrong {wrong}, the last one {last:?}");
    Ok(())
}

/// What a meta says; one that is none of ours has no confidence.
fn read(meta: &VideoRegionOfInterestMeta) -> (Region, f64) {
    let ours = meta.roi_type() == BALL;
    let confidence = meta.params().find_map(|param| param.get::<f64>("confidence").ok());
    (meta.rect(), confidence.filter(|_| ours).unwrap_or(-1.0))
}
