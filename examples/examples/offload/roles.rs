//! What the processes do: the camera, the viewer, and the parts between them. Each says `ready` and ends when its
//! stdin does.

use std::io::{BufRead, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use gst::prelude::*;
use gst_video::prelude::*;
use pagecast_examples::{Outcome, failure, pipeline, play};

use super::barcode::{self, Mark};
use super::parts::{from_udp, to_udp};

/// Shows a moving picture with a mark in it, as H.264 to a port of this host.
pub(crate) fn camera(port: u16, (width, height): (usize, usize), fps: u32, encode: &str) -> Outcome {
    let pipeline = pipeline(&format!(
        "videotestsrc is-live=true pattern=ball ! video/x-raw,format=I420,width={width},height={height},framerate={fps}/1 \
         ! identity name=marker ! {encode} ! {}",
        to_udp(port)
    ))?;
    let pad = pipeline.by_name("marker").and_then(|marker| marker.static_pad("src")).ok_or("no marker")?;
    let number = AtomicU64::new(0);
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let video = pad.current_caps().and_then(|caps| gst_video::VideoInfo::from_caps(&caps).ok());
        if let (Some(buffer), Some(video)) = (info.buffer_mut(), video) {
            let mark = Mark { number: number.fetch_add(1, Ordering::Relaxed), micros: barcode::now() };
            if let Ok(mut frame) =
                gst_video::VideoFrameRef::from_buffer_ref_writable(buffer.make_mut(), &video)
            {
                let stride = frame.plane_stride()[0] as usize;
                if let Ok(luma) = frame.plane_data_mut(0) {
                    barcode::draw(luma, stride, width, mark);
                }
            }
        }
        gst::PadProbeReturn::Ok
    });
    serve(&pipeline)
}

/// Says number and age, in microseconds, of every picture that comes to a port of this host.
pub(crate) fn viewer(port: u16) -> Outcome {
    let pipeline = pipeline(&format!(
        "{} ! avdec_h264 max-threads=1 ! video/x-raw,format=I420 ! appsink name=out sync=false",
        from_udp(port)
    ))?;
    let out = pipeline.by_name("out").and_downcast::<gst_app::AppSink>().ok_or("no appsink")?;
    let look = |out: &gst_app::AppSink| {
        let sample = out.pull_sample().map_err(|_| gst::FlowError::Eos)?;
        let mark = sample.buffer().and_then(|buffer| {
            let video = gst_video::VideoInfo::from_caps(sample.caps()?).ok()?;
            let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, &video).ok()?;
            let (stride, width) = (frame.plane_stride()[0] as usize, video.width() as usize);
            barcode::read(frame.plane_data(0).ok()?, stride, width)
        });
        match mark {
            Some(mark) => say(&format!("frame {} {}", mark.number, mark.age(barcode::now()))),
            None => say("wrong"),
        }
        Ok(gst::FlowSuccess::Ok)
    };
    out.set_callbacks(gst_app::AppSinkCallbacks::builder().new_sample(look).build());
    serve(&pipeline)
}

/// Runs one pipeline.
pub(crate) fn part(text: &str) -> Outcome {
    serve(&pipeline(text)?)
}

fn say(line: &str) {
    // Whoever does not listen any more ends us by our stdin.
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Plays until stdin ends, the stream ends, or an element fails.
fn serve(pipeline: &gst::Pipeline) -> Outcome {
    let bus = pipeline.bus().ok_or("no bus")?;
    play(pipeline)?;
    say("ready");
    let words = bus.clone();
    std::thread::spawn(move || {
        let _ = std::io::stdin().lock().lines().map_while(Result::ok).count();
        let _ = words.post(gst::message::Application::new(gst::Structure::new_empty("end")));
    });
    let kinds = [gst::MessageType::Error, gst::MessageType::Eos, gst::MessageType::Application];
    let ended = bus.timed_pop_filtered(gst::ClockTime::NONE, &kinds);
    let _ = pipeline.set_state(gst::State::Null);
    match ended.as_ref().and_then(failure) {
        Some(told) => Err(told.into()),
        None => Ok(()),
    }
}
