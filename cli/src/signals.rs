//! Ctrl-C and SIGTERM end a command cleanly, within a deadline; the second one ends it at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pagecast::publisher::LONGEST_END;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use crate::exit::Failure;

/// How long a command may take to end cleanly after the first signal: somewhat longer than a publisher waits for those who still
/// read.
const GRACE: Duration = Duration::from_secs(LONGEST_END.as_secs() + 2);

type Hook = Box<dyn Fn() + Send>;

struct State {
    signal: Option<i32>,
    hooks: Vec<(u64, Hook)>,
    next: u64,
}

static STATE: Mutex<State> = Mutex::new(State { signal: None, hooks: Vec::new(), next: 0 });
static CHANGED: Condvar = Condvar::new();

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Begins to listen for signals; once, at the start of the process. Handlers are not inherited by programs
/// that are started, unlike a signal mask.
pub(crate) fn install() -> Result<(), Failure> {
    let fail = |error| Failure::failed(format_args!("cannot handle signals: {error}"));
    let again = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first signal sets the flag, the second finds it set.
        flag::register_conditional_shutdown(signal, 128 + signal, again.clone()).map_err(fail)?;
        flag::register(signal, again.clone()).map_err(fail)?;
    }
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(fail)?;
    let listen = move || {
        if let Some(signal) = signals.forever().next() {
            again.store(true, Ordering::SeqCst);
            let mut state = state();
            state.signal = Some(signal);
            state.hooks.iter().for_each(|(_, hook)| hook());
            CHANGED.notify_all();
            drop(state);
            // Something may hold us for ever, a reader of our output for one.
            std::thread::sleep(GRACE);
            std::process::exit(128 + signal);
        }
    };
    std::thread::Builder::new().name("pagecast-signals".to_owned()).spawn(listen).map_err(fail)?;
    Ok(())
}

/// The signal that asked us to end, if one came.
pub(crate) fn caught() -> Option<i32> {
    state().signal
}

/// Sleeps; `false` at once if a signal asks us to end.
pub(crate) fn sleep(time: Duration) -> bool {
    let until = Instant::now() + time;
    let mut state = state();
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if state.signal.is_some() || left.is_zero() {
            return state.signal.is_none();
        }
        state = match CHANGED.wait_timeout(state, left) {
            Ok((state, _)) => state,
            Err(poisoned) => poisoned.into_inner().0,
        };
    }
}

/// Calls `hook` when a signal asks us to end (at once if it did already), until the result is dropped.
#[must_use = "the hook is removed when this is dropped"]
pub(crate) fn on_end(hook: impl Fn() + Send + 'static) -> Registration {
    let mut state = state();
    if state.signal.is_some() {
        hook();
    }
    state.next += 1;
    let number = state.next;
    state.hooks.push((number, Box::new(hook)));
    Registration(number)
}

/// A hook's life; see [`on_end`].
pub(crate) struct Registration(u64);

impl Drop for Registration {
    fn drop(&mut self) {
        state().hooks.retain(|(number, _)| *number != self.0);
    }
}
