//! One sync cycle: the only module that knows both what Harvest lists and what the database holds.
//!
//! Imports point one way: `run → {rates, user, deletions} → confirm → {read_list, count_check} → cycle → mirror → report →
//! error`.

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
