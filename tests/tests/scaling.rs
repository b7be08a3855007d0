//! A tree of relays with real books: everybody gets everything, and who stalls costs nobody else a frame.

use std::time::Duration;

use pagecast::ipc::budget::Share;
use pagecast_tests::scaling::{Costs, Tree, simulate};

const COSTS: Costs =
    Costs { hop: Duration::from_micros(50), per_send: Duration::from_micros(5), bandwidth: 12.5e9 };

fn tree(leaves: usize) -> Tree {
    Tree {
        leaves,
        fan_out: 10,
        frames: 100,
        interval: Duration::from_millis(16),
        bytes: 3 << 20,
        in_hand: Duration::from_millis(5),
        share: Share { credits: 2, mailbox: 1 },
        leaf_window: 4,
        stalled_every: 0,
        relays_have_enough: true,
    }
}

#[test]
fn every_leaf_gets_every_frame() {
    for (leaves, hops, relays) in [(1, 1, 0), (10, 1, 0), (11, 2, 2), (100, 2, 10), (1000, 3, 110)] {
        let outcome = simulate(tree(leaves), COSTS);
        assert_eq!((outcome.hops, outcome.relays), (hops, relays), "{leaves} leaves");
        assert_eq!((outcome.delivered, outcome.lost), (100 * leaves as u64, 0), "{leaves} leaves");
        // One hop and one transfer each at least, and no queue that grows.
        let transfer = Duration::from_secs_f64((3 << 20) as f64 / 12.5e9);
        let least = (hops as u32) * (COSTS.hop + COSTS.per_send + transfer).as_micros() as u32;
        assert!(outcome.latency(0.0) + 1 >= least, "{} us, {least} at least", outcome.latency(0.0));
        assert!(outcome.latency(1.0) < 16_000, "{} us", outcome.latency(1.0));
    }
}

#[test]
fn stalled_leaves_cost_only_themselves() {
    let outcome = simulate(Tree { stalled_every: 7, ..tree(1000) }, COSTS);
    let stalled = 1000_u64.div_ceil(7);
    assert_eq!(outcome.lost, 0);
    assert_eq!(outcome.stalled_got, stalled * 4, "their window and no more");
    assert!(outcome.relay_frames <= 10 * 3 + 1, "{} frames at a relay", outcome.relay_frames);
}

/// The check above can fail: where relays have fewer frames than they share out, somebody is not let in.
#[test]
#[should_panic(expected = "room for a child")]
fn relays_that_have_too_little_are_caught() {
    simulate(Tree { relays_have_enough: false, ..tree(1000) }, COSTS);
}

/// And loss is seen: over a way out that is too narrow, nobody gets everything.
#[test]
fn a_network_that_is_too_slow_loses_frames() {
    let outcome = simulate(tree(100), Costs { bandwidth: 1e9, ..COSTS });
    assert!(outcome.lost > 0);
    assert!(outcome.delivered > 0);
}
