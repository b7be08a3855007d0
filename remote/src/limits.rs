//! Every limit of a remote link; a message beyond one is a fault of the peer.

use std::time::Duration;

/// The version of the framing that this build speaks.
pub const VERSION: u16 = 1;
/// Bytes of one frame.
pub const MAX_FRAME_BYTES: u64 = 1 << 30;
/// Frames that one end takes over before earlier ones have left. Over TCP [`SMALL_PER_FRAME`] small ones count as one.
pub const MAX_FRAMES_UNDER_WAY: usize = 2;
/// Bytes of packets that wait to be sent; more are not taken over.
pub const MAX_BYTES_WAITING: usize = 256 * 1024;
/// Messages handed out in a row, so that a peer who never stops sending does not keep its owner busy.
pub const MAX_IN_A_ROW: usize = 64;
/// The pause after an end's first heartbeat; it doubles up to [`HEARTBEAT`].
pub const FIRST_BEAT: Duration = Duration::from_millis(10);
/// Each end sends a heartbeat so often.
pub const HEARTBEAT: Duration = Duration::from_secs(1);
/// Heartbeats in a row, and as many more for each second in which nothing was read: one a second is sent, and an answer to each.
pub const MAX_BEATS: u64 = 64;
/// See [`MAX_BEATS`].
pub const MAX_BEATS_A_SECOND: u64 = 4;
/// A peer of which nothing was heard for so long is dead.
pub const DEAD: Duration = Duration::from_secs(5);
/// Looks at a link come at least each second: an end that did not look for longer was not running.
pub const AWAY: Duration = Duration::from_secs(2);
/// Work that a device was given and neither did nor refused for so long ends the link.
pub const STALLED: Duration = Duration::from_secs(10);
/// How long a newcomer may take to say hello.
pub const HELLO: Duration = Duration::from_secs(2);
/// How long connecting may take.
pub const CONNECT: Duration = Duration::from_secs(3);
/// How long an end that says good-bye waits while nothing of what it has said arrives.
pub const LINGER: Duration = Duration::from_millis(500);
/// How long a publisher's end that says good-bye waits in all, while some of it does.
pub const LAST_WORDS: Duration = Duration::from_secs(10);
/// Frames that a subscriber may hold where it does not ask for a number.
pub const WINDOW: u32 = 8;
/// The most frames that a subscriber may ask for.
pub const MAX_WINDOW: u32 = 64;
/// What is a small frame, in bytes.
pub const SMALL: u64 = 16 * 1024;
/// So many small frames count as one.
pub const SMALL_PER_FRAME: u32 = 16;
