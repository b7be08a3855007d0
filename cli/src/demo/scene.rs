//! The scene: a publisher and three subscribers; one is stopped, then one is killed.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde::Serialize;

use super::publish::{Defect, Departed, PublisherJob, PublisherReport};
use super::subscribe::{SubscriberJob, SubscriberReport, Task};
use super::table::Rows;
use crate::exit::Failure;
use crate::workers::Role;
use crate::workers::fleet::{Fleet, Report};
use crate::workers::memory::{self, Memory, memory_files};

const SECOND: Duration = Duration::from_secs(1);
const SET_UP: Duration = Duration::from_secs(10);
/// After a change, so that reports tell of it.
const SETTLE: Duration = Duration::from_millis(500);

/// How long each part takes, and how much there is of everything.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) fps: u32,
    pub(super) slowest: u32,
    pub(super) credits: u32,
    pub(super) mailbox: u32,
    pub(super) warm_up: Duration,
    pub(super) healthy: Duration,
    pub(super) stopped: Duration,
    pub(super) resumed: Duration,
    pub(super) killed: Duration,
    pub(super) row_every: Duration,
    pub(super) defect: Option<Defect>,
    /// The scaler and the recorder are pipelines.
    pub(super) pipelines: bool,
}

impl Plan {
    /// The recording's file.
    pub(super) fn recording(&self) -> &'static str {
        if self.pipelines { "recording.avi" } else { "recording.y4m" }
    }

    /// Buffers for three subscribers, a reserve, and the one that is being filled.
    pub(super) fn buffers(&self) -> u64 {
        3 * u64::from(self.credits + self.mailbox) + 6
    }

    pub(super) fn length(&self) -> Duration {
        self.warm_up + self.healthy + self.stopped + self.resumed + self.killed + 4 * SETTLE
    }
}

/// What was seen.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Scene {
    pub(super) fps: u32,
    pub(super) publisher: PublisherReport,
    pub(super) verifier: SubscriberReport,
    pub(super) scaler: SubscriberReport,
    pub(super) recorder: SubscriberReport,
    /// Missing at the verifier since the warm-up.
    pub(super) verifier_lost: u64,
    /// Of these, frames for which it was too slow itself.
    pub(super) verifier_slow: u64,
    pub(super) stop: Stop,
    pub(super) kill: Kill,
    pub(super) pool_limit: u64,
    /// The most bytes that the publisher's memory files had.
    pub(super) memory_peak: u64,
    pub(super) pages: Pages,
    /// Workers that ended by themselves.
    pub(super) deaths: Vec<String>,
}

/// While the recorder was stopped.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Stop {
    pub(super) seconds: f64,
    /// Frames published meanwhile.
    pub(super) frames: u64,
    /// Missing at the others.
    pub(super) others_lost: u64,
    /// Frames that the other that got fewest received, in all and in the last second.
    pub(super) others_received: u64,
    pub(super) others_received_last_second: u64,
    /// By how much the publisher's memory grew, bytes.
    pub(super) memory_growth: i64,
    /// What it held and what waited for it: its share, no more.
    pub(super) held: usize,
    pub(super) credits: u32,
    pub(super) mailbox: usize,
    /// What it did not get.
    pub(super) dropped: u64,
    /// Frames it received after it went on.
    pub(super) received_after: u64,
}

/// When the scaler was killed.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Kill {
    /// Frames it held at that moment.
    pub(super) held: usize,
    pub(super) others_lost: u64,
    /// From the signal until its process had ended.
    pub(super) gone_ms: Option<f64>,
    /// From the signal until the publisher had its frames back.
    pub(super) reclaimed_ms: Option<f64>,
    /// Frames taken back.
    pub(super) reclaimed: u64,
    /// Subscribers left.
    pub(super) left: usize,
    /// Frames the verifier received in the second after.
    pub(super) received_after: u64,
}

/// Which pages the verifier reads.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Pages {
    /// Memory files that it has mapped.
    pub(super) mapped: usize,
    /// Of these, files that the publisher has not.
    pub(super) foreign: usize,
    /// Mappings that could be written.
    pub(super) writable: usize,
}

struct Live<'a> {
    fleet: Fleet,
    publisher: usize,
    subscribers: [(Task, usize); 3],
    scene: Scene,
    departed: Vec<Departed>,
    expected_deaths: BTreeSet<usize>,
    rows: Rows<'a>,
}

/// Plays the scene. `folder` is for sockets and what subscribers write.
pub(super) fn play(plan: &Plan, folder: &Path, rows: Rows<'_>) -> Result<Scene, Failure> {
    let mut live = Live::start(plan, folder, rows)?;
    live.warm_up(plan)?;
    let before = live.counts();
    live.run(plan.healthy, "all run")?;
    live.look_at_pages();
    let (lost, slow) = before;
    live.stop_one(plan)?;
    live.kill_one(plan)?;
    live.end()?;
    live.scene.verifier_lost = live.scene.verifier.lost - lost;
    live.scene.verifier_slow = live.scene.verifier.dropped - slow;
    Ok(live.scene)
}

impl<'a> Live<'a> {
    fn start(plan: &Plan, folder: &Path, rows: Rows<'a>) -> Result<Self, Failure> {
        let mut fleet = Fleet::new();
        let socket = folder.join("demo");
        let job = PublisherJob {
            socket: socket.clone(),
            fps: plan.fps,
            buffers: plan.buffers(),
            credits: plan.credits,
            mailbox: plan.mailbox,
            defect: plan.defect,
        };
        let publisher = fleet.start("publisher", &Role::DemoPublisher(job))?;
        let ready = fleet.collect(&[publisher], "ready", SET_UP).map_err(Failure::failed)?;
        let first: PublisherReport = serde_json::from_value(ready[0].clone()).map_err(Failure::failed)?;
        let mut start = |task: Task, file: &str| {
            let job = SubscriberJob {
                socket: socket.clone(),
                task,
                pipelines: plan.pipelines,
                file: folder.join(file),
            };
            fleet.start(task.as_str(), &Role::DemoSubscriber(job)).map(|worker| (task, worker))
        };
        let subscribers = [
            start(Task::Verify, "unused")?,
            start(Task::Scale, super::SNAPSHOT)?,
            start(Task::Record, plan.recording())?,
        ];
        let workers = subscribers.map(|(_, worker)| worker);
        fleet.collect(&workers, "ready", SET_UP).map_err(Failure::failed)?;
        fleet.tell(publisher, "go");
        let pool_limit = first.info.publisher.pool_limit;
        let scene = Scene { fps: plan.fps, publisher: first, pool_limit, ..Scene::default() };
        let expected_deaths = BTreeSet::new();
        Ok(Self { fleet, publisher, subscribers, scene, departed: Vec::new(), expected_deaths, rows })
    }

    fn worker(&self, task: Task) -> usize {
        self.subscribers.iter().find(|(of, _)| *of == task).map_or(self.publisher, |(_, worker)| *worker)
    }

    /// Finds a rate that this machine can keep.
    fn warm_up(&mut self, plan: &Plan) -> Result<(), Failure> {
        self.run(plan.warm_up / 2, "warm-up")?;
        loop {
            let before = (self.scene.publisher.frames, self.scene.publisher.late, self.slow());
            self.run(plan.warm_up, "warm-up")?;
            let frames = self.scene.publisher.frames - before.0;
            let late = self.scene.publisher.late - before.1;
            let too_slow = late * 10 > frames || self.slow() > before.2;
            if !too_slow || self.scene.fps <= plan.slowest {
                return Ok(());
            }
            self.scene.fps = (self.scene.fps / 2).max(plan.slowest);
            self.fleet.tell(self.publisher, &format!("fps {}", self.scene.fps));
            let told = format!("this machine is too busy for that rate: going on at {} fps", self.scene.fps);
            self.rows.say(&told)?;
        }
    }

    /// Frames for which any subscriber was too slow.
    fn slow(&self) -> u64 {
        self.scene.verifier.dropped + self.scene.scaler.dropped + self.scene.recorder.dropped
    }

    fn counts(&self) -> (u64, u64) {
        (self.scene.verifier.lost, self.scene.verifier.dropped)
    }

    /// Hears everybody for a while.
    fn run(&mut self, length: Duration, phase: &str) -> Result<(), Failure> {
        let until = Instant::now() + length;
        while Instant::now() < until {
            if let Some(report) = self.fleet.next(until.min(self.rows.next()))? {
                self.hear(report);
            }
            if Instant::now() >= self.rows.next() {
                self.sample_memory();
                self.rows.row(phase, &self.scene)?;
            }
        }
        self.sample_memory();
        Ok(())
    }

    fn hear(&mut self, report: Report) {
        let Report { worker, event, data } = report;
        match event.as_str() {
            "report" | "done" if worker == self.publisher => {
                self.scene.publisher = serde_json::from_value(data).unwrap_or_default();
            }
            "report" | "done" => {
                let told: SubscriberReport = serde_json::from_value(data).unwrap_or_default();
                match self.subscribers.iter().find(|(_, of)| *of == worker) {
                    Some((Task::Verify, _)) => self.scene.verifier = told,
                    Some((Task::Scale, _)) => self.scene.scaler = told,
                    _ => self.scene.recorder = told,
                }
            }
            "departed" => self.departed.extend(serde_json::from_value::<Departed>(data)),
            "failed" => self.scene.deaths.push(self.fleet.complaint(worker, &data)),
            "ended" if !self.expected_deaths.contains(&worker) => {
                self.scene.deaths.push(self.fleet.complaint(worker, &data));
            }
            _ => {}
        }
    }

    fn memory(&self) -> u64 {
        memory::total([&Memory::of(self.fleet.pid(self.publisher).as_raw())])
    }

    fn sample_memory(&mut self) {
        let files = memory_files(self.fleet.pid(self.publisher).as_raw());
        let bytes = files.iter().map(|file| file.bytes).sum();
        self.scene.memory_peak = self.scene.memory_peak.max(bytes);
    }

    /// Compares what the verifier has mapped with what the publisher has open.
    fn look_at_pages(&mut self) {
        let ours: BTreeSet<u64> =
            memory_files(self.fleet.pid(self.publisher).as_raw()).iter().map(|file| file.inode).collect();
        let verifier = self.fleet.pid(self.worker(Task::Verify)).as_raw();
        let maps = std::fs::read_to_string(format!("/proc/{verifier}/maps")).unwrap_or_default();
        let mut mapped = BTreeSet::new();
        let mut pages = Pages::default();
        for line in maps.lines().filter(|line| line.contains(" /memfd:")) {
            let mut fields = line.split_ascii_whitespace();
            pages.writable += usize::from(fields.nth(1).is_some_and(|rights| rights.contains('w')));
            mapped.extend(fields.nth(2).and_then(|inode| inode.parse::<u64>().ok()));
        }
        pages.mapped = mapped.len();
        pages.foreign = mapped.difference(&ours).count();
        self.scene.pages = pages;
    }

    fn served(&self, task: Task) -> Option<pagecast::publisher::SubscriberInfo> {
        let pid = self.fleet.pid(self.worker(task)).as_raw();
        self.scene.publisher.info.subscribers.iter().find(|one| one.pid == pid).cloned()
    }

    /// Stops the recorder as Ctrl-Z would, and lets it go on later.
    fn stop_one(&mut self, plan: &Plan) -> Result<(), Failure> {
        let victim = self.worker(Task::Record);
        let lost = |scene: &Scene| scene.verifier.lost + scene.scaler.lost;
        let (frames, before) = (self.scene.publisher.frames, lost(&self.scene));
        let others = |scene: &Scene| (scene.verifier.frames, scene.scaler.frames);
        let fewest = |from: (u64, u64), to: (u64, u64)| (to.0 - from.0).min(to.1 - from.1);
        let (began, received, memory) = (Instant::now(), others(&self.scene), self.memory());
        self.rows.say("the recorder is stopped (SIGSTOP)")?;
        self.fleet.signal(victim, Signal::SIGSTOP);
        self.run(plan.stopped.saturating_sub(SECOND), "recorder stopped")?;
        let late = others(&self.scene);
        self.run(SECOND, "recorder stopped")?;
        let after = others(&self.scene);
        let served = self.served(Task::Record).unwrap_or_default();
        self.scene.stop = Stop {
            seconds: began.elapsed().as_secs_f64(),
            frames: self.scene.publisher.frames - frames,
            others_received: fewest(received, after),
            others_received_last_second: fewest(late, after),
            memory_growth: self.memory() as i64 - memory as i64,
            held: served.held,
            credits: served.credits,
            mailbox: served.mailbox,
            dropped: served.dropped,
            ..Stop::default()
        };
        let recorded = self.scene.recorder.frames;
        self.rows.say("the recorder goes on (SIGCONT)")?;
        self.fleet.signal(victim, Signal::SIGCONT);
        self.run(plan.resumed + SETTLE, "recorder goes on")?;
        self.scene.stop.others_lost = lost(&self.scene) - before;
        self.scene.stop.received_after = self.scene.recorder.frames - recorded;
        Ok(())
    }

    /// Kills the scaler while it holds frames.
    fn kill_one(&mut self, plan: &Plan) -> Result<(), Failure> {
        let victim = self.worker(Task::Scale);
        let lost = |scene: &Scene| scene.verifier.lost + scene.recorder.lost;
        let before = lost(&self.scene);
        let reclaimed = self.scene.publisher.info.publisher.reclaimed;
        self.rows.say("the scaler is stopped for a moment, so that it holds frames, and killed (kill -9)")?;
        self.fleet.signal(victim, Signal::SIGSTOP);
        self.run(2 * SETTLE, "scaler holds frames")?;
        let served = self.served(Task::Scale).unwrap_or_default();
        self.expected_deaths.insert(victim);
        let at = pagecast::clock::monotonic_ns();
        self.fleet.signal(victim, Signal::SIGKILL);
        let gone = self.fleet.wait_gone(victim, Duration::from_secs(2)).then(pagecast::clock::monotonic_ns);
        let received = self.scene.verifier.frames;
        self.run(SECOND, "scaler killed")?;
        let received_after = self.scene.verifier.frames - received;
        self.run(plan.killed.saturating_sub(SECOND) + SETTLE, "scaler killed")?;
        let since = |then: u64| then.saturating_sub(at) as f64 / 1e6;
        let departed = self.departed.iter().find(|departed| departed.id == served.id && served.pid != 0);
        self.scene.kill = Kill {
            held: served.held,
            others_lost: lost(&self.scene) - before,
            gone_ms: gone.map(since),
            reclaimed_ms: departed.map(|departed| since(departed.at)),
            reclaimed: self.scene.publisher.info.publisher.reclaimed - reclaimed,
            left: self.scene.publisher.info.subscribers.len(),
            received_after,
        };
        Ok(())
    }

    /// Ends everybody; the last reports count.
    fn end(&mut self) -> Result<(), Failure> {
        let workers = [self.worker(Task::Verify), self.worker(Task::Record), self.publisher];
        for worker in workers {
            self.expected_deaths.insert(worker);
            self.fleet.tell(worker, "stop");
            let until = Instant::now() + Duration::from_secs(2);
            let mut done = false;
            while !done && let Some(report) = self.fleet.next(until)? {
                done =
                    report.worker == worker && matches!(report.event.as_str(), "done" | "failed" | "ended");
                self.hear(report);
            }
        }
        self.fleet.end_all(Duration::from_secs(1));
        Ok(())
    }
}
