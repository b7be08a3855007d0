//! Frames that need a copy, and those of a foreign pool that must not run dry.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gst::glib::translate::from_glib_none;
use gst::prelude::*;
use pagecast::publisher::ForeignPool;

/// Counts upstream's own buffers that clients hold, so that enough stay with it.
#[derive(Default)]
pub(super) struct Foreign {
    out: Arc<AtomicUsize>,
    /// The pool that was seen last and the most buffers it has.
    seen: Mutex<(usize, Option<usize>)>,
    told: Mutex<Told>,
}

/// What is told of upstream's pool.
#[derive(Default)]
struct Told {
    figures: ForeignPool,
    /// Upstream's number of the last frame.
    last: Option<u64>,
}

impl Told {
    /// Another frame came; a live source numbers all that it captures, and leaves out those that it could not give.
    fn came(&mut self, buffer: &gst::Buffer) {
        let number = Some(buffer.offset()).filter(|number| *number != u64::MAX);
        let expected = self.last.and_then(|last| last.checked_add(1));
        // Numbers that go back are those of another stream.
        if let (Some(number), Some(expected)) = (number, expected) {
            self.figures.missed += number.saturating_sub(expected);
        }
        self.last = number;
    }
}

/// One buffer of upstream's that is out.
#[derive(Debug)]
pub(super) struct Out(Arc<AtomicUsize>);

impl Drop for Out {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What may be done with a foreign buffer.
pub(super) enum Verdict {
    /// It may be passed; `limited` says that upstream has only so many.
    Pass {
        /// To be kept as long as the buffer is out.
        out: Out,
        /// Whether upstream waits for buffers to return.
        limited: bool,
    },
    /// Upstream would have too few left.
    Copy,
}

impl Foreign {
    /// Whether a buffer may go out and leave `reserve` with upstream.
    pub(super) fn ask(&self, buffer: &gst::Buffer, reserve: usize) -> Verdict {
        let most = self.most(buffer);
        let out = self.out.fetch_add(1, Ordering::SeqCst) + 1;
        let out_guard = Out(self.out.clone());
        if let Some(most) = most {
            self.note(most, reserve, out);
        }
        match most {
            Some(most) if out > most.saturating_sub(reserve) => Verdict::Copy,
            most => Verdict::Pass { out: out_guard, limited: most.is_some() },
        }
    }

    fn note(&self, most: usize, reserve: usize, out: usize) {
        let mut told = self.told();
        let (buffers, left) = (most as u32, most.saturating_sub(out) as u32);
        let fewest = Some(told.figures.fewest.map_or(left, |fewest| fewest.min(left)));
        told.figures = ForeignPool { buffers, reserve: reserve as u32, fewest, ..told.figures };
    }

    /// A frame came, in whatever memory: a driver's source copies by itself when few of its buffers are left. How upstream's
    /// pool is doing; `None` unless it is a foreign one that has only so many buffers.
    pub(super) fn came(&self, buffer: &gst::Buffer) -> Option<ForeignPool> {
        let mut told = self.told();
        told.came(buffer);
        Some(told.figures).filter(|figures| figures.buffers > 0)
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The most buffers that the buffer's pool has; `None` if there is no limit or no pool.
    fn most(&self, buffer: &gst::Buffer) -> Option<usize> {
        // SAFETY: a buffer's pool is a plain field that does not change while somebody holds the buffer, and
        // the buffer holds a reference to it.
        let pool: Option<gst::BufferPool> = unsafe {
            let pool = (*buffer.as_ptr()).pool;
            if pool.is_null() { None } else { Some(from_glib_none(pool)) }
        };
        let pool = pool?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.0 != pool.as_ptr() as usize {
            let most = pool.config().params().map(|(_, _, _, most)| most as usize).filter(|most| *most > 0);
            *seen = (pool.as_ptr() as usize, most);
        }
        seen.1
    }

    /// Upstream may have another pool from here on.
    pub(super) fn forget(&self) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = (0, None);
        self.told().last = None;
    }
}

/// Why a frame needed a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// Upstream's memory cannot be shared, though it was offered ours.
    NotShareable,
    /// Upstream never asked which memory to use.
    NotAsked,
    /// Upstream's pool would have run dry.
    Reserve,
    /// More memories than a frame may have.
    TooManyMemories,
}

impl Reason {
    /// What happened, and the remedy; nothing where a copy is as it should be.
    pub(super) fn advice(self, raw: bool) -> Option<&'static str> {
        match self {
            Self::NotAsked if raw => Some(
                "Frames are copied once each: upstream did not pass on the offer of shared pages, as a tee \
                 does not. Let pagecastsink be the only consumer of its source, and let the other branches \
                 read from it with pagecastsrc.",
            ),
            Self::NotShareable if raw => Some(
                "Frames are copied once each: upstream does not use the shared pages it was offered, or a \
                 tee lies between. A videoconvert before pagecastsink may take them; behind a tee, let the \
                 other branches read with pagecastsrc.",
            ),
            _ => None,
        }
    }
}
