//! Received frames as GStreamer's, and conversion of their pictures.

use pagecast::Frame;

use crate::caps::Caps;
use crate::exit::Failure;
use crate::layout::Picture;

/// Makes GStreamer ready.
pub(crate) fn init() -> Result<(), Failure> {
    gst::init().map_err(|error| Failure::failed(format_args!("GStreamer does not start: {error}")))
}

/// A copy of a frame with its caps, as GStreamer wants them.
pub(crate) fn sample(frame: &Frame) -> Result<gst::Sample, Failure> {
    let caps = frame.caps().ok_or_else(|| Failure::failed("the stream has no caps"))?;
    let caps = gstpagecast::convert::caps(caps)
        .ok_or_else(|| Failure::failed(format_args!("caps that GStreamer does not know: {caps}")))?;
    let buffer = buffer(frame, &caps)?;
    Ok(gst::Sample::builder().buffer(&buffer).caps(&caps).build())
}

fn buffer(frame: &Frame, caps: &gst::Caps) -> Result<gst::Buffer, Failure> {
    let bytes = frame.to_vec().map_err(Failure::failed)?;
    let mut buffer = gst::Buffer::from_mut_slice(bytes);
    let planes = &frame.description().planes;
    if let Ok(info) = gst_video::VideoInfo::from_caps(caps)
        && planes.len() == info.n_planes() as usize
        && let Some(buffer) = buffer.get_mut()
    {
        let offsets: Vec<usize> = planes.iter().map(|plane| plane.offset as usize).collect();
        let strides: Vec<i32> = planes.iter().map(|plane| plane.stride).collect();
        let (flags, format) = (gst_video::VideoFrameFlags::empty(), info.format());
        let (width, height) = (info.width(), info.height());
        gst_video::VideoMeta::add_full(buffer, flags, format, width, height, &offsets, &strides)
            .map_err(|error| Failure::failed(format_args!("the planes do not fit the frame: {error}")))?;
    }
    Ok(buffer)
}

/// Converts raw video of any format to I420.
pub(crate) struct ToI420 {
    caps: gst::Caps,
    from: gst_video::VideoInfo,
    to: gst_video::VideoInfo,
    picture: Picture,
    converter: gst_video::VideoConverter,
}

impl ToI420 {
    /// For frames of these caps.
    pub(crate) fn new(caps: &str) -> Result<Self, Failure> {
        init()?;
        let fail = |error: &dyn std::fmt::Display| {
            Failure::failed(format_args!("cannot convert {caps:?} to I420: {error}"))
        };
        let parsed = gstpagecast::convert::caps(caps).ok_or_else(|| fail(&"GStreamer does not know them"))?;
        let from = gst_video::VideoInfo::from_caps(&parsed).map_err(|error| fail(&error))?;
        let to = gst_video::VideoInfo::builder(gst_video::VideoFormat::I420, from.width(), from.height())
            .fps(from.fps())
            .par(from.par())
            .interlace_mode(from.interlace_mode())
            .build()
            .map_err(|error| fail(&error))?;
        let converter = gst_video::VideoConverter::new(&from, &to, None).map_err(|error| fail(&error))?;
        let packed = format!("video/x-raw, format=I420, width={}, height={}", to.width(), to.height());
        let picture = Picture::of(&Caps::parse(&packed)).ok().flatten().ok_or_else(|| fail(&"no size"))?;
        Ok(Self { caps: parsed, from, to, picture, converter })
    }

    /// Appends the planes without padding.
    pub(crate) fn append(&mut self, frame: &Frame, out: &mut Vec<u8>) -> Result<(), Failure> {
        let broken = |_| Failure::failed("a frame is not as its caps say");
        let source = gst_video::VideoFrame::from_buffer_readable(buffer(frame, &self.caps)?, &self.from);
        let source = source.map_err(broken)?;
        let target = gst::Buffer::with_size(self.to.size()).map_err(Failure::failed)?;
        let target = gst_video::VideoFrame::from_buffer_writable(target, &self.to);
        let mut target = target.map_err(broken)?;
        self.converter.frame(&source, &mut target);
        let target = target.into_buffer();
        let map = target.map_readable().map_err(Failure::failed)?;
        for lines in self.picture.default_lines() {
            for line in 0..lines.count {
                let start = lines.offset + line * lines.stride;
                out.extend_from_slice(&map[start..start + lines.row]);
            }
        }
        Ok(())
    }
}
