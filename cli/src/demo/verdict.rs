//! What the scene shows, check by check.

use std::path::Path;

use serde::Serialize;

use super::scene::Plan;
use super::seen::{Behind, Scene};
use crate::output::{Table, bytes};

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) held: bool,
    pub(super) detail: String,
}

/// How long the publisher may take to get back what a killed subscriber held; the kernel's hang-up takes a
/// few milliseconds, on a machine that has time.
const RECLAIM_LIMIT_MS: f64 = 1000.0;

/// All checks of the scene.
pub(super) fn judge(plan: &Plan, scene: &Scene, folder: &Path) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut check = |name, held, detail: String| checks.push(Check { name, held, detail });
    let verifier = &scene.verifier;
    let bad = verifier.first_bad.clone().unwrap_or_default();
    check(
        "every page right",
        verifier.frames > 0 && verifier.bad + scene.scaler.bad + scene.recorder.bad == 0,
        match verifier.bad {
            0 => format!("{} frames of {} pages, each checked twice", verifier.frames, pages()),
            count => format!("{count} frames wrong; the first: {bad}"),
        },
    );
    check("verifier lost nothing", scene.verifier_lost == 0, lost(scene));
    stop_checks(plan, scene, &mut check);
    kill_checks(plan, scene, &mut check);
    check(
        "same pages, not copies",
        scene.pages.mapped > 0 && scene.pages.foreign == 0 && scene.publisher.info.publisher.copied == 0,
        format!(
            "the verifier maps {} memory files, {} not the publisher's; {} frames copied",
            scene.pages.mapped, scene.pages.foreign, scene.publisher.info.publisher.copied
        ),
    );
    check(
        "subscribers cannot write",
        verifier.write_attempts > 0
            && verifier.writes_refused == verifier.write_attempts
            && scene.pages.writable == 0,
        format!("mmap, write, truncate: {} of {} refused", verifier.writes_refused, verifier.write_attempts),
    );
    check(
        "memory within the limit",
        scene.memory_peak > 0 && scene.memory_peak <= scene.pool_limit && scene.publisher.starved == 0,
        format!(
            "at most {} of {}; the source lacked a buffer {} times",
            bytes(scene.memory_peak),
            bytes(scene.pool_limit),
            scene.publisher.starved
        ),
    );
    if let Some(behind) = &scene.behind {
        behind_checks(behind, &mut check);
    }
    files_checks(plan, scene, folder, &mut check);
    let deaths = scene.deaths.join("; ");
    check(
        "nobody ended by itself",
        scene.deaths.is_empty(),
        if deaths.is_empty() { "-".into() } else { deaths },
    );
    checks
}

fn pages() -> usize {
    super::picture::SIZE.div_ceil(crate::stamp::PAGE)
}

fn lost(scene: &Scene) -> String {
    let slow = match scene.verifier_slow {
        0 => String::new(),
        slow => format!(", {slow} of them because it was too slow itself"),
    };
    format!("{} of {} frames missing{slow}", scene.verifier_lost, scene.publisher.frames)
}

fn stop_checks(plan: &Plan, scene: &Scene, check: &mut impl FnMut(&'static str, bool, String)) {
    let stop = &scene.stop;
    check(
        "one stopped: others lost nothing",
        stop.frames > 0 && stop.others_lost == 0,
        format!(
            "{} lost while {} frames were published in {:.1} s",
            stop.others_lost, stop.frames, stop.seconds
        ),
    );
    check(
        "the stopped one met its limit",
        stop.held == stop.credits as usize && stop.credits > 0 && stop.dropped > 0,
        format!(
            "it held {} of {} credits, {} waited of {}, {} were not for it",
            stop.held, stop.credits, stop.mailbox, plan.mailbox, stop.dropped
        ),
    );
    check(
        "it went on afterwards",
        stop.received_after > 0,
        format!("{} frames received after SIGCONT", stop.received_after),
    );
}

fn kill_checks(plan: &Plan, scene: &Scene, check: &mut impl FnMut(&'static str, bool, String)) {
    let kill = &scene.kill;
    check(
        "one killed: others lost nothing",
        kill.received_after > 0 && kill.others_lost == 0,
        format!("{} lost; the verifier received {} frames since", kill.others_lost, kill.received_after),
    );
    let ms = |time: Option<f64>| time.map_or("never".to_owned(), |ms| format!("{ms:.2} ms"));
    check(
        "its frames came back",
        kill.held > 0
            && kill.reclaimed >= kill.held as u64
            && kill.left == 2 + usize::from(plan.relay)
            && kill.reclaimed_ms.is_some_and(|ms| ms < RECLAIM_LIMIT_MS),
        format!(
            "{} frames, {} after kill -9 (its process was gone after {})",
            kill.reclaimed,
            ms(kill.reclaimed_ms),
            ms(kill.gone_ms)
        ),
    );
}

/// What came over TCP from the relay.
fn behind_checks(behind: &Behind, check: &mut impl FnMut(&'static str, bool, String)) {
    let Behind { relay, remote, viewer, .. } = behind;
    check(
        "by TCP: every page right",
        remote.frames > 0 && remote.bad + viewer.bad == 0,
        match remote.first_bad.as_ref().or(viewer.first_bad.as_ref()) {
            None => format!("{} frames behind the relay, each checked twice", remote.frames),
            Some(bad) => format!("{} frames wrong; the first: {bad}", remote.bad + viewer.bad),
        },
    );
    let slow = if behind.slow > 0 { ", as the links said: this machine is too busy" } else { "" };
    check(
        "by TCP: nothing lost",
        behind.lost <= behind.slow,
        format!("{} of {} frames missing{slow}", behind.lost, relay.frames),
    );
    check(
        "the relay copies nothing",
        behind.pages.mapped > 0
            && behind.pages.foreign + behind.pages.writable == 0
            && relay.info.publisher.copied == 0,
        format!("it maps {} memory files, {} not the publisher's", behind.pages.mapped, behind.pages.foreign),
    );
    // Who waits for the stopped one gets next to nothing, who is only slow on this machine gets most.
    let undisturbed = behind.received > 0 && behind.received * 4 >= behind.relayed * 3;
    check(
        "one stopped behind the relay",
        behind.dropped > 0 && undisturbed && behind.received_after > 0,
        format!(
            "{} frames were not for it, the other got {}, the relay {}; it went on: {} frames received",
            behind.dropped, behind.received, behind.relayed, behind.received_after
        ),
    );
}

fn files_checks(
    plan: &Plan,
    scene: &Scene,
    folder: &Path,
    check: &mut impl FnMut(&'static str, bool, String),
) {
    let size = |name: &str| std::fs::metadata(folder.join(name)).map_or(0, |file| file.len());
    check(
        "snapshot.png written",
        scene.scaler.written > 0 && size(super::SNAPSHOT) > 0,
        format!("{} pictures scaled, the last one kept", scene.scaler.written),
    );
    check(
        "recording written",
        scene.recorder.written > 0 && size(plan.recording()) > 0,
        format!("{} frames, {}", scene.recorder.written, bytes(size(plan.recording()))),
    );
}

/// The table of checks.
pub(super) fn table(checks: &[Check]) -> Table {
    let mut table = Table::new(["CHECK", "", "SEEN"]);
    for check in checks {
        let verdict = if check.held { "held" } else { "FAILED" };
        table.row([check.name.to_owned(), verdict.to_owned(), check.detail.clone()]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scene_in_which_nothing_happened_holds_next_to_nothing() {
        let plan = super::super::plan(true, None, false, true);
        let scene = Scene { behind: Some(Behind::default()), ..Scene::default() };
        let checks = judge(&plan, &scene, Path::new("/nonexistent"));
        let held: Vec<_> = checks.iter().filter(|check| check.held).map(|check| check.name).collect();
        assert_eq!(
            held,
            ["verifier lost nothing", "by TCP: nothing lost", "nobody ended by itself"],
            "{checks:#?}"
        );
    }
}
