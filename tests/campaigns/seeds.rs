//! The seeded simulation. Each seed runs twice, with full reads and without.
//!
//! `ROSTERD_SEEDS=10000 cargo test --release --locked --test campaigns -- seeds:: --nocapture` runs that many seeds.
//! `ROSTERD_SEED=4711` runs this seed only.

use std::ops::Range;
use std::sync::Mutex;
use std::thread::available_parallelism;

use crate::simulation::run_seeds;

/// Six minutes of one core. `it` runs the first 12.
const SEEDS: u64 = 150;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().unwrap())
}

fn run(full_reads: bool) {
    // Each of the two uses all cores.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock();
    let seeds: Range<u64> = match number("ROSTERD_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..number("ROSTERD_SEEDS").unwrap_or(SEEDS) + 1,
    };
    run_seeds(seeds, full_reads, available_parallelism().map_or(1, usize::from));
}

#[test]
fn seeds_with_full_reads_lose_and_double_no_event() {
    run(true);
}

#[test]
fn seeds_without_full_reads_lose_and_double_no_event() {
    run(false);
}
