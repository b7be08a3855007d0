//! What a publisher is told when it begins.

use std::time::Duration;

use pagecast_ipc::budget::Share;
use pagecast_ipc::fanout::Rules;
use pagecast_ipc::policy::Policy;
use pagecast_ipc::socket::AccessRules;
use pagecast_remote::limits::SMALL_PER_FRAME;

use crate::remote::RemoteOptions;

/// Credits, and as many places in the mailbox, where nobody says otherwise: together about a quarter of a
/// second of video at 60 fps.
const FRAMES: u32 = 8;
/// The same for small frames, of which there may be thousands a second.
const SMALL_FRAMES: u32 = 128;
/// The most credits a subscriber may ask for where the publisher does not say.
const MOST_ASKED: u32 = 64;
/// Frames, and small frames, that a bridge to another host holds at a time.
const BRIDGED: u32 = 2;
const SMALL_BRIDGED: u32 = 32;
/// What is a small frame, in bytes.
pub(super) const SMALL: u64 = 16 * 1024;

/// How a publisher serves its subscribers.
#[derive(Clone, Debug)]
pub struct PublisherOptions {
    /// Its name, for people; by default that of its address.
    pub name: String,
    /// The policy of subscribers that ask for none.
    pub policy: Policy,
    /// The most a subscriber may ask for; `None` allows any policy.
    pub force_policy: bool,
    /// Whether frames come at their own pace (a camera), which is what policy `auto` looks at.
    pub live: bool,
    /// Frames a subscriber may hold, unless it asks for fewer; `None` goes by the size of frames.
    pub credits: Option<u32>,
    /// Frames that may wait for one subscriber's credit; `None` is as many as it has credits.
    pub mailbox: Option<u32>,
    /// Subscribers at a time.
    pub max_subscribers: u32,
    /// Bytes that may be held and waiting in all; a pool's limit, usually.
    pub limit: u64,
    /// Buffers that no subscriber's share may touch: what upstream needs to go on.
    pub reserve: u32,
    /// How long a full mailbox with policy `block` may hold the producer, per stall.
    pub block_deadline: Option<Duration>,
    /// Whether a subscriber that outlasts it is disconnected instead of losing frames.
    pub disconnect_at_deadline: bool,
    /// How long more than the keep allowance may be held while newer frames appear; off by default.
    pub hold_timeout: Option<Duration>,
    /// The largest keep allowance a subscriber may ask for.
    pub max_keep: u32,
    /// Pages of somebody who was cut off are not written again until its process has ended.
    pub quarantine: bool,
    /// Who may come, and who may have the dma-buf face.
    pub access: AccessRules,
    /// Permissions of the socket.
    pub perms: u32,
    /// Who may come from other hosts, and how.
    pub remote: RemoteOptions,
}

impl Default for PublisherOptions {
    fn default() -> Self {
        let rules = Rules::default();
        Self {
            name: String::new(),
            policy: Policy::Auto,
            force_policy: false,
            live: true,
            credits: None,
            mailbox: None,
            max_subscribers: rules.max_subscribers,
            limit: 1 << 30,
            reserve: 4,
            block_deadline: rules.block_deadline,
            disconnect_at_deadline: rules.disconnect_at_deadline,
            hold_timeout: None,
            max_keep: 4,
            quarantine: false,
            access: AccessRules::default(),
            perms: 0o600,
            remote: RemoteOptions::default(),
        }
    }
}

impl PublisherOptions {
    /// The share of a subscriber that asks for `credits`, where frames have so many bytes (0: not known).
    pub(super) fn share(&self, credits: Option<u32>, frame_bytes: u64) -> Share {
        let usual = if (1..=SMALL).contains(&frame_bytes) { SMALL_FRAMES } else { FRAMES };
        let most = self.credits.unwrap_or(usual.max(MOST_ASKED));
        let credits = credits.or(self.credits).unwrap_or(usual).clamp(1, most.max(1));
        Share { credits, mailbox: self.mailbox.unwrap_or(credits) }
    }

    /// The share of a bridge to a subscriber elsewhere that may hold `window` frames, or many more small ones. The
    /// bridge holds what it sends, and what follows.
    pub(super) fn bridge_share(&self, window: Option<u32>, frame_bytes: u64) -> Share {
        let small = (1..=SMALL).contains(&frame_bytes);
        let (credits, each) = if small { (SMALL_BRIDGED, SMALL_PER_FRAME) } else { (BRIDGED, 1) };
        Share { credits, ..self.share(window.map(|frames| frames.saturating_mul(each)), frame_bytes) }
    }

    pub(super) fn rules(&self) -> Rules {
        Rules {
            max_subscribers: self.max_subscribers,
            block_deadline: self.block_deadline,
            disconnect_at_deadline: self.disconnect_at_deadline,
            hold_timeout: self.hold_timeout,
        }
    }
}
