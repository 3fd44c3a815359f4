//! The metrics of `/metrics`: each name once, with what it tells. Accounts are numbers and people are not in it at all.

use std::sync::OnceLock;
use std::time::Duration;

use ::metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

const CYCLES: &str = "rosterd_cycles_total";
const CYCLE_DURATION: &str = "rosterd_cycle_duration_seconds";
const REQUESTS: &str = "rosterd_harvest_requests_total";
const THROTTLED: &str = "rosterd_harvest_throttled_total";
const CHANGES: &str = "rosterd_changes_total";
const OUTBOX_HEAD: &str = "rosterd_outbox_head";
const CONSUMER_LAG: &str = "rosterd_outbox_consumer_lag";
const LAST_SUCCESS: &str = "rosterd_last_success_timestamp_seconds";
const ROWS: &str = "rosterd_mirror_rows";
const HELD: &str = "rosterd_held_deletions";
const REJECTED: &str = "rosterd_rejected_records";
const LEASE: &str = "rosterd_lease_held";
const LOG_DROPPED: &str = "rosterd_log_lines_dropped_total";
const BUILD: &str = "rosterd_build_info";

/// From an idle poll to a first read of a million rows.
const BUCKETS: [f64; 10] = [0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0];

/// What has been counted, for whoever asks.
#[derive(Clone, Debug)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// Counts from here on, once for the process. `None` where somebody else counts already.
    pub fn install(version: &'static str, revision: &'static str) -> Option<Self> {
        static COUNTED: OnceLock<Option<Metrics>> = OnceLock::new();
        let install = || {
            let builder = PrometheusBuilder::new()
                .set_buckets_for_metric(Matcher::Full(CYCLE_DURATION.to_owned()), &BUCKETS)
                .ok()?;
            let recorder = builder.build_recorder();
            let handle = recorder.handle();
            ::metrics::set_global_recorder(recorder).ok()?;
            describe();
            gauge!(BUILD, "version" => version, "revision" => revision).set(1.0);
            counter!(THROTTLED).absolute(0);
            Some(Self(handle))
        };
        COUNTED.get_or_init(install).clone()
    }

    /// As Prometheus reads it.
    pub fn render(&self) -> String {
        counter!(LOG_DROPPED).absolute(u64::try_from(super::queue::lost()).unwrap_or(u64::MAX));
        self.0.run_upkeep();
        self.0.render()
    }
}

fn describe() {
    describe_counter!(CYCLES, "Cycles by how they ended: ok, held, failed or abandoned");
    describe_histogram!(CYCLE_DURATION, "How long cycles took, in seconds");
    describe_counter!(
        REQUESTS,
        "Requests sent to Harvest, by endpoint and status; error where there was no answer"
    );
    describe_counter!(THROTTLED, "Answers by which Harvest asked for silence (429)");
    describe_counter!(CHANGES, "Events written, by list and kind of change");
    describe_gauge!(OUTBOX_HEAD, "The highest seq of the outbox");
    describe_gauge!(CONSUMER_LAG, "Events that a consumer of the outbox has not dealt with");
    describe_gauge!(LAST_SUCCESS, "End of the last good cycle, in seconds since 1970");
    describe_gauge!(ROWS, "Rows of the mirror: active, inactive or deleted");
    describe_gauge!(HELD, "Deletions that are held back, without those that somebody rejected");
    describe_gauge!(REJECTED, "Records that cannot be read");
    describe_gauge!(LEASE, "Whether this process writes the account: 1 or 0");
    describe_counter!(LOG_DROPPED, "Log lines that were dropped because stderr did not take them");
    describe_gauge!(BUILD, "Always 1; its labels name the build");
}

/// A cycle that ended, at that time (seconds since 1970).
pub fn cycle(account: i64, mode: &'static str, outcome: &'static str, took: Duration, ended_at: i64) {
    let account = account.to_string();
    counter!(CYCLES, "account" => account.clone(), "mode" => mode, "outcome" => outcome).increment(1);
    histogram!(CYCLE_DURATION, "account" => account.clone(), "mode" => mode).record(took);
    if outcome == "ok" || outcome == "held" {
        gauge!(LAST_SUCCESS, "account" => account).set(number(ended_at));
    }
}

/// A request that was sent; `what` it asked for, and the status where there was an answer.
pub fn request(account: i64, what: &str, status: Option<u16>) {
    let status = status.map_or_else(|| "error".to_owned(), |status| status.to_string());
    counter!(REQUESTS, "account" => account.to_string(), "endpoint" => endpoint(what), "status" => status)
        .increment(1);
}

/// `users/1001` is one of `users/{id}`: a label has few values.
fn endpoint(what: &str) -> String {
    let part = |part: &str| {
        if part.parse::<i64>().is_ok() { "{id}".to_owned() } else { part.to_owned() }
    };
    what.split('/').map(part).collect::<Vec<_>>().join("/")
}

/// A 429.
pub fn throttled() {
    counter!(THROTTLED).increment(1);
}

/// So many events of one kind.
pub fn changes(account: i64, resource: &'static str, change: &'static str, events: u64) {
    counter!(CHANGES, "account" => account.to_string(), "resource" => resource, "change" => change)
        .increment(events);
}

/// Whether this process writes the account.
pub fn lease(account: i64, held: bool) {
    gauge!(LEASE, "account" => account.to_string()).set(f64::from(u8::from(held)));
}

/// The highest seq.
pub fn outbox_head(seq: i64) {
    gauge!(OUTBOX_HEAD).set(number(seq));
}

/// Events that a consumer has not dealt with.
pub fn consumer_lag(consumer: &str, behind: i64) {
    gauge!(CONSUMER_LAG, "consumer" => consumer.to_owned()).set(number(behind));
}

/// Rows of one list in one state.
pub fn rows(account: i64, resource: &str, state: &'static str, rows: i64) {
    gauge!(ROWS, "account" => account.to_string(), "resource" => resource.to_owned(), "state" => state)
        .set(number(rows));
}

/// What waits for a person, and what cannot be read.
pub fn set_aside(account: i64, held: i64, rejected: i64) {
    gauge!(HELD, "account" => account.to_string()).set(number(held));
    gauge!(REJECTED, "account" => account.to_string()).set(number(rejected));
}

#[expect(clippy::cast_precision_loss, reason = "nobody counts beyond 2^52")]
fn number(number: i64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::endpoint;

    #[test]
    fn an_endpoint_names_nobody() {
        assert_eq!(endpoint("users"), "users");
        assert_eq!(endpoint("users/1001"), "users/{id}");
        assert_eq!(endpoint("projects/7/user_assignments/5001"), "projects/{id}/user_assignments/{id}");
    }
}
