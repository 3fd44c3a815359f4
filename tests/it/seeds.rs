//! The first seeds of the seeded simulation; `tests/campaigns/seeds.rs` runs more.

use std::ops::Range;

use crate::simulation::run_seeds;

const SEEDS: Range<u64> = 1..13;

#[test]
fn seeds_with_full_reads_lose_and_double_no_event() {
    run_seeds(SEEDS, true, 1);
}

#[test]
fn seeds_without_full_reads_lose_and_double_no_event() {
    run_seeds(SEEDS, false, 1);
}
