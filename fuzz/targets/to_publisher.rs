//! One record as a publisher gets it.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Some(record) = pagecast_fuzz::bare_record(data) {
        pagecast_fuzz::to_publisher(record);
    }
});
