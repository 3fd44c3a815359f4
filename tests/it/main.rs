//! The whole thing against the real thing: one test binary, a file a theme.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

mod absent_rates;
mod accounts;
mod bad_records;
mod battery;
mod budgets;
mod canary;
mod check;
mod cluster;
mod command;
mod company;
mod consent;
mod consuming;
mod corpus;
mod counting;
mod damage;
mod database;
mod database_errors;
mod deletions;
mod deploy;
mod directory;
mod doors;
mod endurance;
mod engines;
mod erasure;
mod forget;
mod front;
mod guide;
mod held;
mod identity;
mod interval;
mod json;
mod layers;
mod local_postgres;
mod logging;
mod logical;
mod look_ups;
mod lost_connections;
mod many;
mod metrics;
mod migrating;
mod migrations;
mod mirror;
mod notifying;
mod oauth;
mod order;
mod outage;
mod pace;
mod parents;
mod pooler;
mod program;
mod psql;
mod rates;
mod reading;
mod readme;
mod refusals;
mod refused;
mod replicas;
mod reviews;
mod roles;
mod scene;
mod schema;
mod security;
mod seeds;
mod service;
mod settling;
mod starting;
mod status;
mod stderr;
mod stopping;
mod tail;
mod tap;
mod tapping;
mod terminal;
mod tls;
mod trouble;
mod way_out;
mod wire;
mod world;
