//! `SOCK_SEQPACKET` sockets: messages that carry descriptors, listeners that take over dead paths,
//! names, URIs and access rules.
//!
//! Everything here is non-blocking (no peer can hold its counterpart) and `CLOEXEC` (no descriptor
//! leaks into a program that is started by chance). The peer is told apart by what the kernel says of
//! it, never by what it says of itself.
//!
//! | module | what it does |
//! |---|---|
//! | [`seqpacket`] | one connection: messages with descriptors |
//! | [`listen`] | a path that is listened on, by one process at a time |
//! | [`name`] | `NAME` to a path in the runtime folder |
//! | [`uri`] | `unix:…` and `tcp://…` with their options |
//! | [`access`] | who is admitted, and who may have the dma-buf face |
//! | [`limits`] | the limit of open descriptors |

pub mod access;
pub mod limits;
pub mod listen;
mod lock;
pub mod name;
mod path;
pub mod peer;
pub mod seqpacket;
mod sys;
pub mod uri;

pub use access::{AccessRules, DmaBufAccess, Refusal};
pub use limits::raise_fd_limit;
pub use listen::{ListenError, ListenOptions, Listener};
pub use name::NameError;
pub use path::{MAX_PATH, PathTooLong};
pub use peer::PeerCredentials;
pub use seqpacket::{
    BufferSizes, MAX_FDS_PER_MESSAGE, MAX_FDS_PER_SEND, ReceiveError, SendError, Seqpacket, SocketError,
};
pub use uri::{DEFAULT_PORT, Mode, Transport, Uri, UriError, parse_list};
