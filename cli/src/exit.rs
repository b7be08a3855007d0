//! Exit codes, and failures that carry one.

use std::fmt;
use std::io;
use std::process::ExitCode;

use pagecast::ipc::socket::{ListenError, SocketError};
use pagecast::{PublishError, RecvError};

/// What `--help` says of exit codes.
pub(crate) const HELP: &str = "\
Exit codes:
  0    all is well
  1    a check failed, frames were lost, or the work broke off
  2    wrong usage
  3    no publisher is there, or it cannot be reached
  4    refused: by the publisher, or because the name is taken
  5    nothing came in time
  130  ended by Ctrl-C (143: by SIGTERM), after cleaning up";

/// How the command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All is well.
    Ok,
    /// A check failed, frames were lost, or the work broke off.
    Failed,
    /// Wrong usage.
    Usage,
    /// No publisher is there, or it cannot be reached.
    NoPublisher,
    /// By the publisher, or because the name is taken.
    Refused,
    /// Nothing came in time.
    Timeout,
    /// Ended by this signal, after cleaning up.
    Signal(i32),
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(match exit {
            Exit::Ok => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::NoPublisher => 3,
            Exit::Refused => 4,
            Exit::Timeout => 5,
            Exit::Signal(signal) => 128 | u8::try_from(signal).unwrap_or(0),
        })
    }
}

/// Why a command ended early: an exit code and what to say.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    message: String,
}

/// What a command comes to.
pub(crate) type Outcome = Result<Exit, Failure>;

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self { exit, message: message.to_string() }
    }

    /// With [`Exit::Failed`].
    pub(crate) fn failed(message: impl fmt::Display) -> Self {
        Self::new(Exit::Failed, message)
    }

    /// With [`Exit::Usage`].
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// An end without a word, e.g. because nobody reads our output any more.
    pub(crate) fn silent(exit: Exit) -> Self {
        Self::new(exit, "")
    }

    /// Says it on stderr.
    pub(crate) fn report(&self) {
        if !self.message.is_empty() {
            crate::output::note(format_args!("pagecast: {}", self.message));
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<io::Error> for Failure {
    /// For what we write: a reader that went away (`| head`) is no failure.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::silent(Exit::Ok),
            _ => Self::failed(format_args!("cannot write: {error}")),
        }
    }
}

impl From<RecvError> for Failure {
    fn from(error: RecvError) -> Self {
        let exit = match &error {
            RecvError::Timeout => Exit::Timeout,
            // Whoever interrupted us knows why; the signal becomes the exit code in `main`.
            RecvError::Interrupted => return Self::silent(Exit::Ok),
            RecvError::Refused { .. } => Exit::Refused,
            RecvError::Connect { source, .. } => match source {
                SocketError::Permission { .. } => Exit::Refused,
                SocketError::NotFound { .. } | SocketError::Refused { .. } => Exit::NoPublisher,
                SocketError::Backlog { .. } => Exit::Timeout,
                _ => Exit::Failed,
            },
            RecvError::Closed | RecvError::Remote { .. } => Exit::NoPublisher,
            RecvError::Uri(_) => Exit::Usage,
            _ => Exit::Failed,
        };
        Self::new(exit, error)
    }
}

impl From<PublishError> for Failure {
    fn from(error: PublishError) -> Self {
        let exit = match &error {
            PublishError::Uri(_) | PublishError::Name(_) => Exit::Usage,
            PublishError::Listen(ListenError::InUse { .. } | ListenError::Permission { .. }) => Exit::Refused,
            PublishError::Flushing => return Self::silent(Exit::Ok),
            _ => Exit::Failed,
        };
        Self::new(exit, error)
    }
}
