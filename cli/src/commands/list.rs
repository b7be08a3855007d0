//! `pagecast list`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use pagecast::ipc::socket::name;
use pagecast::publisher::Info;
use serde::Serialize;

use super::observe::Observer;
use crate::address::Remote;
use crate::caps::brief;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{self, Table};

/// How long a publisher may take to answer, by default.
const PATIENCE: f64 = 1.0;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pagecast list
  pagecast list --json | jq -r '.[] | select(.state == \"alive\") | .uri'

The state is `alive`, `stale` (its publisher ended without removing the socket; the next publisher of that name
takes it over), `no answer` (alive but stopped), `refused` or `error`.")]
pub(crate) struct List {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Seconds that each publisher has to answer.
    #[arg(long, value_name = "SECONDS", default_value_t = PATIENCE, value_parser = super::seconds)]
    timeout: f64,
}

/// A socket in the runtime folder.
#[derive(Debug, Serialize)]
pub(super) struct Found {
    pub(super) name: String,
    pub(super) uri: String,
    pub(super) path: PathBuf,
    pub(super) state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) info: Option<Info>,
}

impl List {
    pub(crate) fn run(self) -> Outcome {
        let found = find(Duration::from_secs_f64(self.timeout))?;
        if self.json {
            output::json(&found)?;
            return Ok(Exit::Ok);
        }
        if found.is_empty() {
            let folder = name::runtime_dir().map_err(Failure::failed)?;
            let folder = folder.display();
            output::note(format_args!(
                "no publishers in {folder}: start one with `pagecast serve`, or see `pagecast doctor`"
            ));
            return Ok(Exit::Ok);
        }
        table(&found).print()?;
        Ok(Exit::Ok)
    }
}

/// The publishers in the runtime folder; all are asked at once.
pub(super) fn find(timeout: Duration) -> Result<Vec<Found>, Failure> {
    let sockets = name::list().map_err(Failure::failed)?;
    Ok(std::thread::scope(|scope| {
        let look = |(name, path)| scope.spawn(move || look(name, path, timeout));
        let threads: Vec<_> = sockets.into_iter().map(look).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    }))
}

fn look(name: String, path: PathBuf, timeout: Duration) -> Found {
    let uri = format!("unix:{name}");
    let (state, error, info) =
        match Observer::open(&uri, false, &Remote::default()).and_then(|observer| observer.ask(timeout)) {
            Ok(info) => ("alive", None, Some(info)),
            Err(failure) => {
                let state = match failure.exit {
                    Exit::NoPublisher => "stale",
                    Exit::Timeout => "no answer",
                    Exit::Refused => "refused",
                    _ => "error",
                };
                (state, Some(failure.to_string()), None)
            }
        };
    Found { name, uri, path, state, error, info }
}

fn table(found: &[Found]) -> Table {
    let mut table = Table::new(["NAME", "STATE", ">PID", ">SUBSCRIBERS", ">FPS", ">DROPPED", "CAPS"]);
    for found in found {
        let info = found.info.as_ref();
        let figure = |show: &dyn Fn(&Info) -> String| info.map(show).unwrap_or_else(|| "-".to_owned());
        table.row([
            found.name.clone(),
            found.state.to_owned(),
            figure(&|info| info.publisher.pid.to_string()),
            figure(&|info| info.subscribers.len().to_string()),
            figure(&|info| format!("{:.1}", info.publisher.fps)),
            figure(&|info| info.publisher.dropped.to_string()),
            figure(&|info| info.caps.as_deref().map_or_else(|| "-".to_owned(), brief)),
        ]);
    }
    table
}
