//! rosterd keeps a PostgreSQL mirror of the people and project teams of Harvest accounts,
//! and writes every change to an outbox table in the same transaction.
//!
//! Imports point one way, `main → cli → app → {http, sync} → {harvest, store} → roster`:
//!
//! - [`cli`]: one file a command; what a person types and reads.
//! - [`app`]: wiring; the last room that sees [`settings`].
//! - [`http`]: `/livez`, `/readyz` and `/metrics`.
//! - [`sync`]: the only place that knows both sides: cycle, schedule, worker, budget.
//! - [`harvest`]: HTTP in, roster types out; knows no SQL.
//! - [`store`]: PostgreSQL; knows no HTTP. Never meets `harvest`.
//! - [`roster`]: the pure core: records, changes, events, the watermark.
//! - [`clock`], [`progress`], [`settings`], [`telemetry`]: leaves.

#![warn(clippy::print_stdout, clippy::print_stderr, clippy::exit)] // they panic, or skip the clean end: see cli::output, cli::signals

pub mod app;
pub mod cli;
pub mod clock;
pub mod harvest;
pub mod http;
pub mod progress;
pub mod roster;
pub mod settings;
pub mod store;
pub mod sync;
pub mod telemetry;
