//! Packets and records, as docs/protocol.md lays them out.

use std::fmt;

/// The largest packet.
pub const MAX_PACKET: usize = 98_304;
/// The most records in one packet.
pub const MAX_RECORDS: usize = 256;
const HEADER: usize = 16;
const MAGIC: &[u8; 4] = b"PGCT";
const MAX_SEGMENTS: usize = 16;
const MAX_PLANES: usize = 8;
const MAX_METAS: usize = 64;
const MAX_NAME: usize = 255;
const MAX_BLOB: usize = 65_536;
const MAX_TEXT: usize = 1_024;

/// What the publisher sent is not what the document says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault(pub String);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not the protocol: {}", self.0)
    }
}

impl std::error::Error for Fault {}

fn fault<T>(what: impl Into<String>) -> Result<T, Fault> {
    Err(Fault(what.into()))
}

/// What a subscriber asks for.
#[derive(Clone, Debug)]
pub struct Hello {
    /// Oldest and newest version.
    pub versions: (u16, u16),
    /// 0 subscriber, 1 observer.
    pub role: u16,
    /// 0 the publisher's choice, 1 auto, 2 block, 3 drop-oldest, 4 drop-newest, 5 latest.
    pub policy: u16,
    /// Credits; 0 leaves it to the publisher.
    pub credits: u32,
    /// Frames it may keep for long.
    pub keep: u32,
    /// The most frames per so many seconds.
    pub rate: (u32, u32),
    /// Bit 0 memory, bit 1 dma-buf.
    pub faces: u32,
    /// Its name.
    pub name: String,
}

impl Default for Hello {
    fn default() -> Self {
        Self {
            versions: (1, 1),
            role: 0,
            policy: 0,
            credits: 0,
            keep: 1,
            rate: (0, 0),
            faces: 1,
            name: "independent".to_owned(),
        }
    }
}

/// What a publisher answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// Version in use.
    pub version: u16,
    /// The stream is live.
    pub live: bool,
    /// The subscriber's number.
    pub id: u64,
    /// The publisher's process.
    pub pid: u32,
    /// Policy in force, 0 for an observer.
    pub policy: u32,
    /// Credits granted.
    pub credits: u32,
    /// Places in the mailbox.
    pub mailbox: u32,
    /// Faces of the buffers.
    pub faces: u32,
    /// The publisher's name.
    pub name: String,
}

/// A part of a frame: buffer, offset, length.
pub type Segment = (u64, u64, u64);

/// A frame as it is on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrameRecord {
    /// Its number.
    pub id: u64,
    /// Flags.
    pub flags: u32,
    /// PTS, DTS, duration, running time, captured, published.
    pub times: [Option<u64>; 6],
    /// Media-specific offset.
    pub offset: Option<u64>,
    /// Media-specific end offset.
    pub offset_end: Option<u64>,
    /// Width and height.
    pub size: (u32, u32),
    /// Its segments.
    pub segments: Vec<Segment>,
    /// Offset and bytes per line of each plane.
    pub planes: Vec<(u64, i32)>,
    /// Metas.
    pub metas: Vec<(String, Vec<u8>)>,
}

/// One record from the publisher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// 33
    Welcome(Welcome),
    /// 34
    Refused(u16, String),
    /// 35: buffer, size, face.
    Announce(u64, u64, u16),
    /// 36
    Retire(u64),
    /// 37
    Frame(FrameRecord),
    /// 38
    Sticky(String, Vec<u8>),
    /// 39
    Event(String, Vec<u8>),
    /// 40: monotonic, running time, minimum and maximum latency.
    Clock(u64, Option<u64>, u64, Option<u64>),
    /// 41: whether it is the last part, bytes.
    Info(bool, Vec<u8>),
}

/// Reads little-endian fields.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        if count > self.0.len() {
            return fault(format!("{count} bytes wanted, {} there", self.0.len()));
        }
        let (head, rest) = self.0.split_at(count);
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u16(&mut self) -> Result<u16, Fault> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, Fault> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Fault> {
        self.array().map(u64::from_le_bytes)
    }

    /// A 64-bit field that may be none.
    fn maybe(&mut self) -> Result<Option<u64>, Fault> {
        Ok(Some(self.u64()?).filter(|value| *value != u64::MAX))
    }

    fn blob(&mut self, limit: usize) -> Result<Vec<u8>, Fault> {
        let length = self.u32()? as usize;
        if length > limit {
            return fault(format!("blob of {length} bytes, the limit is {limit}"));
        }
        Ok(self.take(length)?.to_vec())
    }

    fn text(&mut self, limit: usize) -> Result<String, Fault> {
        String::from_utf8(self.blob(limit)?).map_err(|_| Fault("a text is not UTF-8".to_owned()))
    }

    fn end(self) -> Result<(), Fault> {
        if self.0.is_empty() { Ok(()) } else { fault(format!("{} bytes left over", self.0.len())) }
    }
}

/// Takes a packet apart: its epoch and records.
///
/// # Errors
/// If it is not what the document says.
pub fn parse(packet: &[u8]) -> Result<(u32, Vec<Record>), Fault> {
    let mut fields = Fields(packet);
    if fields.take(4)? != MAGIC {
        return fault("magic");
    }
    let epoch = fields.u32()?;
    let length = fields.u32()? as usize;
    let count = usize::from(fields.u16()?);
    let zero = fields.u16()?;
    if length != packet.len() || count > MAX_RECORDS || zero != 0 {
        return fault(format!("header: length {length} of {}, {count} records, {zero}", packet.len()));
    }
    let mut records = Vec::with_capacity(count);
    for _ in 0..count {
        let kind = fields.u16()?;
        if fields.u16()? != 0 {
            return fault("record header");
        }
        let length = fields.u32()? as usize;
        records.push(record(kind, fields.take(length)?)?);
    }
    fields.end()?;
    Ok((epoch, records))
}

fn record(kind: u16, body: &[u8]) -> Result<Record, Fault> {
    let mut f = Fields(body);
    let record = match kind {
        33 => Record::Welcome(welcome(&mut f)?),
        34 => Record::Refused(f.u16()?, f.text(MAX_TEXT)?),
        35 => Record::Announce(f.u64()?, f.u64()?, f.u16()?),
        36 => Record::Retire(f.u64()?),
        37 => Record::Frame(frame(&mut f)?),
        38 => Record::Sticky(f.text(MAX_NAME)?, f.blob(MAX_BLOB)?),
        39 => Record::Event(f.text(MAX_NAME)?, f.blob(MAX_BLOB)?),
        40 => Record::Clock(f.u64()?, f.maybe()?, f.u64()?, f.maybe()?),
        41 => Record::Info(f.u16()? & 1 == 1, f.blob(MAX_PACKET)?),
        other => return fault(format!("record of kind {other}")),
    };
    f.end()?;
    Ok(record)
}

fn welcome(f: &mut Fields<'_>) -> Result<Welcome, Fault> {
    Ok(Welcome {
        version: f.u16()?,
        live: f.u16()? & 1 == 1,
        id: f.u64()?,
        pid: f.u32()?,
        policy: f.u32()?,
        credits: f.u32()?,
        mailbox: f.u32()?,
        faces: f.u32()?,
        name: f.text(MAX_NAME)?,
    })
}

fn frame(f: &mut Fields<'_>) -> Result<FrameRecord, Fault> {
    let mut frame = FrameRecord { id: f.u64()?, flags: f.u32()?, ..FrameRecord::default() };
    let (segments, planes) = (usize::from(f.u16()?), usize::from(f.u16()?));
    if segments > MAX_SEGMENTS || planes > MAX_PLANES {
        return fault(format!("{segments} segments, {planes} planes"));
    }
    for time in &mut frame.times {
        *time = f.maybe()?;
    }
    (frame.offset, frame.offset_end) = (f.maybe()?, f.maybe()?);
    frame.size = (f.u32()?, f.u32()?);
    for _ in 0..segments {
        frame.segments.push((f.u64()?, f.u64()?, f.u64()?));
    }
    for _ in 0..planes {
        frame.planes.push((f.u64()?, i32::from_le_bytes(f.array()?)));
    }
    let metas = usize::from(f.u16()?);
    if metas > MAX_METAS {
        return fault(format!("{metas} metas"));
    }
    for _ in 0..metas {
        frame.metas.push((f.text(MAX_NAME)?, f.blob(MAX_BLOB)?));
    }
    Ok(frame)
}

/// A packet with one record.
pub fn packet(epoch: u32, kind: u16, body: &[u8]) -> Vec<u8> {
    let mut packet = Vec::with_capacity(HEADER + 8 + body.len());
    packet.extend_from_slice(MAGIC);
    packet.extend_from_slice(&epoch.to_le_bytes());
    packet.extend_from_slice(&((HEADER + 8 + body.len()) as u32).to_le_bytes());
    packet.extend_from_slice(&1_u16.to_le_bytes());
    packet.extend_from_slice(&0_u16.to_le_bytes());
    packet.extend_from_slice(&kind.to_le_bytes());
    packet.extend_from_slice(&0_u16.to_le_bytes());
    packet.extend_from_slice(&(body.len() as u32).to_le_bytes());
    packet.extend_from_slice(body);
    packet
}

/// A blob.
pub fn blob(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_le_bytes(), bytes].concat()
}

impl Hello {
    /// The packet that begins a link.
    pub fn packet(&self) -> Vec<u8> {
        let mut body = Vec::new();
        for short in [self.versions.0, self.versions.1, self.role, self.policy] {
            body.extend_from_slice(&short.to_le_bytes());
        }
        for long in [self.credits, self.keep, self.rate.0, self.rate.1, self.faces] {
            body.extend_from_slice(&long.to_le_bytes());
        }
        body.extend_from_slice(&blob(self.name.as_bytes()));
        packet(0, 1, &body)
    }
}
