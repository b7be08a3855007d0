//! Who wins a path when several want it at once.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use pagecast_ipc::socket::{ListenError, ListenOptions, Listener, Seqpacket};

use super::child::{Child, listen_to_parent, say};
use super::common::set_scene;

const ROUNDS: usize = 200;
/// How long after the call to a round it begins, so that all are awake.
const NOTICE: Duration = Duration::from_millis(3);

fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap().into()
}

/// Role: `TIME PATH` binds at that time and says `won` or `lost`; the next line lets go.
pub(crate) fn race() {
    say("ready");
    while let Some(line) = listen_to_parent() {
        let (time, path) = line.split_once(' ').unwrap();
        let start = Duration::from_nanos(time.parse().unwrap());
        while now() < start {
            std::hint::spin_loop();
        }
        let result = Listener::bind(Path::new(path), &ListenOptions::default());
        match &result {
            Ok(_) => say("won"),
            Err(ListenError::InUse { pid, .. }) => say(&format!("lost {}", pid.unwrap_or(0))),
            Err(error) => say(&format!("failed {error:?}")),
        }
        listen_to_parent();
        drop(result);
        say("ready");
    }
}

#[test]
fn of_two_processes_at_one_path_exactly_one_wins() {
    let folder = tempfile::tempdir().unwrap();
    let mut children = [Child::start("race", ""), Child::start("race", "")];
    let mut wins = [0; 2];
    for round in 0..ROUNDS {
        let path = folder.path().join(format!("{round}.sock"));
        set_scene(round, &path);
        for child in &mut children {
            assert_eq!(child.hear(), "ready");
        }
        let start = (now() + NOTICE).as_nanos();
        for child in &mut children {
            child.tell(&format!("{start} {}", path.display()));
        }
        let said = children.each_mut().map(Child::hear);
        let winner =
            said.iter().position(|said| said == "won").unwrap_or_else(|| panic!("{round}: {said:?}"));
        let (pid, loser) = (children[winner].pid(), said[1 - winner].as_str());
        // The loser may have been quicker than the winner's note of its number.
        assert!(loser == format!("lost {pid}") || loser == "lost 0", "round {round}: {said:?}");
        assert_eq!(Seqpacket::connect(&path).unwrap().peer().unwrap().pid, pid, "round {round}");
        wins[winner] += 1;
        children.iter_mut().for_each(|child| child.tell("release"));
    }
    for child in &mut children {
        assert_eq!(child.hear(), "ready");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "leftovers");
    println!("wins: {wins:?}");
}
