//! Every limit of the protocol; a message beyond one is a fault of the peer.

/// The protocol version this build speaks.
pub const VERSION: u16 = 1;
/// The oldest version this build speaks.
pub const VERSION_MIN: u16 = 1;
/// Bytes in one packet, header included. Two of them fit the default socket buffer of Linux.
pub const MAX_PACKET: usize = 96 * 1024;
/// Records in one packet.
pub const MAX_RECORDS: usize = 256;
/// Segments of one frame.
pub const MAX_SEGMENTS: usize = 16;
/// Planes of one frame.
pub const MAX_PLANES: usize = 8;
/// Metas of one frame.
pub const MAX_METAS: usize = 64;
/// Bytes of all metas of one frame, names included.
pub const MAX_META_BYTES: usize = 64 * 1024;
/// Bytes of a name (of a link, event, sticky or meta).
pub const MAX_NAME: usize = 255;
/// Bytes of one event, sticky value or upstream request.
pub const MAX_EVENT_BYTES: usize = 64 * 1024;
/// Bytes of the text of a refusal or good-bye.
pub const MAX_TEXT: usize = 1024;
/// Frame ids in one return.
pub const MAX_RETURNS: usize = 1024;
/// Bytes of one information reply; it is cut into several records.
pub const MAX_INFO_PART: usize = 64 * 1024;
/// The size of one buffer, in bytes.
pub const MAX_BUFFER_BYTES: u64 = 4 << 30;
/// Buffers announced to one subscriber and not retired.
pub const MAX_BUFFERS: usize = 4096;
/// Sticky values of one stream.
pub const MAX_STICKIES: usize = 32;
