//! Tests that take minutes: more seeds, injected faults, endurance, the image. `cargo test --test campaigns` runs them.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests and their helpers fail by panicking"
)]

mod bare_machine;
mod copy;
mod endurance;
mod faults;
mod image;
mod packages;
mod seeds;
#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "the target `it` uses the rest")]
mod support;

use support::{
    cluster, database, mirror, program, receiver, scene, simulation, statement_proxy, wire, world,
};
