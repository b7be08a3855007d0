//! The limit of open descriptors. It also bounds how many may be under way in sockets, for all
//! processes of a user together.

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::seqpacket::SocketError;

/// The soft limit is not raised beyond this: programs that are started from here may close "all"
/// descriptors one by one, and the hard limit is a thousand million on some machines.
pub const MAX_RAISED: u64 = 1 << 20;

/// Raises this process's soft limit of open descriptors to the hard one, and returns the soft limit
/// before and after.
pub fn raise_fd_limit() -> Result<(u64, u64), SocketError> {
    let fail = |errno: Errno| SocketError::Io { what: "RLIMIT_NOFILE", errno };
    let (before, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(fail)?;
    let wanted = hard.min(MAX_RAISED);
    if wanted <= before {
        return Ok((before, before));
    }
    setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).map_err(fail)?;
    let (after, _) = getrlimit(Resource::RLIMIT_NOFILE).map_err(fail)?;
    Ok((before, after))
}
