//! rosterd mirrors the users and project assignments of Harvest accounts into PostgreSQL, and writes each change to an
//! outbox table in the same transaction.
//!
//! Imports point one way, `main → cli → app → http → daemon → provision → sync → {harvest, store} → roster`, and
//! `http → scim → roster`:
//!
//! - [`cli`]: the commands, one file each.
//! - [`app`]: wiring of settings, database, clients and workers. The modules below do not use [`settings`].
//! - [`http`]: the status page, `/livez`, `/readyz` and `/metrics`, and the redirect address of `rosterd auth login`.
//! - [`daemon`]: tasks that run until the daemon stops: workers, limiter task, notifications, retention, token renewal.
//! - [`webhooks`]: signed HTTP requests with the events of the outbox. It does not use `harvest`.
//! - [`provision`]: writes to Harvest, from the journal to the commit.
//! - [`sync`]: one sync cycle, from Harvest's lists to the commit.
//! - [`harvest`]: the client of Harvest's API. It does not use `store`.
//! - [`store`]: PostgreSQL. It does not use `harvest`.
//! - [`scim`]: pure functions for directories: schema, filters, PATCH, and the writes that a request asks for.
//! - [`roster`]: pure functions and types: records, changes, events, the watermark.
//! - [`download`]: installs an archive from another host.
//! - [`outbound`]: what requests to all other hosts share.
//! - [`settings`]: typed settings, in the terms of `roster` and `telemetry`.
//! - [`clock`], [`progress`], [`telemetry`]: used by the modules above; they import none of them.

#![cfg_attr(feature = "test-support", allow(missing_docs, reason = "only tests see the modules"))]
// Printing panics if the reader is gone, and exiting skips destructors: see `cli::output` and `cli::signals`.
#![warn(clippy::print_stdout, clippy::print_stderr, clippy::exit)]

// For tests, benches, examples and fuzz targets. Unlike `cfg_select!`, rustfmt finds modules in `cfg_if!`.
cfg_if::cfg_if! {
    if #[cfg(feature = "test-support")] {
        pub mod app;
        pub mod cli;
        pub mod clock;
        pub mod daemon;
        pub mod download;
        pub mod harvest;
        pub mod http;
        pub mod outbound;
        pub mod progress;
        pub mod provision;
        pub mod roster;
        pub mod scim;
        pub mod settings;
        pub mod store;
        pub mod sync;
        pub mod telemetry;
        pub mod webhooks;
    } else {
        mod app;
        mod cli;
        mod clock;
        mod daemon;
        mod download;
        mod harvest;
        mod http;
        mod outbound;
        mod progress;
        mod provision;
        mod roster;
        mod scim;
        mod settings;
        mod store;
        mod sync;
        mod telemetry;
        mod webhooks;
    }
}

pub use cli::main;
