//! What a worker is to do, and what it reports of it.

use std::path::PathBuf;

use pagecast::latency::{Latency, LatencyFigures};
use pagecast::{BackingChoice, Pool, PoolOptions, RemoteOptions};
use serde::{Deserialize, Serialize};

use super::contender::{Contender, Transport};
use super::route::Route;
use super::size::FrameSize;
use crate::stamp::{PAGE, read_stamp, stamp};
use crate::workers::memory::Memory;
use crate::workers::usage::Usage;

/// One run's terms, the same for all its processes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) contender: Contender,
    pub(crate) size: FrameSize,
    /// Frames per second; `None`: as fast as it goes, and nothing may be lost.
    pub(crate) fps: Option<u32>,
    /// Frames before the measurement begins.
    pub(crate) warmup: u64,
    /// Frames measured.
    pub(crate) frames: u64,
    /// Consumers read every byte, not one per page.
    pub(crate) full_read: bool,
    /// Consumers compare the stamp of every page with what it must be.
    pub(crate) check: bool,
    pub(crate) backing: String,
    pub(crate) pool_limit: u64,
    pub(crate) socket: PathBuf,
    /// Between which addresses, in links to other hosts.
    pub(crate) route: Route,
    /// Where the producer can be reached, when it has said so.
    pub(crate) address: Option<String>,
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
    /// Frames with a page that is not their own, where they were compared.
    pub(crate) wrong: Option<u64>,
    /// Bytes received per second, from the first frame to the last.
    pub(crate) throughput: f64,
    /// Frames that the transport copied, where it says so.
    pub(crate) copied: Option<u64>,
    /// Frames that the source could not make in time.
    pub(crate) late: u64,
    /// From the source's stamp to the consumer, microseconds.
    pub(crate) latency_us: LatencyFigures,
}

impl Job {
    /// Bytes of a frame.
    pub(crate) fn bytes(&self) -> usize {
        self.size.bytes()
    }

    /// The number after the last frame's.
    pub(crate) fn end(&self) -> u64 {
        self.warmup + self.frames
    }

    /// Where the library publishes.
    pub(crate) fn uri(&self) -> String {
        match self.contender.transport {
            Transport::PagecastTcp => self.route.listen("tcp"),
            Transport::PagecastRdma => self.route.listen("rdma"),
            _ => format!("unix:{}", self.socket.display()),
        }
    }

    /// Where the library subscribes.
    pub(crate) fn source(&self) -> Result<String, String> {
        let address = self.address()?;
        Ok(match self.contender.transport {
            Transport::PagecastTcp | Transport::PagecastRdma => self.route.connect(address),
            _ => address.to_owned(),
        })
    }

    /// Who may come over a network, and how.
    pub(crate) fn remote(&self) -> RemoteOptions {
        match self.contender.transport {
            Transport::PagecastTcp | Transport::PagecastRdma => self.route.options(),
            _ => RemoteOptions::default(),
        }
    }

    /// What the producer said of where it can be reached.
    pub(crate) fn address(&self) -> Result<&str, String> {
        self.address.as_deref().ok_or_else(|| "the producer did not say where it is".to_owned())
    }

    pub(crate) fn pool(&self) -> Result<Pool, String> {
        let backing: BackingChoice = self.backing.parse().map_err(|error| format!("{error}"))?;
        Ok(Pool::new(PoolOptions { backing, limit: self.pool_limit, ..PoolOptions::default() }))
    }

    #[cfg(feature = "gstreamer")]
    pub(crate) fn caps(&self) -> Result<String, String> {
        let FrameSize::Picture { width, height } = self.size else {
            return Err("pipelines carry pictures only".to_owned());
        };
        let fps = self.fps.unwrap_or(60);
        Ok(format!("video/x-raw,format=NV12,width={width},height={height},framerate={fps}/1"))
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
    job: Job,
    first: Option<Usage>,
    last: Option<Usage>,
    received: u64,
    wrong: u64,
    sum: u64,
    latency: Latency,
}

impl Tally {
    pub(crate) fn new(job: &Job) -> Self {
        let (first, last, latency) = (None, None, Latency::default());
        Self { job: job.clone(), first, last, received: 0, wrong: 0, sum: 0, latency }
    }

    /// Reads a frame that has just come; `false` after the last.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<bool, String> {
        let word = |at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let number = self.enter(word)?;
        if self.job.check {
            self.compare(number, bytes.len(), word);
        } else {
            self.sum = self.sum.wrapping_add(touch(bytes, self.job.full_read));
        }
        Ok(self.goes_on_after(number))
    }

    /// Notes that a frame is here.
    fn enter(&mut self, word: impl Fn(usize) -> Option<u64>) -> Result<u64, String> {
        let now = pagecast::clock::monotonic_ns();
        let (Some(first), Some(sent)) = (word(0), word(8)) else { return Err("a frame too small".into()) };
        let (number, page) = read_stamp(first);
        if page != 0 || number >= self.job.end() {
            return Err(format!("a frame without our stamp: {first:#x}"));
        }
        if number >= self.job.warmup {
            self.received += 1;
            self.latency.record_ns(now.saturating_sub(sent));
            self.first.get_or_insert_with(Usage::now);
        }
        Ok(number)
    }

    /// Compares the stamps of all pages.
    fn compare(&mut self, number: u64, size: usize, word: impl Fn(usize) -> Option<u64>) {
        let differs = |page: usize| word(page * PAGE) != Some(stamp(number, page));
        let pages = size.saturating_sub(8) / PAGE + 1;
        self.wrong += u64::from(size != self.job.bytes() || (0..pages).any(differs));
    }

    fn goes_on_after(&mut self, number: u64) -> bool {
        let last = number + 1 == self.job.end();
        if last {
            self.last = Some(Usage::now());
        }
        !last
    }

    pub(crate) fn measured(&self) -> Measured {
        // The sum is used, so that no compiler may leave the reading out.
        std::hint::black_box(self.sum);
        let frames = self.job.frames;
        let usage = match (&self.first, &self.last) {
            (Some(first), Some(last)) => last.since(first),
            _ => Usage::default(),
        };
        // From the first frame to the last there is one frame less.
        let bytes = frames.saturating_sub(1) as f64 * self.job.bytes() as f64;
        Measured {
            usage,
            memory: Memory::own(),
            frames,
            lost: frames.saturating_sub(self.received),
            wrong: self.job.check.then_some(self.wrong),
            throughput: if usage.wall_seconds > 0.0 { bytes / usage.wall_seconds } else { 0.0 },
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
    use super::*;

    fn job() -> Job {
        Job {
            contender: Contender { transport: Transport::Source, kind: None, consumers: 1 },
            size: FrameSize::Picture { width: 128, height: 64 },
            fps: None,
            warmup: 2,
            frames: 5,
            full_read: false,
            check: false,
            backing: "auto".into(),
            pool_limit: 1 << 30,
            socket: PathBuf::new(),
            route: Route::LOOPBACK,
            address: None,
        }
    }

    #[test]
    fn frames_that_do_not_come_are_counted_and_warm_up_is_not() {
        let job = job();
        let mut bytes = vec![0; job.bytes()];
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
    fn a_page_that_is_not_the_frames_own_is_found_where_it_is_looked_for() {
        for (check, expected) in [(false, None), (true, Some(1))] {
            let job = Job { check, warmup: 0, frames: 2, ..job() };
            let mut bytes = vec![0; job.bytes()];
            let mut tally = Tally::new(&job);
            fill(&mut bytes, 0);
            bytes[2 * PAGE] ^= 1;
            assert_eq!(tally.take(&bytes), Ok(true));
            fill(&mut bytes, 1);
            assert_eq!(tally.take(&bytes), Ok(false));
            assert_eq!(tally.measured().wrong, expected);
        }
        let job = Job { check: true, warmup: 0, frames: 1, ..job() };
        let mut bytes = vec![0; job.bytes() - 1];
        fill(&mut bytes, 0);
        let mut tally = Tally::new(&job);
        assert_eq!(tally.take(&bytes), Ok(false));
        assert_eq!(tally.measured().wrong, Some(1), "a frame of another size");
    }

    #[test]
    fn one_byte_per_page_or_all() {
        let mut bytes = vec![1; 3 * PAGE + 7];
        assert_eq!(touch(&bytes, false), 4);
        bytes.truncate(16);
        assert_eq!(touch(&bytes, true), 2 * 0x0101_0101_0101_0101);
    }
}
