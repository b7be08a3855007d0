//! Until a memfd has its seals, a process of the same user can open it in /proc and change it.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pagecast_allocators::{Wants, receive};

use crate::attack;
use crate::support::{Subject, assert_filled, dup, fill, memory_face};

const SIZE: usize = 300_000;
/// How many memfds must have been changed before they were sealed.
const CHANGED: u32 = 100;

/// Ends the meddler also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Tries everything on each memfd of a backing that there is, over and over, and counts where something succeeded.
fn meddle(stop: &AtomicBool, changed: &AtomicU32) {
    while !stop.load(Ordering::Relaxed) {
        for entry in fs::read_dir("/proc/self/fd").unwrap().flatten() {
            let path = entry.path();
            let ours =
                fs::read_link(&path).is_ok_and(|to| to.to_string_lossy().starts_with("/memfd:pagecast"));
            if ours && !attack::through_path(&path.to_string_lossy()).is_empty() {
                changed.fetch_add(1, Ordering::Relaxed);
            }
        }
        thread::sleep(Duration::from_micros(50)); // not each one: some must come about
    }
}

pub(crate) fn buffers_are_whole_whoever_changes_them_in_the_making(subject: &Subject) {
    let (stop, changed) = (AtomicBool::new(false), AtomicU32::new(0));
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(|| meddle(&stop, &changed));
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut round = 0_u8;
        while changed.load(Ordering::Relaxed) < CHANGED {
            assert!(Instant::now() < deadline, "only {changed:?} were changed: this proves nothing");
            round = round.wrapping_add(1);
            let buffer = subject.backing.allocate(SIZE, &Wants::default()).expect("a buffer");
            fill(&buffer, round);
            let face = memory_face(&buffer);
            let received = receive::memory(dup(face.fd), buffer.size() as u64).expect("sealed pages");
            let map = received.map().expect("a mapping");
            assert_filled(|at, to| map.copy_to(at, to).unwrap(), buffer.size(), round);
        }
    });
}
