//! Wiring: settings → database, rate limiters, clients, workers. The modules below receive values instead of settings.

mod budgets;
mod clients;
mod context;
mod daemon;
#[cfg(feature = "test-support")]
mod development;
mod failure;
mod local;
mod port;
mod prepare;
mod rules;
mod scim;
mod systemd;
mod wait;
mod webhooks;

pub use context::App;
pub(crate) use context::DATABASE_WAIT_AT_START;
#[cfg(feature = "test-support")]
pub use development::development_options;
pub use failure::{Exit, Failure};
pub(crate) use local::options as local_options;

const VERSION: &str = env!("CARGO_PKG_VERSION");
const REVISION: &str = env!("ROSTERD_REVISION");
