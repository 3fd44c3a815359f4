//! One sync cycle: the only module that knows both what Harvest lists and what the database holds.
//!
//! Imports point one way. Each file imports only files to its right: `{run, user, verify} → rates → absent_rates →
//! {deletions, read_list} → {confirm, company, lookups, count_check, roles} → cycle → mirror → report → error`. `concerns` and
//! `wake` import none of these.

pub mod absent_rates;
pub mod concerns;
pub mod cycle;
pub mod error;
pub mod mirror;
pub mod rates;
pub mod report;
pub mod user;
pub mod verify;
pub mod wake;

pub(crate) mod company;
mod confirm;
mod count_check;
pub(crate) mod deletions;
mod lookups;
pub(crate) mod read_list;
pub(crate) mod roles;
mod run;
