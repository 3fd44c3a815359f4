//! SCIM 2.0 for directories, on a separate listener with bearer tokens. Reads come from the mirror; writes go through the
//! journal, and the process that holds the account's lease sends them. So this module needs no Harvest token.
//!
//! `scim` (the pure module) parses requests and renders users. The files here add tokens, limits, the database and the wait.

mod answer;
mod calls;
mod change;
mod create;
mod discovery;
mod dispatch;
mod group_change;
mod groups;
mod outcome;
mod read;
mod route;
mod server;
mod service;
mod tokens;
mod wait;

pub(crate) use server::ScimServer;
pub(crate) use service::ScimOptions;
pub(crate) use tokens::{Access, Tokens, is_name, new_token, token_line};
