//! Publishers' names and the folder where their sockets are found.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use super::path::{PathTooLong, check_length};

/// Longest name of a publisher, in bytes.
pub const MAX_NAME: usize = 64;

/// What a socket's file is called after its name.
const SUFFIX: &str = ".sock";

/// Why a name gives no path.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// The name is empty, too long, begins with a dot or has other characters.
    #[error(
        "{name:?} is no name: 1 to {MAX_NAME} of A-Z a-z 0-9 . _ - without a leading dot, or a path that begins with /"
    )]
    BadName {
        /// The name as given.
        name: String,
    },
    /// The path that results is too long.
    #[error(transparent)]
    PathTooLong(#[from] PathTooLong),
    /// The runtime folder is not safe to use.
    #[error("{} is not safe for sockets: {why}; remove it, or set XDG_RUNTIME_DIR", path.display())]
    UnsafeFolder {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A folder could not be read or created.
    #[error("{}: {error}", path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// The error.
        error: io::Error,
    },
}

/// The folder where this user's publishers are found: `$XDG_RUNTIME_DIR/pagecast`, else `/run/pagecast`
/// for root, else `pagecast-UID` in the temporary folder. It is checked if it exists, and not created.
pub fn runtime_dir() -> Result<PathBuf, NameError> {
    Place::of(&Surroundings::current()).check()
}

/// As [`runtime_dir`], created where it is missing.
pub fn create_runtime_dir() -> Result<PathBuf, NameError> {
    Place::of(&Surroundings::current()).create()
}

/// The socket's path for `/a/path` (as it is) or a name (in the runtime folder).
pub fn resolve(name: &str) -> Result<PathBuf, NameError> {
    resolve_in(name, runtime_dir)
}

/// As [`resolve`], for a publisher: the runtime folder is created where a name needs it.
pub fn resolve_to_listen(name: &str) -> Result<PathBuf, NameError> {
    resolve_in(name, create_runtime_dir)
}

fn resolve_in(name: &str, folder: impl FnOnce() -> Result<PathBuf, NameError>) -> Result<PathBuf, NameError> {
    let path = if name.starts_with('/') {
        PathBuf::from(name)
    } else {
        check_name(name)?;
        folder()?.join(format!("{name}{SUFFIX}"))
    };
    check_length(&path)?;
    Ok(path)
}

/// Checks that `name` can be a publisher's name.
pub fn check_name(name: &str) -> Result<(), NameError> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if (1..=MAX_NAME).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(good) {
        Ok(())
    } else {
        Err(NameError::BadName { name: name.to_owned() })
    }
}

/// The sockets in the runtime folder with their names, in order; whether someone listens there is not
/// looked at.
pub fn list() -> Result<Vec<(String, PathBuf)>, NameError> {
    list_in(&runtime_dir()?)
}

fn list_in(folder: &Path) -> Result<Vec<(String, PathBuf)>, NameError> {
    let fail = |error| NameError::Io { path: folder.to_path_buf(), error };
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(fail)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(fail)?;
        // An entry that is gone by now is nothing to complain about.
        let is_socket = entry.file_type().is_ok_and(|kind| kind.is_socket());
        let file_name = entry.file_name();
        let name = file_name.to_str().and_then(|file| file.strip_suffix(SUFFIX));
        if let Some(name) = name.filter(|name| is_socket && check_name(name).is_ok()) {
            found.push((name.to_owned(), entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// What decides where the runtime folder is.
#[derive(Debug, Clone)]
struct Surroundings {
    uid: u32,
    xdg_runtime_dir: Option<OsString>,
    temporary: PathBuf,
    run: PathBuf,
}

impl Surroundings {
    fn current() -> Self {
        Self {
            uid: geteuid().as_raw(),
            xdg_runtime_dir: std::env::var_os("XDG_RUNTIME_DIR"),
            temporary: std::env::temp_dir(),
            run: PathBuf::from("/run"),
        }
    }

    /// `$XDG_RUNTIME_DIR` if it can be used: absolute, and a folder of this user (su leaves the variable
    /// of the user before).
    fn session_folder(&self) -> Option<PathBuf> {
        let path = PathBuf::from(self.xdg_runtime_dir.as_ref()?);
        let metadata = fs::metadata(&path).ok()?;
        (path.is_absolute() && metadata.is_dir() && metadata.uid() == self.uid).then_some(path)
    }
}

/// Where the runtime folder is, and who may do what there.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    uid: u32,
    /// Permissions it is created with.
    mode: u32,
    /// Permissions it must not have.
    forbidden: u32,
}

impl Place {
    fn of(around: &Surroundings) -> Self {
        let uid = around.uid;
        if let Some(session) = around.session_folder() {
            return Self { path: session.join("pagecast"), uid, mode: 0o700, forbidden: 0o022 };
        }
        if uid == 0 {
            // Others may look for a socket here: whether they may connect is for the socket to say.
            return Self { path: around.run.join("pagecast"), uid, mode: 0o755, forbidden: 0o022 };
        }
        let path = around.temporary.join(format!("pagecast-{uid}"));
        Self { path, uid, mode: 0o700, forbidden: 0o077 }
    }

    /// The path, if what is there (if anything) is safe.
    fn check(self) -> Result<PathBuf, NameError> {
        match fs::symlink_metadata(&self.path) {
            Ok(metadata) => self.inspect(&metadata)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(NameError::Io { path: self.path, error }),
        }
        Ok(self.path)
    }

    /// The path, as a safe folder that exists.
    fn create(self) -> Result<PathBuf, NameError> {
        match DirBuilder::new().mode(self.mode).create(&self.path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(NameError::Io { path: self.path, error }),
        }
        self.check()
    }

    fn inspect(&self, metadata: &Metadata) -> Result<(), NameError> {
        let why = if metadata.is_symlink() {
            "it is a symbolic link"
        } else if !metadata.is_dir() {
            "it is no folder"
        } else if metadata.uid() != self.uid {
            "it belongs to another user"
        } else if metadata.mode() & self.forbidden != 0 {
            "others have too many permissions on it"
        } else {
            return Ok(());
        };
        Err(NameError::UnsafeFolder { path: self.path.clone(), why })
    }
}

#[cfg(test)]
#[path = "name_tests.rs"]
mod tests;
