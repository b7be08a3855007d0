//! Frames that need a copy, and those of a foreign pool that must not run dry.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use gst::glib::translate::from_glib_none;
use gst::prelude::*;

/// Counts upstream's own buffers that clients hold, so that enough stay with it.
#[derive(Default)]
pub(super) struct Foreign {
    out: Arc<AtomicUsize>,
    /// The pool that was seen last and the most buffers it has.
    seen: Mutex<(usize, Option<usize>)>,
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
        match most {
            Some(most) if out > most.saturating_sub(reserve) => Verdict::Copy,
            most => Verdict::Pass { out: out_guard, limited: most.is_some() },
        }
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
