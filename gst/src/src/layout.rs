//! The layout of raw video: a publisher's strides may be others than those that caps imply, and downstream
//! may not know `GstVideoMeta`, which says so. Then frames are copied into the layout that caps imply.

use gst::glib;
use gst::prelude::*;
use gst_video::{VideoFrameRef, VideoInfo, VideoMeta};

use crate::convert::metas::Video;
use crate::convert::pixels;

/// What is known of the layout that downstream expects.
#[derive(Default)]
pub(super) struct Layout {
    /// Of raw video in lines.
    info: Option<VideoInfo>,
    opaque: bool,
    /// Whether the processor may read it.
    plain: bool,
    takes_meta: bool,
    pool: Option<gst_video::VideoBufferPool>,
}

impl Drop for Layout {
    fn drop(&mut self) {
        self.forget_pool();
    }
}

impl Layout {
    pub(super) fn set_caps(&mut self, caps: &gst::Caps) {
        let system = gst::CAPS_FEATURE_MEMORY_SYSTEM_MEMORY;
        self.plain = caps.features(0).is_none_or(|features| features.contains(system));
        self.info = pixels::info(caps);
        self.opaque = pixels::is_opaque(caps);
        self.forget_pool();
    }

    /// What the caps say of raw video.
    pub(super) fn video(&self) -> Video<'_> {
        match &self.info {
            Some(info) => Video::Lines(info),
            None if self.opaque => Video::Opaque,
            None => Video::Unknown,
        }
    }

    /// Asks downstream whether it takes `GstVideoMeta`.
    pub(super) fn ask(&mut self, pad: &gst::Pad) {
        self.takes_meta = false;
        if let (Some(_), Some(caps)) = (&self.info, pad.current_caps()) {
            let mut query = gst::query::Allocation::new(Some(&caps), false);
            self.takes_meta =
                pad.peer_query(&mut query) && query.find_allocation_meta::<VideoMeta>().is_some();
        }
    }

    /// A copy of the buffer in the layout that caps imply, if downstream needs one.
    pub(super) fn adapt(&mut self, buffer: &gst::Buffer) -> Option<Result<gst::Buffer, glib::BoolError>> {
        let info = self.info.as_ref().filter(|_| self.plain && !self.takes_meta)?;
        let meta = buffer.meta::<VideoMeta>()?;
        if meta.offset() == info.offset() && meta.stride() == info.stride() {
            return None;
        }
        let info = info.clone();
        Some(self.copy(&info, buffer))
    }

    fn copy(&mut self, info: &VideoInfo, buffer: &gst::Buffer) -> Result<gst::Buffer, glib::BoolError> {
        let pool = match &self.pool {
            Some(pool) => pool.clone(),
            None => self.pool.insert(new_pool(info)?).clone(),
        };
        let mut copy = pool.acquire_buffer(None).map_err(|error| glib::bool_error!("no buffer: {error}"))?;
        let out = copy.make_mut();
        {
            let from = VideoFrameRef::from_buffer_ref_readable(buffer, info)?;
            let mut to = VideoFrameRef::from_buffer_ref_writable(out, info)?;
            from.copy(&mut to)?;
        }
        buffer.copy_into(out, gst::BUFFER_COPY_METADATA, ..)?;
        if let Some(meta) = out.meta_mut::<VideoMeta>() {
            meta.remove().map_err(|_| glib::bool_error!("its layout is locked"))?;
        }
        Ok(copy)
    }

    fn forget_pool(&mut self) {
        if let Some(pool) = self.pool.take() {
            let _ = pool.set_active(false);
        }
    }
}

fn new_pool(info: &VideoInfo) -> Result<gst_video::VideoBufferPool, glib::BoolError> {
    let pool = gst_video::VideoBufferPool::new();
    let mut config = pool.config();
    config.set_params(Some(&info.to_caps()?), info.size() as u32, 0, 0);
    pool.set_config(config)?;
    pool.set_active(true)?;
    Ok(pool)
}
