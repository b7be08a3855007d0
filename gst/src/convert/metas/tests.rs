use super::*;
use gst::ClockTime;

fn round(buffer: &gst::BufferRef, size: usize) -> (gst::Buffer, Vec<String>) {
    let mut description = Description::default();
    let mut not_carried = Vec::new();
    outgoing(buffer, &mut description, |name| not_carried.push(name.to_owned()));
    let mut again = gst::Buffer::with_size(size).unwrap();
    incoming(&description, Video::Unknown, again.get_mut().unwrap(), |name| panic!("{name} is lost"));
    (again, not_carried)
}

fn with(size: usize, add: impl FnOnce(&mut gst::BufferRef)) -> gst::Buffer {
    gst::init().unwrap();
    let mut buffer = gst::Buffer::with_size(size).unwrap();
    add(buffer.get_mut().unwrap());
    buffer
}

#[test]
fn regions_survive_with_their_params() {
    let param =
        gst::Structure::builder("detection").field("confidence", 0.75).field("label", "a \"cat\"").build();
    let buffer = with(16, |buffer| {
        let mut meta = gst_video::VideoRegionOfInterestMeta::add(buffer, "face", (1, 2, 3, 4));
        meta.set_id(7);
        meta.set_parent_id(6);
        meta.add_param(param.clone());
        gst_video::VideoRegionOfInterestMeta::add(buffer, "dog", (5, 6, 7, 8));
    });
    let (again, lost) = round(&buffer, 16);
    assert!(lost.is_empty());
    let metas: Vec<_> = again.iter_meta::<gst_video::VideoRegionOfInterestMeta>().collect();
    assert_eq!(metas.len(), 2);
    assert_eq!((metas[0].roi_type(), metas[0].rect()), ("face", (1, 2, 3, 4)));
    assert_eq!((metas[0].id(), metas[0].parent_id()), (7, 6));
    assert_eq!(metas[0].param("detection").unwrap().to_owned(), param);
    assert_eq!((metas[1].roi_type(), metas[1].rect()), ("dog", (5, 6, 7, 8)));
}

#[test]
fn video_metas_survive() {
    let code = gst_video::ValidVideoTimeCode::new(
        gst::Fraction::new(30000, 1001),
        None,
        gst_video::VideoTimeCodeFlags::DROP_FRAME,
        10,
        11,
        12,
        13,
        0,
    )
    .unwrap();
    let matrix = [[1.0, 0.5, 0.0, 0.0], [0.0, -1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.25], [0.0, 0.0, 0.0, 1.0]];
    let buffer = with(16, |buffer| {
        gst_video::VideoCropMeta::add(buffer, (10, 20, 30, 40));
        gst_video::VideoTimeCodeMeta::add(buffer, &code);
        gst_video::VideoCaptionMeta::add(buffer, gst_video::VideoCaptionType::Cea708Raw, &[0xfc, 0x94, 0x2c]);
        gst_video::VideoAffineTransformationMeta::add(buffer, Some(&matrix));
        gst_video::video_meta::VideoSeiUserDataUnregisteredMeta::add(buffer, &[9; 16], b"x264 - core 164");
    });
    let (again, lost) = round(&buffer, 16);
    assert!(lost.is_empty(), "{lost:?}");
    assert_eq!(again.meta::<gst_video::VideoCropMeta>().unwrap().rect(), (10, 20, 30, 40));
    assert_eq!(again.meta::<gst_video::VideoTimeCodeMeta>().unwrap().tc(), code);
    let caption = again.meta::<gst_video::VideoCaptionMeta>().unwrap();
    assert_eq!(caption.caption_type(), gst_video::VideoCaptionType::Cea708Raw);
    assert_eq!(caption.data(), [0xfc, 0x94, 0x2c]);
    assert_eq!(again.meta::<gst_video::VideoAffineTransformationMeta>().unwrap().matrix(), &matrix);
    let user = again.meta::<gst_video::video_meta::VideoSeiUserDataUnregisteredMeta>().unwrap();
    assert_eq!((user.uuid(), user.data()), ([9; 16], &b"x264 - core 164"[..]));
}

#[test]
fn times_and_audio_survive() {
    let info = gst_audio::AudioInfo::builder(gst_audio::AudioFormat::S16le, 48_000, 2)
        .layout(gst_audio::AudioLayout::NonInterleaved)
        .build()
        .unwrap();
    let reference = gst::Caps::builder("timestamp/x-ntp").field("host", "a, b").build();
    let buffer = with(400, |buffer| {
        gst::ReferenceTimestampMeta::add(buffer, &reference, ClockTime::SECOND, ClockTime::MSECOND);
        gst_audio::AudioMeta::add(buffer, &info, 50, &[0, 200]).unwrap();
        gst_audio::AudioLevelMeta::add(buffer, 12, true);
        let samples = |n| gst::format::Default::from_u64(n);
        gst_audio::AudioClippingMeta::add(buffer, samples(3), samples(4));
    });
    let (again, lost) = round(&buffer, 400);
    assert!(lost.is_empty(), "{lost:?}");
    let time = again.meta::<gst::ReferenceTimestampMeta>().unwrap();
    assert_eq!((time.timestamp(), time.duration()), (ClockTime::SECOND, Some(ClockTime::MSECOND)));
    assert_eq!(time.reference_owned(), reference);
    let audio = again.meta::<gst_audio::AudioMeta>().unwrap();
    assert_eq!((audio.info(), audio.samples(), audio.offsets()), (&info, 50, &[0, 200][..]));
    let level = again.meta::<gst_audio::AudioLevelMeta>().unwrap();
    assert_eq!((level.level(), level.voice_activity()), (12, true));
    let clipping = again.meta::<gst_audio::AudioClippingMeta>().unwrap();
    assert_eq!((clipping.start().value(), clipping.end().value()), (3, 4));
    assert_eq!(clipping.start().format(), gst::Format::Default);
}

#[test]
fn custom_metas_survive() {
    gst::init().unwrap();
    gst::meta::CustomMeta::register_simple("PagecastTestMeta");
    let buffer = with(4, |buffer| {
        let mut meta = gst::meta::CustomMeta::add(buffer, "PagecastTestMeta").unwrap();
        meta.mut_structure().set("number", 5_i64);
        meta.mut_structure().set("text", "a, \"b\"");
    });
    let (again, lost) = round(&buffer, 4);
    assert!(lost.is_empty(), "{lost:?}");
    let meta = gst::meta::CustomMeta::from_buffer(&again, "PagecastTestMeta").unwrap();
    assert_eq!(meta.structure().get::<i64>("number"), Ok(5));
    assert_eq!(meta.structure().get::<&str>("text"), Ok("a, \"b\""));

    let unknown = Meta { name: "custom:NeverSeenMeta".into(), data: b"NeverSeenMeta, n=(int)3;".into() };
    let description = Description { metas: vec![unknown], ..Description::default() };
    let mut buffer = gst::Buffer::new();
    incoming(&description, Video::Unknown, buffer.get_mut().unwrap(), |name| panic!("{name} is lost"));
    let meta = gst::meta::CustomMeta::from_buffer(&buffer, "NeverSeenMeta").unwrap();
    assert_eq!(meta.structure().get::<i32>("n"), Ok(3));
}

#[test]
fn what_cannot_travel_is_named_and_what_stays_is_not() {
    let parent = with(1, |_| ());
    let overlay = {
        let pixels = gst::Buffer::with_size(4 * 4).unwrap();
        let mut pixels = pixels;
        let p = pixels.get_mut().unwrap();
        gst_video::VideoMeta::add(p, gst_video::VideoFrameFlags::empty(), gst_video::VideoFormat::Bgra, 2, 2)
            .unwrap();
        let flags = gst_video::VideoOverlayFormatFlags::empty();
        let rectangle = gst_video::VideoOverlayRectangle::new_raw(&pixels, 0, 0, 2, 2, flags);
        gst_video::VideoOverlayComposition::new(Some(&rectangle)).unwrap()
    };
    let buffer = with(4, |buffer| {
        gst::ParentBufferMeta::add(buffer, &parent);
        gst_video::VideoOverlayCompositionMeta::add(buffer, &overlay);
    });
    assert_eq!(round(&buffer, 4).1, ["GstVideoOverlayCompositionMetaAPI"]);
}

#[test]
fn metas_over_the_limit_are_named() {
    let buffer = with(4, |buffer| {
        for n in 0..MAX_METAS as u32 + 1 {
            gst_video::VideoCropMeta::add(buffer, (n, 0, 0, 0));
        }
    });
    assert_eq!(round(&buffer, 4).1, ["GstVideoCropMetaAPI"]);
}

fn picture(width: u32, height: u32) -> gst_video::VideoInfo {
    gst::init().unwrap();
    gst_video::VideoInfo::builder(gst_video::VideoFormat::I420, width, height).build().unwrap()
}

#[test]
fn the_place_of_a_picture_survives() {
    let info = picture(321, 241);
    let (offsets, strides) = ([64, 64 + 400 * 241, 64 + 600 * 241], [400, 200, 200]);
    let size = 64 + 800 * 241;
    let buffer = with(size, |buffer| {
        let flags = gst_video::VideoFrameFlags::empty();
        gst_video::VideoMeta::add_full(buffer, flags, info.format(), 321, 241, &offsets, &strides).unwrap();
    });
    let mut description = Description::default();
    outgoing(&buffer, &mut description, |name| panic!("{name} is lost"));
    let mut again = gst::Buffer::with_size(size).unwrap();
    incoming(&description, Video::Lines(&info), again.get_mut().unwrap(), |name| panic!("{name} is lost"));
    let meta = again.meta::<gst_video::VideoMeta>().unwrap();
    assert_eq!((meta.width(), meta.height()), (321, 241));
    assert_eq!((meta.offset(), meta.stride()), (&offsets[..], &strides[..]));
}

#[test]
fn planes_outside_the_bytes_are_refused() {
    let info = picture(16, 16);
    let place = |planes: &[(u64, i32)], size| {
        let mut description = Description { width: 16, height: 16, ..Description::default() };
        description.planes = planes
            .iter()
            .map(|(offset, stride)| pagecast::Plane { offset: *offset, stride: *stride })
            .collect();
        let mut buffer = gst::Buffer::with_size(size).unwrap();
        let mut refused = false;
        incoming(&description, Video::Lines(&info), buffer.get_mut().unwrap(), |_| refused = true);
        assert_eq!(buffer.meta::<gst_video::VideoMeta>().is_none(), refused);
        !refused
    };
    assert!(place(&[(0, 16), (256, 8), (320, 8)], 384));
    assert!(!place(&[(0, 16), (256, 8)], 384), "a plane is missing");
    assert!(!place(&[(0, 16), (256, 8), (1 << 40, 8)], 384), "begins outside");
    assert!(!place(&[(0, 16), (256, 8), (320, 64)], 384), "lines outside");
    assert!(!place(&[(0, 16), (256, 8), (320, -8)], 384), "backwards");
    assert!(!place(&[(u64::MAX, 16), (256, 8), (320, 8)], 384), "overflow");
}

#[test]
fn planes_that_only_importers_know_begin_inside_the_bytes() {
    gst::init().unwrap();
    let place = |offsets: &[u64]| {
        let planes = offsets.iter().map(|offset| pagecast::Plane { offset: *offset, stride: 999 }).collect();
        let description = Description { width: 16, height: 16, planes, ..Description::default() };
        let mut buffer = gst::Buffer::with_size(384).unwrap();
        incoming(&description, Video::Opaque, buffer.get_mut().unwrap(), |_| ());
        buffer.meta::<gst_video::VideoMeta>().map(|meta| meta.offset().len())
    };
    let known = crate::convert::pixels::opaque_format().is_some();
    assert_eq!(known, gst::version() >= (1, 24, 0, 0));
    let if_known = |planes: usize| known.then_some(planes);
    assert_eq!(place(&[0, 383]), if_known(2));
    assert_eq!(place(&[0, 64, 128, 192]), if_known(4), "a plane more than NV12 has by itself");
    assert_eq!(place(&[0, 384]), None);
    assert_eq!(place(&[u64::MAX]), None);
    assert_eq!(place(&[]), None);
    assert_eq!(place(&[0; 5]), None);
}
