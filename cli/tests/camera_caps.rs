//! Colours and fields of a camera's pictures are told as GStreamer's own source tells them; compared with it on the
//! kernel's virtual camera.
#![cfg(all(feature = "camera", feature = "gstreamer"))]

mod common;

use std::collections::BTreeSet;

use common::skip;
use gst::prelude::*;
use pagecast_camera::Device;
use pagecast_tests::camera::Camera;

/// What v4l2src says of a mode.
fn of_v4l2src(camera: &Camera, mode: &str) -> gst::Structure {
    let pipeline = gst::parse::launch(&format!(
        "v4l2src name=camera num-buffers=1 device={} ! video/x-raw,{mode} ! fakesink",
        camera.path.display()
    ));
    let pipeline: gst::Pipeline = pipeline.expect("a pipeline").downcast().expect("a pipeline");
    pipeline.set_state(gst::State::Playing).expect("it plays");
    let ends = [gst::MessageType::Eos, gst::MessageType::Error];
    let end = pipeline.bus().expect("a bus").timed_pop_filtered(gst::ClockTime::from_seconds(60), &ends);
    assert!(matches!(end.as_ref().map(|end| end.view()), Some(gst::MessageView::Eos(_))), "{mode}: {end:?}");
    let pad = pipeline.by_name("camera").and_then(|camera| camera.static_pad("src")).expect("a pad");
    let caps = pad.current_caps().expect("caps");
    pipeline.set_state(gst::State::Null).expect("it ends");
    caps.structure(0).expect("one").to_owned()
}

/// What we say of it.
fn of_ours(camera: &Camera, mode: &str) -> gst::Structure {
    let device = Device::open(camera.path.display().to_string()).expect("a camera");
    let format = device.set(&mode.parse().expect("a mode")).expect("it has the mode");
    let caps: gst::Caps = format.caps().expect("caps").parse().expect("caps");
    caps.structure(0).expect("one").to_owned()
}

/// What is told otherwise of a mode.
fn differs(camera: &Camera, what: &str, size: (u32, u32), format: &str, letters: &str) -> Option<String> {
    let (width, height) = size;
    let theirs = of_v4l2src(camera, &format!("format={format},width={width},height={height}"));
    let ours = of_ours(camera, &format!("{width}x{height}:{letters}"));
    let fields = ["format", "width", "height", "interlace-mode", "colorimetry"];
    let text = |caps: &gst::Structure, field: &&str| {
        caps.value(*field).ok().and_then(|value| value.serialize().ok()).map(String::from)
    };
    let same = fields.iter().all(|field| text(&ours, field) == text(&theirs, field));
    (!same).then(|| format!("{what}: ours are {ours}, theirs {theirs}"))
}

#[test]
fn colours_and_fields_are_told_as_v4l2src_tells_them() {
    let Some(camera) = Camera::find() else { return skip("there is no virtual camera (vivid)") };
    gst::init().expect("GStreamer");
    let (mut wrong, mut told) = (Vec::new(), BTreeSet::new());
    // The menu of the virtual camera.
    for space in 0..9 {
        camera.set(&format!("colorspace={space}"));
        told.insert(of_ours(&camera, "320x180:NV12").get::<String>("colorimetry").ok());
        wrong.extend(differs(&camera, &format!("colour space {space}"), (320, 180), "NV12", "NV12"));
    }
    assert!(told.len() > 6, "a control: the camera did as it was told: {told:?}");
    camera.set("colorspace=2");
    wrong.extend(differs(&camera, "RGB", (320, 180), "BGRx", "XR24"));
    camera.set("colorspace=1,quantization=1");
    wrong.extend(differs(&camera, "full range", (320, 180), "YUY2", "YUYV"));
    camera.set("quantization=0,colorspace=2");
    camera.input(1);
    wrong.extend(differs(&camera, "television", (720, 576), "YUY2", "YUYV"));
    camera.input(0);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
