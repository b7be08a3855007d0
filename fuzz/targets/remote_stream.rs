//! What comes over a remote link: items, however the bytes are cut, and frames that are checked.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pagecast_remote::framing::{Cut, Item, Kind, Splitter, kind_of};
use pagecast_remote::limits::MAX_FRAME_BYTES;

/// The items at the front of `bytes`, where each ends, and whether the rest is wrong.
fn items(bytes: &[u8]) -> (Vec<usize>, bool) {
    let (mut splitter, mut ends, mut at) = (Splitter::default(), Vec::new(), 0);
    loop {
        match splitter.cut(&bytes[at..]) {
            Ok(Cut::Item(item, taken)) => {
                assert!(taken > 0 && at + taken <= bytes.len());
                at += taken;
                ends.push(at);
                let Item::Packet(packet) = item else { continue };
                if let Ok(Kind::Frame { frame, .. }) = kind_of(packet) {
                    assert!(frame.size() <= MAX_FRAME_BYTES);
                }
            }
            Ok(Cut::Need(more)) => {
                assert!(more > bytes.len() - at, "it asks for what is there");
                return (ends, false);
            }
            Err(_) => return (ends, true),
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let (ends, wrong) = items(bytes);
    // Less of it: the same items as far as they are whole, and nothing wrong that was right.
    let half = bytes.len() / 2;
    let (early, early_wrong) = items(&bytes[..half]);
    let whole = ends.iter().take_while(|end| **end <= half).count();
    assert_eq!(early, ends[..whole]);
    assert!(wrong || !early_wrong);
});
