//! Tasks that run until the daemon stops: a worker per account, the limiter task, notifications, pings and retention.

pub mod health;
pub mod limiter;
pub mod ping;
pub mod schedule;

pub(crate) mod cycle_runner;
pub(crate) mod notifications;
pub(crate) mod retention;
pub(crate) mod timeline;
pub(crate) mod token_renewal;
pub(crate) mod worker;

mod polls;
mod requests;
