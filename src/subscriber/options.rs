//! What a subscriber asks for.

use pagecast_ipc::policy::{Policy, Rate};
use pagecast_ipc::wire::{FaceSet, Role};

use crate::pool::PoolOptions;
use crate::remote::RemoteOptions;

/// How a subscriber wants to be served.
#[derive(Clone, Debug)]
pub struct SubscriberOptions {
    /// The policy asked for; `None` leaves it to the publisher.
    pub policy: Option<Policy>,
    /// Credits asked for; `None` leaves it to the publisher.
    pub credits: Option<u32>,
    /// Frames it may keep for long without being called stuck.
    pub keep: u32,
    /// The most frames per second.
    pub max_rate: Option<Rate>,
    /// Of the frames that have arrived, only the newest is returned.
    pub latest: bool,
    /// Whether to wait for the publisher and to connect again when the link ends.
    pub reconnect: bool,
    /// The faces it can use.
    pub faces: FaceSet,
    /// Whether it takes any other, too, where the publisher has none of them: a camera has dma-bufs only.
    pub any_face: bool,
    /// What it calls itself, for people.
    pub name: String,
    /// Whether it wants frames at all.
    pub observe: bool,
    /// Pages for the frames of a publisher on another host.
    pub pool: PoolOptions,
    /// Who may come from other hosts where this end listens, and how.
    pub remote: RemoteOptions,
}

impl Default for SubscriberOptions {
    fn default() -> Self {
        Self {
            policy: None,
            credits: None,
            keep: 1,
            max_rate: None,
            latest: false,
            reconnect: true,
            faces: FaceSet::MEMORY,
            any_face: true,
            name: process_name(),
            observe: false,
            pool: PoolOptions::default(),
            remote: RemoteOptions::default(),
        }
    }
}

impl SubscriberOptions {
    /// The role that they ask for.
    pub(super) fn role(&self) -> Role {
        if self.observe { Role::Observer } else { Role::Subscriber }
    }
}

fn process_name() -> String {
    let name = std::fs::read_to_string("/proc/self/comm").unwrap_or_default();
    name.trim_end().to_owned()
}
