//! `pagecast doctor`: what this machine offers.

#[cfg(feature = "camera")]
mod cameras;
mod faces;
#[cfg(feature = "gstreamer")]
mod gstreamer;
mod limits;
mod loopback;
mod pages;
mod rdma;

use clap::Args;
use serde::Serialize;

use crate::exit::{Exit, Failure, Outcome};
use crate::output;

#[derive(Debug, Args)]
#[command(after_help = "\
PASS: it works. WARN: Pagecast works, but something that could be had is
missing. FAIL: Pagecast does not work here; the exit code is then 1.

Examples:
  pagecast doctor
  pagecast doctor --json | jq -r '.checks[] | select(.status != \"PASS\") | .remedy'")]
pub(crate) struct Doctor {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Status {
    /// It works.
    Pass,
    /// Something that could be had is missing.
    Warn,
    /// Pagecast does not work without it.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    /// What.
    pub(crate) name: &'static str,
    /// How it ended.
    pub(crate) status: Status,
    /// What was found.
    pub(crate) detail: String,
    /// What to do about it, and what for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remedy: Option<String>,
}

impl Check {
    fn pass(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, status: Status::Pass, detail: detail.into(), remedy: None }
    }

    fn warn(name: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, status: Status::Warn, detail: detail.into(), remedy: Some(remedy.into()) }
    }

    fn fail(name: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, status: Status::Fail, detail: detail.into(), remedy: Some(remedy.into()) }
    }
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    verdict: Status,
    checks: Vec<Check>,
    faces: Vec<faces::Faces>,
}

/// Everything, in the order of the report.
pub(crate) fn checks() -> Vec<Check> {
    let mut checks = vec![
        limits::kernel(),
        pages::sealing(),
        pages::huge_pages(),
        pages::shmem_huge(),
        pages::udmabuf(),
        pages::dma_heap(),
        limits::open_files(),
        limits::locked_memory(),
        limits::socket_buffers(),
        limits::pidfd(),
        limits::runtime_folder(),
    ];
    checks.extend(rdma::checks());
    #[cfg(feature = "camera")]
    checks.extend(cameras::checks());
    #[cfg(feature = "gstreamer")]
    checks.extend(gstreamer::checks());
    #[cfg(not(feature = "gstreamer"))]
    checks.push(Check::pass("gstreamer", "not in this build: no snapshot, no pipelines"));
    checks.push(loopback::check());
    checks
}

impl Doctor {
    pub(crate) fn run(self) -> Outcome {
        let checks = checks();
        let verdict = checks.iter().map(|check| check.status).max().unwrap_or(Status::Pass);
        let failed = checks.iter().filter(|check| check.status == Status::Fail).count();
        if self.json {
            output::json(&Report { verdict, checks, faces: faces::all() })?;
        } else {
            print(&checks)?;
            faces::print(&faces::all())?;
        }
        match failed {
            0 => Ok(Exit::Ok),
            1 => Err(Failure::failed("1 check failed")),
            _ => Err(Failure::failed(format_args!("{failed} checks failed"))),
        }
    }
}

fn print(checks: &[Check]) -> std::io::Result<()> {
    let colour = output::is_terminal();
    for check in checks {
        let (word, code) = match check.status {
            Status::Pass => ("PASS", "32"),
            Status::Warn => ("WARN", "33"),
            Status::Fail => ("FAIL", "31"),
        };
        let word = if colour { format!("\x1b[{code}m{word}\x1b[0m") } else { word.to_owned() };
        output::line(format_args!("{word}  {:<16} {}", check.name, check.detail))?;
        if let Some(remedy) = &check.remedy {
            output::line(format_args!("      {:<16} -> {remedy}", ""))?;
        }
    }
    let count = |status| checks.iter().filter(|check| check.status == status).count();
    let (pass, warn, fail) = (count(Status::Pass), count(Status::Warn), count(Status::Fail));
    output::line(format_args!("\n{pass} passed, {warn} warnings, {fail} failed"))
}
