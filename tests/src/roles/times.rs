//! `times`: tells what it makes of the publisher's times.

use pagecast::{Message, Subscriber, SubscriberOptions, clock};

use super::{Options, commands, say};

/// Says for each frame `frame NUMBER PUBLISHED CAPTURED UNCERTAINTY` and for each clock `clock MONOTONIC UNCERTAINTY`, all in
/// nanoseconds of its own clock, `-` for what it does not know. Command: `figures`, answered with JSON.
pub(super) fn run(uri: &str, _: &Options) {
    let subscriber = Subscriber::open(uri, SubscriberOptions::default()).expect("a subscriber");
    let commands = commands();
    say(&format!("now {}", clock::monotonic_ns()));
    loop {
        let message = subscriber.recv(Some(std::time::Duration::from_millis(20)));
        let uncertainty = or_dash(subscriber.clock_uncertainty().map(|known| known.as_nanos() as u64));
        match message {
            Ok(Message::Frame(frame)) => {
                let times = frame.description().times;
                let (published, captured) = (or_dash(times.published), or_dash(times.captured));
                let number = frame.description().offset.unwrap_or(u64::MAX);
                drop(frame);
                say(&format!("frame {number} {published} {captured} {uncertainty}"));
                say(&format!("ack {number}"));
            }
            Ok(Message::Clock(clock)) => say(&format!("clock {} {uncertainty}", clock.monotonic)),
            Ok(Message::Connected(_)) => say("connected"),
            _ => {}
        }
        for _ in commands.try_iter() {
            let figures = serde_json::to_string(&subscriber.figures()).expect("JSON");
            say(&format!("figures {figures}"));
        }
    }
}

fn or_dash(time: Option<u64>) -> String {
    time.map_or_else(|| "-".to_owned(), |time| time.to_string())
}
