//! The description of one frame.

use arrayvec::ArrayVec;

use super::WireError;
use super::bytes::{Reader, Writer};
use super::limits::{MAX_META_BYTES, MAX_METAS, MAX_NAME, MAX_PLANES, MAX_SEGMENTS};

bitflags::bitflags! {
    /// What is said of a frame as a whole; the meanings are those of `GstBufferFlags`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct FrameFlags: u32 {
        /// Does not follow from the frame before it.
        const DISCONT = 1;
        /// Cannot be decoded without earlier frames.
        const DELTA_UNIT = 1 << 1;
        /// Is a stream header.
        const HEADER = 1 << 2;
        /// Has errors.
        const CORRUPTED = 1 << 3;
        /// Ends a unit (a video frame, a talk spurt).
        const MARKER = 1 << 4;
        /// May be dropped without harm.
        const DROPPABLE = 1 << 5;
        /// Stands for a gap.
        const GAP = 1 << 6;
        /// Times start over.
        const RESYNC = 1 << 7;
        /// Is for the decoder alone.
        const DECODE_ONLY = 1 << 8;
        /// Comes from a live source.
        const LIVE = 1 << 9;
        /// Interlaced, and the three flags that go with it.
        const INTERLACED = 1 << 10;
        /// Top field first.
        const TOP_FIELD_FIRST = 1 << 11;
        /// Repeat the first field.
        const REPEAT_FIRST_FIELD = 1 << 12;
        /// One field only.
        const ONE_FIELD = 1 << 13;
    }
}

/// Times of a frame in nanoseconds; `None` where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Presentation time in the stream's segment.
    pub pts: Option<u64>,
    /// Decoding time in the stream's segment.
    pub dts: Option<u64>,
    /// Duration.
    pub duration: Option<u64>,
    /// Running time of the publisher's pipeline at which it is to be shown.
    pub running: Option<u64>,
    /// When it was captured: `CLOCK_MONOTONIC` of the host that captured it.
    pub captured: Option<u64>,
    /// When it was published: `CLOCK_MONOTONIC` of the publisher's host.
    pub published: Option<u64>,
}

/// A part of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The buffer's number.
    pub buffer: u64,
    /// Where the part begins, in bytes.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u64,
}

/// A plane of a picture within the frame's segments taken together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plane {
    /// Where it begins, in bytes from the start of the first segment.
    pub offset: u64,
    /// Bytes from one line to the next; may be negative.
    pub stride: i32,
}

/// Something that is attached to a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// What it is, e.g. the name of a GStreamer meta API.
    pub name: String,
    /// Its serialised form.
    pub data: Vec<u8>,
}

/// What is published.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Unique per publisher, rising; a gap is a frame that this subscriber did not get.
    pub id: u64,
    /// Flags.
    pub flags: FrameFlags,
    /// Times.
    pub times: Times,
    /// Media-specific position (`GstBuffer` offset).
    pub offset: Option<u64>,
    /// Media-specific end position.
    pub offset_end: Option<u64>,
    /// Width of the picture in pixels, where it has one.
    pub width: u32,
    /// Height of the picture in pixels.
    pub height: u32,
    /// Where the bytes are; empty for an empty frame.
    pub segments: ArrayVec<Segment, MAX_SEGMENTS>,
    /// Planes, where the layout is known.
    pub planes: ArrayVec<Plane, MAX_PLANES>,
    /// Metas.
    pub metas: Vec<Meta>,
}

impl Frame {
    /// Bytes of all segments.
    pub fn size(&self) -> u64 {
        self.segments.iter().fold(0, |sum, segment| sum.saturating_add(segment.length))
    }

    /// Bytes of all metas, names included: what [`MAX_META_BYTES`] limits.
    pub fn meta_bytes(&self) -> usize {
        self.metas.iter().map(|meta| meta.name.len() + meta.data.len()).sum()
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64(self.id);
        out.put_u32(self.flags.bits());
        out.put_u16(self.segments.len() as u16);
        out.put_u16(self.planes.len() as u16);
        for time in [self.times.pts, self.times.dts, self.times.duration] {
            out.put_option(time);
        }
        for time in [self.times.running, self.times.captured, self.times.published] {
            out.put_option(time);
        }
        out.put_option(self.offset);
        out.put_option(self.offset_end);
        out.put_u32(self.width);
        out.put_u32(self.height);
        for segment in &self.segments {
            out.put_u64(segment.buffer);
            out.put_u64(segment.offset);
            out.put_u64(segment.length);
        }
        for plane in &self.planes {
            out.put_u64(plane.offset);
            out.put_i32(plane.stride);
        }
        out.put_u16(self.metas.len() as u16);
        for meta in &self.metas {
            out.put_blob(meta.name.as_bytes());
            out.put_blob(&meta.data);
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let id = reader.u64()?;
        let flags = FrameFlags::from_bits_truncate(reader.u32()?);
        let segments = reader.count("segments", MAX_SEGMENTS)?;
        let planes = reader.count("planes", MAX_PLANES)?;
        let times = Times {
            pts: reader.option_u64()?,
            dts: reader.option_u64()?,
            duration: reader.option_u64()?,
            running: reader.option_u64()?,
            captured: reader.option_u64()?,
            published: reader.option_u64()?,
        };
        let mut frame = Self {
            id,
            flags,
            times,
            offset: reader.option_u64()?,
            offset_end: reader.option_u64()?,
            width: reader.u32()?,
            height: reader.u32()?,
            ..Self::default()
        };
        for _ in 0..segments {
            frame.segments.push(decode_segment(reader)?);
        }
        for _ in 0..planes {
            frame.planes.push(Plane { offset: reader.u64()?, stride: reader.i32()? });
        }
        decode_metas(reader, &mut frame.metas)?;
        frame.check_planes()?;
        Ok(frame)
    }

    /// Planes must begin within the bytes they describe.
    fn check_planes(&self) -> Result<(), WireError> {
        let size = self.size();
        match self.planes.iter().find(|plane| plane.offset >= size.max(1)) {
            Some(plane) => {
                Err(WireError::OverLimit { field: "plane offset", value: plane.offset, limit: size })
            }
            None => Ok(()),
        }
    }
}

fn decode_segment(reader: &mut Reader<'_>) -> Result<Segment, WireError> {
    let segment = Segment { buffer: reader.u64()?, offset: reader.u64()?, length: reader.u64()? };
    let limit = super::limits::MAX_BUFFER_BYTES;
    match segment.offset.checked_add(segment.length) {
        Some(end) if end <= limit => Ok(segment),
        end => Err(WireError::OverLimit { field: "segment end", value: end.unwrap_or(u64::MAX), limit }),
    }
}

fn decode_metas(reader: &mut Reader<'_>, metas: &mut Vec<Meta>) -> Result<(), WireError> {
    let mut left = MAX_META_BYTES;
    for _ in 0..reader.count("metas", MAX_METAS)? {
        let name = reader.text("meta name", MAX_NAME.min(left))?;
        left -= name.len();
        let data = reader.blob("meta", left)?.to_vec();
        left -= data.len();
        metas.push(Meta { name, data });
    }
    Ok(())
}
