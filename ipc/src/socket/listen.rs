//! A path that is listened on, by one process at a time.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use nix::errno::Errno;
use nix::sys::socket::{Backlog, bind, listen};
use nix::sys::stat::{Mode, fchmod};

use super::lock::{LockError, PathLock};
use super::path::{PathTooLong, address};
use super::seqpacket::{Seqpacket, SocketError, new_socket};
use super::sys;

/// `accept` gives up after so many connections that were gone before they were taken.
const MAX_ABORTED: usize = 16;

/// Why a path cannot be listened on, or no connection be taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// Somebody alive listens there.
    #[error(
        "{} is in use by {}: stop that publisher, or choose another name",
        path.display(),
        holder(*pid)
    )]
    InUse {
        /// The path.
        path: PathBuf,
        /// The process that holds it, where known.
        pid: Option<i32>,
    },
    /// What lies at the path is no socket, and is left alone.
    #[error("{} exists and is no socket: remove it, or choose another name", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// What lies at the path of the lock file is no lock file, and is left alone.
    #[error("{} is not a lock file of Pagecast: remove it, or choose another name", path.display())]
    NotALock {
        /// The lock file's path.
        path: PathBuf,
    },
    /// The folder does not exist.
    #[error("the folder of {} does not exist: create it", path.display())]
    NoFolder {
        /// The path.
        path: PathBuf,
    },
    /// This user may not create a socket there, or what lies there is another user's.
    #[error("no permission to listen at {}: choose a folder of your own", path.display())]
    Permission {
        /// The path.
        path: PathBuf,
    },
    /// The path is too long for a socket.
    #[error(transparent)]
    PathTooLong(#[from] PathTooLong),
    /// The path is empty or holds a zero byte.
    #[error("{path:?} is not the path of a socket")]
    BadPath {
        /// The path.
        path: PathBuf,
    },
    /// Permissions are nine bits.
    #[error("{0:o} are not permissions of a socket: 0 to 777 (octal)")]
    BadPermissions(u32),
    /// No descriptor is left. The connection that waited was refused where `refused` says so; where not,
    /// it still waits, and the listener stays readable: look again later, not at once.
    #[error("no file descriptor is left for a new connection: raise the limit (ulimit -n)")]
    OutOfFds {
        /// Whether the connection that waited was closed.
        refused: bool,
    },
    /// Anything else.
    #[error("{what}: {error}")]
    Io {
        /// The step that failed.
        what: &'static str,
        /// Its error.
        error: io::Error,
    },
}

fn holder(pid: Option<i32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

/// How to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenOptions {
    /// The socket's permissions, whatever the umask: who has no right to write cannot connect.
    pub perms: u32,
    /// Connections that may wait to be accepted.
    pub backlog: u32,
}

impl Default for ListenOptions {
    /// For the owner only; 128 may wait.
    fn default() -> Self {
        Self { perms: 0o600, backlog: 128 }
    }
}

/// Device and inode: which file it is, whatever its name.
type FileId = (u64, u64);

/// A listening socket and the right to its path.
///
/// The path is locked (`PATH.lock`) for the listener's life. A path whose publisher is gone is taken
/// over, one whose publisher lives never is. When dropped, the listener removes its own socket and lock.
#[derive(Debug)]
pub struct Listener {
    // Dropped in this order: the lock is given up last.
    fd: OwnedFd,
    /// A descriptor to give up when no other is left, so that a peer can be taken and refused.
    spare: Mutex<Option<OwnedFd>>,
    path: PathBuf,
    id: FileId,
    lock: PathLock,
}

impl Listener {
    /// Listens at `path`, which is created with exactly the permissions asked for, and at no time
    /// with wider ones.
    pub fn bind(path: &Path, options: &ListenOptions) -> Result<Self, ListenError> {
        let address = address(path)?.ok_or_else(|| ListenError::BadPath { path: path.to_path_buf() })?;
        if options.perms & !0o777 != 0 {
            return Err(ListenError::BadPermissions(options.perms));
        }
        let fd = new_socket().map_err(socket_error)?;
        let lock = PathLock::take(path).map_err(|error| lock_error(path, error))?;
        remove_dead(path)?;
        // bind takes the mode of the socket's own inode, less the umask, for the file.
        let narrow = Mode::from_bits_truncate(options.perms);
        fchmod(&fd, narrow).map_err(|errno| io("fchmod", errno))?;
        bind(fd.as_raw_fd(), &address).map_err(|errno| bind_error(path, errno))?;
        let id = id_of(path)?;
        let listener = Self { fd, spare: Mutex::new(open_spare()), path: path.to_path_buf(), id, lock };
        listener.widen(options.perms)?;
        let backlog = Backlog::new(options.backlog.min(libc::SOMAXCONN as u32) as i32)
            .map_err(|errno| io("backlog", errno))?;
        listen(&listener.fd, backlog).map_err(|errno| io("listen", errno))?;
        Ok(listener)
    }

    /// Gives back what the umask took from the socket's permissions.
    fn widen(&self, perms: u32) -> Result<(), ListenError> {
        let fail = |error| ListenError::Io { what: "permissions of the socket", error };
        let metadata = fs::symlink_metadata(&self.path).map_err(fail)?;
        if metadata.mode() & 0o777 == perms {
            return Ok(());
        }
        // By descriptor: whatever is at the path meanwhile must not get these permissions.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC)
            .open(&self.path)
            .map_err(fail)?;
        let metadata = file.metadata().map_err(fail)?;
        if (metadata.dev(), metadata.ino()) != self.id {
            return Err(ListenError::InUse { path: self.path.clone(), pid: None });
        }
        let by_descriptor = format!("/proc/self/fd/{}", file.as_raw_fd());
        fs::set_permissions(by_descriptor, fs::Permissions::from_mode(perms)).map_err(fail)
    }

    /// Takes a waiting connection, `None` when none waits.
    pub fn accept(&self) -> Result<Option<Seqpacket>, ListenError> {
        for _ in 0..MAX_ABORTED {
            match sys::accept(self.fd.as_fd()) {
                Ok(fd) => return Ok(Some(Seqpacket::from_accepted(fd))),
                Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::ECONNABORTED | Errno::EINTR) => {}
                Err(Errno::EMFILE | Errno::ENFILE) => {
                    return Err(ListenError::OutOfFds { refused: self.refuse_one() });
                }
                Err(errno) => return Err(io("accept", errno)),
            }
        }
        Ok(None)
    }

    /// Takes the connection that waits with the spare descriptor's place and closes it: left in the
    /// queue it would keep the listener readable, and its peer waiting, for nothing.
    fn refuse_one(&self) -> bool {
        let mut spare = self.spare.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        drop(spare.take());
        let refused = sys::accept(self.fd.as_fd()).is_ok();
        *spare = open_spare();
        refused
    }

    /// The path that is listened on.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // The path may have been removed by hand and belong to someone else by now.
        if self.lock.is_mine() && id_of(&self.path).is_ok_and(|id| id == self.id) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes the socket that a publisher left behind; the caller holds the path's lock. Whoever listens
/// without a lock (another program, or one whose lock file was deleted) is found by connecting.
fn remove_dead(path: &Path) -> Result<(), ListenError> {
    let path_buf = || path.to_path_buf();
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(file_error(path, "lstat", error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(ListenError::NotASocket { path: path_buf() });
        }
        Ok(_) => {}
    }
    match Seqpacket::connect(path) {
        Err(SocketError::Refused { .. }) => {
            fs::remove_file(path).map_err(|error| file_error(path, "unlink", error))
        }
        Err(SocketError::NotFound { .. }) => Ok(()),
        Err(SocketError::Backlog { .. } | SocketError::WrongType { .. }) => {
            Err(ListenError::InUse { path: path_buf(), pid: None })
        }
        Ok(live) => Err(ListenError::InUse {
            path: path_buf(),
            pid: live.peer().ok().map(|peer| peer.pid).filter(|pid| *pid > 0),
        }),
        Err(SocketError::Permission { .. }) => Err(ListenError::Permission { path: path_buf() }),
        Err(error) => Err(socket_error(error)),
    }
}

fn id_of(path: &Path) -> Result<FileId, ListenError> {
    let metadata = fs::symlink_metadata(path).map_err(|error| file_error(path, "lstat", error))?;
    Ok((metadata.dev(), metadata.ino()))
}

fn open_spare() -> Option<OwnedFd> {
    fs::File::open("/dev/null").ok().map(OwnedFd::from)
}

fn io(what: &'static str, errno: Errno) -> ListenError {
    ListenError::Io { what, error: errno.into() }
}

fn file_error(path: &Path, what: &'static str, error: io::Error) -> ListenError {
    let path = path.to_path_buf();
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => ListenError::NoFolder { path },
        Some(libc::EACCES | libc::EPERM) => ListenError::Permission { path },
        Some(libc::EMFILE | libc::ENFILE) => ListenError::OutOfFds { refused: false },
        _ => ListenError::Io { what, error },
    }
}

fn bind_error(path: &Path, errno: Errno) -> ListenError {
    match errno {
        // Somebody who does not know our lock was quicker.
        Errno::EADDRINUSE => ListenError::InUse { path: path.to_path_buf(), pid: None },
        errno => file_error(path, "bind", errno.into()),
    }
}

fn lock_error(path: &Path, error: LockError) -> ListenError {
    match error {
        LockError::Held { pid } => ListenError::InUse { path: path.to_path_buf(), pid },
        LockError::NotALock => ListenError::NotALock { path: PathLock::path_for(path) },
        LockError::Io(error) => file_error(path, "lock file", error),
    }
}

fn socket_error(error: SocketError) -> ListenError {
    match error {
        SocketError::OutOfFds { .. } => ListenError::OutOfFds { refused: false },
        SocketError::Io { what, errno } => io(what, errno),
        error => ListenError::Io { what: "socket", error: io::Error::other(error) },
    }
}
