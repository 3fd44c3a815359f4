//! PostgreSQL: the mirror, the outbox and the daemon's own state. Knows no HTTP.
//!
//! Every transaction takes its locks in this order: account, mirror rows by id, projects, rejected and absent records,
//! watermark, cycle, outbox head; or one endpoint of webhooks and its consumer. No transaction is open while an HTTP request is in flight.
//!
//! A file here imports `super::FILE::Item`, never `super::Item`, so that no file imports this one.

pub(crate) mod credentials;
pub(crate) mod explain;
pub(crate) mod forget;
pub mod lease;
pub mod local;
pub mod migrations;
pub mod missing;
pub(crate) mod notifications;
pub(crate) mod overview;
pub mod permits;
pub(crate) mod rates;
pub(crate) mod rejected;
pub(crate) mod requests;
pub mod roles;
pub(crate) mod row_counts;
pub mod scim;
pub mod scim_groups;
pub(crate) mod seal;
pub mod session;
pub(crate) mod state;
pub(crate) mod status;
pub(crate) mod webhooks;
pub mod writes;

mod connect;
mod connect_error;
mod copy;
mod database;
mod database_error;
mod error;
mod lost_loads;
mod outbox;
mod ownership;
mod pool;
mod postgres_versions;
mod projects;
mod retention;
mod row_count_cache;
#[cfg(test)]
mod status_example;
mod table;
mod target;
mod timeline;
mod timeline_memory;
mod tls;
mod tx;
mod users;
mod write_targets;

pub use database::{ConnectOptions, Store};
pub use error::StoreError;
pub use lease::Fence;
pub use pool::Pool;
pub use table::{MirrorTable, RowDigest};
pub use target::Target;
pub use tx::AccountTx;
