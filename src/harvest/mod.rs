//! Harvest: HTTP in, roster types out. Knows no SQL, no settings, and sends the API
//! nothing but GET.
//!
//! The base URL is the only seam: the tests put a simulator behind it, never a mock in front.

mod ahead;
pub mod auth;
pub mod client;
pub mod error;
pub mod json;
pub mod oauth;
pub mod pace;
pub mod pages;
mod route;
pub mod transport;
pub mod unicode;
pub mod wire;

pub use auth::{Auth, Token};
pub use client::Client;
pub use error::HarvestError;
pub use pages::Pages;
pub use wire::{Decode, Rejected};
