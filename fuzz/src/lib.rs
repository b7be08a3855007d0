//! What must hold for every message that a decoder accepts: it survives its own encoding.
#![forbid(unsafe_code)]

use pagecast_ipc::wire::limits::MAX_PACKET;
use pagecast_ipc::wire::{PACKET_HEADER, Packets, Record, ToPublisher, ToSubscriber, packet_header};

/// Decodes `record` as a publisher does; an accepted message decodes to itself again.
pub fn to_publisher(record: Record<'_>) {
    if let Ok(message) = ToPublisher::decode(record) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        assert_eq!(reopen(&bytes, ToPublisher::decode), message);
    }
}

/// Decodes `record` as a subscriber does; an accepted message decodes to itself again.
pub fn to_subscriber(record: Record<'_>) {
    if let Ok(message) = ToSubscriber::decode(record) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        assert_eq!(reopen(&bytes, ToSubscriber::decode), message);
    }
}

/// Starts GStreamer. Its own parser complains about most of what is made up here, and refuses it: not shown.
pub fn start_gstreamer() {
    gst::glib::log_set_default_handler(|_, _, _| ());
    gst::init().expect("GStreamer");
}

/// The kind in the first two bytes, the rest as the body: reaches every decoder without a packet around it.
pub fn bare_record(data: &[u8]) -> Option<Record<'_>> {
    let (kind, body) = data.split_first_chunk::<2>()?;
    (body.len() <= MAX_PACKET / 2).then_some(Record { kind: u16::from_le_bytes(*kind), body })
}

/// Puts one encoded record into a packet and decodes it.
fn reopen<M, E: std::fmt::Debug>(record: &[u8], decode: impl Fn(Record<'_>) -> Result<M, E>) -> M {
    let mut packet = packet_header(7, 1, record.len()).to_vec();
    assert_eq!(packet.len(), PACKET_HEADER);
    packet.extend_from_slice(record);
    let mut records = Packets::open(&packet).expect("our own packet");
    assert_eq!(records.epoch(), 7);
    let record = records.next_record().expect("our own record").expect("one record");
    let message = decode(record).expect("our own message");
    assert!(records.next_record().expect("the end").is_none());
    message
}
