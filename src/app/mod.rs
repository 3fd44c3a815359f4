//! Wiring: settings → database, rate limiters, clients, workers. The modules below receive values instead of settings.

mod budgets;
mod clients;
mod context;
mod daemon;
mod failure;
mod port;
mod prepare;
mod rules;
mod systemd;
mod wait;
mod webhooks;

pub use context::App;
pub use failure::{Exit, Failure};
