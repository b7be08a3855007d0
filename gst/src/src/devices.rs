//! GStreamer's memories have no fences, and not every driver looks for those in a dma-buf: a frame goes downstream when the
//! devices that write it are done.

use std::time::{Duration, Instant};

use gst::subclass::prelude::*;
use pagecast::allocators::dma_buf::{DEVICE_LIMIT, Direction, wait_for_devices};
use pagecast::{FaceKind, Frame};

use super::imp::{CAT, PagecastSrc};

/// How long a flush or the end of the pipeline waits for us at most.
const SLICE: Duration = Duration::from_millis(50);

impl PagecastSrc {
    /// Waits until no device writes the frame any more. `false` if one takes too long: then the frame is lost.
    pub(super) fn wait_for_devices(&self, frame: &Frame) -> Result<bool, gst::FlowError> {
        let until = Instant::now() + DEVICE_LIMIT;
        for segment in frame.segments() {
            let Some(face) = segment.buffer.face(FaceKind::DmaBuf) else { continue };
            while wait_for_devices(face.fd, Direction::Read, SLICE).is_err() {
                if self.link.is_interrupted() {
                    return Err(gst::FlowError::Flushing);
                }
                if Instant::now() >= until {
                    let seconds = DEVICE_LIMIT.as_secs();
                    gst::warning!(
                        CAT,
                        imp = self,
                        "a device still writes frame {} after {seconds} s",
                        frame.id()
                    );
                    self.figures.count_late();
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}
