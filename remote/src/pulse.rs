//! Heartbeats: when to send one, when a peer is dead, and how far away it is.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use crate::limits::{DEAD, HEARTBEAT};

/// What a heartbeat says; nanoseconds of each end's own clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beat {
    /// When it was sent.
    pub sent: u64,
    /// `sent` of the last heartbeat that was received; 0 where there was none.
    pub echo: u64,
    /// For how long that one had been here when this was sent.
    pub kept: u64,
}

/// The state of one end.
#[derive(Debug)]
pub struct Pulse {
    start: Instant,
    sent: Instant,
    heard: Instant,
    /// The last heartbeat's time of the peer, and when it came.
    theirs: Option<(u64, Instant)>,
    round_trip: Option<Duration>,
}

impl Pulse {
    /// A link that begins now.
    pub fn new(now: Instant) -> Self {
        Self { start: now, sent: now, heard: now, theirs: None, round_trip: None }
    }

    /// Something was sent.
    pub fn sent(&mut self, now: Instant) {
        self.sent = now;
    }

    /// Something was heard.
    pub fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// When to look again: a heartbeat is due, or the peer is dead.
    pub fn next_look(&self) -> Instant {
        (self.sent + HEARTBEAT).min(self.heard + DEAD)
    }

    /// A heartbeat, if one is due.
    pub fn due(&mut self, now: Instant) -> Option<Beat> {
        if now < self.sent + HEARTBEAT {
            return None;
        }
        self.sent = now;
        let nanos = |duration: Duration| duration.as_nanos() as u64;
        let (echo, kept) = self.theirs.map_or((0, 0), |(sent, at)| (sent, nanos(now - at)));
        Some(Beat { sent: nanos(now - self.start).max(1), echo, kept })
    }

    /// A heartbeat came.
    pub fn took(&mut self, beat: Beat, now: Instant) {
        self.theirs = Some((beat.sent, now));
        let since = (now - self.start).as_nanos() as u64;
        // What a peer says may be wrong: a round trip that cannot be is none.
        if beat.echo > 0
            && let Some(round_trip) = since.checked_sub(beat.echo).and_then(|t| t.checked_sub(beat.kept))
        {
            self.round_trip = Some(Duration::from_nanos(round_trip));
        }
    }

    /// Whether nothing was heard for too long.
    pub fn is_dead(&self, now: Instant) -> bool {
        now >= self.heard + DEAD
    }

    /// How long a message takes there and back, as last measured.
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_end_sends_heartbeats_and_a_busy_one_does_not() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start);
        assert_eq!(pulse.due(start + HEARTBEAT - Duration::from_nanos(1)), None);
        assert!(pulse.due(start + HEARTBEAT).is_some());
        assert_eq!(pulse.due(start + HEARTBEAT), None);
        pulse.sent(start + 2 * HEARTBEAT);
        assert_eq!(pulse.due(start + 2 * HEARTBEAT), None);
        assert_eq!(pulse.next_look(), start + 3 * HEARTBEAT);
    }

    #[test]
    fn a_peer_is_dead_at_the_limit_and_not_before() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start);
        assert!(!pulse.is_dead(start + DEAD - Duration::from_nanos(1)));
        assert!(pulse.is_dead(start + DEAD));
        pulse.heard(start + DEAD);
        assert!(!pulse.is_dead(start + DEAD));
    }

    #[test]
    fn the_round_trip_leaves_out_what_the_peer_kept() {
        let start = Instant::now();
        let (mut near, mut far) = (Pulse::new(start), Pulse::new(start + Duration::from_secs(100)));
        let ms = Duration::from_millis;
        let beat = near.due(start + ms(1000)).unwrap();
        far.took(beat, start + ms(1010));
        let answer = far.due(start + ms(101_500)).unwrap();
        near.took(answer, start + ms(101_510));
        assert_eq!(near.round_trip(), Some(ms(20)));
        near.took(Beat { sent: 1, echo: u64::MAX, kept: 0 }, start + ms(102_000));
        near.took(Beat { sent: 1, echo: 1, kept: u64::MAX }, start + ms(102_000));
        assert_eq!(near.round_trip(), Some(ms(20)), "what cannot be is not believed");
    }
}
