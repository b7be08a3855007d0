//! Prints the tables of docs/scaling.md.

use std::time::Duration;

use pagecast::ipc::budget::Share;
use pagecast_tests::scaling::{Costs, Tree, measure, simulate};

const LEAVES: usize = 8;
const INTERVAL: Duration = Duration::from_millis(16);
/// 1080p NV12.
const BYTES: u64 = 1920 * 1080 * 3 / 2;

fn tree(leaves: usize, fan_out: usize) -> Tree {
    Tree {
        leaves,
        fan_out,
        frames: 30,
        interval: INTERVAL,
        bytes: BYTES,
        in_hand: Duration::from_millis(5),
        share: Share { credits: 2, mailbox: 1 },
        leaf_window: 4,
        stalled_every: 0,
        relays_have_enough: true,
    }
}

fn main() {
    let runs = 5;
    let median = |leaves, relay| {
        let mut seen: Vec<_> = (0..runs).map(|_| measure::latency(leaves, relay, 150, INTERVAL)).collect();
        seen.sort_unstable();
        seen[seen.len() / 2]
    };
    let (one, many, two) = (median(1, false), median(LEAVES, false), median(LEAVES, true));
    let local = measure::costs(one, many, LEAVES);
    let small = Tree { frames: 150, in_hand: Duration::ZERO, ..tree(LEAVES, LEAVES) };
    let level = simulate(small, local).latency(0.5);
    // A publisher with one relay: one send and one hop before the relay's own level.
    let predicted = Duration::from_micros(level.into()) + local.hop + local.per_send;
    println!("| measured here, median of {runs} runs | us |\n|---|---|");
    println!("| one subscriber | {} |", one.as_micros());
    println!("| {LEAVES} subscribers | {} |", many.as_micros());
    println!("| so: a hop; a send | {}; {} |", local.hop.as_micros(), local.per_send.as_micros());
    println!(
        "| {LEAVES} behind a relay: measured; simulated | {}; {} |",
        two.as_micros(),
        predicted.as_micros()
    );
    let network = Costs { hop: local.hop, per_send: local.per_send, bandwidth: 12.5e9 };
    println!(
        "\n| subscribers | fan-out | hops | relays | latency p50, ms | p99, ms | Gb/s per way out | frames at a relay |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for (leaves, fan_out) in [(10, 10), (1000, 10), (1000, 32), (100_000, 10), (100_000, 32)] {
        let outcome = simulate(tree(leaves, fan_out), network);
        assert_eq!(outcome.lost, 0, "{leaves} by {fan_out}");
        let ms = |part| f64::from(outcome.latency(part)) / 1000.0;
        let gigabits = outcome.links as f64 * BYTES as f64 * 8.0 / INTERVAL.as_secs_f64() / 1e9;
        println!(
            "| {leaves} | {fan_out} | {} | {} | {:.2} | {:.2} | {gigabits:.1} | {} |",
            outcome.hops,
            outcome.relays,
            ms(0.5),
            ms(0.99),
            outcome.relay_frames
        );
    }
    let stalled = simulate(Tree { stalled_every: 100, frames: 200, ..tree(10_000, 10) }, network);
    println!(
        "\n1 in 100 of 10000 stalled: the others lost {} of {} frames.",
        stalled.lost, stalled.delivered
    );
}
