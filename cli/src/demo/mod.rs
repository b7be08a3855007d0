//! `pagecast demo`: frames shared between processes, one of which is stopped and one killed.

mod offer;
mod picture;
#[cfg(feature = "gstreamer")]
mod pipeline;
mod publish;
mod relay;
#[cfg(feature = "gstreamer")]
mod rival;
mod scene;
mod seen;
mod subscribe;
mod table;
mod verdict;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;

pub(crate) use publish::{Defect, PublisherJob, publish};
pub(crate) use relay::{RelayJob, relay};
#[cfg(feature = "gstreamer")]
pub(crate) use rival::{RivalJob, consume as rival_consume, produce as rival_produce};
pub(crate) use subscribe::{SubscriberJob, subscribe};

use crate::exit::{Exit, Failure, Outcome};
use crate::output;
use scene::Plan;
use seen::Scene;
use verdict::Check;

const SNAPSHOT: &str = "snapshot.png";
const REPORT: &str = "report.json";
/// The scene may take so many times as long where this machine is too busy for it.
const PATIENCE: u32 = 3;

/// Show what Pagecast does, on this machine and in a minute: no camera, root or configuration is needed.
///
/// A publisher sends a moving 1080p60 picture to three processes, and to a relay that two more receive from
/// over TCP, as on another host. One here and one there are stopped, one is killed, and the others' frames are
/// checked page by page. Then the same happens to shmsink and unixfdsink, where these
/// are installed. Ends with 0 only if every check held.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  pagecast demo
  pagecast demo --quick --out /tmp/pagecast-demo
  pagecast demo --no-compare --json report.json")]
pub(crate) struct Demo {
    /// At most 15 seconds instead of 60, as long as this machine is not too busy for the scene.
    #[arg(long)]
    quick: bool,
    /// Where snapshot.png and report.json go.
    #[arg(long, value_name = "DIR", default_value = "pagecast-demo")]
    out: PathBuf,
    /// Where the report goes, instead of DIR/report.json.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Keep the recording, too.
    #[arg(long)]
    keep: bool,
    /// Leave shmsink and unixfdsink out.
    #[arg(long)]
    no_compare: bool,
    /// Be broken, to see that the checks find it.
    #[cfg(any(debug_assertions, feature = "broken"))]
    #[arg(long = "break", value_name = "DEFECT", hide = true)]
    defect: Option<Defect>,
}

/// Everything the demonstration came to.
#[derive(Debug, Serialize)]
struct Report {
    demo: &'static str,
    version: &'static str,
    held: bool,
    machine: crate::bench::Machine,
    checks: Vec<Check>,
    pagecast: Scene,
    others: Vec<Other>,
    notes: Vec<String>,
}

/// What the same scene does to another transport.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Other {
    pub(crate) name: String,
    /// Why nothing was seen.
    pub(crate) error: Option<String>,
    pub(crate) fps: u32,
    pub(crate) stopped_seconds: f64,
    /// Frames that were due while one was stopped.
    pub(crate) due: u64,
    /// Frames that the others got meanwhile; the one that got fewest.
    pub(crate) received: u64,
    /// Frames that the others got in the last second of it.
    pub(crate) received_last_second: u64,
    /// By how much the producer's memory grew meanwhile, bytes.
    pub(crate) memory_growth: i64,
    /// Frames the others got in the second after the stopped one was killed.
    pub(crate) received_after_kill: u64,
}

#[cfg(feature = "gstreamer")]
fn missing_for_pipelines() -> Option<String> {
    pipeline::missing()
}

#[cfg(not(feature = "gstreamer"))]
fn missing_for_pipelines() -> Option<String> {
    Some("built without GStreamer".to_owned())
}

/// The plan of the scene.
fn plan(quick: bool, defect: Option<Defect>, pipelines: bool, relay: bool) -> Plan {
    let of = |full: u64, short: u64| Duration::from_millis(if quick { short } else { full });
    Plan {
        fps: 60,
        slowest: 10,
        credits: 4,
        mailbox: 8,
        warm_up: of(1500, 700),
        healthy: of(4000, 1000),
        stopped: of(14000, 2500),
        resumed: of(2000, 500),
        killed: of(2000, 500),
        row_every: of(1000, 500),
        defect,
        pipelines,
        relay,
    }
}

impl Demo {
    #[cfg(any(debug_assertions, feature = "broken"))]
    fn defect(&self) -> Option<Defect> {
        self.defect
    }

    #[cfg(not(any(debug_assertions, feature = "broken")))]
    fn defect(&self) -> Option<Defect> {
        None
    }

    pub(crate) fn run(self) -> Outcome {
        let began = Instant::now();
        let limit = Duration::from_secs(if self.quick { 15 } else { 60 });
        let machine = crate::bench::Machine::describe();
        let mut notes = Vec::new();
        offer::tell(&machine)?;
        let why_not = missing_for_pipelines();
        if let Some(why) = &why_not {
            notes.push(format!("the scaler and the recorder are no pipelines here: {why}"));
        }
        let no_relay = relay::missing();
        if let Some(why) = &no_relay {
            notes.push(format!("the relay and those behind it are left out: {why}"));
        }
        let plan = plan(self.quick, self.defect(), why_not.is_none(), no_relay.is_none());
        let folder = crate::workers::folder("demo")?;
        let scene = self.scene(&plan, folder.path(), began, limit, &mut notes)?;
        let checks = verdict::judge(&plan, &scene, folder.path());
        let others = self.others(&scene, folder.path(), began, limit, &mut notes)?;
        self.keep_files(folder.path(), plan.recording())?;
        let held = checks.iter().all(|check| check.held);
        let version = env!("CARGO_PKG_VERSION");
        let report = Report { demo: "local", version, held, machine, checks, pagecast: scene, others, notes };
        self.tell(&report, began)?;
        self.write(&report)?;
        Ok(if held { Exit::Ok } else { Exit::Failed })
    }

    /// Plays the scene; again at a lower rate where this machine was too slow and there is time.
    fn scene(
        &self,
        plan: &Plan,
        folder: &Path,
        began: Instant,
        limit: Duration,
        notes: &mut Vec<String>,
    ) -> Result<Scene, Failure> {
        output::line(format_args!(
            "\nA {}x{} NV12 picture at {} fps, for three processes that check, scale and record it{}",
            picture::WIDTH,
            picture::HEIGHT,
            plan.fps,
            if plan.pipelines { "; the last two with pagecastsrc" } else { "" }
        ))?;
        if plan.relay {
            output::line(
                "A relay passes the same pages on over TCP, to one that checks all of it and one that views 10 fps",
            )?;
        }
        let mut plan = plan.clone();
        let mut headed = false;
        loop {
            let rows = table::Rows::new(began, plan.row_every, &mut headed);
            let scene = scene::play(&plan, folder, rows)?;
            if scene.fps < plan.fps {
                notes.push(format!("this machine was too busy for {} fps: {} fps", plan.fps, scene.fps));
            }
            let time_left =
                (PATIENCE * limit).saturating_sub(began.elapsed()) > plan.length() + Duration::from_secs(1);
            if scene.too_slow() == 0 || !time_left || scene.fps <= plan.slowest {
                return Ok(scene);
            }
            plan.fps = (scene.fps / 2).max(plan.slowest);
            notes.push(format!(
                "those who check got too little time at {} fps: again at {}",
                scene.fps, plan.fps
            ));
            output::line(format_args!("-- {}", notes.last().map_or("", String::as_str)))?;
        }
    }

    #[cfg(feature = "gstreamer")]
    fn others(
        &self,
        scene: &Scene,
        folder: &Path,
        began: Instant,
        limit: Duration,
        notes: &mut Vec<String>,
    ) -> Result<Vec<Other>, Failure> {
        let until = began + limit - Duration::from_millis(500);
        if self.no_compare {
            Ok(Vec::new())
        } else {
            rival::compare(scene.fps, self.quick, folder, until, notes)
        }
    }

    #[cfg(not(feature = "gstreamer"))]
    fn others(
        &self,
        _scene: &Scene,
        _folder: &Path,
        _began: Instant,
        _limit: Duration,
        notes: &mut Vec<String>,
    ) -> Result<Vec<Other>, Failure> {
        notes.push("built without GStreamer: shmsink and unixfdsink are left out".to_owned());
        Ok(Vec::new())
    }

    fn keep_files(&self, folder: &Path, recording: &str) -> Result<(), Failure> {
        let fail = |error: std::io::Error| {
            Failure::failed(format_args!("cannot write to {}: {error}", self.out.display()))
        };
        std::fs::create_dir_all(&self.out).map_err(fail)?;
        for name in [Some(SNAPSHOT), self.keep.then_some(recording)].into_iter().flatten() {
            let from = folder.join(name);
            if from.exists() {
                std::fs::copy(from, self.out.join(name)).map_err(fail)?;
            }
        }
        Ok(())
    }

    fn tell(&self, report: &Report, began: Instant) -> Result<(), Failure> {
        output::line("\nWhat was checked")?;
        verdict::table(&report.checks).print()?;
        if !report.others.is_empty() {
            output::line("\nThe same with others: one of three consumers stopped, then killed")?;
            others_table(&report.pagecast, &report.others).print()?;
        }
        report.notes.iter().try_for_each(|note| output::line(format_args!("note: {note}")))?;
        let snapshot = self.out.join(SNAPSHOT);
        let path = self.report_path();
        output::line(format_args!(
            "\nsee {} (its specks are the stamps) and {}",
            snapshot.display(),
            path.display()
        ))?;
        let seconds = began.elapsed().as_secs_f64();
        let failed = report.checks.iter().filter(|check| !check.held).count();
        let checks = report.checks.len();
        match failed {
            0 => output::line(format_args!("All {checks} checks held, in {seconds:.0} s."))?,
            _ => output::line(format_args!("{failed} of {checks} checks FAILED."))?,
        }
        Ok(())
    }

    fn report_path(&self) -> PathBuf {
        self.json.clone().unwrap_or_else(|| self.out.join(REPORT))
    }

    fn write(&self, report: &Report) -> Result<(), Failure> {
        let path = self.report_path();
        let text = serde_json::to_string_pretty(report).map_err(Failure::failed)?;
        std::fs::write(&path, text + "\n")
            .map_err(|error| Failure::failed(format_args!("cannot write {}: {error}", path.display())))
    }
}

fn others_table(scene: &Scene, others: &[Other]) -> output::Table {
    let mut table = output::Table::new([
        "TRANSPORT",
        ">STOPPED s",
        ">FRAMES DUE",
        ">OTHERS GOT",
        ">IN LAST SECOND",
        ">MEMORY GREW MiB",
        ">IN 1 s AFTER KILL",
    ]);
    let (stop, kill) = (&scene.stop, &scene.kill);
    table.row([
        "pagecast".to_owned(),
        format!("{:.1}", stop.seconds),
        stop.frames.to_string(),
        stop.others_received.to_string(),
        stop.others_received_last_second.to_string(),
        format!("{:+}", stop.memory_growth >> 20),
        kill.received_after.to_string(),
    ]);
    for other in others {
        let cells = match &other.error {
            Some(error) => [
                other.name.clone(),
                format!("failed: {error}"),
                "-".into(),
                "-".into(),
                "-".into(),
                "-".into(),
                "-".into(),
            ],
            None => [
                other.name.clone(),
                format!("{:.1}", other.stopped_seconds),
                other.due.to_string(),
                other.received.to_string(),
                other.received_last_second.to_string(),
                format!("{:+}", other.memory_growth >> 20),
                other.received_after_kill.to_string(),
            ],
        };
        table.row(cells);
    }
    table
}
