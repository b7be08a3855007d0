//! What a worker is to do, and what it reports of it.

use std::path::PathBuf;

use pagecast::latency::{Latency, LatencyFigures};
use pagecast::{BackingChoice, Pool, PoolOptions};
use serde::{Deserialize, Serialize};

use super::contender::Contender;
use crate::stamp::{PAGE, read_stamp, stamp};
use crate::workers::memory::Memory;
use crate::workers::usage::Usage;

/// One run's terms, the same for all its processes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) contender: Contender,
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// Frames per second; `None`: as fast as it goes, and nothing may be lost.
    pub(crate) fps: Option<u32>,
    /// Frames before the measurement begins.
    pub(crate) warmup: u64,
    /// Frames measured.
    pub(crate) frames: u64,
    /// Consumers read every byte, not one per page.
    pub(crate) full_read: bool,
    pub(crate) backing: String,
    pub(crate) pool_limit: u64,
    pub(crate) socket: PathBuf,
}

/// What a worker has measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) usage: Usage,
    pub(crate) memory: Memory,
    /// Frames in the measured span.
    pub(crate) frames: u64,
    /// Frames that did not come.
    pub(crate) lost: u64,
    /// Frames that the transport copied, where it says so.
    pub(crate) copied: Option<u64>,
    /// Frames that the source could not make in time.
    pub(crate) late: u64,
    /// From the source's stamp to the consumer, microseconds.
    pub(crate) latency_us: LatencyFigures,
}

impl Job {
    /// Bytes of a frame (NV12).
    pub(crate) fn size(&self) -> usize {
        self.width as usize * self.height as usize * 3 / 2
    }

    /// The number after the last frame's.
    pub(crate) fn end(&self) -> u64 {
        self.warmup + self.frames
    }

    pub(crate) fn uri(&self) -> String {
        format!("unix:{}", self.socket.display())
    }

    pub(crate) fn pool(&self) -> Result<Pool, String> {
        let backing: BackingChoice = self.backing.parse().map_err(|error| format!("{error}"))?;
        Ok(Pool::new(PoolOptions { backing, limit: self.pool_limit, ..PoolOptions::default() }))
    }

    #[cfg(feature = "gstreamer")]
    pub(crate) fn caps(&self) -> String {
        let (width, height, fps) = (self.width, self.height, self.fps.unwrap_or(60));
        format!("video/x-raw,format=NV12,width={width},height={height},framerate={fps}/1")
    }
}

/// Fills a frame as the source does: eight bytes in every page, and the time in the first.
pub(crate) fn fill(bytes: &mut [u8], number: u64) {
    for (page, bytes) in bytes.chunks_mut(PAGE).enumerate() {
        if let Some(place) = bytes.first_chunk_mut() {
            *place = stamp(number, page).to_le_bytes();
        }
    }
    if let Some(place) = bytes.get_mut(8..16) {
        place.copy_from_slice(&pagecast::clock::monotonic_ns().to_le_bytes());
    }
}

/// What one consumer has received.
#[derive(Debug)]
pub(crate) struct Tally {
    warmup: u64,
    end: u64,
    full_read: bool,
    first: Option<Usage>,
    last: Option<Usage>,
    received: u64,
    sum: u64,
    latency: Latency,
}

impl Tally {
    pub(crate) fn new(job: &Job) -> Self {
        Self {
            warmup: job.warmup,
            end: job.end(),
            full_read: job.full_read,
            first: None,
            last: None,
            received: 0,
            sum: 0,
            latency: Latency::default(),
        }
    }

    /// Reads a frame that has just come; `false` after the last.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<bool, String> {
        let now = pagecast::clock::monotonic_ns();
        let word = |at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let (Some(first), Some(sent)) = (word(0), word(8)) else { return Err("a frame too small".into()) };
        let (number, page) = read_stamp(first);
        if page != 0 || number >= self.end {
            return Err(format!("a frame without our stamp: {first:#x}"));
        }
        if number >= self.warmup {
            self.received += 1;
            self.latency.record_ns(now.saturating_sub(sent));
            self.first.get_or_insert_with(Usage::now);
        }
        self.sum = self.sum.wrapping_add(touch(bytes, self.full_read));
        let last = number + 1 == self.end;
        if last {
            self.last = Some(Usage::now());
        }
        Ok(!last)
    }

    pub(crate) fn measured(&self) -> Measured {
        // The sum is used, so that no compiler may leave the reading out.
        std::hint::black_box(self.sum);
        let frames = self.end - self.warmup;
        let usage = match (&self.first, &self.last) {
            (Some(first), Some(last)) => last.since(first),
            _ => Usage::default(),
        };
        Measured {
            usage,
            memory: Memory::own(),
            frames,
            lost: frames.saturating_sub(self.received),
            latency_us: self.latency.figures(),
            ..Measured::default()
        }
    }
}

/// Reads one byte of every page, or all bytes.
fn touch(bytes: &[u8], all: bool) -> u64 {
    if all {
        let (words, rest) = bytes.as_chunks::<8>();
        let sum = words.iter().fold(0_u64, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word)));
        return rest.iter().fold(sum, |sum, byte| sum.wrapping_add(u64::from(*byte)));
    }
    bytes.iter().step_by(PAGE).fold(0, |sum, byte| sum + u64::from(std::hint::black_box(*byte)))
}

#[cfg(test)]
mod tests {
    use super::super::contender::Transport;
    use super::*;

    fn job() -> Job {
        Job {
            contender: Contender { transport: Transport::Source, kind: None, consumers: 1 },
            width: 128,
            height: 64,
            fps: None,
            warmup: 2,
            frames: 5,
            full_read: false,
            backing: "auto".into(),
            pool_limit: 1 << 30,
            socket: PathBuf::new(),
        }
    }

    #[test]
    fn frames_that_do_not_come_are_counted_and_warm_up_is_not() {
        let job = job();
        let mut bytes = vec![0; job.size()];
        let mut tally = Tally::new(&job);
        for number in [0, 2, 3, 5, 6] {
            fill(&mut bytes, number);
            assert_eq!(tally.take(&bytes), Ok(number != 6));
        }
        let measured = tally.measured();
        assert_eq!((measured.frames, measured.lost), (5, 1));
        assert!(tally.take(&[0; 4096]).is_ok(), "frame 0 has stamp 0");
        assert!(tally.take(&[7; 4096]).is_err());
        assert!(tally.take(&[]).is_err());
    }

    #[test]
    fn one_byte_per_page_or_all() {
        let mut bytes = vec![1; 3 * PAGE + 7];
        assert_eq!(touch(&bytes, false), 4);
        bytes.truncate(16);
        assert_eq!(touch(&bytes, true), 2 * 0x0101_0101_0101_0101);
    }
}
