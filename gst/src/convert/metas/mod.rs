//! Metas of buffers.
//!
//! A meta travels under the name of its API. Those of [`FORMS`] have a text form that every version of
//! GStreamer reads; custom metas travel as `custom:NAME` with their structure; with GStreamer 1.24 or newer at
//! both ends, every other meta that has a serialiser travels as `gst:API`. What is left over is counted.

mod audio;
mod core;
mod video;

pub use video::Video;

use std::ops::ControlFlow;

use pagecast::ipc::wire::limits::{MAX_META_BYTES, MAX_METAS, MAX_NAME};
use pagecast::{Description, Meta};

use super::structure;

const CUSTOM: &str = "custom:";
#[cfg(feature = "v1_24")]
const SERIALISED: &str = "gst:";

/// A meta's text form.
pub struct Form {
    api: fn() -> gst::glib::Type,
    write: fn(&gst::MetaRef<'_, gst::Meta>) -> Option<gst::Structure>,
    read: fn(&gst::StructureRef, &mut gst::BufferRef) -> Option<()>,
}

/// The metas that have a text form.
pub const FORMS: &[Form] = &[
    video::CROP,
    video::REGION_OF_INTEREST,
    video::TIME_CODE,
    video::CAPTION,
    video::AFFINE,
    video::USER_DATA,
    core::REFERENCE_TIMESTAMP,
    audio::AUDIO,
    audio::CLIPPING,
    audio::LEVEL,
];

/// They say where the bytes are, which frames say in their own way, or keep something of this process alive.
const LOCAL: &[&str] = &["GstVideoMetaAPI", "GstParentBufferMetaAPI", "GstVideoGLTextureUploadMetaAPI"];

/// Puts what a buffer says of its picture, and its metas, into the description of the frame that is made of it.
/// `not_carried` hears the names of metas that cannot travel.
pub fn outgoing(buffer: &gst::BufferRef, description: &mut Description, mut not_carried: impl FnMut(&str)) {
    let mut bytes = 0;
    buffer.foreach_meta(|meta| {
        if video::describe(&meta, description) || LOCAL.contains(&meta.api().name()) {
            return ControlFlow::Continue(());
        }
        match write(&meta) {
            Some(meta) if fits(&meta, bytes, description.metas.len()) => {
                bytes += meta.name.len() + meta.data.len();
                description.metas.push(meta);
            }
            _ => not_carried(meta.api().name()),
        }
        ControlFlow::Continue(())
    });
}

fn fits(meta: &Meta, bytes: usize, count: usize) -> bool {
    let size = meta.name.len() + meta.data.len();
    meta.name.len() <= MAX_NAME && bytes + size <= MAX_META_BYTES && count < MAX_METAS
}

fn write(meta: &gst::MetaRef<'_, gst::Meta>) -> Option<Meta> {
    let api = meta.api();
    if let Some(form) = FORMS.iter().find(|form| (form.api)() == api) {
        let data = (form.write)(meta)?.to_string().into_bytes();
        return Some(Meta { name: api.name().to_owned(), data });
    }
    if let Some(custom) = meta.try_as_custom_meta() {
        let content = custom.structure();
        return Some(Meta {
            name: format!("{CUSTOM}{}", content.name()),
            data: content.to_string().into_bytes(),
        });
    }
    write_serialised(meta)
}

#[cfg(feature = "v1_24")]
fn write_serialised(meta: &gst::MetaRef<'_, gst::Meta>) -> Option<Meta> {
    let mut data = Vec::new();
    meta.serialize(&mut data).ok()?;
    Some(Meta { name: format!("{SERIALISED}{}", meta.api().name()), data })
}

#[cfg(not(feature = "v1_24"))]
fn write_serialised(_meta: &gst::MetaRef<'_, gst::Meta>) -> Option<Meta> {
    None
}

/// Gives a buffer the metas of the frame that it is made of, and where its picture lies if it is `video`. `lost` hears the names of metas that this GStreamer cannot make.
pub fn incoming(
    description: &Description,
    video: Video<'_>,
    buffer: &mut gst::BufferRef,
    mut lost: impl FnMut(&str),
) {
    if video::locate(description, video, buffer).is_none() {
        lost("GstVideoMetaAPI");
    }
    for meta in &description.metas {
        if read(meta, buffer).is_none() {
            lost(&meta.name);
        }
    }
}

fn read(meta: &Meta, buffer: &mut gst::BufferRef) -> Option<()> {
    if let Some(name) = meta.name.strip_prefix(CUSTOM) {
        return read_custom(name, &meta.data, buffer);
    }
    #[cfg(feature = "v1_24")]
    if meta.name.starts_with(SERIALISED) {
        let mut consumed = 0;
        return gst::Meta::deserialize(buffer, &meta.data, &mut consumed).ok().map(drop);
    }
    let form = FORMS.iter().find(|form| (form.api)().name() == meta.name)?;
    let content = structure(&meta.data)?;
    (form.read)(&content, buffer)
}

/// A kind of custom meta that is not known here is registered: it then is carried along without being
/// understood, as between any two elements. There is an end to that, since kinds are never forgotten.
fn read_custom(name: &str, data: &[u8], buffer: &mut gst::BufferRef) -> Option<()> {
    use std::sync::atomic::{AtomicUsize, Ordering};
    const MAX_REGISTERED: usize = 64;
    static REGISTERED: AtomicUsize = AtomicUsize::new(0);
    let content = structure(data).filter(|content| content.name() == name)?;
    if !gst::meta::CustomMeta::is_registered(name) {
        let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_+".contains(&byte));
        let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic());
        if !is_name || !first || REGISTERED.fetch_add(1, Ordering::Relaxed) >= MAX_REGISTERED {
            return None;
        }
        gst::meta::CustomMeta::register_simple(name);
    }
    let mut meta = gst::meta::CustomMeta::add(buffer, name).ok()?;
    let into = meta.mut_structure();
    for (field, value) in content.iter() {
        into.set_value(field, value.clone());
    }
    Some(())
}

#[cfg(test)]
mod tests;
