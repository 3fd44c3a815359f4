//! The whole thing against the real thing: one test binary, a file a theme.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

mod command;
mod database;
mod deletions;
mod layers;
mod local_postgres;
mod migrations;
mod pace;
mod reading;
mod trouble;
mod world;
