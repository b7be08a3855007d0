//! Times under clocks that drift, jump and stop.

use super::*;

const MS: u64 = 1_000_000;
const S: u64 = 1_000_000_000;
const FRAME: u64 = S / 50;

/// A pipeline whose clock runs at its own rate: running time 0 is at `begins` on `CLOCK_MONOTONIC`.
#[derive(Clone, Copy)]
struct Pipeline {
    begins: u64,
    ppm: i64,
}

impl Pipeline {
    fn running_at(self, monotonic: u64) -> u64 {
        let since = (monotonic - self.begins) as i128;
        (since + since * i128::from(self.ppm) / 1_000_000) as u64
    }

    fn monotonic_at(self, running: u64) -> u64 {
        self.begins + (i128::from(running) * 1_000_000 / i128::from(1_000_000 + self.ppm)) as u64
    }

    fn pair(self, monotonic: u64) -> Pair {
        Pair { monotonic, running: self.running_at(monotonic) }
    }

    fn clock(self, monotonic: u64, latency_min: u64) -> Clock {
        Clock { monotonic, running: Some(self.running_at(monotonic)), latency_min, latency_max: None }
    }
}

fn frame(running: u64) -> Times {
    Times { pts: Some(running + 77 * S), running: Some(running), duration: Some(FRAME), ..Times::default() }
}

/// The largest error over a minute of frames with pairs once a second at both ends.
fn worst(publisher: Pipeline, consumer: Pipeline, latency: u64) -> u64 {
    let mut timeline = Timeline::default();
    let begins = 1000 * S;
    timeline.play(consumer.pair(begins));
    timeline.publisher(&publisher.clock(begins, latency));
    let mut worst = 0;
    for n in 0..3000 {
        let now = begins + n * FRAME;
        if n % 50 == 7 {
            timeline.publisher(&publisher.clock(now, latency));
        }
        if n % 50 == 29 {
            timeline.follow(consumer.pair(now));
        }
        let running = publisher.running_at(now);
        let stamp = timeline.stamp(&frame(running), now, 0);
        let expected = consumer.running_at(publisher.monotonic_at(running) + latency);
        // In the first seconds no rate is known.
        if n > 150 {
            worst = worst.max(stamp.pts.unwrap().abs_diff(expected));
        }
    }
    worst
}

#[test]
fn system_clocks_agree_to_a_microsecond() {
    let publisher = Pipeline { begins: 100 * S, ppm: 0 };
    let consumer = Pipeline { begins: 990 * S, ppm: 0 };
    assert!(worst(publisher, consumer, 0) <= 1_000);
    assert!(worst(publisher, consumer, 40 * MS) <= 1_000);
}

#[test]
fn clocks_that_drift_are_followed() {
    for (here, there) in [(500, -500), (-2000, 300), (0, 5000), (5000, 0)] {
        let publisher = Pipeline { begins: 100 * S, ppm: there };
        let consumer = Pipeline { begins: 990 * S, ppm: here };
        let worst = worst(publisher, consumer, 30 * MS);
        assert!(worst <= 20_000, "{here} and {there} ppm: {worst} ns off");
    }
}

#[test]
fn without_following_the_drift_would_show() {
    let publisher = Pipeline { begins: 1000 * S, ppm: 500 };
    let consumer = Pipeline { begins: 1000 * S, ppm: 0 };
    let mut timeline = Timeline::default();
    timeline.play(consumer.pair(1000 * S));
    timeline.publisher(&publisher.clock(1000 * S, 0));
    let now = 1060 * S;
    let stamp = timeline.stamp(&frame(publisher.running_at(now)), now, 0);
    assert!(stamp.pts.unwrap().abs_diff(60 * S) > 20 * MS, "a minute at 500 ppm is 30 ms");
}

#[test]
fn the_publishers_latency_is_added_once() {
    let both = Pipeline { begins: S, ppm: 0 };
    let mut timeline = Timeline::default();
    timeline.play(both.pair(2 * S));
    timeline.publisher(&both.clock(2 * S, 300 * MS));
    assert_eq!(timeline.stamp(&frame(S), 3 * S, 0).pts, Some(S + 300 * MS));
}

#[test]
fn decoding_times_keep_their_distance() {
    let both = Pipeline { begins: S, ppm: 0 };
    let mut timeline = Timeline::default();
    timeline.play(both.pair(2 * S));
    timeline.publisher(&both.clock(2 * S, 0));
    let times = Times { dts: Some(77 * S + 960 * MS), ..frame(S) };
    let stamp = timeline.stamp(&times, 3 * S, 0);
    assert_eq!(stamp, Stamp { pts: Some(S), dts: Some(960 * MS) });
    // A frame that is shown later than it is decoded, before any running time: not below zero.
    let early = Times { running: Some(0), pts: Some(77 * S), dts: Some(76 * S), ..Times::default() };
    assert_eq!(timeline.stamp(&early, 3 * S, 0), Stamp { pts: Some(0), dts: Some(0) });
    let only_decoded = Times { running: Some(S), dts: Some(78 * S), ..Times::default() };
    assert_eq!(timeline.stamp(&only_decoded, 3 * S, 0), Stamp { pts: None, dts: Some(S) });
}

#[test]
fn without_running_time_capture_publication_and_arrival_count() {
    let here = Pipeline { begins: S, ppm: 0 };
    let mut timeline = Timeline::default();
    timeline.play(here.pair(2 * S));
    let mut times = Times { captured: Some(3 * S), published: Some(4 * S), ..Times::default() };
    assert_eq!(timeline.stamp(&times, 5 * S, 0).pts, Some(2 * S));
    times.captured = None;
    assert_eq!(timeline.stamp(&times, 5 * S, 0).pts, Some(3 * S));
    times.published = None;
    assert_eq!(timeline.stamp(&times, 5 * S, 0).pts, Some(4 * S));
}

#[test]
fn frames_before_playing_begin_where_the_pipeline_stands() {
    let publisher = Pipeline { begins: S, ppm: 0 };
    let mut timeline = Timeline::default();
    timeline.publisher(&publisher.clock(9 * S, 0));
    assert_eq!(timeline.stamp(&frame(8 * S), 9 * S, 0).pts, Some(0));
    assert_eq!(timeline.stamp(&frame(8 * S + FRAME), 9 * S, 0).pts, Some(FRAME));
    // It plays from 10 s on: a frame of that moment goes on after those two, and so do all later ones.
    timeline.play(Pair { monotonic: 10 * S, running: 0 });
    assert_eq!(timeline.stamp(&frame(9 * S), 10 * S, 0).pts, Some(2 * FRAME));
    assert_eq!(timeline.stamp(&frame(10 * S), 11 * S, 0).pts, Some(S + 2 * FRAME));
    // After a pause running time goes on, however long the pause was.
    timeline.pause();
    timeline.play(Pair { monotonic: 100 * S, running: 5 * S });
    assert_eq!(timeline.stamp(&frame(99 * S), 100 * S, 0).pts, Some(5 * S));
}

#[test]
fn a_publisher_that_comes_again_does_not_turn_time_back() {
    let (first, second) = (Pipeline { begins: S, ppm: 0 }, Pipeline { begins: 50 * S, ppm: 0 });
    let mut timeline = Timeline::default();
    timeline.play(Pair { monotonic: 10 * S, running: 0 });
    timeline.publisher(&first.clock(10 * S, 0));
    assert_eq!(timeline.stamp(&frame(59 * S), 60 * S, 0).pts, Some(50 * S));
    timeline.forget_publisher();
    timeline.publisher(&second.clock(60 * S, 0));
    let stamp = timeline.stamp(&frame(10 * S + MS), 60 * S + MS, 0);
    assert_eq!(stamp.pts, Some(50 * S + FRAME), "not before the frame of before has ended");
    assert_eq!(timeline.stamp(&frame(20 * S), 70 * S, 0).pts, Some(60 * S + FRAME - MS));
}

#[test]
fn no_time_is_the_one_that_means_none() {
    let extremes = [0, 1, u64::MAX / 2, u64::MAX - 1];
    let ok = |time: Option<u64>| time != Some(u64::MAX);
    for said in 0..extremes.len().pow(5) {
        let value = |at: u32| extremes[said / extremes.len().pow(at) % extremes.len()];
        let mut timeline = Timeline::default();
        timeline.play(Pair { monotonic: 10 * S, running: S });
        timeline.publisher(&Clock {
            monotonic: value(0),
            running: Some(value(1)),
            latency_min: value(2),
            latency_max: None,
        });
        let strange = Times {
            running: Some(value(3)),
            pts: Some(value(4)),
            dts: Some(value(2)),
            duration: Some(value(0)),
            ..Times::default()
        };
        for life in 0..3 {
            let stamp = timeline.stamp(&strange, 11 * S, 0);
            assert!(ok(stamp.pts) && ok(stamp.dts), "{stamp:?} of {strange:?} in life {life}");
            timeline.play(Pair { monotonic: (12 + life) * S, running: S });
        }
        let mut course = Course::default();
        course.shift(value(1), false, value(2));
        course.passed(value(3), value(4));
        assert!(ok(course.end));
    }
}

#[test]
fn a_clock_that_was_set_is_not_taken_for_drift() {
    let mut followed = Followed::start(Pair { monotonic: S, running: S });
    followed.update(Pair { monotonic: 2 * S, running: 9 * S });
    assert_eq!(followed.running_at(3 * S), i128::from(10 * S));
    // Two pairs at once say nothing of the rate.
    followed.update(Pair { monotonic: 2 * S + 1, running: 9 * S + 3 });
    assert_eq!(followed.running_at(3 * S), i128::from(10 * S));
}

#[test]
fn a_stream_seen_from_its_first_frame_keeps_its_times() {
    let mut course = Course::default();
    assert_eq!(course.shift(3 * S, true, 0), 0);
    assert_eq!(course.shift(4 * S, false, 10 * S), 0, "a life is shifted once");
}

#[test]
fn who_comes_late_sees_frames_at_once() {
    let mut course = Course::default();
    assert_eq!(course.shift(60 * S, false, 0), -(60 * S as i64));
    let mut course = Course::default();
    assert_eq!(course.shift(60 * S, false, 90 * S), 30 * S as i64, "the pipeline runs already");
}

#[test]
fn the_next_life_goes_on_where_the_last_ended() {
    let mut course = Course::default();
    course.shift(0, true, 0);
    course.passed(4 * S, FRAME);
    course.restart();
    assert!(!course.is_settled());
    assert_eq!(course.shift(0, true, S), (4 * S + FRAME) as i64);
    course.passed(S, FRAME);
    course.restart();
    assert_eq!(course.shift(0, true, 20 * S), 20 * S as i64, "the pipeline waited in between");
    course.reset();
    assert_eq!(course.shift(0, true, 20 * S), 0);
}
