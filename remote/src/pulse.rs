//! Heartbeats: when to send one, when a peer is dead, how far away it is, and how its clock stands.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use crate::PeerFault;
use crate::clock::{Estimate, Estimator, Exchange};
use crate::limits::{AWAY, DEAD, FIRST_BEAT, HEARTBEAT, MAX_BEATS, MAX_BEATS_A_SECOND};

/// What a heartbeat says; nanoseconds of each end's own `CLOCK_MONOTONIC`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beat {
    /// When it was sent.
    pub sent: u64,
    /// `sent` of the last heartbeat that was received; 0 where there was none.
    pub echo: u64,
    /// For how long that one had been here when this was sent.
    pub kept: u64,
}

/// How long a message takes there and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundTrip {
    /// As last measured.
    pub last: Duration,
    /// The least so far.
    pub least: Duration,
}

/// Which of the two ends it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The subscriber's, which wants to know the other's clock.
    Asks,
    /// The publisher's, which answers each heartbeat at once: the shorter it is kept, the less clocks drift meanwhile.
    Answers,
}

/// The state of one end.
#[derive(Debug)]
pub struct Pulse {
    start: Instant,
    /// `CLOCK_MONOTONIC` at that moment.
    clock: u64,
    heard: Instant,
    /// When this end last looked whether something was heard.
    looked: Instant,
    /// Whether this silence was made longer because this end was away.
    excused: bool,
    /// When the next heartbeat is due, and the pause after it.
    next: Instant,
    pause: Duration,
    /// The last heartbeat's time of the peer, and when it came.
    theirs: Option<(u64, Instant)>,
    role: Role,
    round_trip: Option<RoundTrip>,
    estimator: Estimator,
    /// When the peer was last seen to say something else, or nothing more; its heartbeats since.
    calm: Instant,
    beats: u64,
}

impl Pulse {
    /// A link that begins now, when `CLOCK_MONOTONIC` is `clock` nanoseconds.
    pub fn new(role: Role, now: Instant, clock: u64) -> Self {
        Self {
            role,
            start: now,
            clock,
            heard: now,
            looked: now,
            excused: false,
            next: now,
            pause: FIRST_BEAT,
            theirs: None,
            round_trip: None,
            estimator: Estimator::default(),
            calm: now,
            beats: 0,
        }
    }

    /// Something was heard.
    pub fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.excused = false;
    }

    /// When to look again: a heartbeat is due, or the peer is dead.
    pub fn next_look(&self) -> Instant {
        self.next.min(self.heard + DEAD)
    }

    /// A heartbeat, if one is due: the first at once, the next ones soon, so that much is known early, and then one each
    /// [`HEARTBEAT`].
    pub fn due(&mut self, now: Instant) -> Option<Beat> {
        if now < self.next {
            return None;
        }
        self.next = now + self.pause;
        self.pause = (self.pause * 2).min(HEARTBEAT);
        let (echo, kept) = self.theirs.map_or((0, 0), |(sent, at)| (sent, nanos(now - at)));
        Some(Beat { sent: self.clock_at(now).max(1), echo, kept })
    }

    /// All that is here was read, or something else than a heartbeat came.
    pub fn calm(&mut self, now: Instant) {
        (self.calm, self.beats) = (now, 0);
    }

    /// A heartbeat came.
    ///
    /// # Errors
    /// [`PeerFault::OverLimit`]: more of them came in a row than an honest peer sends, also to an end that did not read for a
    /// while.
    pub fn took(&mut self, beat: Beat, now: Instant) -> Result<(), PeerFault> {
        self.beats += 1;
        let limit = MAX_BEATS + MAX_BEATS_A_SECOND * now.saturating_duration_since(self.calm).as_secs();
        if self.beats > limit {
            return Err(PeerFault::OverLimit { what: "heartbeats in a row", value: self.beats, limit });
        }
        self.note(beat, now);
        Ok(())
    }

    fn note(&mut self, beat: Beat, now: Instant) {
        let first = self.theirs.replace((beat.sent, now)).is_none();
        if first || self.role == Role::Answers {
            self.next = now;
        }
        if beat.echo == 0 {
            return;
        }
        let arrived_there = beat.sent.checked_sub(beat.kept);
        let arrived = self.clock_at(now);
        let exchange = arrived_there.map(|arrived_there| Exchange {
            left: beat.echo,
            arrived_there,
            left_there: beat.sent,
            arrived,
        });
        // What a peer says may be wrong: a round trip that cannot be is none. Nor was anything sent before the link.
        let possible = exchange.filter(|exchange| exchange.left >= self.clock);
        if let Some((exchange, last)) = possible.and_then(|e| e.round_trip().map(|last| (e, last))) {
            let least = self.round_trip.map_or(last, |known| known.least.min(last));
            self.round_trip = Some(RoundTrip { last, least });
            self.estimator.add(&exchange);
        }
    }

    /// Whether nothing was heard for too long. While this end did not look it may have been stopped, with its whole host, as
    /// a guest may be: what passed then is not held against the other, once in a silence.
    pub fn is_dead(&mut self, now: Instant) -> bool {
        let away = now.saturating_duration_since(self.looked);
        self.looked = now;
        if away > AWAY && !self.excused {
            self.heard = (self.heard + away).min(now);
            self.excused = true;
        }
        now >= self.heard + DEAD
    }

    /// How long a message takes there and back; `None` before it was measured.
    pub fn round_trip(&self) -> Option<RoundTrip> {
        self.round_trip
    }

    /// How the peer's clock stands; `None` before that is known.
    pub fn clock(&self, now: Instant) -> Option<Estimate> {
        self.estimator.estimate(self.clock_at(now))
    }

    fn clock_at(&self, now: Instant) -> u64 {
        self.clock.saturating_add(nanos(now.saturating_duration_since(self.start)))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOCK: u64 = 7_000_000_000;

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn heartbeats_begin_at_once_and_become_rare() {
        let start = Instant::now();
        let mut pulse = Pulse::new(Role::Asks, start, CLOCK);
        let mut sent = Vec::new();
        for passed in 0..4000 {
            if pulse.due(start + ms(passed)).is_some() {
                sent.push(passed);
                assert_eq!(pulse.due(start + ms(passed)), None, "one at a time");
            }
        }
        assert_eq!(sent[..3], [0, 10, 30]);
        let last = sent.last().copied().unwrap();
        assert!(sent.len() < 12 && sent.contains(&(last - HEARTBEAT.as_millis() as u64)), "{sent:?}");
        assert_eq!(pulse.next_look(), start + ms(last) + HEARTBEAT.min(DEAD - ms(last)));
    }

    #[test]
    fn a_peer_is_dead_at_the_limit_and_not_before() {
        let start = Instant::now();
        let mut pulse = Pulse::new(Role::Asks, start, CLOCK);
        for passed in 0..DEAD.as_millis() as u64 {
            assert!(!pulse.is_dead(start + ms(passed)));
        }
        assert!(!pulse.is_dead(start + DEAD - Duration::from_nanos(1)));
        assert!(pulse.is_dead(start + DEAD));
        pulse.heard(start + DEAD);
        assert!(!pulse.is_dead(start + DEAD));
    }

    #[test]
    fn who_was_away_itself_waits_once_more() {
        let start = Instant::now();
        let mut pulse = Pulse::new(Role::Asks, start, CLOCK);
        let back = start + ms(3_600_000);
        assert!(!pulse.is_dead(back), "it was away, too");
        for passed in 0..DEAD.as_millis() as u64 {
            assert!(!pulse.is_dead(back + ms(passed)));
        }
        assert!(pulse.is_dead(back + DEAD));
        let again = back + DEAD;
        pulse.heard(again);
        assert!(!pulse.is_dead(again + 2 * DEAD));
        assert!(pulse.is_dead(again + 3 * DEAD), "who is always away still sees the end");
    }

    #[test]
    fn the_round_trip_leaves_out_what_the_peer_kept() {
        let start = Instant::now();
        let (mut near, mut far) =
            (Pulse::new(Role::Asks, start, CLOCK), Pulse::new(Role::Answers, start + ms(2), 100 * CLOCK));
        let beat = near.due(start + ms(1000)).unwrap();
        far.took(beat, start + ms(1010)).unwrap();
        let answer = far.due(start + ms(1500)).unwrap();
        near.took(answer, start + ms(1510)).unwrap();
        assert_eq!(near.round_trip(), Some(RoundTrip { last: ms(20), least: ms(20) }));
        let estimate = near.clock(start + ms(1510)).unwrap();
        let truth = 99 * i128::from(CLOCK) - 2_000_000;
        let drifted = 510_000_000 * 200 / 1_000_000 / 2;
        assert_eq!(
            (estimate.offset - drifted, estimate.uncertainty),
            (truth, ms(10) + Duration::from_micros(51))
        );
    }

    #[test]
    fn what_cannot_be_is_not_believed() {
        let start = Instant::now();
        let mut pulse = Pulse::new(Role::Asks, start, CLOCK);
        let now = start + ms(50);
        for (sent, echo, kept) in [
            (1, u64::MAX, 0),
            (1, CLOCK, u64::MAX),
            (5, CLOCK, 6),
            (9, CLOCK - 1, 0),
            (u64::MAX, CLOCK, u64::MAX),
        ] {
            pulse.took(Beat { sent, echo, kept }, now).unwrap();
        }
        assert_eq!((pulse.round_trip(), pulse.clock(now)), (None, None));
    }

    #[test]
    fn a_flood_of_heartbeats_ends_at_the_limit_and_who_did_not_read_is_not_flooded() {
        let start = Instant::now();
        let beat = Beat { sent: 1, echo: 0, kept: 0 };
        let flood =
            |pulse: &mut Pulse, now| (0..10_000).take_while(|_| pulse.took(beat, now).is_ok()).count() as u64;
        let mut pulse = Pulse::new(Role::Asks, start, CLOCK);
        assert_eq!(flood(&mut pulse, start), MAX_BEATS);
        pulse.calm(start);
        assert_eq!(flood(&mut pulse, start), MAX_BEATS);
        // An hour's heartbeats of an honest peer, which sends one a second and answers each of ours.
        pulse.calm(start);
        let later = start + ms(3_600_000);
        assert!((0..2 * 3600).all(|_| pulse.took(beat, later).is_ok()));
        pulse.calm(later);
        assert_eq!(flood(&mut pulse, later), MAX_BEATS);
    }

    #[test]
    fn who_has_just_begun_is_answered_at_once_and_a_publisher_answers_always() {
        let start = Instant::now();
        let mut pulse = Pulse::new(Role::Asks, start, CLOCK);
        assert!(pulse.due(start).is_some());
        pulse.took(Beat { sent: 1, echo: 0, kept: 0 }, start + ms(1)).unwrap();
        assert_eq!(pulse.due(start + ms(1)).map(|beat| beat.echo), Some(1));
        pulse.took(Beat { sent: 2, echo: 0, kept: 0 }, start + ms(2)).unwrap();
        assert_eq!(pulse.due(start + ms(2)), None);
        let mut pulse = Pulse::new(Role::Answers, start, CLOCK);
        for passed in 1..100 {
            pulse.calm(start + ms(passed));
            pulse.took(Beat { sent: passed, echo: 0, kept: 0 }, start + ms(passed)).unwrap();
            assert!(pulse.due(start + ms(passed)).is_some());
            assert_eq!(pulse.due(start + ms(passed)), None);
        }
    }
}
