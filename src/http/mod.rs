//! HTTP servers: the daemon's `/livez`, `/readyz` and `/metrics`, and the redirect address of `rosterd auth login`.

pub(crate) mod redirect;

mod server;
mod shared_query;

pub use server::{State, serve};
