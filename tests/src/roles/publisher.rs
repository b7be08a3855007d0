//! `publisher`: publishes stamped frames when it is told to.

use std::time::Duration;

use pagecast::{Policy, Pool, PoolOptions, Publisher, PublisherOptions};

use super::{Options, commands, say};
use crate::stamped;

/// Commands: `publish N`, `info`, `close MS`, `trim` (the pool), `fork` (a child that does nothing), `quit`. Options: those of [`PublisherOptions`], times in milliseconds,
/// and `size` of a frame, `limit` and `backing` of the pool.
pub(super) fn run(uri: &str, options: &Options) {
    let size = options.get("size").unwrap_or(100_000);
    let settings = settings(options);
    let backing = options.get("backing").unwrap_or_default();
    let pool = Pool::new(PoolOptions { backing, limit: settings.limit, ..PoolOptions::default() });
    let publisher = match Publisher::open(uri, settings) {
        Ok(publisher) => publisher,
        Err(error) => return say(&format!("failed {error}")),
    };
    publisher.set_pool(&pool);
    publisher.set_caps("application/x-test").expect("caps");
    say(&format!("ready {}", publisher.info().uri));
    if let Some(interval) = options.get("every_us") {
        return publish_for_ever(&publisher, &pool, size, Duration::from_micros(interval));
    }
    let mut number = 0;
    for line in commands() {
        match line.split_once(' ').unwrap_or((&line, "")) {
            ("publish", count) => {
                for _ in 0..count.parse::<u64>().expect("a count") {
                    publisher.publish(&stamped(&pool, number, size)).expect("published");
                    number += 1;
                }
                say(&format!("published {number}"));
            }
            ("info", _) => say(&format!("info {}", serde_json::to_string(&publisher.info()).expect("JSON"))),
            ("close", deadline) => {
                publisher.close(Duration::from_millis(deadline.parse().expect("a time")));
                say("closed");
            }
            ("trim", _) => {
                pool.trim();
                say("trimmed");
            }
            ("fork", _) => {
                fork();
                say("forked");
            }
            ("quit", _) => return,
            _ => panic!("no such command: {line}"),
        }
    }
}

/// A child with a copy of every descriptor, which ends with this process.
fn fork() {
    let parent = nix::unistd::getpid();
    // SAFETY: the child takes no lock and allocates nothing.
    if let nix::unistd::ForkResult::Child = unsafe { nix::unistd::fork() }.expect("a child") {
        while nix::unistd::getppid() == parent {
            std::thread::sleep(Duration::from_millis(20));
        }
        // SAFETY: it ends this process, whose memory nobody shares.
        unsafe { nix::libc::_exit(0) };
    }
}

fn publish_for_ever(publisher: &Publisher, pool: &Pool, size: usize, interval: Duration) {
    for number in 0.. {
        publisher.publish(&stamped(pool, number, size)).expect("published");
        std::thread::sleep(interval);
    }
}

fn settings(options: &Options) -> PublisherOptions {
    let mut settings = PublisherOptions { policy: Policy::DropOldest, ..PublisherOptions::default() };
    let millis = |key| options.get(key).map(Duration::from_millis);
    if let Some(policy) = options.get("policy") {
        settings.policy = policy;
    }
    settings.live = options.get("live").unwrap_or(settings.live);
    settings.credits = options.get("credits");
    settings.mailbox = options.get("mailbox");
    settings.limit = options.get("limit").unwrap_or(settings.limit);
    settings.max_subscribers = options.get("max").unwrap_or(settings.max_subscribers);
    settings.reserve = options.get("reserve").unwrap_or(settings.reserve);
    settings.hold_timeout = millis("hold_timeout");
    settings.block_deadline = millis("block_deadline").or(settings.block_deadline);
    settings.remote = options.remote();
    settings.quarantine = options.get("quarantine").unwrap_or(false);
    settings
}
