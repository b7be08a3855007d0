//! Memories of received frames.

use pagecast::{FaceKind, Frame};

use super::slot::{self, Hold};

/// Makes memories of the parts of a received frame.
#[derive(Debug)]
pub struct ReceivedMemory;

impl ReceivedMemory {
    /// A read-only memory of one segment of a frame. When it and all memories that share its bytes are gone,
    /// so is its hold on the frame. It is of the `wanted` face if the segment has that, else of the one it has. `None` if
    /// the frame has no such segment.
    pub fn wrap(frame: &Frame, segment: usize, wanted: FaceKind) -> Option<gst::Memory> {
        let part = frame.segments().get(segment)?;
        let hold = Hold::Frame { _frame: frame.clone(), buffer: part.buffer.clone() };
        slot::wrap(hold, wanted, part.offset, part.length)
    }
}
