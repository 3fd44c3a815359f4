//! Harvest's API: HTTP responses in, types of `roster` out. This module knows neither SQL nor settings. It sends
//! requests other than GET only through a [`write::Writer`], which needs a [`transport::WriteAccess`].
//!
//! Imports point one way: `client → {pages, write} → {prefetch, wire} → {api, envelope} → transport → rate_limit → error`.
//!
//! Tests set the base URL to a simulator; no test replaces a type of this module by a mock.

mod api;
pub(crate) mod auth;
pub(crate) mod client;
pub mod envelope;
mod error;
mod json;
pub mod oauth;
pub(crate) mod pages;
mod prefetch;
pub mod rate_limit;
pub(crate) mod roles;
mod route;
pub mod transport;
pub mod wire;
pub mod write;

pub use api::Client;
pub use auth::{AccessToken, Auth};
pub use error::{HarvestError, IdentityError};
pub use wire::{Decode, UnreadableRecord};
