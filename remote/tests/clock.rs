//! Another host's clock: whatever the network does, the truth lies within what is said of it.

use std::time::{Duration, Instant};

use pagecast_remote::clock::DRIFT_PPM;
use pagecast_remote::pulse::{Beat, Pulse, Role};
use proptest::prelude::*;

/// One step of a simulated link, in nanoseconds of true time.
#[derive(Clone, Copy, Debug)]
struct Step {
    pause: u64,
    there: u64,
    back: u64,
}

/// A clock that runs wrong by so many parts per million and began at `start`.
#[derive(Clone, Copy, Debug)]
struct Crystal {
    start: u64,
    ppm: i64,
}

impl Crystal {
    fn at(self, time: u64) -> u64 {
        self.start + (i128::from(time) * (1_000_000 + i128::from(self.ppm)) / 1_000_000) as u64
    }
}

/// An end with a clock of its own.
struct End {
    pulse: Pulse,
    crystal: Crystal,
    start: Instant,
}

impl End {
    fn new(role: Role, crystal: Crystal) -> Self {
        let start = Instant::now();
        Self { pulse: Pulse::new(role, start, crystal.start), crystal, start }
    }

    /// What its instants are at a moment of true time.
    fn instant(&self, time: u64) -> Instant {
        self.start + Duration::from_nanos(self.crystal.at(time) - self.crystal.start)
    }

    fn due(&mut self, time: u64) -> Option<Beat> {
        let now = self.instant(time);
        self.pulse.due(now)
    }

    fn took(&mut self, beat: Beat, time: u64) {
        let now = self.instant(time);
        self.pulse.took(beat, now).expect("few");
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0..3_000_000_000_u64, 0..50_000_000_u64, 0..50_000_000_u64);
    let step = step.prop_map(|(pause, there, back)| Step { pause, there, back });
    proptest::collection::vec(step, 1..40)
}

fn crystal() -> impl Strategy<Value = Crystal> {
    let most = (DRIFT_PPM / 2) as i64;
    // Less than half of what is allowed for, as rounding takes its part.
    (1..u64::MAX / 4, -most + 1..most).prop_map(|(start, ppm)| Crystal { start, ppm })
}

proptest! {
    #[test]
    fn the_truth_is_within_the_uncertainty(near in crystal(), far in crystal(), steps in steps(), tick in 0..200_u64) {
        let (mut asks, mut answers) = (End::new(Role::Asks, near), End::new(Role::Answers, far));
        let mut time = 1;
        for step in steps {
            time += step.pause;
            if let Some(beat) = asks.due(time) {
                time += step.there;
                answers.took(beat, time);
                // An answer may wait for the thread that gives it.
                time += tick;
                if let Some(beat) = answers.due(time) {
                    time += step.back;
                    asks.took(beat, time);
                }
            }
            if let Some(estimate) = asks.pulse.clock(asks.instant(time)) {
                let truth = i128::from(far.at(time)) - i128::from(near.at(time));
                let wrong = (estimate.offset - truth).unsigned_abs();
                // Crystals tick in whole nanoseconds here.
                prop_assert!(wrong <= estimate.uncertainty.as_nanos() + 3, "{wrong} {estimate:?}");
            }
        }
        // Who asks has an answer from the first exchange on, known as well as its way allows.
        prop_assert!(asks.pulse.clock(asks.instant(time)).is_some());
        let known = asks.pulse.round_trip().map(|known| known.least);
        prop_assert!(known.is_some_and(|least| least <= Duration::from_millis(101)));
    }

    /// The control: an estimate that says nothing of its uncertainty would be wrong.
    #[test]
    fn ways_of_different_length_shift_the_offset_and_the_uncertainty_says_so(slow in 1_000_000..50_000_000_u64) {
        let same = Crystal { start: 1_000, ppm: 0 };
        let (mut asks, mut answers) = (End::new(Role::Asks, same), End::new(Role::Answers, same));
        let beat = asks.due(1).expect("the first is due");
        answers.took(beat, 1);
        let beat = answers.due(1).expect("an answer is due");
        asks.took(beat, 1 + slow);
        let estimate = asks.pulse.clock(asks.instant(1 + slow)).expect("one exchange");
        prop_assert!(estimate.offset.unsigned_abs() >= u128::from(slow) / 2 - slow as u128 / 1000);
        prop_assert!(estimate.uncertainty.as_nanos() >= u128::from(slow) / 2);
    }

    #[test]
    fn nothing_that_a_peer_says_makes_it_stumble(beats in proptest::collection::vec(any::<(u64, u64, u64, u32)>(), 0..50)) {
        let start = Instant::now();
        let mut pulse = Pulse::new(Role::Answers, start, 1_000_000);
        let mut now = start;
        for (sent, echo, kept, pause) in beats {
            now += Duration::from_nanos(pause.into());
            let _ = pulse.took(Beat { sent, echo, kept }, now);
            // Some that may be believed.
            let _ = pulse.took(Beat { sent, echo: 1_000_000 + echo % 1_000_000, kept: kept % 1_000_000 }, now);
            let _ = (pulse.due(now), pulse.clock(now).map(|estimate| estimate.to_ours(sent)), pulse.next_look());
        }
    }
}
