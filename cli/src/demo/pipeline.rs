//! The scaler and the recorder as most users would write them: pipelines that begin with pagecastsrc.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gst::prelude::*;
use gst_app::{AppSink, AppSinkCallbacks};

use super::publish::REPORT_EVERY;
use super::subscribe::{SubscriberJob, SubscriberReport, Task};
use crate::stamp;
use crate::workers::child::{Control, say};
use crate::workers::usage::Usage;

/// For the recording's index, when it ends.
const LAST_WORDS: Duration = Duration::from_secs(1);

const ELEMENTS: [&str; 8] =
    ["pagecastsrc", "videorate", "videoscale", "videoconvert", "pngenc", "jpegenc", "avimux", "filesink"];

/// Why there can be no such pipelines.
pub(super) fn missing() -> Option<String> {
    if let Err(error) = crate::workers::gst_init() {
        return Some(error);
    }
    let missing = ELEMENTS.iter().find(|name| gst::ElementFactory::find(name).is_none())?;
    Some(format!("{missing} is not installed"))
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

#[derive(Default)]
struct State {
    report: SubscriberReport,
    last: Option<u64>,
}

type Shared = Arc<Mutex<State>>;

fn lock(state: &Shared) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Receives until it is told to stop.
pub(super) fn subscribe(job: &SubscriberJob, control: &Control) -> Result<(), String> {
    crate::workers::gst_init()?;
    let source = format!("pagecastsrc name=src uri={} credits={} reconnect=false", job.uri, job.credits);
    let rest = match job.task {
        Task::Scale => {
            "videorate drop-only=true max-rate=2 ! videoscale ! video/x-raw,width=480,height=270 ! \
             videoconvert ! pngenc ! appsink name=out sync=false"
        }
        _ => {
            "videoscale method=nearest-neighbour ! video/x-raw,width=320,height=180 ! jpegenc name=enc ! avimux \
             ! filesink name=out sync=false"
        }
    };
    let pipeline = gst::parse::launch(&format!("{source} ! {rest}")).map_err(text)?;
    let pipeline = pipeline.downcast::<gst::Pipeline>().map_err(|_| "no pipeline")?;
    let state = Shared::default();
    let element = |name| pipeline.by_name(name).ok_or(format!("no element {name}"));
    let source = element("src")?;
    count_frames(&source, &state)?;
    match element("out")?.downcast::<AppSink>() {
        Ok(out) => write_pictures(&out, job.file.clone(), &state),
        Err(out) => {
            out.set_property("location", job.file.to_str().ok_or("no such path")?);
            count_written(&element("enc")?, &state)?;
        }
    }
    pipeline.set_state(gst::State::Playing).map_err(text)?;
    say("ready", &());
    let result = listen(&pipeline, control, || report(&source, &state));
    say("done", &report(&source, &state));
    let _ = pipeline.set_state(gst::State::Null);
    result
}

fn listen(
    pipeline: &gst::Pipeline,
    control: &Control,
    report: impl Fn() -> SubscriberReport,
) -> Result<(), String> {
    let bus = pipeline.bus().ok_or("no bus")?;
    let kinds = [gst::MessageType::Error, gst::MessageType::Eos];
    let wait = |time: Duration| {
        let time = gst::ClockTime::try_from(time).unwrap_or(gst::ClockTime::SECOND);
        bus.timed_pop_filtered(time, &kinds)
    };
    let mut until: Option<Instant> = None;
    loop {
        let message = wait(REPORT_EVERY);
        match message.as_ref().map(|message| message.view()) {
            Some(gst::MessageView::Error(error)) => return Err(error.error().to_string()),
            Some(_) => return Ok(()),
            None => say("report", &report()),
        }
        if control.stopped() {
            if until.is_none() {
                pipeline.send_event(gst::event::Eos::new());
            }
            if Instant::now() > *until.get_or_insert_with(|| Instant::now() + LAST_WORDS) {
                return Ok(());
            }
        }
    }
}

/// Follows the numbers in the pages as they leave pagecastsrc.
fn count_frames(source: &gst::Element, state: &Shared) -> Result<(), String> {
    let state = state.clone();
    let pad = source.static_pad("src").ok_or("no pad")?;
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(Ok(map)) = info.buffer().map(|buffer| buffer.map_readable()) {
            let word = map.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
            let mut state = lock(&state);
            let State { report, last } = &mut *state;
            report.frames += 1;
            match stamp::read_stamp(word) {
                (number, 0) => report.follow(last, number),
                _ => report.found_bad(format!("no stamp in the first page: {word:#x}")),
            }
        }
        gst::PadProbeReturn::Ok
    });
    Ok(())
}

fn count_written(encoder: &gst::Element, state: &Shared) -> Result<(), String> {
    let state = state.clone();
    let pad = encoder.static_pad("src").ok_or("no pad")?;
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        lock(&state).report.written += 1;
        gst::PadProbeReturn::Ok
    });
    Ok(())
}

/// Every picture replaces the one before; whenever one is there it is whole.
fn write_pictures(out: &AppSink, file: PathBuf, state: &Shared) {
    let state = state.clone();
    let write = move |out: &AppSink| {
        let sample = out.pull_sample().map_err(|_| gst::FlowError::Eos)?;
        let map =
            sample.buffer().and_then(|buffer| buffer.map_readable().ok()).ok_or(gst::FlowError::Error)?;
        let half_done = file.with_extension("part");
        fs::write(&half_done, map.as_slice()).map_err(|_| gst::FlowError::Error)?;
        fs::rename(&half_done, &file).map_err(|_| gst::FlowError::Error)?;
        lock(&state).report.written += 1;
        Ok(gst::FlowSuccess::Ok)
    };
    out.set_callbacks(AppSinkCallbacks::builder().new_sample(write).build());
}

fn report(source: &gst::Element, state: &Shared) -> SubscriberReport {
    let mut report = lock(state).report.clone();
    // Later: what was missing has been told by then.
    let stats = source.property::<gst::Structure>("stats");
    report.dropped = stats.get::<u64>("dropped").unwrap_or(0);
    report.cpu_seconds = Usage::now().cpu_seconds;
    report
}
