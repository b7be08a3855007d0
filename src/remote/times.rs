//! Times of another host's `CLOCK_MONOTONIC`, brought to ours.

use pagecast_ipc::wire::{Clock, PacketBuilder, Packets, Times, ToSubscriber};
use pagecast_remote::PeerFault;
use pagecast_remote::clock::Estimate;

use super::egress::{encoded, raw};

/// A frame's times here. What cannot be brought here is not known.
pub(super) fn times(times: &mut Times, estimate: Option<Estimate>) {
    let ours = |theirs: u64| estimate.and_then(|estimate| estimate.to_ours(theirs));
    times.captured = times.captured.and_then(ours);
    times.published = times.published.and_then(ours);
}

/// The publisher's clock here.
pub(super) fn clock(clock: Clock, estimate: Estimate) -> Option<Clock> {
    Some(Clock { monotonic: estimate.to_ours(clock.monotonic)?, ..clock })
}

/// A packet without the clocks in it, the last of which is returned.
pub(super) fn take_clock(packet: Vec<u8>) -> Result<(Vec<u8>, Option<Clock>), PeerFault> {
    let mut last = None;
    let mut rest = PacketBuilder::default();
    let mut packets = Packets::open(&packet)?;
    while let Some(record) = packets.next_record()? {
        match ToSubscriber::decode(record)? {
            ToSubscriber::Clock(clock) => last = Some(clock),
            _ => rest.push(&raw(record)),
        }
    }
    match last {
        None => Ok((packet, None)),
        Some(_) if rest.is_empty() => Ok((Vec::new(), last)),
        Some(_) => Ok((rest.bytes(packets.epoch()), last)),
    }
}

/// A packet that says the clock.
pub(super) fn say(clock: Clock, epoch: u32) -> Vec<u8> {
    let mut packet = PacketBuilder::default();
    packet.push(&encoded(&ToSubscriber::Clock(clock)));
    packet.bytes(epoch)
}

#[cfg(test)]
mod tests {
    use pagecast_ipc::wire::{Event, ToPublisher};

    use super::*;

    fn estimate(offset: i128) -> Option<Estimate> {
        Some(Estimate { offset, ..Estimate::default() })
    }

    fn clock_at(monotonic: u64) -> Clock {
        Clock { monotonic, running: Some(5), latency_min: 6, latency_max: None }
    }

    #[test]
    fn times_of_the_clock_are_brought_here_and_others_stay() {
        let all = Times {
            pts: Some(1),
            dts: Some(2),
            duration: Some(3),
            running: Some(4),
            captured: Some(1005),
            published: Some(1006),
        };
        let mut here = all;
        times(&mut here, estimate(1000));
        assert_eq!(here, Times { captured: Some(5), published: Some(6), ..all });
        let mut here = all;
        times(&mut here, None);
        assert_eq!(here, Times { captured: None, published: None, ..all }, "better none than a wrong one");
        let mut here = all;
        times(&mut here, estimate(1006));
        assert_eq!(here, Times { captured: None, published: Some(0), ..all });
        assert_eq!(
            clock(clock_at(3000), Estimate { offset: -50, ..Estimate::default() }),
            Some(clock_at(3050))
        );
    }

    #[test]
    fn the_last_clock_is_taken_out_of_a_packet_and_the_rest_stays_in_order() {
        let event = |name: &str| ToSubscriber::Event(Event { name: name.to_owned(), data: vec![1] });
        let packet = |messages: &[ToSubscriber]| {
            let mut packet = PacketBuilder::default();
            messages.iter().for_each(|message| packet.push(&encoded(message)));
            packet.bytes(7)
        };
        let mixed = packet(&[event("a"), ToSubscriber::Clock(clock_at(1)), event("b")]);
        assert_eq!(take_clock(mixed), Ok((packet(&[event("a"), event("b")]), Some(clock_at(1)))));
        let plain = packet(&[event("a")]);
        assert_eq!(take_clock(plain.clone()), Ok((plain, None)));
        assert_eq!(take_clock(say(clock_at(9), 7)), Ok((Vec::new(), Some(clock_at(9)))));
        assert!(take_clock(super::super::egress::packet(7, &ToPublisher::Bye)).is_err());
    }
}
