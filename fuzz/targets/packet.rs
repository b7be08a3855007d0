//! Whole packets, as they come from a socket, in both directions.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pagecast_ipc::wire::Packets;

fuzz_target!(|data: &[u8]| {
    let Ok(mut records) = Packets::open(data) else { return };
    while let Ok(Some(record)) = records.next_record() {
        pagecast_fuzz::to_publisher(record);
        pagecast_fuzz::to_subscriber(record);
    }
});
