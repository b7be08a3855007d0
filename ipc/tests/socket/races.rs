//! Who wins a path when several threads want it at once.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex};

use pagecast_ipc::socket::{ListenError, ListenOptions, Listener, Seqpacket};

use super::common::set_scene;

const ROUNDS: usize = 200;

#[test]
fn of_three_threads_at_one_path_exactly_one_wins() {
    const THREADS: usize = 3;
    let folder = tempfile::tempdir().unwrap();
    let (barrier, results) = (Barrier::new(THREADS), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (barrier, results, folder) = (&barrier, &results, folder.path());
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let path = folder.join(format!("{round}.sock"));
                    if thread == 0 {
                        set_scene(round, &path);
                    }
                    barrier.wait();
                    match Listener::bind(&path, &ListenOptions::default()) {
                        Err(ListenError::InUse { .. }) => {}
                        // Looked at later: a panic here would leave the others at the barrier.
                        result => results.lock().unwrap().push((round, result)),
                    }
                    barrier.wait();
                }
            });
        }
    });
    let results = results.into_inner().unwrap();
    let failed: Vec<_> = results.iter().filter(|(_, result)| result.is_err()).collect();
    assert!(failed.is_empty(), "{failed:?}");
    let winners: Vec<usize> = results.iter().map(|(round, _)| *round).collect();
    assert_eq!(winners, (0..ROUNDS).collect::<Vec<_>>(), "one winner in each round");
    drop(results);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "leftovers");
}

/// The path changes hands again and again, with the lock file removed each time: never two at once.
#[test]
fn a_path_that_changes_hands_has_one_holder_at_a_time() {
    const THREADS: usize = 3;
    const HANDOVERS: usize = 500;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.sock");
    let (holders, total) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while total.load(Ordering::Relaxed) < HANDOVERS {
                    match Listener::bind(&path, &ListenOptions::default()) {
                        Ok(listener) => {
                            assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0, "two hold the path");
                            // It is this one that is found there.
                            let _client = Seqpacket::connect(&path).unwrap();
                            assert!(listener.accept().unwrap().is_some());
                            total.fetch_add(1, Ordering::Relaxed);
                            holders.fetch_sub(1, Ordering::SeqCst);
                        }
                        Err(ListenError::InUse { .. }) => std::thread::yield_now(),
                        Err(error) => panic!("{error:?}"),
                    }
                }
            });
        }
    });
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "leftovers");
}
