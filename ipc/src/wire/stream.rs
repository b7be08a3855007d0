//! What flows once a link stands.

use super::WireError;
use super::bytes::{Reader, Writer};
use super::frame::Frame;
use super::handshake::{Hello, RefusalCode, Welcome};
use super::limits::{MAX_BUFFER_BYTES, MAX_EVENT_BYTES, MAX_INFO_PART, MAX_NAME, MAX_RETURNS, MAX_TEXT};
use super::packet::{Record, record};

/// The face a buffer is announced with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Face {
    /// A sealed memfd.
    Memory,
    /// A dma-buf.
    DmaBuf,
}

/// A buffer that frames will refer to; its descriptor comes in the same packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announce {
    /// The buffer's number; never reused.
    pub buffer: u64,
    /// Its size in bytes.
    pub size: u64,
    /// What the descriptor is.
    pub face: Face,
}

/// A value that holds until it is replaced and that late joiners get: caps, segment, tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sticky {
    /// What it is: `caps`, `segment`, `tag`, …
    pub name: String,
    /// Its serialised form; caps are text.
    pub data: Vec<u8>,
}

/// Something that happens once, in stream order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What it is: `gap`, `eos`, `flush-start`, …
    pub name: String,
    /// Its serialised form.
    pub data: Vec<u8>,
}

/// The publisher's running time at one moment of `CLOCK_MONOTONIC`, and its latency; in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// `CLOCK_MONOTONIC`.
    pub monotonic: u64,
    /// Running time at that moment; `None` where nothing runs.
    pub running: Option<u64>,
    /// Minimum latency from capture to publication.
    pub latency_min: u64,
    /// Maximum latency; `None` is unlimited.
    pub latency_max: Option<u64>,
}

/// What a subscriber says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ToPublisher {
    /// First of all.
    Hello(Hello),
    /// It let go of these frames.
    Return(Vec<u64>),
    /// It has taken in so many announced buffers in all.
    Seen(u64),
    /// An upstream event, e.g. `force-key-unit`.
    Request(Event),
    /// It wants an [`ToSubscriber::Info`].
    Query,
    /// It leaves.
    Bye,
}

/// What a publisher says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[expect(clippy::large_enum_variant, reason = "most messages are frames; a box would be an allocation each")]
pub enum ToSubscriber {
    /// It may stay.
    Welcome(Welcome),
    /// It may not, or no longer; the link ends.
    Refused(RefusalCode, String),
    /// A new buffer.
    Announce(Announce),
    /// A buffer that no later frame refers to.
    Retire(u64),
    /// A frame.
    Frame(Frame),
    /// A sticky value.
    Sticky(Sticky),
    /// An event.
    Event(Event),
    /// The clock.
    Clock(Clock),
    /// A part of the answer to [`ToPublisher::Query`], JSON; `true` with the last.
    Info(Vec<u8>, bool),
}

mod kind {
    pub(super) const HELLO: u16 = 1;
    pub(super) const RETURN: u16 = 2;
    pub(super) const SEEN: u16 = 3;
    pub(super) const REQUEST: u16 = 4;
    pub(super) const QUERY: u16 = 5;
    pub(super) const BYE: u16 = 6;
    pub(super) const WELCOME: u16 = 33;
    pub(super) const REFUSED: u16 = 34;
    pub(super) const ANNOUNCE: u16 = 35;
    pub(super) const RETIRE: u16 = 36;
    pub(super) const FRAME: u16 = 37;
    pub(super) const STICKY: u16 = 38;
    pub(super) const EVENT: u16 = 39;
    pub(super) const CLOCK: u16 = 40;
    pub(super) const INFO: u16 = 41;
}

impl ToPublisher {
    /// Appends it as one record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hello(hello) => record(out, kind::HELLO, |out| hello.encode(out)),
            Self::Return(frames) => record(out, kind::RETURN, |out| {
                out.put_u16(frames.len() as u16);
                frames.iter().for_each(|frame| out.put_u64(*frame));
            }),
            Self::Seen(buffers) => record(out, kind::SEEN, |out| out.put_u64(*buffers)),
            Self::Request(event) => record(out, kind::REQUEST, |out| event.encode(out)),
            Self::Query => record(out, kind::QUERY, |_| ()),
            Self::Bye => record(out, kind::BYE, |_| ()),
        }
    }

    /// Reads one record.
    ///
    /// # Errors
    /// [`WireError`]: the peer is at fault.
    pub fn decode(record: Record<'_>) -> Result<Self, WireError> {
        let mut reader = Reader::new(record.body);
        let message = match record.kind {
            kind::HELLO => Self::Hello(Hello::decode(&mut reader)?),
            kind::RETURN => {
                let count = reader.count("returns", MAX_RETURNS)?;
                Self::Return((0..count).map(|_| reader.u64()).collect::<Result<_, _>>()?)
            }
            kind::SEEN => Self::Seen(reader.u64()?),
            kind::REQUEST => Self::Request(Event::decode(&mut reader)?),
            kind::QUERY => Self::Query,
            kind::BYE => Self::Bye,
            other => return Err(WireError::Invalid { field: "message kind", value: other.into() }),
        };
        finished(&reader)?;
        Ok(message)
    }
}

impl ToSubscriber {
    /// Appends it as one record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Welcome(welcome) => record(out, kind::WELCOME, |out| welcome.encode(out)),
            Self::Refused(code, text) => record(out, kind::REFUSED, |out| {
                out.put_u16(code.number());
                out.put_blob(text.as_bytes());
            }),
            Self::Announce(announce) => record(out, kind::ANNOUNCE, |out| {
                out.put_u64(announce.buffer);
                out.put_u64(announce.size);
                out.put_u16(u16::from(announce.face == Face::DmaBuf));
            }),
            Self::Retire(buffer) => record(out, kind::RETIRE, |out| out.put_u64(*buffer)),
            Self::Frame(frame) => record(out, kind::FRAME, |out| frame.encode(out)),
            Self::Sticky(Sticky { name, data }) => {
                record(out, kind::STICKY, |out| encode_named(out, name, data))
            }
            Self::Event(event) => record(out, kind::EVENT, |out| event.encode(out)),
            Self::Clock(clock) => record(out, kind::CLOCK, |out| {
                out.put_u64(clock.monotonic);
                out.put_option(clock.running);
                out.put_u64(clock.latency_min);
                out.put_option(clock.latency_max);
            }),
            Self::Info(part, last) => record(out, kind::INFO, |out| {
                out.put_u16(u16::from(*last));
                out.put_blob(part);
            }),
        }
    }

    /// Reads one record.
    ///
    /// # Errors
    /// [`WireError`]: the peer is at fault.
    pub fn decode(record: Record<'_>) -> Result<Self, WireError> {
        let mut reader = Reader::new(record.body);
        let message = match record.kind {
            kind::WELCOME => Self::Welcome(Welcome::decode(&mut reader)?),
            kind::REFUSED => {
                let code = RefusalCode::from_number(reader.u16()?);
                Self::Refused(code, reader.text("refusal", MAX_TEXT)?)
            }
            kind::ANNOUNCE => Self::Announce(decode_announce(&mut reader)?),
            kind::RETIRE => Self::Retire(reader.u64()?),
            kind::FRAME => Self::Frame(Frame::decode(&mut reader)?),
            kind::STICKY => {
                let (name, data) = decode_named(&mut reader)?;
                Self::Sticky(Sticky { name, data })
            }
            kind::EVENT => Self::Event(Event::decode(&mut reader)?),
            kind::CLOCK => Self::Clock(Clock {
                monotonic: reader.u64()?,
                running: reader.option_u64()?,
                latency_min: reader.u64()?,
                latency_max: reader.option_u64()?,
            }),
            kind::INFO => {
                let last = reader.u16()? & 1 != 0;
                Self::Info(reader.blob("info", MAX_INFO_PART)?.to_vec(), last)
            }
            other => return Err(WireError::Invalid { field: "message kind", value: other.into() }),
        };
        finished(&reader)?;
        Ok(message)
    }
}

fn finished(reader: &Reader<'_>) -> Result<(), WireError> {
    match reader.remaining() {
        0 => Ok(()),
        rest => Err(WireError::Trailing(rest)),
    }
}

impl Event {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_named(out, &self.name, &self.data);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let (name, data) = decode_named(reader)?;
        Ok(Self { name, data })
    }
}

fn encode_named(out: &mut Vec<u8>, name: &str, data: &[u8]) {
    out.put_blob(name.as_bytes());
    out.put_blob(data);
}

fn decode_named(reader: &mut Reader<'_>) -> Result<(String, Vec<u8>), WireError> {
    let name = reader.text("event name", MAX_NAME)?;
    Ok((name, reader.blob("event", MAX_EVENT_BYTES)?.to_vec()))
}

fn decode_announce(reader: &mut Reader<'_>) -> Result<Announce, WireError> {
    let (buffer, size) = (reader.u64()?, reader.u64()?);
    if size == 0 {
        return Err(WireError::Invalid { field: "buffer size", value: size });
    }
    if size > MAX_BUFFER_BYTES {
        return Err(WireError::OverLimit { field: "buffer size", value: size, limit: MAX_BUFFER_BYTES });
    }
    let face = match reader.u16()? {
        0 => Face::Memory,
        1 => Face::DmaBuf,
        value => return Err(WireError::Invalid { field: "face", value: value.into() }),
    };
    Ok(Announce { buffer, size, face })
}
