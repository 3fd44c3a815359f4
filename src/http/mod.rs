//! HTTP servers: the daemon's status page, `/livez`, `/readyz` and `/metrics`, SCIM, and the redirect address of `rosterd auth
//! login`.

pub(crate) mod redirect;
pub(crate) mod scim;

mod page;
mod server;
mod shared_query;

pub(crate) use server::serve_scim_probes;
pub use server::{State, serve};
