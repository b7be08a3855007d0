//! What a peer says on the control connection of an RDMA link, and before a link is decided.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pagecast_ipc::wire::limits::MAX_PACKET;
use pagecast_remote::opening::wire::{ANSWER, Answer, OFFER, Offer};
use pagecast_remote::rdma::wire::{Message, PREAMBLE, Splitter};

/// Where the messages at the front of `bytes` end, and whether the rest is wrong.
fn messages(bytes: &[u8]) -> (Vec<usize>, bool) {
    let (mut splitter, mut ends, mut at) = (Splitter::default(), Vec::new(), 0);
    loop {
        match splitter.cut(&bytes[at..]) {
            Ok(Some((message, taken))) => {
                assert!(taken > 0 && at + taken <= bytes.len());
                if let Message::Packet(packet) = message {
                    assert!(packet.len() <= MAX_PACKET);
                }
                // One way to say it.
                let mut again = Vec::new();
                message.encode(&mut again);
                let start = if at == 0 { PREAMBLE } else { at };
                assert_eq!(again, bytes[start..at + taken]);
                at += taken;
                ends.push(at);
            }
            Ok(None) => return (ends, false),
            Err(_) => return (ends, true),
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let (ends, wrong) = messages(bytes);
    // Less of it: the same messages as far as they are whole, and nothing wrong that was right.
    let half = bytes.len() / 2;
    let (early, early_wrong) = messages(&bytes[..half]);
    let whole = ends.iter().take_while(|end| **end <= half).count();
    assert_eq!(early, ends[..whole]);
    assert!(wrong || !early_wrong);
    if let Some(bytes) = bytes.first_chunk::<OFFER>()
        && let Ok(offer) = Offer::from_bytes(bytes)
    {
        assert_eq!(Offer::from_bytes(&offer.to_bytes()), Ok(offer));
    }
    if let Some(bytes) = bytes.first_chunk::<ANSWER>()
        && let Ok(answer) = Answer::from_bytes(bytes)
    {
        assert_eq!(answer.to_bytes(), *bytes);
    }
});
