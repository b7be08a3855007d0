use super::*;
use arrayvec::ArrayVec;
use pagecast::{Description, Plane, Pool, PoolOptions};

fn picture(format: &str, width: usize, height: usize) -> Picture {
    let caps = format!("video/x-raw, format=(string){format}, width=(int){width}, height=(int){height}");
    Picture::of(&Caps::parse(&caps)).unwrap().unwrap()
}

fn frame(bytes: &[u8], planes: &[Plane]) -> Frame {
    let mut lease = Pool::new(PoolOptions::default()).acquire(bytes.len()).unwrap();
    lease.as_mut_slice()[..bytes.len()].copy_from_slice(bytes);
    let planes = planes.iter().copied().collect::<ArrayVec<_, _>>();
    let description = Description { planes, ..Description::default() };
    Frame::builder().describe(description).lease(lease, bytes.len()).build().unwrap()
}

#[cfg(feature = "gstreamer")]
#[test]
fn default_layouts_are_those_of_gstreamer() {
    gst::init().unwrap();
    for format in FORMATS.iter().flat_map(|(names, _)| *names) {
        for (width, height) in [(320, 240), (321, 241), (1, 1), (2, 3), (1919, 1079)] {
            let ours = picture(format, width, height).default_lines();
            let theirs = gst_video::VideoFormat::from_string(format);
            let theirs = gst_video::VideoInfo::builder(theirs, width as u32, height as u32).build().unwrap();
            let offsets: Vec<_> = ours.iter().map(|lines| lines.offset).collect();
            let strides: Vec<_> = ours.iter().map(|lines| lines.stride as i32).collect();
            assert_eq!(offsets, theirs.offset(), "{format} {width}x{height}");
            assert_eq!(strides, theirs.stride(), "{format} {width}x{height}");
        }
    }
}

#[test]
fn packed_sizes_are_those_of_ffmpeg() {
    let packed = |format, width, height| {
        picture(format, width, height).planes().map(|(row, count)| row * count).sum::<usize>()
    };
    assert_eq!(packed("I420", 321, 241), 321 * 241 + 2 * 161 * 121);
    assert_eq!(packed("NV12", 321, 241), 321 * 241 + 322 * 121);
    assert_eq!(packed("YUY2", 321, 241), 644 * 241);
    assert_eq!(packed("RGB", 321, 241), 963 * 241);
}

#[test]
fn padding_is_removed() {
    let bytes: Vec<u8> = (0..40).collect();
    let picture = picture("GRAY8", 3, 2);
    let mut out = Vec::new();
    let frame_ = frame(&bytes, &[Plane { offset: 5, stride: 10 }]);
    pack(&frame_, &picture.lines(&frame_).unwrap(), &mut out).unwrap();
    assert_eq!(out, [5, 6, 7, 15, 16, 17]);
    out.clear();
    let frame_ = frame(&bytes[..7], &[]);
    pack(&frame_, &picture.lines(&frame_).unwrap(), &mut out).unwrap();
    assert_eq!(out, [0, 1, 2, 4, 5, 6]);
}

#[test]
fn frames_that_are_not_as_said_are_refused() {
    let picture = picture("GRAY8", 3, 2);
    let short = frame(&[0; 6], &[]);
    assert_eq!(picture.lines(&short), Err(LayoutError::TooShort { found: 6, needed: 7 }));
    let upwards = frame(&[0; 40], &[Plane { offset: 20, stride: -4 }]);
    assert_eq!(picture.lines(&upwards), Err(LayoutError::Upwards));
    let far = frame(&[0; 40], &[Plane { offset: 20, stride: i32::MAX }]);
    assert!(matches!(picture.lines(&far), Err(LayoutError::TooShort { .. })));
    let unknown = Caps::parse("video/x-raw, format=XYZ, width=1, height=1");
    assert_eq!(Picture::of(&unknown), Err(LayoutError::Format("XYZ".to_owned())));
    assert_eq!(Picture::of(&Caps::parse("audio/x-raw")), Ok(None));
}
