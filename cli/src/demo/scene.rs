//! The scene: a publisher with three subscribers, and a relay with two more behind it; one here and one there are
//! stopped, then one is killed.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::publish::{Defect, Departed, PublisherJob, PublisherReport};
use super::relay::{self, RelayJob, RelayReport};
use super::seen::{Behind, Kill, Pages, Scene, Stop};
use super::subscribe::{SubscriberJob, SubscriberReport, Task};
use super::table::Rows;
use crate::exit::Failure;
use crate::workers::Role;
use crate::workers::fleet::{Fleet, Report};
use crate::workers::memory::{self, Memory, memory_files};

const SECOND: Duration = Duration::from_secs(1);
const SET_UP: Duration = Duration::from_secs(30);
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
    /// There is a relay, and what is behind it.
    pub(super) relay: bool,
}

impl Plan {
    /// The recording's file.
    pub(super) fn recording(&self) -> &'static str {
        if self.pipelines { "recording.avi" } else { "recording.y4m" }
    }

    /// Buffers for three subscribers and the relay, a reserve, and the one that is being filled.
    pub(super) fn buffers(&self) -> u64 {
        let relay = if self.relay { relay::CREDITS + self.mailbox } else { 0 };
        u64::from(3 * (self.credits + self.mailbox) + relay + 6)
    }

    pub(super) fn length(&self) -> Duration {
        self.warm_up + self.healthy + self.stopped + self.resumed + self.killed + 4 * SETTLE
    }
}

struct Live<'a> {
    fleet: Fleet,
    publisher: usize,
    relay: Option<usize>,
    subscribers: Vec<(Task, usize)>,
    scene: Scene,
    departed: Vec<Departed>,
    expected_deaths: BTreeSet<usize>,
    rows: Rows<'a>,
}

/// Plays the scene. `folder` is for sockets and what subscribers write.
pub(super) fn play(plan: &Plan, folder: &Path, rows: Rows<'_>) -> Result<Scene, Failure> {
    let mut live = Live::start(plan, folder, rows)?;
    live.warm_up(plan)?;
    let before = live.scene.clone();
    live.run(plan.healthy, "all run")?;
    live.look_at_pages();
    live.stop_some(plan)?;
    live.kill_one(plan)?;
    live.end()?;
    live.scene.count_since(&before);
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
            credits: plan.credits.max(relay::CREDITS),
            mailbox: plan.mailbox,
            defect: plan.defect,
        };
        let publisher = fleet.start("publisher", &Role::DemoPublisher(job))?;
        let ready = fleet.collect(&[publisher], "ready", SET_UP).map_err(Failure::failed)?;
        let first: PublisherReport = serde_json::from_value(ready[0].clone()).map_err(Failure::failed)?;
        let relay = match plan.relay {
            true => Some(fleet.start("relay", &Role::DemoRelay(RelayJob { socket: socket.clone() }))?),
            false => None,
        };
        let here = format!("unix:{}", socket.display());
        let mut tasks = vec![
            (Task::Verify, "unused", here.clone()),
            (Task::Scale, super::SNAPSHOT, here.clone()),
            (Task::Record, plan.recording(), here),
        ];
        if let Some(relay) = relay {
            let ready = fleet.collect(&[relay], "ready", SET_UP).map_err(Failure::failed)?;
            let told: RelayReport = serde_json::from_value(ready[0].clone()).map_err(Failure::failed)?;
            tasks.push((Task::Remote, "unused", told.info.uri.clone()));
            tasks.push((Task::View, "unused", told.info.uri));
        }
        let mut subscribers = Vec::new();
        for (task, file, uri) in tasks {
            let (credits, pipelines, file) = (plan.credits, plan.pipelines, folder.join(file));
            let job = SubscriberJob { uri, task, credits, pipelines, file };
            subscribers.push((task, fleet.start(task.as_str(), &Role::DemoSubscriber(job))?));
        }
        let workers = subscribers.iter().map(|(_, worker)| *worker).collect::<Vec<_>>();
        fleet.collect(&workers, "ready", SET_UP).map_err(Failure::failed)?;
        fleet.tell(publisher, "go");
        let pool_limit = first.info.publisher.pool_limit;
        let behind = plan.relay.then(Behind::default);
        let scene = Scene { fps: plan.fps, publisher: first, behind, pool_limit, ..Scene::default() };
        let expected_deaths = BTreeSet::new();
        Ok(Self { fleet, publisher, relay, subscribers, scene, departed: Vec::new(), expected_deaths, rows })
    }

    fn worker(&self, task: Task) -> usize {
        self.subscribers.iter().find(|(of, _)| *of == task).map_or(self.publisher, |(_, worker)| *worker)
    }

    /// Finds a rate that this machine can keep.
    fn warm_up(&mut self, plan: &Plan) -> Result<(), Failure> {
        self.run(plan.warm_up / 2, "warm-up")?;
        loop {
            let before = (self.scene.publisher.frames, self.scene.publisher.late, self.scene.slow());
            self.run(plan.warm_up, "warm-up")?;
            let frames = self.scene.publisher.frames - before.0;
            let late = self.scene.publisher.late - before.1;
            let too_slow = late * 10 > frames || self.scene.slow() > before.2;
            if !too_slow || self.scene.fps <= plan.slowest {
                return Ok(());
            }
            self.scene.fps = (self.scene.fps / 2).max(plan.slowest);
            self.fleet.tell(self.publisher, &format!("fps {}", self.scene.fps));
            let told = format!("this machine is too busy for that rate: going on at {} fps", self.scene.fps);
            self.rows.say(&told)?;
        }
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
            "report" | "done" if Some(worker) == self.relay => {
                self.scene.behind_mut().relay = serde_json::from_value(data).unwrap_or_default();
            }
            "report" | "done" => {
                let task = self.subscribers.iter().find(|(_, of)| *of == worker).map(|(task, _)| *task);
                let told: SubscriberReport = serde_json::from_value(data).unwrap_or_default();
                *self.scene.report_of(task.unwrap_or(Task::Verify)) = told;
            }
            "departed" => self.departed.extend(serde_json::from_value::<Departed>(data)),
            "failed" if !self.expected_deaths.contains(&worker) => {
                self.scene.deaths.push(self.fleet.complaint(worker, &data))
            }
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

    /// Compares what others have mapped with what the publisher has open.
    fn look_at_pages(&mut self) {
        let publishers = memory_files(self.fleet.pid(self.publisher).as_raw());
        let ours: BTreeSet<u64> = publishers.iter().map(|file| file.inode).collect();
        let pages = |worker| Pages::mapped_by(self.fleet.pid(worker).as_raw(), &ours);
        self.scene.pages = pages(self.worker(Task::Verify));
        if let Some(relay) = self.relay {
            let pages = pages(relay);
            self.scene.behind_mut().pages = pages;
        }
    }

    fn served(&self, task: Task) -> Option<pagecast::publisher::SubscriberInfo> {
        let pid = self.fleet.pid(self.worker(task)).as_raw();
        self.scene.publisher.info.subscribers.iter().find(|one| one.pid == pid).cloned()
    }

    /// Stops the recorder, and the viewer behind the relay, as Ctrl-Z would, and lets them go on later.
    fn stop_some(&mut self, plan: &Plan) -> Result<(), Failure> {
        let victims: Vec<usize> = self
            .subscribers
            .iter()
            .filter(|(task, _)| task.is_to_stop())
            .map(|(_, worker)| *worker)
            .collect();
        let who = if self.relay.is_some() { "recorder and, behind the relay, viewer" } else { "recorder" };
        let before = self.scene.clone();
        let (began, memory) = (Instant::now(), self.memory());
        self.rows.say(&format!("stopped (SIGSTOP): {who}"))?;
        victims.iter().for_each(|victim| _ = self.fleet.signal(*victim, Signal::SIGSTOP));
        self.run(plan.stopped.saturating_sub(SECOND), "some stopped")?;
        let late = self.scene.clone();
        self.run(SECOND, "some stopped")?;
        let (seconds, growth) = (began.elapsed().as_secs_f64(), self.memory() as i64 - memory as i64);
        let served = self.served(Task::Record).unwrap_or_default();
        let after = self.scene.clone();
        self.rows.say(&format!("they go on (SIGCONT): {who}"))?;
        victims.iter().for_each(|victim| _ = self.fleet.signal(*victim, Signal::SIGCONT));
        self.run(plan.resumed + SETTLE, "all run again")?;
        self.scene.stop = Stop {
            seconds,
            memory_growth: growth,
            held: served.held,
            credits: served.credits,
            mailbox: served.mailbox,
            dropped: served.dropped,
            ..Stop::between(&before, &late, &after)
        };
        self.scene.stop.others_lost =
            self.scene.lost_beside(Task::Record).saturating_sub(before.lost_beside(Task::Record));
        self.scene.stop.received_after = self.scene.recorder.frames - after.recorder.frames;
        self.scene.note_stop_behind(&before, &after);
        Ok(())
    }

    /// Kills the scaler while it holds frames.
    fn kill_one(&mut self, plan: &Plan) -> Result<(), Failure> {
        let victim = self.worker(Task::Scale);
        let before = self.scene.lost_beside(Task::Scale);
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
            others_lost: self.scene.lost_beside(Task::Scale).saturating_sub(before),
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
        let of = |tasks: &[Task]| {
            let all = self.subscribers.iter().filter(|(task, _)| tasks.contains(task));
            all.map(|(_, worker)| *worker).collect::<Vec<_>>()
        };
        let mut workers = of(&[Task::Remote, Task::View, Task::Verify, Task::Record]);
        workers.extend(self.relay);
        workers.push(self.publisher);
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
