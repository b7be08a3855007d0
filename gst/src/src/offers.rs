//! Under which caps a stream can go downstream: the same pages are memory that the CPU reads, or dma-bufs that devices
//! import. Downstream decides.

use gst::prelude::*;

use crate::convert::pixels::{self, DMA_BUF, DRM_FORMAT};

/// What is told of the caps that downstream takes, in bytes.
const TOLD: usize = 400;

/// One form of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Offer {
    pub(super) caps: gst::Caps,
    /// Whether its memories are dma-bufs by these caps.
    pub(super) dma_buf: bool,
}

/// What became of the offers.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Choice {
    Taken(Offer),
    /// It would be taken, if only the link gave dma-bufs.
    NeedsDmaBufs,
    /// None is.
    Refused,
}

/// All forms of a stream with these caps, the preferred one first.
pub(super) fn all(caps: &gst::CapsRef, prefers_dma_bufs: bool) -> Vec<Offer> {
    let Some(plain) = pixels::plain(caps) else {
        let dma_buf = pixels::is_opaque(caps);
        return vec![Offer { caps: caps.to_owned(), dma_buf }];
    };
    let has_drm = gst::version() >= (1, 24, 0, 0);
    let drm = pixels::of_dma_drm(caps).filter(|_| has_drm);
    let imported = [drm, pixels::of_dma_bufs(caps)].into_iter().flatten();
    let mut offers: Vec<Offer> = imported.map(|caps| Offer { caps, dma_buf: true }).collect();
    let at = if prefers_dma_bufs { offers.len() } else { 0 };
    offers.insert(at, Offer { caps: plain, dma_buf: false });
    offers
}

/// The first offer that downstream takes, and that the link can keep.
pub(super) fn choose(offers: Vec<Offer>, downstream: &gst::Caps, has_dma_bufs: bool) -> Choice {
    let taken: Vec<Offer> =
        offers.into_iter().filter(|offer| downstream.can_intersect(&offer.caps)).collect();
    let none = if taken.is_empty() { Choice::Refused } else { Choice::NeedsDmaBufs };
    taken.into_iter().find(|offer| has_dma_bufs || !offer.dma_buf).map_or(none, Choice::Taken)
}

/// Whether downstream names dma-bufs before memory that the CPU reads, or nothing else.
pub(super) fn prefers_dma_bufs(pad: &gst::Pad) -> bool {
    let downstream = pad.peer_query_caps(None);
    let mut video = downstream.iter_with_features().filter(|(said, _)| said.name() == "video/x-raw");
    let first = video.find_map(|(_, features)| match features {
        features if features.contains(DMA_BUF) => Some(true),
        features if features.is_any() || features.contains(gst::CAPS_FEATURE_MEMORY_SYSTEM_MEMORY) => {
            Some(false)
        }
        _ => None,
    });
    first.unwrap_or(false)
}

/// The pixels that downstream takes, for people.
pub(super) fn told(downstream: &gst::CapsRef) -> String {
    let mut said = Vec::new();
    for (structure, features) in downstream.iter_with_features() {
        let field = if structure.has_field(DRM_FORMAT) { DRM_FORMAT } else { "format" };
        let value = structure.value(field).ok().and_then(|value| value.serialize().ok());
        let value = value.map_or_else(|| "any format".to_owned(), |value| value.to_string());
        let one = format!("{}({features}) {value}", structure.name());
        if !said.contains(&one) {
            said.push(one);
        }
    }
    let mut all = said.join("; ");
    if all.is_empty() {
        return "nothing".to_owned();
    }
    if let Some((end, _)) = all.char_indices().find(|(at, _)| *at >= TOLD) {
        all.truncate(end);
        all.push('…');
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const TILED: &str = "video/x-raw(memory:DMABuf), format=DMA_DRM, drm-format=NV12:0x0100000000000002";

    fn caps(text: &str) -> gst::Caps {
        gst::init().unwrap();
        text.parse().unwrap()
    }

    fn chosen(stream: &str, prefers: bool, downstream: &str, has_dma_bufs: bool) -> Result<String, Choice> {
        match choose(all(&caps(stream), prefers), &caps(downstream), has_dma_bufs) {
            Choice::Taken(offer) => {
                assert_eq!(offer.dma_buf, offer.caps.features(0).unwrap().contains(DMA_BUF));
                Ok(offer.caps.to_string())
            }
            other => Err(other),
        }
    }

    #[test]
    fn downstream_decides_and_has_preferences() {
        let linear = "video/x-raw, format=NV12";
        let imported = "video/x-raw(memory:DMABuf), format=NV12";
        assert_eq!(chosen(linear, false, "ANY", true), Ok(caps(linear).to_string()));
        assert_eq!(chosen(linear, true, "video/x-raw", true), Ok(caps(linear).to_string()));
        assert_eq!(chosen(linear, false, imported, true), Ok(caps(imported).to_string()));
        assert_eq!(chosen(linear, false, imported, false), Err(Choice::NeedsDmaBufs));
        assert_eq!(chosen(linear, true, "ANY", false), Ok(caps(linear).to_string()));
        assert_eq!(chosen(linear, true, "video/x-raw, format=I420", true), Err(Choice::Refused));
        let preferred = chosen(linear, true, "ANY", true).unwrap();
        assert!(preferred.contains("memory:DMABuf"), "{preferred}");
        assert_eq!(preferred.contains("DMA_DRM"), gst::version() >= (1, 24, 0, 0), "{preferred}");
        let coded = "video/x-h264, alignment=au";
        assert_eq!(chosen(coded, true, "ANY", false), Ok(caps(coded).to_string()));
    }

    #[test]
    fn other_layouts_are_never_called_linear() {
        assert_eq!(chosen(TILED, false, "ANY", true), Ok(caps(TILED).to_string()));
        assert_eq!(chosen(TILED, false, TILED, false), Err(Choice::NeedsDmaBufs));
        let linear = "video/x-raw(memory:DMABuf), format=DMA_DRM, drm-format={NV12, NV12:0x0100000000000001}; video/x-raw";
        assert_eq!(chosen(TILED, true, linear, true), Err(Choice::Refused));
        let told = told(&caps(linear));
        assert!(told.contains("{ (string)NV12, (string)NV12:0x0100000000000001 }"), "{told}");
        assert!(told.contains("memory:SystemMemory) any format"), "{told}");
    }

    #[test]
    fn what_is_told_has_an_end() {
        let formats: Vec<String> = (0..999).map(|n| format!("NV12:{n:#018x}")).collect();
        let long = caps(&format!("video/x-raw(memory:DMABuf), drm-format={{{}}}", formats.join(",")));
        assert!(told(&long).len() < TOLD + 8);
        assert_eq!(told(&gst::Caps::new_empty()), "nothing");
    }
}
