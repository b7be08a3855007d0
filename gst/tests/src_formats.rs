//! What a consumer in another process writes to a file is what the source itself would have written.

mod source;

use gst_video::{VideoFormat, VideoInfo};
use source::launch::Launched;
use source::*;

/// Runs `source` into a file, and through a publisher and as many consumers as asked for into files. Bytes
/// are compared that count.
fn same(name: &str, source: &str, consumers: usize, counts: impl Fn(usize) -> bool) {
    let place = Place::new();
    let file = |what: &str| place.file(&format!("{name}-{what}"));
    let expected = file("expected");
    Launched::new(&file("log0"), &format!("{source} ! filesink location={expected}")).wait();
    let expected = std::fs::read(expected).expect("the expected bytes");
    assert!(expected.len() > 1000, "{name}: {} bytes prove nothing", expected.len());
    // However long a consumer does not run: nothing may be left out.
    let patient = format!("sync=false block-deadline={}", u64::MAX);
    let sink = format!("pagecastsink uri={} wait-for-clients={consumers} {patient}", place.uri());
    let mut publisher = Launched::new(&file("log1"), &format!("{source} ! {sink}"));
    let launch = |n: usize| {
        let to = format!("filesink location={}", file(&format!("out{n}")));
        Launched::new(&file(&format!("log-c{n}")), &format!("pagecastsrc uri={} ! {to}", place.uri()))
    };
    let mut all: Vec<Launched> = (0..consumers).map(launch).collect();
    all.iter_mut().for_each(Launched::wait);
    publisher.wait();
    for n in 0..consumers {
        let got = std::fs::read(file(&format!("out{n}"))).expect("the received bytes");
        let differs = (0..got.len().min(expected.len())).find(|at| counts(*at) && got[*at] != expected[*at]);
        assert_eq!((got.len(), differs), (expected.len(), None), "{name}, consumer {n}");
    }
}

fn same_bytes(name: &str, source: &str, consumers: usize) {
    same(name, source, consumers, |_| true);
}

/// Which bytes of a frame hold samples; what pads lines is never written by anybody.
fn samples(info: &VideoInfo) -> Vec<bool> {
    let format = info.format_info();
    let mut samples = vec![false; info.size()];
    for component in 0..info.n_components() {
        let at = component as usize;
        let plane = format.plane()[at] as usize;
        let wide = if format.depth()[at] > 8 { 2 } else { 1 };
        for line in 0..info.comp_height(component as u8) as usize {
            let start = info.offset()[plane]
                + line * info.stride()[plane] as usize
                + info.comp_poffset(component as u8) as usize;
            for column in 0..info.comp_width(component as u8) as usize {
                let sample = start + column * info.comp_pstride(component as u8) as usize;
                samples[sample..sample + wide].fill(true);
            }
        }
    }
    samples
}

fn raw(name: &str, format: &str, pattern: &str, consumers: usize) {
    init();
    let info = VideoInfo::builder(VideoFormat::from_string(format), 321, 241).build().unwrap();
    let samples = samples(&info);
    assert!(samples.iter().filter(|sample| **sample).count() > samples.len() / 2, "{format}");
    let caps = format!("video/x-raw,format={format},width=321,height=241,framerate=30/1");
    let source = format!("videotestsrc num-buffers=30 pattern={pattern} ! {caps}");
    same(name, &source, consumers, |at| samples[at % samples.len()]);
}

#[test]
fn planar_video() {
    ["I420", "YV12", "Y42B", "Y444", "I420_10LE"]
        .into_iter()
        .for_each(|format| raw(format, format, "smpte", 1));
}

#[test]
fn video_in_two_planes() {
    ["NV12", "NV21", "NV16", "P010_10LE"].into_iter().for_each(|format| raw(format, format, "ball", 1));
}

#[test]
fn packed_video() {
    for format in ["YUY2", "UYVY", "AYUV", "RGB", "BGRx", "RGBA", "GRAY8", "GRAY16_LE", "ARGB"] {
        raw(format, format, "smpte", 1);
    }
}

#[test]
fn three_consumers() {
    raw("three", "NV12", "ball", 3);
}

#[test]
fn sixteen_consumers() {
    raw("sixteen", "I420", "ball", 16);
}

#[test]
fn sixty_four_consumers() {
    raw("sixty-four", "I420", "ball", 64);
}

#[test]
fn audio() {
    for (format, channels, layout) in [
        ("S16LE", 1, "interleaved"),
        ("S16LE", 2, "interleaved"),
        ("F32LE", 2, "interleaved"),
        ("F32LE", 2, "non-interleaved"),
    ] {
        let caps = format!("audio/x-raw,format={format},rate=44100,channels={channels},layout={layout}");
        let name = format!("{format}-{channels}-{layout}");
        same_bytes(&name, &format!("audiotestsrc num-buffers=100 ! audioconvert ! {caps}"), 1);
    }
}

#[test]
fn coded_video() {
    let place = Place::new();
    let clip = place.file("clip.h264");
    let encode = format!(
        "videotestsrc num-buffers=90 ! video/x-raw,width=320,height=240 ! x264enc bframes=2 key-int-max=20 ! \
         video/x-h264,stream-format=byte-stream ! filesink location={clip}"
    );
    Launched::new(&place.file("log"), &encode).wait();
    let units = "video/x-h264,stream-format=byte-stream,alignment=au";
    same_bytes("h264", &format!("filesrc location={clip} ! h264parse ! {units}"), 1);
}

#[test]
fn a_coded_file_decoded() {
    let place = Place::new();
    let clip = place.file("clip.mkv");
    let encode = format!(
        "videotestsrc num-buffers=60 ! video/x-raw,width=320,height=240 ! x264enc threads=1 ! matroskamux ! \
         filesink location={clip}"
    );
    Launched::new(&place.file("log"), &encode).wait();
    let decode = format!("filesrc location={clip} ! matroskademux ! h264parse ! avdec_h264 max-threads=1");
    same_bytes("decoded", &format!("{decode} ! video/x-raw"), 1);
}

#[test]
fn a_file_as_it_is() {
    let place = Place::new();
    let file = place.file("noise");
    let noise: Vec<u8> = (0..500_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    std::fs::write(&file, &noise).unwrap();
    same_bytes("bytes", &format!("filesrc location={file}"), 1);
}

#[test]
fn caps_that_change_in_mid_stream() {
    let part = |format: &str, width: u32| {
        format!(
            "videotestsrc num-buffers=20 ! video/x-raw,format={format},width={width},height=240,framerate=30/1 ! c."
        )
    };
    let (first, second, third) = (part("I420", 320), part("RGB", 640), part("GRAY8", 160));
    same_bytes("renegotiated", &format!("concat name=c {first} {second} {third} c."), 2);
}

#[test]
fn packets() {
    let caps = "video/x-raw,format=I420,width=320,height=240,framerate=30/1";
    let pay = "rtpvrawpay mtu=1400 ssrc=1 seqnum-offset=1 timestamp-offset=1";
    same_bytes("rtp", &format!("videotestsrc num-buffers=5 ! {caps} ! {pay}"), 1);
}

#[test]
fn text() {
    let place = Place::new();
    let file = place.file("text.srt");
    let line = |n: u64| {
        format!("{n}\n00:00:{:02},000 --> 00:00:{:02},500\nLine {n} of the text\n\n", n % 60, n % 60)
    };
    std::fs::write(&file, (1..59).map(line).collect::<String>()).unwrap();
    same_bytes("text", &format!("filesrc location={file} ! subparse"), 1);
}
