//! The command as a user who has nothing but groups.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::{Command, Stdio};

use super::Place;

/// Any user but root, and a group of its own.
const NOBODY: u32 = 65_534;
/// The group that cameras belong to.
pub(crate) const VIDEO: u32 = 44;

/// `pagecast ARGS` as nobody, with these further groups, without a capability and without a way to get one: what a
/// container has that is given nothing but devices.
pub(crate) fn as_nobody(place: &Place, groups: &str, args: &str) -> Command {
    let own = place.path().join("pagecast-of-nobody");
    if !own.exists() {
        // By another process: what any process has open for writing cannot be run, and a child that another test starts just
        // now has for a moment whatever is open here.
        let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_pagecast")).arg(&own).status();
        assert!(copied.is_ok_and(|status| status.success()), "a copy");
        for path in [place.path().to_owned(), place.path().join("pagecast")] {
            chown(&path, Some(NOBODY), Some(NOBODY)).expect("chown");
        }
    }
    // GStreamer's list of plug-ins, which takes it half a minute to make in the testbed.
    let registry = place.path().join("registry.bin");
    if let Some(home) = std::env::var_os("HOME").filter(|_| !registry.exists()) {
        let made = Path::new(&home).join(".cache/gstreamer-1.0/registry.x86_64.bin");
        if fs::copy(made, &registry).is_ok() {
            chown(&registry, Some(NOBODY), Some(NOBODY)).expect("chown");
        }
    }
    let usual = place.command("");
    let mut command = Command::new("setpriv");
    let id = NOBODY.to_string();
    command.args(["--reuid", &id, "--regid", &id, groups]);
    command.args(["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]);
    command.arg(own).args(args.split_whitespace()).current_dir(place.path());
    command.envs(usual.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env("GST_REGISTRY", registry);
    command
}
