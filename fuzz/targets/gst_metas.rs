//! The metas of a frame, as the source element gets them: name, zero byte, text.
#![no_main]

use gstpagecast::convert::metas;
use libfuzzer_sys::fuzz_target;
use pagecast::{Description, Meta, Plane};

fuzz_target!(init: { pagecast_fuzz::start_gstreamer() }, |data: &[u8]| {
    let Some(zero) = data.iter().position(|byte| *byte == 0) else { return };
    let Ok(name) = std::str::from_utf8(&data[..zero]) else { return };
    let content = &data[zero + 1..];
    let mut description = Description::default();
    // the first bytes of the text are also used as a picture's layout
    if let Some(layout) = content.first_chunk::<32>() {
        let number = |at: usize| u32::from_le_bytes([layout[at], layout[at + 1], layout[at + 2], layout[at + 3]]);
        (description.width, description.height) = (number(0), number(4));
        for at in [8, 20] {
            let offset = u64::from(number(at)) | u64::from(number(at + 4)) << 32;
            description.planes.push(Plane { offset, stride: number(at + 8) as i32 });
        }
    }
    description.metas.push(Meta { name: name.to_owned(), data: content.to_vec() });
    let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::Nv12, 64, 48).build().expect("NV12");
    let mut buffer = gst::Buffer::with_size(info.size()).expect("memory");
    let buffer = buffer.get_mut().expect("a new buffer");
    metas::incoming(&description, metas::Video::Lines(&info), buffer, |_| ());
    let mut again = Description::default();
    metas::outgoing(buffer, &mut again, |_| ());
    // what was accepted as a picture can be mapped
    if !again.planes.is_empty() {
        drop(gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, &info));
    }
});
