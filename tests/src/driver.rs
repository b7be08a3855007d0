//! A camera's buffers as the kernel's V4L2 core sees them, whoever captures. Needs root, as in the testbed.

use std::fs;
use std::time::Duration;

use crate::tracing::{mount, path, write};

const EVENTS: [&str; 2] = ["events/vb2/vb2_dqbuf/enable", "events/v4l2/v4l2_dqbuf/enable"];

/// A buffer that somebody took from the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dequeued {
    /// The driver's number of the picture.
    pub sequence: u64,
    /// Buffers that the driver had left.
    pub left: u64,
}

/// Pictures that are missing between these.
pub fn missed(taken: &[Dequeued]) -> u64 {
    taken.windows(2).map(|pair| pair[1].sequence.saturating_sub(pair[0].sequence + 1)).sum()
}

/// The fewest buffers that the driver had left.
///
/// # Panics
/// If nothing was taken.
pub fn fewest(taken: &[Dequeued]) -> u64 {
    taken.iter().map(|one| one.left).min().expect("something was taken")
}

/// The kernel writes down every buffer that is taken from a camera's driver until this is dropped. One at a time on a
/// machine.
#[derive(Debug)]
pub struct DriverTrace(());

impl DriverTrace {
    /// Begins to write down.
    ///
    /// # Panics
    /// If the kernel cannot, or does not let us.
    pub fn begin() -> Self {
        mount();
        write("trace", "");
        EVENTS.iter().for_each(|event| write(event, "1"));
        Self(())
    }

    /// What was taken so far, in order.
    ///
    /// # Panics
    /// If the kernel does not say, or has forgotten some.
    pub fn taken(&self) -> Vec<Dequeued> {
        let text = whole();
        let mut left = None;
        let mut taken = Vec::new();
        for line in text.lines() {
            if line.contains(": vb2_dqbuf: ") {
                left = number(line, " queued = ");
            } else if line.contains(": v4l2_dqbuf: ") {
                let sequence = number(line, " sequence = ").expect("a sequence number");
                // The first line of the pair is of the time before.
                taken.extend(left.take().map(|left| Dequeued { sequence, left }));
            }
        }
        taken
    }
}

/// The trace. While the kernel writes, a reader may be told that something was lost that is there when it reads again; what
/// was overwritten stays lost.
fn whole() -> String {
    let mut text = String::new();
    for _ in 0..10 {
        text = fs::read_to_string(path("trace")).expect("the trace");
        if !text.contains("LOST") {
            return text;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let lost = text.lines().find(|line| line.contains("LOST"));
    panic!("the kernel has forgotten some: {lost:?} of {} lines", text.lines().count());
}

fn number(line: &str, name: &str) -> Option<u64> {
    let rest = line.split(name).nth(1)?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

impl Drop for DriverTrace {
    fn drop(&mut self) {
        EVENTS.iter().for_each(|event| write(event, "0"));
        write("trace", "");
    }
}
