//! Pipelines in processes of their own.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use pagecast_tests::hosts::Hosts;

use super::LIMIT;

const PROGRAM: &str = "gst-launch-1.0";

/// A folder with our plugin and a registry, for all processes of this test program.
fn plugins() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let program = std::env::current_exe().expect("this program");
        let library = program.with_file_name("libgstpagecast.so");
        assert!(library.exists(), "{} is not built", library.display());
        // Among what cargo built, and of one name for all runs of one program.
        let name = program.file_name().unwrap_or_default();
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("plugins-of").join(name);
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(folder.join("plugins")).expect("a folder");
        std::os::unix::fs::symlink(library, folder.join("plugins/libgstpagecast.so")).expect("a link");
        // One process makes the registry; the others find it.
        let inspect = with_plugins(Command::new("gst-inspect-1.0").arg("pagecastsrc"), &folder).output();
        let inspect = inspect.expect("gst-inspect-1.0");
        assert!(inspect.status.success(), "{}", String::from_utf8_lossy(&inspect.stderr));
        folder
    })
}

fn with_plugins<'a>(command: &'a mut Command, folder: &Path) -> &'a mut Command {
    command
        .env("GST_PLUGIN_PATH", folder.join("plugins"))
        .env("GST_REGISTRY", folder.join("registry"))
        .env("G_DEBUG", "fatal-criticals")
}

/// A process that ends with the test.
pub(crate) struct Launched {
    child: std::process::Child,
    log: PathBuf,
    what: String,
}

impl Launched {
    /// Runs `gst-launch-1.0` with a pipeline in which no value has spaces.
    pub(crate) fn new(log: &str, pipeline: &str) -> Self {
        Self::with(Command::new(PROGRAM), log, pipeline)
    }

    /// The same on the first host (0) or the second (1).
    pub(crate) fn on(hosts: &Hosts, host: usize, log: &str, pipeline: &str) -> Self {
        Self::with(hosts.command(host, PROGRAM), log, pipeline)
    }

    fn with(mut command: Command, log: &str, pipeline: &str) -> Self {
        let log = PathBuf::from(log);
        let file = File::create(&log).expect("a log");
        command.arg("-q").args(pipeline.split_whitespace());
        command.stdin(Stdio::null()).stdout(file.try_clone().expect("a log")).stderr(file);
        let child = with_plugins(&mut command, plugins()).spawn().expect("gst-launch-1.0");
        Self { child, log, what: pipeline.to_owned() }
    }

    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// What it has said.
    pub(crate) fn said(&self) -> String {
        format!("{}\n{}", self.what, std::fs::read_to_string(&self.log).unwrap_or_default())
    }

    /// Waits for it to end.
    pub(crate) fn status(&mut self) -> ExitStatus {
        let until = Instant::now() + 2 * LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(Instant::now() < until, "does not end: {}", self.said());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for it to end well.
    pub(crate) fn wait(&mut self) {
        let status = self.status();
        assert!(status.success(), "{status}: {}", self.said());
    }

    /// As `kill -9`.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// As Ctrl-C.
    pub(crate) fn interrupt(&self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("a signal");
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        self.kill();
    }
}
