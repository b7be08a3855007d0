//! Lines in terminals: started, looked at from outside, ended by Ctrl-C.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, getpgid};

use crate::blocks::{Block, How, Section};
use crate::common;

/// Frames that a consumer must get before it is believed to work.
const FRAMES: u64 = 10;

/// What README uses and this machine may lack.
pub(crate) struct Lacks(&'static str);

impl Lacks {
    pub(crate) fn anything() -> Option<Self> {
        let runs = |program: &str, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).output();
            output.is_ok_and(|output| output.status.success())
        };
        let needed = [
            ("gst-launch-1.0", "gst-launch-1.0", "--version"),
            ("ffmpeg", "ffmpeg", "-version"),
            ("ffprobe", "ffprobe", "-version"),
            ("x264enc", "gst-inspect-1.0", "x264enc"),
            ("matroskamux", "gst-inspect-1.0", "matroskamux"),
            ("fakevideosink", "gst-inspect-1.0", "fakevideosink"),
        ];
        let lacking = needed.into_iter().find(|(_, program, argument)| !runs(program, &[argument]));
        lacking.map(|(name, ..)| Self(name))
    }

    pub(crate) fn skip(self) {
        common::skip(&format!("there is no {}", self.0));
    }
}

/// The error that a control must have met.
pub(crate) fn found(result: Result<usize, String>, what: &str) -> String {
    match result {
        Err(error) => error,
        Ok(lines) => panic!("{lines} lines with {what:?} in them passed"),
    }
}

/// Where lines are typed: our plugin and the command are found, nothing else of this machine is touched.
pub(crate) struct Stage {
    folder: tempfile::TempDir,
    _alone: MutexGuard<'static, ()>,
}

/// The loopback of a network of its own for this thread and all that it starts, where that is allowed: the ports that
/// README names may be in use on this machine.
fn own_network() {
    if unshare(CloneFlags::CLONE_NEWNET).is_ok() {
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
        assert!(up.is_ok_and(|status| status.success()), "the loopback of a new network");
    }
}

impl Stage {
    /// One at a time, for the same reason.
    pub(crate) fn new() -> Self {
        static ONE: Mutex<()> = Mutex::new(());
        let alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        own_network();
        let folder = tempfile::Builder::new().prefix("pagecast-readme").tempdir().unwrap();
        let stage = Self { folder, _alone: alone };
        let test = std::env::current_exe().unwrap();
        let library = test.with_file_name("libgstpagecast.so");
        assert!(library.exists(), "{} is not built", library.display());
        std::fs::create_dir(stage.plugins()).unwrap();
        std::os::unix::fs::symlink(library, stage.plugins().join("libgstpagecast.so")).unwrap();
        // One process makes the registry; the others find it.
        let output = stage.command(stage.path(), "gst-inspect-1.0 pagecastsrc").output().unwrap();
        assert!(output.status.success(), "{}", common::stderr(&output));
        stage
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn plugins(&self) -> PathBuf {
        self.path().join("plugins")
    }

    /// A shell that runs these lines in a folder, as the leader of a process group.
    fn command(&self, folder: &Path, lines: &str) -> Command {
        let programs = Path::new(env!("CARGO_BIN_EXE_pagecast")).parent().unwrap().display().to_string();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("bash");
        command
            .args(["-o", "pipefail", "-e", "-c", lines])
            .current_dir(folder)
            .env("PATH", format!("{programs}:{path}"))
            .env("XDG_RUNTIME_DIR", folder)
            .env("XDG_CONFIG_HOME", folder.join("config"))
            .env("GST_PLUGIN_PATH", self.plugins())
            .env("GST_REGISTRY", self.path().join("registry"))
            .env("GST_PLUGIN_FEATURE_RANK", "fakevideosink:MAX")
            .stdin(Stdio::null())
            .process_group(0);
        command
    }

    /// Runs a section in a folder of its own; how many lines it had.
    pub(crate) fn run(&self, section: &Section, patience: Duration) -> Result<usize, String> {
        let folder = tempfile::Builder::new().prefix("section").tempdir_in(self.path()).unwrap();
        let mut scene = Scene { stage: self, folder: folder.path(), terminals: Vec::new() };
        for block in &section.blocks {
            scene.run(block, patience)?;
        }
        scene.all_is_well(patience)?;
        scene.end()?;
        let lines = || section.blocks.iter().flat_map(|block| &block.lines);
        lines().try_for_each(|line| written(folder.path(), line))?;
        Ok(lines().count())
    }
}

/// The terminals that are open.
struct Scene<'a> {
    stage: &'a Stage,
    folder: &'a Path,
    terminals: Vec<Terminal>,
}

impl Scene<'_> {
    fn run(&mut self, block: &Block, patience: Duration) -> Result<(), String> {
        match block.how {
            How::Terminals => {
                for line in &block.lines {
                    let terminal = Terminal::open(self, line);
                    self.terminals.push(terminal);
                }
                Ok(())
            }
            How::Steps => {
                self.all_is_well(patience)?;
                Terminal::open(self, &block.lines.join("\n")).ends_well()
            }
        }
    }

    /// Every terminal's line does what it is for, and none has ended.
    fn all_is_well(&mut self, patience: Duration) -> Result<(), String> {
        let until = Instant::now() + patience;
        loop {
            for terminal in &mut self.terminals {
                terminal.goes_on()?;
            }
            let infos = self.infos();
            let lacking = self.terminals.iter().find_map(|terminal| terminal.lacks(&infos));
            match lacking {
                None => return Ok(()),
                Some(what) if Instant::now() > until => return Err(format!("{what}\n{infos:?}")),
                Some(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// What the publishers say, of all sockets that are here.
    fn infos(&self) -> Vec<serde_json::Value> {
        let folders = [self.folder.to_owned(), self.folder.join("pagecast")];
        let entries = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten();
        let is_socket = |path: &PathBuf| {
            use std::os::unix::fs::FileTypeExt;
            std::fs::metadata(path).is_ok_and(|data| data.file_type().is_socket())
        };
        let sockets = entries.map(|entry| entry.path()).filter(is_socket);
        let info = |socket: PathBuf| {
            let line = format!("pagecast info unix:{} --json", socket.display());
            let output = self.stage.command(self.folder, &line).output().ok()?;
            serde_json::from_slice(&output.stdout).ok()
        };
        sockets.filter_map(info).collect()
    }

    /// Ctrl-C in all of them, the last one first.
    fn end(mut self) -> Result<(), String> {
        while let Some(mut terminal) = self.terminals.pop() {
            terminal.goes_on()?;
            terminal.signal(Signal::SIGINT);
            terminal.ends_by_interrupt()?;
        }
        Ok(())
    }
}

/// A line at work, with its whole process group gone when this is.
struct Terminal {
    line: String,
    log: PathBuf,
    child: Child,
}

impl Terminal {
    fn open(scene: &Scene<'_>, line: &str) -> Self {
        let log = tempfile::Builder::new().prefix("log").tempfile_in(scene.folder).unwrap();
        let log = log.into_temp_path().keep().unwrap();
        let output = File::create(&log).unwrap();
        let mut command = scene.stage.command(scene.folder, line);
        command.stdout(output.try_clone().unwrap()).stderr(output);
        Self { line: line.to_owned(), log, child: command.spawn().unwrap() }
    }

    fn group(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    fn signal(&self, signal: Signal) {
        let _ = killpg(self.group(), signal);
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn goes_on(&mut self) -> Result<(), String> {
        match self.child.try_wait().unwrap() {
            None => Ok(()),
            Some(status) => Err(format!("{} ended, {status}: {}", self.line, self.said())),
        }
    }

    fn ends(&mut self) -> Result<std::process::ExitStatus, String> {
        let until = Instant::now() + 2 * common::LIMIT;
        loop {
            match self.child.try_wait().unwrap() {
                Some(status) => return Ok(status),
                None if Instant::now() > until => {
                    return Err(format!("{} does not end: {}", self.line, self.said()));
                }
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    fn ends_well(mut self) -> Result<(), String> {
        let status = self.ends()?;
        match status.success() {
            true => Ok(()),
            false => Err(format!("{}, {status}: {}", self.line, self.said())),
        }
    }

    /// Well, or as a program does that was interrupted.
    fn ends_by_interrupt(&mut self) -> Result<(), String> {
        let status = self.ends()?;
        match status.code() {
            Some(0 | 130) => Ok(()),
            _ => Err(format!("{}, {status} after Ctrl-C: {}", self.line, self.said())),
        }
    }

    /// What it should do and does not do yet.
    fn lacks(&self, infos: &[serde_json::Value]) -> Option<String> {
        let is_in_group = |pid: Option<i64>| {
            pid.and_then(|pid| getpgid(Some(Pid::from_raw(pid as i32))).ok()) == Some(self.group())
        };
        let has = |words: &[&str]| words.iter().any(|word| self.line.contains(word));
        let publishes = has(&["pagecastsink ", "pagecast serve ", "pagecast relay "]);
        let mut publishers = infos.iter().map(|info| &info["publisher"]);
        if publishes
            && !publishers
                .any(|one| is_in_group(one["pid"].as_i64()) && one["frames"].as_u64() >= Some(FRAMES))
        {
            return Some(format!("{} publishes no frames: {}", self.line, self.said()));
        }
        let receives = has(&["pagecastsrc ", "pagecast recv ", "pagecast relay "]);
        let mut subscribers = infos.iter().filter_map(|info| info["subscribers"].as_array()).flatten();
        if receives
            && !subscribers
                .any(|one| is_in_group(one["pid"].as_i64()) && one["frames"].as_u64() >= Some(FRAMES))
        {
            return Some(format!("{} gets no frames: {}", self.line, self.said()));
        }
        self.said().is_empty().then(|| format!("{} says nothing", self.line))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A group whose leader was waited for may be somebody else's.
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(Signal::SIGKILL);
            let _ = self.child.wait();
        }
    }
}

/// Pictures and recordings that a line writes are there and can be read.
fn written(folder: &Path, line: &str) -> Result<(), String> {
    let names = line
        .split([' ', '='])
        .filter(|word| [".png", ".mkv", ".mp4"].iter().any(|ending| word.ends_with(ending)));
    for name in names {
        let mut probe = Command::new("ffprobe");
        probe.args([
            "-v",
            "error",
            "-count_frames",
            "-show_entries",
            "stream=nb_read_frames",
            "-of",
            "csv=p=0",
        ]);
        let output = probe.arg(folder.join(name)).output().map_err(|error| error.to_string())?;
        let frames = String::from_utf8_lossy(&output.stdout);
        if frames.trim().trim_end_matches(',').parse::<u64>().unwrap_or(0) == 0 {
            return Err(format!("{line} left no {name} that can be read: {}", common::stderr(&output)));
        }
    }
    Ok(())
}
