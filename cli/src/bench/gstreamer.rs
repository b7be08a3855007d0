//! Producers and consumers in pipelines.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gst::prelude::*;
use gst_app::{AppSink, AppSinkCallbacks};

use super::consume::PATIENCE;
use super::contender::{Kind, Transport};
use super::job::{Job, Measured, Tally, fill};
use super::produce::{Meter, finish};
use super::size::FrameSize;
use crate::workers::child::{Control, say};
use crate::workers::painter::{Painted, Painter};

/// Frames that shmsink's area has room for.
const SHM_FRAMES: usize = 24;
/// Frames that may wait in tcpserversink.
const TCP_FRAMES: u64 = 8;

pub(super) fn init() -> Result<(), String> {
    crate::workers::gst_init()
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// A pipeline that is brought to rest when dropped.
struct Running(gst::Pipeline);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.set_state(gst::State::Null);
    }
}

impl Running {
    fn play(&self) -> Result<(), String> {
        self.0.set_state(gst::State::Playing).map(drop).map_err(|error| match self.error() {
            Some(told) => told,
            None => error.to_string(),
        })
    }

    /// The error on the bus, if there is one.
    fn error(&self) -> Option<String> {
        let bus = self.0.bus()?;
        let message = bus.pop_filtered(&[gst::MessageType::Error])?;
        match message.view() {
            gst::MessageView::Error(error) => Some(error.error().to_string()),
            _ => None,
        }
    }
}

fn sink_description(job: &Job) -> String {
    let path = job.socket.display();
    match job.contender.transport {
        Transport::GstPagecast => {
            format!("pagecastsink name=sink socket-path={path} pool-limit={} sync=false", job.pool_limit)
        }
        Transport::GstShm => {
            let size = job.bytes() * SHM_FRAMES;
            let wait = job.contender.consumers > 0;
            format!(
                "shmsink name=sink socket-path={path} shm-size={size} wait-for-connection={wait} sync=false"
            )
        }
        Transport::GstUnixfd => format!("unixfdsink name=sink socket-path={path} sync=false"),
        Transport::GstTcp => {
            format!("tcpserversink name=sink host={} port=0 sync=false", job.route.publisher)
        }
        Transport::GstTee => {
            let branch = |n| format!(" t. ! queue max-size-buffers=4 max-size-bytes=0 ! {}", app_sink(n));
            format!("tee name=t{}", (0..job.contender.consumers).map(branch).collect::<String>())
        }
        _ => "fakesink name=sink sync=false".to_owned(),
    }
}

fn app_sink(number: u32) -> String {
    format!("appsink name=app{number} sync=false enable-last-sample=false max-buffers=4")
}

pub(super) fn produce(job: &Job, control: &Arc<Control>) -> Result<(), String> {
    init()?;
    let bin = gst::parse::bin_from_description(&sink_description(job), true).map_err(text)?;
    let (done, measured) = channel();
    let source = painter(job, control, done, bin.by_name("sink"))?;
    let pipeline = gst::Pipeline::new();
    pipeline.add_many([source.upcast_ref::<gst::Element>(), bin.upcast_ref()]).map_err(text)?;
    source.link(&bin).map_err(text)?;
    let connected = count_connections(&bin);
    let running = Running(pipeline);
    let heard = in_process_consumers(job, &bin)?;
    running.play()?;
    say("ready", &port(job, &bin, control)?);
    wait_for_consumers(job, &bin, &connected, control)?;
    say("connected", &());
    let mut result = wait_for(&running, control, &measured)?;
    for tally in heard {
        let tally = tally.recv_timeout(PATIENCE).map_err(|_| "a branch of the tee is stuck".to_owned())??;
        let one = tally.measured();
        result.lost += one.lost;
        if one.latency_us.p50 > result.latency_us.p50 {
            result.latency_us = one.latency_us;
        }
    }
    let sink = bin.by_name("sink").filter(|sink| sink.has_property("stats"));
    let stats = sink.map(|sink| sink.property::<gst::Structure>("stats"));
    result.copied = stats.and_then(|stats| stats.get::<u64>("copied").ok());
    finish(result, control);
    Ok(())
}

/// Where tcpserversink listens, once it does.
fn port(job: &Job, bin: &gst::Bin, control: &Control) -> Result<Option<String>, String> {
    let until = Instant::now() + PATIENCE;
    let sink = bin.by_name("sink").filter(|sink| sink.has_property("current-port"));
    let Some(sink) = sink else { return Ok(None) };
    loop {
        match sink.property::<i32>("current-port") {
            port @ 1.. => return Ok(Some(format!("host={} port={port}", job.route.publisher))),
            _ if control.stopped() || Instant::now() > until => return Err("it does not listen".to_owned()),
            _ => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

/// Waits while more waits in the sink than subscribers may hold: tcpserversink never holds its source.
fn hold_back(sink: Option<&gst::Element>, job: &Job, control: &Control) {
    let Some(sink) = sink.filter(|sink| sink.has_property("bytes-served")) else { return };
    let consumers = u64::from(job.contender.consumers);
    let waiting = || {
        let served = sink.property::<u64>("bytes-served");
        (sink.property::<u64>("bytes-to-serve") * consumers).saturating_sub(served)
    };
    while waiting() >= TCP_FRAMES * job.bytes() as u64 * consumers && !control.stopped() {
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// The source: waits for the word, then fills frames at the job's pace.
fn painter(
    job: &Job,
    control: &Arc<Control>,
    done: Sender<Measured>,
    sink: Option<gst::Element>,
) -> Result<Painter, String> {
    let caps: gst::Caps = job.caps()?.parse().map_err(text)?;
    let (control, size) = (control.clone(), job.bytes());
    let mut meter: Option<Meter> = None;
    let mut stopped = false;
    let job_of_meter = job.clone();
    let paint = move |bytes: &mut [u8]| {
        if meter.is_none() {
            stopped = !control.wait_for_go();
        }
        let meter = meter.get_or_insert_with(|| Meter::new(&job_of_meter));
        if stopped || control.stopped() {
            return Painted::End;
        }
        if job_of_meter.fps.is_none() {
            hold_back(sink.as_ref(), &job_of_meter, &control);
        }
        let Some(number) = meter.next() else {
            let _ = done.send(meter.measured());
            return Painted::End;
        };
        fill(&mut bytes[..size], number);
        Painted::Frame(number)
    };
    Ok(Painter::new(caps, job.fps.is_some(), Box::new(paint)))
}

fn count_connections(bin: &gst::Bin) -> Arc<AtomicU32> {
    let count = Arc::new(AtomicU32::new(0));
    if let Some(sink) = bin.by_name("sink")
        && gst::glib::subclass::SignalId::lookup("client-connected", sink.type_()).is_some()
    {
        let count = count.clone();
        sink.connect("client-connected", false, move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            None
        });
    }
    count
}

fn wait_for_consumers(
    job: &Job,
    bin: &gst::Bin,
    connected: &AtomicU32,
    control: &Control,
) -> Result<(), String> {
    let expected = if job.contender.transport.has_processes() { job.contender.consumers } else { 0 };
    let until = Instant::now() + PATIENCE * 3;
    if job.contender.transport == Transport::GstUnixfd {
        // It tells nobody; the warm-up frames show who is not there yet.
        std::thread::sleep(Duration::from_millis(500));
        return Ok(());
    }
    let sink = bin.by_name("sink");
    let counter = ["num-clients", "num-handles"]
        .into_iter()
        .find(|name| sink.as_ref().is_some_and(|sink| sink.has_property(name)));
    let clients = || match (&sink, counter) {
        (Some(sink), Some(counter)) => sink.property_value(counter).get::<u32>().unwrap_or(0),
        _ => connected.load(Ordering::SeqCst),
    };
    while clients() < expected {
        if Instant::now() > until || control.stopped() {
            return Err(format!("only {} of {expected} clients came", clients()));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

fn wait_for(running: &Running, control: &Control, measured: &Receiver<Measured>) -> Result<Measured, String> {
    loop {
        match measured.recv_timeout(Duration::from_millis(100)) {
            Ok(measured) => return Ok(measured),
            Err(_) if control.stopped() => return Err("stopped before the end".to_owned()),
            Err(_) => {
                if let Some(error) = running.error() {
                    return Err(error);
                }
            }
        }
    }
}

type Heard = Receiver<Result<Tally, String>>;

fn in_process_consumers(job: &Job, bin: &gst::Bin) -> Result<Vec<Heard>, String> {
    let count = if job.contender.transport == Transport::GstTee { job.contender.consumers } else { 0 };
    (0..count).map(|number| listen(job, bin, number, Tally::new(job))).collect()
}

/// Takes frames from an appsink in the job's way, until the last one.
fn listen(job: &Job, bin: &gst::Bin, number: u32, tally: Tally) -> Result<Heard, String> {
    let element = bin.by_name(&format!("app{number}")).ok_or("no appsink")?;
    let sink = element.downcast::<AppSink>().map_err(|_| "appsink is something else")?;
    let (done, heard) = channel();
    match job.contender.kind {
        Some(Kind::Callback) => call_back(&sink, tally, done),
        _ => drop(std::thread::spawn(move || pull(&sink, tally, &done))),
    }
    Ok(heard)
}

fn pull(sink: &AppSink, mut tally: Tally, done: &Sender<Result<Tally, String>>) {
    let mut until = Instant::now() + PATIENCE * 3; // until the producer begins
    let result = loop {
        let Some(sample) = sink.try_pull_sample(gst::ClockTime::SECOND) else {
            if Instant::now() > until {
                break Ok(tally);
            }
            // It does not wait while the pipeline is not up yet.
            std::thread::sleep(Duration::from_millis(1));
            continue;
        };
        until = Instant::now() + PATIENCE;
        match take(&mut tally, &sample) {
            Ok(true) => {}
            Ok(false) => break Ok(tally),
            Err(error) => break Err(error),
        }
    };
    let _ = done.send(result);
}

fn call_back(sink: &AppSink, tally: Tally, done: Sender<Result<Tally, String>>) {
    let state = Arc::new(Mutex::new(Some(tally)));
    let at_end = (state.clone(), done.clone());
    let callbacks = AppSinkCallbacks::builder()
        .new_sample(move |sink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(tally) = state.as_mut() else { return Ok(gst::FlowSuccess::Ok) };
            match take(tally, &sample) {
                Ok(true) => {}
                Ok(false) => tell(&done, state.take()),
                Err(error) => {
                    *state = None;
                    let _ = done.send(Err(error));
                }
            }
            Ok(gst::FlowSuccess::Ok)
        })
        .eos(move |_| {
            let tally = at_end.0.lock().unwrap_or_else(PoisonError::into_inner).take();
            tell(&at_end.1, tally);
        });
    sink.set_callbacks(callbacks.build());
}

/// Hands the tally over, once; nobody may be left to take it.
fn tell(done: &Sender<Result<Tally, String>>, tally: Option<Tally>) {
    if let Some(tally) = tally {
        let _ = done.send(Ok(tally));
    }
}

fn take(tally: &mut Tally, sample: &gst::Sample) -> Result<bool, String> {
    let buffer = sample.buffer().ok_or("a sample without buffer")?;
    let map = buffer.map_readable().map_err(text)?;
    tally.take(map.as_slice())
}

/// Cuts a stream of bytes into pictures again.
fn parse(job: &Job) -> Result<String, String> {
    let FrameSize::Picture { width, height } = job.size else { return Err("pictures only".to_owned()) };
    let fps = job.fps.unwrap_or(60);
    Ok(format!("rawvideoparse format=nv12 width={width} height={height} framerate={fps}/1"))
}

pub(super) fn consume(job: &Job, control: &Control) -> Result<Tally, String> {
    init()?;
    let path = job.socket.display();
    let source = match job.contender.transport {
        Transport::GstPagecast => format!("pagecastsrc socket-path={path}"),
        Transport::GstShm => format!("shmsrc socket-path={path} is-live=true ! {}", job.caps()?),
        Transport::GstTcp => format!("tcpclientsrc {} ! {}", job.address()?, parse(job)?),
        Transport::GstUnixfd => format!("unixfdsrc socket-path={path}"),
        other => return Err(format!("{} has no consumers", other.as_str())),
    };
    let bin = gst::parse::bin_from_description(&format!("{source} ! {}", app_sink(0)), false);
    let bin = bin.map_err(text)?;
    let pipeline = gst::Pipeline::new();
    pipeline.add(&bin).map_err(text)?;
    let heard = listen(job, &bin, 0, Tally::new(job))?;
    let running = Running(pipeline);
    running.play()?;
    say("ready", &());
    loop {
        match heard.recv_timeout(Duration::from_millis(100)) {
            Ok(result) => return result,
            Err(_) if control.stopped() => return Err("stopped before the end".to_owned()),
            Err(_) => {
                if let Some(error) = running.error() {
                    return Err(error);
                }
            }
        }
    }
}
