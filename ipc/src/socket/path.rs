//! Socket paths and the kernel's limit on them.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::sys::socket::UnixAddr;

/// Longest socket path in bytes: `sun_path` holds 108 with the closing zero.
pub const MAX_PATH: usize = 107;

/// The path cannot be the address of a Unix socket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} is {length} bytes long, a Unix socket's path has at most {MAX_PATH}: choose a shorter name or folder",
    path.display()
)]
pub struct PathTooLong {
    /// The path as it was given.
    pub path: PathBuf,
    /// Its length in bytes.
    pub length: usize,
}

/// Checks the length of `path`.
pub(super) fn check_length(path: &Path) -> Result<(), PathTooLong> {
    let length = path.as_os_str().as_bytes().len();
    if length > MAX_PATH { Err(PathTooLong { path: path.to_path_buf(), length }) } else { Ok(()) }
}

/// The socket address of `path`, `None` when it is empty or holds a zero byte: both would mean
/// something else than a file (an unnamed or an abstract socket).
pub(super) fn address(path: &Path) -> Result<Option<UnixAddr>, PathTooLong> {
    check_length(path)?;
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    Ok(UnixAddr::new(path).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path_of(length: usize) -> PathBuf {
        PathBuf::from(format!("/{}", "x".repeat(length - 1)))
    }

    #[test]
    fn the_longest_path_is_accepted_and_one_more_is_not() {
        assert!(address(&path_of(MAX_PATH)).unwrap().is_some());
        let error = address(&path_of(MAX_PATH + 1)).unwrap_err();
        assert_eq!(error.length, MAX_PATH + 1);
    }

    #[test]
    fn a_path_that_names_no_file_has_no_address() {
        assert!(address(Path::new("")).unwrap().is_none());
        assert!(address(Path::new("\0abstract")).unwrap().is_none());
        assert!(address(Path::new("/a\0b")).unwrap().is_none());
    }
}
