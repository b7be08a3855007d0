//! What happens to a subscriber that falls behind.
#![forbid(unsafe_code)]

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// What a mailbox does when a frame arrives and it is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Policy {
    /// [`Policy::Block`] when upstream is not live, [`Policy::DropOldest`] when it is.
    #[default]
    Auto,
    /// The producer is held, for everyone, up to the deadline; then the newest frames are dropped.
    Block,
    /// The frame that waited longest makes room.
    DropOldest,
    /// The frame that arrives is not taken.
    DropNewest,
    /// A mailbox of one: only the newest frame waits.
    Latest,
}

impl Policy {
    /// All policies, in the order they are listed to users.
    pub const ALL: [Policy; 5] =
        [Policy::Auto, Policy::Block, Policy::DropOldest, Policy::DropNewest, Policy::Latest];

    /// The name users write.
    pub fn as_str(self) -> &'static str {
        match self {
            Policy::Auto => "auto",
            Policy::Block => "block",
            Policy::DropOldest => "drop-oldest",
            Policy::DropNewest => "drop-newest",
            Policy::Latest => "latest",
        }
    }

    /// The policy that `auto` stands for.
    pub fn resolve(self, live: bool) -> Policy {
        match self {
            Policy::Auto if live => Policy::DropOldest,
            Policy::Auto => Policy::Block,
            other => other,
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Not the name of a policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown policy {0:?}: use auto, block, drop-oldest, drop-newest or latest")]
pub struct UnknownPolicy(pub String);

impl FromStr for Policy {
    type Err = UnknownPolicy;
    fn from_str(text: &str) -> Result<Self, UnknownPolicy> {
        Self::ALL.into_iter().find(|p| p.as_str() == text).ok_or_else(|| UnknownPolicy(text.to_owned()))
    }
}

/// At most so many frames per second: numerator over denominator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Frames.
    pub frames: u32,
    /// Per so many seconds.
    pub seconds: u32,
}

impl Rate {
    /// The time between two frames at this rate; `None` if the rate is not positive.
    pub fn interval(self) -> Option<Duration> {
        (self.frames > 0 && self.seconds > 0)
            .then(|| Duration::from_secs(u64::from(self.seconds)) / self.frames)
    }
}
