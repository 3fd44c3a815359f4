//! HTTP servers: the daemon's status page, `/livez`, `/readyz` and `/metrics`, and the redirect address of `rosterd auth login`.

pub(crate) mod redirect;

mod page;
mod server;
mod shared_query;

pub use server::{State, serve};
