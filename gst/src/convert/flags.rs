//! Buffer flags.

use gst::BufferFlags;
use pagecast::FrameFlags;

/// Of `GstVideoBufferFlags`: they use the media-specific bits of a buffer.
const INTERLACED: BufferFlags = BufferFlags::from_bits_retain(1 << 20);
const TOP_FIELD_FIRST: BufferFlags = BufferFlags::from_bits_retain(1 << 21);
const REPEAT_FIRST_FIELD: BufferFlags = BufferFlags::from_bits_retain(1 << 22);
const ONE_FIELD: BufferFlags = BufferFlags::from_bits_retain(1 << 23);

const PAIRS: [(BufferFlags, FrameFlags); 14] = [
    (BufferFlags::DISCONT, FrameFlags::DISCONT),
    (BufferFlags::DELTA_UNIT, FrameFlags::DELTA_UNIT),
    (BufferFlags::HEADER, FrameFlags::HEADER),
    (BufferFlags::CORRUPTED, FrameFlags::CORRUPTED),
    (BufferFlags::MARKER, FrameFlags::MARKER),
    (BufferFlags::DROPPABLE, FrameFlags::DROPPABLE),
    (BufferFlags::GAP, FrameFlags::GAP),
    (BufferFlags::RESYNC, FrameFlags::RESYNC),
    (BufferFlags::DECODE_ONLY, FrameFlags::DECODE_ONLY),
    (BufferFlags::LIVE, FrameFlags::LIVE),
    (INTERLACED, FrameFlags::INTERLACED),
    (TOP_FIELD_FIRST, FrameFlags::TOP_FIELD_FIRST),
    (REPEAT_FIRST_FIELD, FrameFlags::REPEAT_FIRST_FIELD),
    (ONE_FIELD, FrameFlags::ONE_FIELD),
];

/// The flags of a frame that is made of a buffer with these.
pub fn to_frame(flags: BufferFlags) -> FrameFlags {
    let set = PAIRS.iter().filter(|(buffer, _)| flags.contains(*buffer));
    set.fold(FrameFlags::empty(), |all, (_, frame)| all | *frame)
}

/// The flags of a buffer that is made of a frame with these.
pub fn to_buffer(flags: FrameFlags) -> BufferFlags {
    let set = PAIRS.iter().filter(|(_, frame)| flags.contains(*frame));
    set.fold(BufferFlags::empty(), |all, (buffer, _)| all | *buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_returns() {
        for (buffer, frame) in PAIRS {
            assert_eq!(to_frame(buffer), frame);
            assert_eq!(to_buffer(frame), buffer);
        }
        assert_eq!(to_buffer(FrameFlags::all()), PAIRS.iter().fold(BufferFlags::empty(), |a, p| a | p.0));
        assert_eq!(to_frame(BufferFlags::empty()), FrameFlags::empty());
    }

    #[test]
    fn video_bits_are_those_of_the_library() {
        gst::init().unwrap();
        let bits = |flags: gst_video::VideoBufferFlags| BufferFlags::from_bits_retain(flags.bits());
        assert_eq!(INTERLACED, bits(gst_video::VideoBufferFlags::INTERLACED));
        assert_eq!(TOP_FIELD_FIRST, bits(gst_video::VideoBufferFlags::TFF));
        assert_eq!(REPEAT_FIRST_FIELD, bits(gst_video::VideoBufferFlags::RFF));
        assert_eq!(ONE_FIELD, bits(gst_video::VideoBufferFlags::ONEFIELD));
    }
}
