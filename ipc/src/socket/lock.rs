//! One holder per path: `flock` on a file beside it, for the life of the holder.
//!
//! The kernel lets go of the lock when its holder ends, however it ends. The file itself stays after a
//! kill; a holder that ends properly removes it *while it holds the lock*. So whoever gets a lock looks
//! whether the file it locked is still the one at the path: if not, it locked a removed file, and starts
//! again. Two who both pass that check would hold a lock on one and the same file, which cannot be.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

/// Each further try means that another holder came and went in between.
const MAX_TRIES: usize = 1000;

/// Why a path could not be locked.
#[derive(Debug)]
pub(super) enum LockError {
    /// Another process (or another part of this one) holds it.
    Held { pid: Option<i32> },
    /// The lock file is not one: a link, a folder, a device, or a file with a second name.
    NotALock,
    /// The file could not be opened or locked.
    Io(io::Error),
}

impl From<io::Error> for LockError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The right to the path, until dropped.
#[derive(Debug)]
pub(super) struct PathLock {
    file: File,
    path: PathBuf,
    owner: u32,
}

impl PathLock {
    /// The lock file that belongs to `path`.
    pub(super) fn path_for(path: &Path) -> PathBuf {
        let mut name = OsString::from(path.as_os_str());
        name.push(".lock");
        PathBuf::from(name)
    }

    /// Takes the lock of `path`, without waiting.
    pub(super) fn take(path: &Path) -> Result<Self, LockError> {
        let path = Self::path_for(path);
        for _ in 0..MAX_TRIES {
            if let Some(lock) = Self::lock(open(&path)?, &path)? {
                return Ok(lock);
            }
        }
        Err(LockError::Held { pid: None })
    }

    /// Locks `file`, `None` if `path` is another file by now.
    fn lock(mut file: File, path: &Path) -> Result<Option<Self>, LockError> {
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LockError::Held { pid: read_pid(&mut file) }),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        if !is_at(&file, path)? {
            return Ok(None);
        }
        write_pid(&mut file)?;
        Ok(Some(Self { file, path: path.to_path_buf(), owner: std::process::id() }))
    }

    /// Whether this process took the lock: a forked child has a copy of it, but no right to the path.
    pub(super) fn is_mine(&self) -> bool {
        self.owner == std::process::id()
    }
}

impl Drop for PathLock {
    fn drop(&mut self) {
        if !self.is_mine() {
            return;
        }
        if is_at(&self.file, &self.path).unwrap_or(false) {
            let _ = fs::remove_file(&self.path);
        }
        // Closing would not do while a forked child has a copy of the descriptor.
        let _ = self.file.unlock();
    }
}

fn open(path: &Path) -> Result<File, LockError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        // Not through a link, and a FIFO must not make us wait.
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)
        .map_err(|error| match error.raw_os_error() {
            Some(libc::ELOOP | libc::EISDIR | libc::ENXIO) => LockError::NotALock,
            _ => LockError::Io(error),
        })?;
    let metadata = file.metadata()?;
    // A second name could be anyone's file, which must not be written to.
    if metadata.is_file() && metadata.nlink() <= 1 { Ok(file) } else { Err(LockError::NotALock) }
}

/// Whether `file` is what `path` names now.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Leaves this process's id for whoever finds the path in use. Root leaves others' files as they are.
fn write_pid(file: &mut File) -> io::Result<()> {
    if file.metadata()?.uid() != geteuid().as_raw() {
        return Ok(());
    }
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    writeln!(file, "{}", std::process::id())
}

/// The id in the lock file, if the kernel says that this process holds the lock: until the holder has
/// noted its own, the file has that of an earlier one, which may be anyone's by now.
fn read_pid(file: &mut File) -> Option<i32> {
    let mut text = String::new();
    file.take(16).read_to_string(&mut text).ok()?;
    let pid = text.trim_end().parse::<i32>().ok().filter(|pid| *pid > 0)?;
    let inode = file.metadata().ok()?.ino();
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().any(|line| is_holder(line, pid, inode)).then_some(pid)
}

/// Whether a line of /proc/locks, `N: FLOCK ADVISORY WRITE PID DEVICE:INODE START END`, is about `pid`
/// and `inode`. Device numbers are not compared: some file systems have others there than in stat.
fn is_holder(line: &str, pid: i32, inode: u64) -> bool {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [_, "FLOCK", _, "WRITE", holder, file, ..] = fields[..] else { return false };
    holder.parse() == Ok(pid) && file.rsplit(':').next().map(str::parse) == Some(Ok(inode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_held_once_and_its_file_goes_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.sock");
        let lock = PathLock::take(&path).unwrap();
        let pid = std::process::id() as i32;
        assert!(matches!(PathLock::take(&path), Err(LockError::Held { pid: Some(p) }) if p == pid));
        drop(lock);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        PathLock::take(&path).unwrap();
    }

    #[test]
    fn a_holder_is_named_only_if_it_holds() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.sock");
        let lock = PathLock::take(&path).unwrap();
        // The note of an earlier holder, which lives, but does not hold this.
        fs::write(PathLock::path_for(&path), "1\n").unwrap();
        assert!(matches!(PathLock::take(&path), Err(LockError::Held { pid: None })));
        for nonsense in ["", "x", "-1", "0", "99999999999999999999"] {
            fs::write(PathLock::path_for(&path), nonsense).unwrap();
            assert!(matches!(PathLock::take(&path), Err(LockError::Held { pid: None })));
        }
        drop(lock);
        let line = "5: FLOCK  ADVISORY  WRITE 42 fd:00:1234 0 EOF";
        assert!(is_holder(line, 42, 1234));
        assert!(!is_holder(line, 42, 123) && !is_holder(line, 4, 1234));
        assert!(!is_holder("5: -> FLOCK  ADVISORY  WRITE 42 fd:00:1234 0 EOF", 42, 1234));
        assert!(!is_holder("5: POSIX  ADVISORY  WRITE 42 fd:00:1234 0 EOF", 42, 1234));
    }

    #[test]
    fn a_lock_on_a_removed_file_is_worth_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = PathLock::path_for(&folder.path().join("x.sock"));
        // Opened while someone else had it, locked after that one removed it and was gone.
        let opened = || open(&path).unwrap();
        let (early, later) = (opened(), opened());
        fs::remove_file(&path).unwrap();
        assert!(PathLock::lock(early, &path).unwrap().is_none());
        let current = PathLock::lock(opened(), &path).unwrap().unwrap();
        assert!(PathLock::lock(later, &path).unwrap().is_none());
        drop(current);
    }

    #[test]
    fn a_lock_is_let_go_while_a_forked_child_has_a_copy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.sock");
        let lock = PathLock::take(&path).unwrap();
        let waiting = open(&lock.path).unwrap();
        // What fork makes: another descriptor of the same open file.
        let _copy = lock.file.try_clone().unwrap();
        drop(lock);
        waiting.try_lock().unwrap();
    }

    #[test]
    fn the_file_is_gone_before_the_lock_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.sock");
        for _ in 0..200 {
            let lock = PathLock::take(&path).unwrap();
            let waiting = open(&lock.path).unwrap();
            std::thread::scope(|scope| {
                scope.spawn(|| drop(lock));
                while waiting.try_lock().is_err() {
                    std::thread::yield_now();
                }
                assert!(!is_at(&waiting, &PathLock::path_for(&path)).unwrap());
            });
        }
    }

    #[test]
    fn a_lock_that_was_replaced_does_not_remove_its_successor() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.sock");
        let first = PathLock::take(&path).unwrap();
        fs::remove_file(PathLock::path_for(&path)).unwrap();
        let _second = PathLock::take(&path).unwrap();
        drop(first);
        assert!(PathLock::path_for(&path).exists());
    }

    #[test]
    fn what_is_no_lock_file_is_neither_followed_nor_written() {
        let folder = tempfile::tempdir().unwrap();
        let victim = folder.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        let linked = folder.path().join("linked");
        std::os::unix::fs::symlink(&victim, PathLock::path_for(&linked)).unwrap();
        assert!(matches!(PathLock::take(&linked), Err(LockError::NotALock)));
        let hard = folder.path().join("hard");
        fs::hard_link(&victim, PathLock::path_for(&hard)).unwrap();
        assert!(matches!(PathLock::take(&hard), Err(LockError::NotALock)));
        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&PathLock::path_for(&fifo), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(PathLock::take(&fifo), Err(LockError::NotALock)));
        let directory = folder.path().join("directory");
        fs::create_dir(PathLock::path_for(&directory)).unwrap();
        assert!(matches!(PathLock::take(&directory), Err(LockError::NotALock)));
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    }
}
