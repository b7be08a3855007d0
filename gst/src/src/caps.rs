//! The stream's caps, in the form that downstream takes, and the face of the pages that goes with them.

use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::prelude::*;
use pagecast::{FaceKind, Frame};

use super::flow::Flow;
use super::imp::{CAT, PagecastSrc, lock};
use super::offers::{self, Choice, Offer};
use super::settings::AskedFace;
use crate::convert::pixels;

impl PagecastSrc {
    /// Sends the publisher's caps downstream, in the first form that it takes. `false` if the link is asked for anew
    /// instead.
    pub(super) fn negotiate_caps(&self, flow: &mut Flow) -> Result<bool, gst::FlowError> {
        let Some(caps) = flow.caps.clone() else { return Ok(true) };
        self.ensure_started(flow);
        let obj = self.obj();
        let face = lock(&self.settings).face;
        let prefers = match face {
            AskedFace::Auto => offers::prefers_dma_bufs(obj.src_pad()),
            AskedFace::DmaBuf => true,
            AskedFace::Memory => false,
        };
        let has_dma_bufs = flow.has_dma_bufs && face != AskedFace::Memory;
        let offers = offers::all(&caps, prefers);
        let downstream = obj.src_pad().peer_query_caps(None);
        gst::debug!(CAT, imp = self, "of {offers:?}, downstream takes {downstream:?}");
        let first = offers.first().cloned();
        match offers::choose(offers, &downstream, has_dma_bufs) {
            Choice::Taken(offer) => self.send_caps(flow, offer)?,
            Choice::NeedsDmaBufs => return self.ask_for_dma_bufs(flow).map(|()| false),
            Choice::Refused if pixels::is_opaque(&caps) => return Err(self.refused(&caps, &downstream)),
            // Perhaps it takes more than it says.
            Choice::Refused => first.map_or(Ok(()), |offer| self.send_caps(flow, offer))?,
        }
        Ok(true)
    }

    fn send_caps(&self, flow: &mut Flow, Offer { caps, dma_buf }: Offer) -> Result<(), gst::FlowError> {
        if let Err(error) = self.obj().set_caps(&caps) {
            let flushing = self.obj().src_pad().pad_flags().contains(gst::PadFlags::FLUSHING);
            gst::warning!(CAT, imp = self, "{caps}: {error}");
            return Err(if flushing { gst::FlowError::Flushing } else { gst::FlowError::NotNegotiated });
        }
        flow.dma_buf = dma_buf;
        flow.layout.set_caps(&caps);
        flow.layout.ask(self.obj().src_pad());
        if self.figures.frame_lasts(frame_lasts(&caps)) {
            self.latency_changed();
        }
        Ok(())
    }

    /// Downstream takes nothing but dma-bufs, and the link has none: it is asked for anew, once.
    fn ask_for_dma_bufs(&self, flow: &mut Flow) -> Result<(), gst::FlowError> {
        let settings = lock(&self.settings).clone();
        if settings.face == AskedFace::Auto && !std::mem::replace(&mut flow.asked_for_dma_bufs, true) {
            gst::info!(CAT, imp = self, "asking the publisher for dma-bufs");
            return self.link.open(&settings, &self.obj().name(), true).map_err(|error| {
                self.post_error_message(error);
                gst::FlowError::Error
            });
        }
        let format = flow.caps.as_deref().and_then(pixels::drm_format).unwrap_or_default();
        let remedy = match settings.face {
            AskedFace::Memory => "set face=auto",
            _ => {
                "see that the publisher is on this host, has dma-bufs and lets this user have them ('pagecast info' and 'pagecast doctor' say more)"
            }
        };
        Err(self.element_error(
            gst::CoreError::Negotiation,
            format!("{format} can be had downstream only as dma-bufs, which this link has not: {remedy}"),
        ))
    }

    /// Downstream cannot take the way that the pixels lie.
    fn refused(&self, caps: &gst::CapsRef, downstream: &gst::CapsRef) -> gst::FlowError {
        let format = pixels::drm_format(caps).unwrap_or_default();
        self.element_error(
            gst::CoreError::Negotiation,
            format!(
                "the frames are {format}, which downstream cannot take; it takes {}. Put an element behind that imports \
                 this modifier, or let the publisher's source make linear frames",
                offers::told(downstream)
            ),
        )
    }

    /// Sees that downstream, which may have changed, can take this frame; `false` if the link is asked for anew instead.
    pub(super) fn fits_caps(&self, flow: &mut Flow, frame: &Frame) -> Result<bool, gst::FlowError> {
        let is_dma_buf =
            || frame.segments().iter().all(|segment| segment.buffer.face(FaceKind::DmaBuf).is_some());
        let changed = self.figures.take_layout_unknown();
        if flow.dma_buf && !is_dma_buf() {
            gst::info!(CAT, imp = self, "the publisher's pages are no dma-bufs any more");
            flow.has_dma_bufs = false;
        } else if !changed {
            return Ok(true);
        }
        self.negotiate_caps(flow)
    }
}

/// How long a frame lasts, in nanoseconds.
fn frame_lasts(caps: &gst::CapsRef) -> Option<u64> {
    let rate = caps.structure(0)?.get::<gst::Fraction>("framerate").ok()?;
    let (frames, seconds) = (u64::try_from(rate.numer()).ok()?, u64::try_from(rate.denom()).ok()?);
    (frames > 0).then(|| 1_000_000_000 * seconds / frames)
}
