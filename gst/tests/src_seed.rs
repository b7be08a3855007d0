//! The seed case: command lines written for shmsink and shmsrc, with three consumers. Only the names of the
//! elements are replaced; the lines run with shm, too, which shows that they were written for it.

mod source;

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use source::launch::Launched;
use source::*;

const CAPS: &str = "video/x-raw,format=I420,width=320,height=240,framerate=30/1";

struct Lines {
    camera: String,
    recorder: String,
    raw_sender: String,
    coded_sender: String,
}

impl Lines {
    /// As somebody wrote them for shm.
    fn written(socket: &str, recording: &str, ports: [u16; 2]) -> Self {
        let source = format!("shmsrc socket-path={socket} is-live=true do-timestamp=true ! {CAPS}");
        let send = |port| format!("udpsink host=127.0.0.1 port={port} sync=false");
        Self {
            camera: format!(
                "videotestsrc is-live=true pattern=ball ! {CAPS} ! shmsink socket-path={socket} shm-size=20000000 \
                 wait-for-connection=false perms=0600 sync=false"
            ),
            recorder: format!(
                "-e {source} ! queue ! videoscale ! video/x-raw,width=160,height=120 ! videorate ! \
                 video/x-raw,framerate=15/1 ! x264enc tune=zerolatency speed-preset=ultrafast ! h264parse ! \
                 matroskamux ! filesink location={recording}"
            ),
            raw_sender: format!("{source} ! rtpvrawpay mtu=1400 pt=96 ! {}", send(ports[0])),
            coded_sender: format!(
                "{source} ! queue ! videoconvert ! x264enc tune=zerolatency speed-preset=ultrafast \
                 key-int-max=15 ! rtph264pay pt=97 config-interval=1 ! {}",
                send(ports[1])
            ),
        }
    }

    fn with(self, sink: &str, source: &str) -> Self {
        let swap = |line: String| line.replace("shmsink", sink).replace("shmsrc", source);
        Self {
            camera: swap(self.camera),
            recorder: swap(self.recorder),
            raw_sender: swap(self.raw_sender),
            coded_sender: swap(self.coded_sender),
        }
    }
}

fn receiver() -> (UdpSocket, u16) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.set_read_timeout(Some(LIMIT)).expect("a limit");
    let port = socket.local_addr().expect("an address").port();
    (socket, port)
}

/// RTP timestamps of so many different frames, as they arrive.
fn timestamps(socket: &UdpSocket, payload: u8, frames: usize) -> Vec<u32> {
    let mut stamps: Vec<u32> = Vec::new();
    let mut packet = [0; 2048];
    let until = Instant::now() + LIMIT;
    while stamps.len() < frames {
        assert!(Instant::now() < until, "{} of {frames} frames by RTP", stamps.len());
        let size = socket.recv(&mut packet).expect("a packet");
        assert!(size > 12 && packet[0] >> 6 == 2, "not RTP");
        assert_eq!(packet[1] & 0x7f, payload);
        let stamp = u32::from_be_bytes([packet[4], packet[5], packet[6], packet[7]]);
        if stamps.last() != Some(&stamp) {
            stamps.push(stamp);
        }
    }
    stamps
}

fn check_recording(file: &str) {
    let pipeline = Pipeline::playing(&format!(
        "filesrc location={file} ! matroskademux ! h264parse ! avdec_h264 ! appsink name=a sync=false"
    ));
    let mut frames = 0;
    while let Some(sample) = pipeline.sink("a").try_pull_sample(gst::ClockTime::from_seconds(20)) {
        let caps = sample.caps().unwrap().structure(0).unwrap().to_owned();
        assert_eq!((caps.get("width"), caps.get("height")), (Ok(160), Ok(120)));
        assert_eq!(caps.get("framerate"), Ok(gst::Fraction::new(15, 1)));
        frames += 1;
    }
    assert!(pipeline.sink("a").is_eos(), "the recording breaks off");
    assert!(frames > 5, "{frames} frames were recorded");
}

/// Camera and both senders, still there after the recorder ended and its recording was checked.
fn runs(sink: &str, source: &str) -> (Launched, Launched, Launched) {
    let place = Place::new();
    let (raw, raw_port) = receiver();
    let (coded, coded_port) = receiver();
    let recording = place.file("recording.mkv");
    let lines = Lines::written(&place.file("socket"), &recording, [raw_port, coded_port]).with(sink, source);
    let launch = |name: &str, line: &str| Launched::new(&place.file(name), line);
    let camera = launch("camera", &lines.camera);
    // Who wrote lines for shm starts the camera first and waits for its socket.
    eventually("the camera serves", || std::path::Path::new(&place.file("socket")).exists());
    let mut recorder = launch("recorder", &lines.recorder);
    let raw_sender = launch("raw", &lines.raw_sender);
    let coded_sender = launch("coded", &lines.coded_sender);
    for (socket, payload) in [(&raw, 96), (&coded, 97)] {
        let stamps = timestamps(socket, payload, 30);
        let forward = stamps.windows(2).filter(|pair| (pair[1].wrapping_sub(pair[0]) as i32) > 0).count();
        assert_eq!(forward, stamps.len() - 1, "time goes forward: {stamps:?}");
    }
    std::thread::sleep(Duration::from_secs(1));
    recorder.interrupt();
    recorder.wait();
    check_recording(&recording);
    (camera, raw_sender, coded_sender)
}

#[test]
fn lines_written_for_shm_run() {
    let (mut camera, mut raw_sender, mut coded_sender) = runs("pagecastsink", "pagecastsrc");
    assert!(camera.is_running() && raw_sender.is_running() && coded_sender.is_running());
    camera.interrupt();
    let _ = camera.status();
}

/// The frames flow with shm, too. What shm's elements do when a consumer comes or leaves at a bad moment is not
/// ours: that the lines run once in three times shows what they were written for.
#[test]
fn they_were_written_for_shm() {
    let ran = |_| std::panic::catch_unwind(|| drop(runs("shmsink", "shmsrc"))).is_ok();
    assert!((0..3).any(ran), "these lines never run with shm");
}
