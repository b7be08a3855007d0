//! A camera's buffers as the kernel's V4L2 core sees them, whoever captures. Needs root, as in the testbed.

use crate::tracing::{Lines, write};

const EVENTS: [&str; 2] = ["events/vb2/vb2_dqbuf/enable", "events/v4l2/v4l2_dqbuf/enable"];
/// What stands between a line's time and what it tells.
const VB2: &str = ": vb2_dqbuf: ";
const V4L2: &str = ": v4l2_dqbuf: ";

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
pub struct DriverTrace(Lines);

impl DriverTrace {
    /// Begins to write down.
    ///
    /// # Panics
    /// If the kernel cannot, or does not let us.
    pub fn begin() -> Self {
        let lines = Lines::begin();
        EVENTS.iter().for_each(|event| write(event, "1"));
        Self(lines)
    }

    /// What was taken so far, in order.
    ///
    /// # Panics
    /// If the kernel does not say, or has forgotten some.
    pub fn taken(&self) -> Vec<Dequeued> {
        let text = self.0.all();
        let of = |line| {
            let ours = [VB2, V4L2].into_iter().find_map(|event| Some((time(line, event)?, event)));
            ours.map(|(time, event)| (time, event, line))
        };
        let mut lines: Vec<_> = text.lines().filter_map(of).collect();
        lines.sort_by(|one, other| one.0.total_cmp(&other.0));
        let mut left = None;
        let mut taken = Vec::new();
        for (_, event, line) in lines {
            if event == VB2 {
                left = number(line, " queued = ");
            } else {
                let sequence = number(line, " sequence = ").expect("a sequence number");
                // The first line of the pair is of the time before.
                taken.extend(left.take().map(|left| Dequeued { sequence, left }));
            }
        }
        taken
    }
}

/// When the kernel wrote a line, in seconds: what two processors wrote may be read in another order.
fn time(line: &str, name: &str) -> Option<f64> {
    line.split_once(name)?.0.split_whitespace().next_back()?.parse().ok()
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
