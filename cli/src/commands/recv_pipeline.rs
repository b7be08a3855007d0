//! `pagecast recv URI PIPELINE…`: frames for a pipeline.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gst::prelude::*;

use super::receive::{Receive, hint};
use crate::exit::{Exit, Failure, Outcome};
use crate::pipeline::{self, Runner, Watch, set};

/// What our source is called in the pipeline.
const NAME: &str = "pagecast-recv";

/// Feeds the frames of `uri` to a pipeline.
pub(super) fn run(uri: &str, how: &Receive, pipeline: &[String]) -> Outcome {
    pipeline::init()?;
    let mut words = vec!["pagecastsrc".to_owned(), format!("name={NAME}"), "!".to_owned()];
    words.extend(pipeline::words(pipeline)?);
    let pipeline = pipeline::parse(&words)?;
    let source =
        pipeline.by_name(NAME).ok_or_else(|| Failure::failed("the source is not in the pipeline"))?;
    configure(&source, uri, how)?;
    let mut runner = Runner::new(pipeline);
    runner.watch =
        how.timeout.map(|timeout| watch(&source, uri, Duration::from_secs_f64(timeout))).transpose()?;
    runner.run().map_err(hint)
}

fn configure(source: &gst::Element, uri: &str, how: &Receive) -> Result<(), Failure> {
    source.set_property("uri", uri);
    source.set_property("reconnect", how.reconnect);
    source.set_property("latest", how.latest);
    source.set_property("insecure", how.remote.insecure);
    source.set_property("networks", how.remote.networks());
    source.set_property("identity", how.remote.identity_name([uri])?);
    if let Some(policy) = how.policy {
        set(source, "policy", policy)?;
    }
    if let Some(credits) = how.credits {
        set(source, "credits", credits)?;
    }
    if let Some(rate) = how.max_framerate {
        set(source, "max-framerate", format_args!("{}/{}", rate.frames, rate.seconds))?;
    }
    if let Some(frames) = how.frames {
        let frames =
            i32::try_from(frames).map_err(|_| Failure::usage("-n: too many frames for a pipeline"))?;
        source.set_property("num-buffers", frames);
    }
    Ok(())
}

/// Ends the pipeline when the source gives nothing for so long.
fn watch(source: &gst::Element, uri: &str, patience: Duration) -> Result<(Duration, Watch), Failure> {
    let pad = source.static_pad("src").ok_or_else(|| Failure::failed("the source has no pad"))?;
    let count = Arc::new(AtomicU64::new(0));
    let counter = count.clone();
    pad.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST, move |_, _| {
        counter.fetch_add(1, Ordering::Relaxed);
        gst::PadProbeReturn::Ok
    });
    let (uri, mut seen, mut since) = (uri.to_owned(), 0, Instant::now());
    let look = move || {
        let now = count.load(Ordering::Relaxed);
        if now != seen {
            (seen, since) = (now, Instant::now());
        }
        match since.elapsed() < patience {
            true => Ok(()),
            false => {
                let message = format!("no frame from {uri} for {} s", patience.as_secs_f64());
                Err(Failure::new(Exit::Timeout, message))
            }
        }
    };
    Ok((patience.div_f64(10.0).clamp(Duration::from_millis(5), Duration::from_millis(200)), Box::new(look)))
}
