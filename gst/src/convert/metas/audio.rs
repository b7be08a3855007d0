//! Metas of the audio library.

use gst::glib::translate::{FromGlib, IntoGlib};
use gst::meta::MetaAPI;
use gst_audio::{AudioClippingMeta, AudioLevelMeta, AudioMeta};

use super::Form;

pub(super) const AUDIO: Form = Form {
    api: AudioMeta::meta_api,
    write: |meta| {
        let meta = meta.downcast_ref::<AudioMeta>()?;
        let offsets = meta.offsets().iter().map(|offset| *offset as u64);
        Some(
            gst::Structure::builder("audio")
                .field("caps", meta.info().to_caps().ok()?.to_string())
                .field("samples", meta.samples() as u64)
                .field("offsets", gst::Array::new(offsets))
                .build(),
        )
    },
    read: |from, buffer| {
        let caps = crate::convert::caps(&from.get::<String>("caps").ok()?).filter(|caps| caps.is_fixed())?;
        let info = gst_audio::AudioInfo::from_caps(&caps).ok()?;
        let samples = usize::try_from(from.get::<u64>("samples").ok()?).ok()?;
        let offsets = from.get::<gst::Array>("offsets").ok()?;
        let offsets: Option<Vec<usize>> =
            offsets.iter().map(|offset| usize::try_from(offset.get::<u64>().ok()?).ok()).collect();
        let offsets = offsets?;
        if !lies_within(&info, samples, &offsets, buffer.size()) {
            return None;
        }
        let offsets =
            if info.layout() == gst_audio::AudioLayout::NonInterleaved { &offsets[..] } else { &[] };
        AudioMeta::add(buffer, &info, samples, offsets).ok().map(drop)
    },
};

/// Whether all samples are inside the buffer, computed without overflow.
fn lies_within(info: &gst_audio::AudioInfo, samples: usize, offsets: &[usize], size: usize) -> bool {
    let Some(all) = samples.checked_mul(info.bpf() as usize).filter(|all| *all <= size) else { return false };
    let plane = all / (info.channels() as usize).max(1);
    offsets.iter().all(|offset| offset.checked_add(plane).is_some_and(|end| end <= size))
}

pub(super) const CLIPPING: Form = Form {
    api: AudioClippingMeta::meta_api,
    write: |meta| {
        let meta = meta.downcast_ref::<AudioClippingMeta>()?;
        Some(
            gst::Structure::builder("clipping")
                .field("format", meta.start().format().into_glib())
                .field("start", meta.start().value())
                .field("end", meta.end().value())
                .build(),
        )
    },
    read: |from, buffer| {
        // SAFETY: any number is a format or `Format::__Unknown`, which is refused.
        let format = unsafe { gst::Format::from_glib(from.get("format").ok()?) };
        let (start, end) = (from.get::<i64>("start").ok()?, from.get::<i64>("end").ok()?);
        if !matches!(format, gst::Format::Default | gst::Format::Time) {
            return None;
        }
        let value = |raw| gst::GenericFormattedValue::new(format, raw);
        AudioClippingMeta::add(buffer, value(start), value(end));
        Some(())
    },
};

pub(super) const LEVEL: Form = Form {
    api: AudioLevelMeta::meta_api,
    write: |meta| {
        let meta = meta.downcast_ref::<AudioLevelMeta>()?;
        Some(
            gst::Structure::builder("level")
                .field("level", u32::from(meta.level()))
                .field("voice-activity", meta.voice_activity())
                .build(),
        )
    },
    read: |from, buffer| {
        let level = u8::try_from(from.get::<u32>("level").ok()?).ok().filter(|level| *level <= 127)?;
        AudioLevelMeta::add(buffer, level, from.get("voice-activity").ok()?);
        Some(())
    },
};
