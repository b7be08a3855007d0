//! Two hosts, as two-hosts.sh makes them.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// No example takes longer.
const PATIENCE: Duration = Duration::from_secs(120);

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("two-hosts/two-hosts.sh")
}

/// Why there can be no namespaces here.
pub(crate) fn unavailable() -> Option<&'static str> {
    static WHY: OnceLock<Option<String>> = OnceLock::new();
    let why = WHY.get_or_init(|| {
        let tried = Command::new(script()).arg("true").stdin(Stdio::null()).output().expect("bash");
        (!tried.status.success()).then(|| String::from_utf8_lossy(&tried.stderr).trim().to_owned())
    });
    why.as_deref()
}

/// Says what is not tested here, on a line of its own, past libtest's capture.
pub(crate) fn skip(why: &str) {
    use std::io::Write;
    assert!(std::env::var_os("PAGECAST_TESTBED").is_none(), "the testbed must not skip: {why}");
    let line = format!("\nSKIP: {}: {why}\n", std::thread::current().name().unwrap_or("?"));
    let _ = std::io::stdout().write_all(line.as_bytes());
}

/// Where lines are typed, with our programs and plugin at hand.
pub(crate) struct Hosts {
    folder: tempfile::TempDir,
}

impl Hosts {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("pagecast-hosts").tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("plugins")).expect("a folder");
        let library = programs().join("deps/libgstpagecast.so");
        assert!(library.exists(), "{} is not built", library.display());
        let link = folder.path().join("plugins/libgstpagecast.so");
        std::os::unix::fs::symlink(library, link).expect("a link");
        Self { folder }
    }

    pub(crate) fn read(&self, file: &str) -> Vec<u8> {
        std::fs::read(self.folder.path().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
    }

    /// Runs what is typed on each of the hosts to its end; what was printed.
    ///
    /// # Errors
    /// What was printed, if one of them did not end well or in time.
    pub(crate) fn run(&self, host_1: &str, host_2: &str) -> Result<String, String> {
        let log = self.folder.path().join("log");
        let output = std::fs::File::create(&log).expect("a log");
        let (programs, path) = (programs(), std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new(script());
        command
            .args([host_1, host_2])
            .current_dir(self.folder.path())
            .env("PATH", format!("{0}:{0}/examples:{path}", programs.display()))
            .env("XDG_RUNTIME_DIR", self.folder.path())
            .env("GST_PLUGIN_PATH", self.folder.path().join("plugins"))
            .env("GST_REGISTRY", self.folder.path().join("registry"))
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a log"))
            .stderr(output)
            .process_group(0);
        let mut child = Ended(command.spawn().expect("bash"));
        let until = Instant::now() + PATIENCE;
        let status = loop {
            match child.0.try_wait().expect("its state") {
                Some(status) => break Some(status),
                None if Instant::now() > until => break None,
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        let said = String::from_utf8_lossy(&std::fs::read(log).expect("the log")).into_owned();
        match status {
            Some(status) if status.success() => Ok(said),
            Some(status) => Err(format!("{status}\n{said}")),
            None => Err(format!("not ended after {PATIENCE:?}\n{said}")),
        }
    }
}

/// The folder of built programs.
fn programs() -> PathBuf {
    let test = std::env::current_exe().expect("a path");
    test.ancestors().nth(2).expect("the folder of programs").to_owned()
}

/// A child that does not outlive its test; with it go all in its namespaces.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
