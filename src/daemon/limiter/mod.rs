//! The limiter task: registers this process in the database, and connects its rate limiters to their budgets there.

mod database;
mod task;

pub use task::{HeartbeatStatus, LimiterTask};
