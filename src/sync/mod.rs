//! The only place that knows both sides: what Harvest says and what the database holds.

pub mod apply;
pub mod budget;
pub mod cycle;
pub mod dry_run;
pub mod finding;
pub mod health;
pub mod polls;
pub mod probe;
pub mod report;
pub mod retention;
pub mod schedule;
pub mod sink;
pub mod tokens;
pub mod verify;
pub mod worker;

mod absent_rates;
mod company;
mod deletions;
mod histories;
mod judge;
mod person;
mod refused;
mod requests;
mod walk;
mod writer;
