//! Who is being served over the network now, by kind, and waiting until nobody is.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What a peer came for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Frames.
    Subscriber,
    /// Figures.
    Observer,
}

#[derive(Debug, Default)]
struct Count {
    subscribers: usize,
    observers: usize,
}

impl Count {
    fn of(&mut self, kind: Kind) -> &mut usize {
        match kind {
            Kind::Subscriber => &mut self.subscribers,
            Kind::Observer => &mut self.observers,
        }
    }
}

/// Counts bridges.
#[derive(Debug, Default)]
pub(super) struct Serving {
    count: Mutex<Count>,
    changed: Condvar,
}

/// One bridge; it counts until this is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    serving: Arc<Serving>,
    kind: Kind,
}

impl Serving {
    /// A seat for one more; `None` if `most` of the kind are here.
    pub(super) fn seat(self: &Arc<Self>, kind: Kind, most: usize) -> Option<Seat> {
        let mut count = self.count();
        let seats = count.of(kind);
        if *seats >= most {
            return None;
        }
        *seats += 1;
        Some(Seat { serving: self.clone(), kind })
    }

    /// Waits until nobody is here, up to `limit`.
    pub(super) fn wait(&self, limit: Duration) {
        let busy = |count: &mut Count| count.subscribers + count.observers > 0;
        let waited = self.changed.wait_timeout_while(self.count(), limit, busy);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    fn count(&self) -> MutexGuard<'_, Count> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        *self.serving.count().of(self.kind) -= 1;
        self.serving.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_own_seats_and_the_last_to_go_is_waited_for() {
        let serving = Arc::new(Serving::default());
        let seats = [(); 2].map(|()| serving.seat(Kind::Subscriber, 2).expect("a seat"));
        assert!(serving.seat(Kind::Subscriber, 2).is_none());
        let observer = serving.seat(Kind::Observer, 1).expect("its own kind of seat");
        assert!(serving.seat(Kind::Observer, 1).is_none());
        drop(observer);
        assert!(serving.seat(Kind::Observer, 1).is_some());
        serving.wait(Duration::from_millis(1));
        assert_eq!(serving.count().subscribers, 2, "the wait has a limit");
        let leaving = std::thread::spawn(move || drop(seats));
        serving.wait(Duration::from_secs(30));
        assert_eq!(serving.count().subscribers, 0);
        leaving.join().expect("gone");
    }
}
