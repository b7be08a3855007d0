//! `pagecast list`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use pagecast::ipc::socket::name;
use pagecast::publisher::Info;
use serde::Serialize;

use super::observe::Observer;
use crate::address::{self, Remote};
use crate::caps::brief;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{self, Table};

/// How long a publisher may take to answer, by default.
const PATIENCE: f64 = 1.0;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pagecast list
  pagecast list cam0 tcp://camera.lan
  pagecast list --json | jq -r '.[] | select(.state == \"alive\") | .uri'

The state is `alive`, `stale` (its publisher ended without removing the socket; the next publisher of that name
takes it over), `no answer` (alive but stopped), `refused` or `error`.")]
pub(crate) struct List {
    #[command(flatten)]
    publishers: Where,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Seconds that each publisher has to answer.
    #[arg(long, value_name = "SECONDS", default_value_t = PATIENCE, value_parser = super::seconds)]
    timeout: f64,
}

/// Which publishers are looked at.
#[derive(Debug, Args)]
pub(crate) struct Where {
    /// The publishers to look at: unix:NAME, unix:/path, tcp://, rdma:// or remote://HOST:PORT, or NAME; those of this machine unless given.
    #[arg(value_name = "URI", value_parser = address::parse)]
    uris: Vec<String>,
    #[command(flatten)]
    remote: Remote,
}

/// A publisher, or what is left of one.
#[derive(Debug, Serialize)]
pub(super) struct Found {
    pub(super) name: String,
    pub(super) uri: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) path: Option<PathBuf>,
    pub(super) state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) info: Option<Info>,
}

impl List {
    pub(crate) fn run(self) -> Outcome {
        let found = self.publishers.find(Duration::from_secs_f64(self.timeout))?;
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

/// Somewhere to look: name, URI, and the socket in the runtime folder.
type Place = (String, String, Option<PathBuf>);

impl Where {
    /// The publishers there; all are asked at once.
    pub(super) fn find(&self, timeout: Duration) -> Result<Vec<Found>, Failure> {
        let places: Vec<Place> = match self.uris.is_empty() {
            false => self.uris.iter().map(|uri| (uri.clone(), uri.clone(), None)).collect(),
            true => {
                let sockets = name::list().map_err(Failure::failed)?.into_iter();
                sockets.map(|(name, path)| (name.clone(), format!("unix:{name}"), Some(path))).collect()
            }
        };
        Ok(std::thread::scope(|scope| {
            let look = |place| scope.spawn(move || look(place, timeout, &self.remote));
            let threads: Vec<_> = places.into_iter().map(look).collect();
            threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
        }))
    }
}

fn look((name, uri, path): Place, timeout: Duration, remote: &Remote) -> Found {
    let (state, error, info) =
        match Observer::open(&uri, false, remote).and_then(|observer| observer.ask(timeout)) {
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
