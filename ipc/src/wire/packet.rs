//! Packets and records.

use super::WireError;
use super::bytes::{Reader, Writer};
use super::limits::{MAX_PACKET, MAX_RECORDS};

/// `PGCT`, read as a little-endian number.
const MAGIC: u32 = u32::from_le_bytes(*b"PGCT");

/// Bytes of a packet's header: magic, epoch, length of the whole packet (4 each), records (2), zero (2).
pub const PACKET_HEADER: usize = 16;
/// Bytes of a record's header: kind (2), zero (2), length of its body (4).
pub const RECORD_HEADER: usize = 8;

/// The header of a packet with `records` records of `body` bytes in all.
pub fn packet_header(epoch: u32, records: u16, body: usize) -> [u8; PACKET_HEADER] {
    let mut header = [0; PACKET_HEADER];
    header[..4].copy_from_slice(&MAGIC.to_le_bytes());
    header[4..8].copy_from_slice(&epoch.to_le_bytes());
    header[8..12].copy_from_slice(&((PACKET_HEADER + body) as u32).to_le_bytes());
    header[12..14].copy_from_slice(&records.to_le_bytes());
    header
}

/// Collects records for one packet.
#[derive(Clone, Debug, Default)]
pub struct PacketBuilder {
    body: Vec<u8>,
    records: u16,
}

impl PacketBuilder {
    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Whether a record of `len` bytes, header included, still fits.
    pub fn fits(&self, len: usize) -> bool {
        usize::from(self.records) < MAX_RECORDS && PACKET_HEADER + self.body.len() + len <= MAX_PACKET
    }

    /// Appends an encoded record.
    pub fn push(&mut self, record: &[u8]) {
        self.body.extend_from_slice(record);
        self.records += 1;
    }

    /// Empties it, keeping its memory.
    pub fn clear(&mut self) {
        self.body.clear();
        self.records = 0;
    }

    /// The header that goes before [`PacketBuilder::body`].
    pub fn header(&self, epoch: u32) -> [u8; PACKET_HEADER] {
        packet_header(epoch, self.records, self.body.len())
    }

    /// The records.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Header and records in one vector.
    pub fn bytes(&self, epoch: u32) -> Vec<u8> {
        let mut bytes = self.header(epoch).to_vec();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// Encodes one record: `body` writes what follows the header.
pub(super) fn record(out: &mut Vec<u8>, kind: u16, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.put_u16(kind);
    out.put_u16(0);
    out.put_u32(0);
    body(out);
    let len = (out.len() - start - RECORD_HEADER) as u32;
    out[start + 4..start + 8].copy_from_slice(&len.to_le_bytes());
}

/// One record of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// What it is.
    pub kind: u16,
    /// What follows its header.
    pub body: &'a [u8],
}

/// The records of one packet, in order.
#[derive(Clone, Debug)]
pub struct Packets<'a> {
    epoch: u32,
    left: u16,
    reader: Reader<'a>,
}

impl<'a> Packets<'a> {
    /// Checks the header of one whole packet.
    ///
    /// # Errors
    /// [`WireError`] if it is not one packet of exactly this length.
    pub fn open(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        if reader.u32().map_err(|_| WireError::NotAPacket)? != MAGIC {
            return Err(WireError::NotAPacket);
        }
        let epoch = reader.u32()?;
        let length = reader.u32()? as usize;
        let left = reader.count("records", MAX_RECORDS)? as u16;
        reader.u16()?;
        if length > MAX_PACKET {
            return Err(WireError::OverLimit {
                field: "packet length",
                value: length as u64,
                limit: MAX_PACKET as u64,
            });
        }
        if length > bytes.len() {
            return Err(WireError::Truncated);
        }
        if length < bytes.len() {
            return Err(WireError::Trailing(bytes.len() - length));
        }
        Ok(Self { epoch, left, reader })
    }

    /// The epoch the sender believes in.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The next record; `None` after the last.
    ///
    /// # Errors
    /// [`WireError`] if the packet and its records do not fit each other.
    pub fn next_record(&mut self) -> Result<Option<Record<'a>>, WireError> {
        if self.left == 0 {
            return match self.reader.remaining() {
                0 => Ok(None),
                rest => Err(WireError::Trailing(rest)),
            };
        }
        self.left -= 1;
        let kind = self.reader.u16()?;
        self.reader.u16()?;
        let len = self.reader.u32()? as usize;
        Ok(Some(Record { kind, body: self.reader.bytes(len)? }))
    }
}
