//! Why an identity cannot be used or made.

use std::io;
use std::path::PathBuf;

/// What is wrong with a folder that should hold an identity, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// There is none.
    #[error("no identity in {}: make one with `pagecast keygen --dir {}`", .0.display(), .0.display())]
    Missing(PathBuf),
    /// A file cannot be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file holds something else.
    #[error("{} holds no {what} in PEM", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// Others can read the key.
    #[error("others can read {} (mode {mode:04o}): `chmod 600` it, or make a new one if they may have", path.display())]
    Readable {
        /// Which.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Others can say whom to trust.
    #[error("others can write to {} (mode {mode:04o}), and so say whom to trust: `chmod go-w` it", path.display())]
    Writable {
        /// Which.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It belongs to somebody else, who can change it.
    #[error("{} belongs to user {owner}, not to the user who runs this", path.display())]
    Foreign {
        /// Which.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// More than [`MAX_TRUSTED`](super::MAX_TRUSTED) certificates.
    #[error("{}: more than {limit} certificates", path.display())]
    TooMany {
        /// Which.
        path: PathBuf,
        /// The limit.
        limit: usize,
    },
    /// Key and certificate are not of one pair, or of a kind that cannot be used.
    #[error("this key and certificate are of no use together: {0}")]
    Pair(String),
    /// There is one already.
    #[error("{} is there already: with --force it is replaced, and every peer needs the new certificate", .0.display())]
    Exists(PathBuf),
    /// Somebody else is making one.
    #[error("somebody else is making an identity in {} just now", .0.display())]
    Busy(PathBuf),
    /// No key could be made.
    #[error("a key cannot be made: {0}")]
    Make(String),
}
