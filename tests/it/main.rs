//! Integration tests with the simulated Harvest and a real PostgreSQL, one file per subject. `tests/campaigns` has those that
//! take minutes.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests and their helpers fail by panicking"
)]

mod absent_rates;
mod access_review;
mod accounts;
mod another_company;
mod backup_guide;
mod bad_records;
mod budgets;
mod changelog;
mod check;
mod command;
mod confirmation;
mod connectors;
mod consumers;
mod consuming_guide;
mod damaged_mirror;
mod database_errors;
mod database_outages;
mod databases;
mod deletions;
mod deploy;
mod directory;
mod downloaded_postgres;
mod erasure;
mod example_consumers;
mod explain;
mod failover;
mod failures;
mod forget;
mod forty_accounts;
mod fuzz_corpus;
mod harvest_connection;
mod held_deletions;
mod http_refusals;
mod identity_host;
mod json;
mod layers;
mod lease;
mod links;
mod local_postgres;
mod log_privacy;
mod logging;
mod logical_replication;
mod lost_connections;
mod metrics;
mod migration_locks;
mod migrations;
mod new_rows;
mod notifications;
mod oauth;
mod operator_commands;
mod outbox_tail;
mod page_blocks;
mod pages;
mod parent_deletions;
mod permits;
mod ping;
mod poll_interval;
mod pooler;
mod proxy;
mod psql;
mod query_plans;
mod rate_limit;
mod rates;
mod reading;
mod readme;
mod reconcile;
mod reference;
mod refused_records;
mod response_order;
mod roles;
mod row_counts;
mod schema;
mod scim;
mod scim_guide;
mod security;
mod seeds;
mod simulator;
mod starting;
mod status;
mod status_page;
mod stderr;
mod stopping;
#[path = "../support/mod.rs"]
mod support;
mod systemd;
mod terminal;
mod tls;
mod untrusted_input;
mod untrusted_scim;
mod user_lookups;
mod webhooks;
mod write_failures;
mod write_trust;
mod writes;
mod writes_guide;

use support::{
    cluster, database, mirror, program, receiver, scene, simulation, statement_proxy, wire, world,
};
