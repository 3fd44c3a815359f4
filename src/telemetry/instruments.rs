//! The metrics of `/metrics`. Labels contain account ids and no data of users.

use std::time::Duration;

use ::metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::time::interval;

const CYCLES: &str = "rosterd_cycles_total";
const WRITES: &str = "rosterd_writes_total";
const SCIM_REQUESTS: &str = "rosterd_scim_requests_total";
const CYCLE_DURATION: &str = "rosterd_cycle_duration_seconds";
const REQUESTS: &str = "rosterd_harvest_requests_total";
const THROTTLED: &str = "rosterd_harvest_throttled_total";
const CHANGES: &str = "rosterd_changes_total";
const OUTBOX_HEAD: &str = "rosterd_outbox_head";
const CONSUMER_LAG: &str = "rosterd_outbox_consumer_lag";
const LAST_SUCCESS: &str = "rosterd_last_success_timestamp_seconds";
const ROWS: &str = "rosterd_mirror_rows";
const OPEN_WRITES: &str = "rosterd_writes_open";
const HELD: &str = "rosterd_held_deletions";
const REJECTED: &str = "rosterd_rejected_records";
const LEASE: &str = "rosterd_lease_held";
const LOG_DROPPED: &str = "rosterd_log_lines_dropped_total";
const WEBHOOK_DELIVERIES: &str = "rosterd_webhook_deliveries_total";
const WEBHOOK_DURATION: &str = "rosterd_webhook_delivery_seconds";
const WEBHOOK_NOTICES: &str = "rosterd_webhook_notices_total";
const WEBHOOK_OLDEST: &str = "rosterd_webhook_oldest_seconds";
const WEBHOOK_SET_ASIDE: &str = "rosterd_webhook_set_aside";
const WEBHOOK_STATE: &str = "rosterd_webhook_state";
const BUILD: &str = "rosterd_build_info";

/// From an idle poll to a first read of a million rows.
const BUCKETS: [f64; 10] = [0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0];

/// From a receiver on the same host to the longest timeout of an endpoint.
const WEBHOOK_BUCKETS: [f64; 8] = [0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0];

/// A histogram keeps 8 bytes for each sample until they are added up.
const SUM_INTERVAL: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// Starts to record metrics. `None` if the process records metrics already.
    pub(crate) fn install(version: &'static str, revision: &'static str) -> Option<Self> {
        let builder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Full(CYCLE_DURATION.to_owned()), &BUCKETS)
            .and_then(|builder| {
                builder.set_buckets_for_metric(Matcher::Full(WEBHOOK_DURATION.to_owned()), &WEBHOOK_BUCKETS)
            })
            .ok()?;
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        ::metrics::set_global_recorder(recorder).ok()?;
        describe();
        gauge!(BUILD, "version" => version, "revision" => revision).set(1.0);
        counter!(THROTTLED).absolute(0);
        Some(Self(handle))
    }

    /// Adds up the samples of histograms, which otherwise stay in memory until the next scrape, or for ever without one.
    /// Never ends.
    pub(crate) async fn sum_samples(self) {
        let mut ticks = interval(SUM_INTERVAL);
        loop {
            ticks.tick().await;
            self.0.run_upkeep();
        }
    }

    pub(crate) fn render(&self) -> String {
        counter!(LOG_DROPPED).absolute(u64::try_from(super::queue::lost()).unwrap_or(u64::MAX));
        self.0.run_upkeep();
        self.0.render()
    }
}

fn describe() {
    describe_counter!(CYCLES, "Cycles by outcome: ok, held, failed or abandoned");
    describe_histogram!(CYCLE_DURATION, "Duration of cycles in seconds");
    describe_counter!(
        REQUESTS,
        "Requests sent to Harvest, by endpoint and status; the status is error if there was no response"
    );
    describe_counter!(WRITES, "Finished writes to Harvest, by kind and outcome");
    describe_counter!(SCIM_REQUESTS, "Requests of SCIM clients, by route and status");
    describe_gauge!(
        OPEN_WRITES,
        "Writes to Harvest that are not finished: waiting, held for a person, or in_doubt (sent over a minute ago)"
    );
    describe_counter!(THROTTLED, "Responses of Harvest with status 429 (rate limited)");
    describe_counter!(CHANGES, "Events written to the outbox, by list and kind of change");
    describe_gauge!(OUTBOX_HEAD, "The highest seq of the outbox");
    describe_gauge!(CONSUMER_LAG, "Events that a consumer of the outbox has not acknowledged");
    describe_gauge!(LAST_SUCCESS, "End of the last successful cycle, in seconds since 1970");
    describe_gauge!(ROWS, "Rows of the mirror: active, inactive or deleted");
    describe_gauge!(HELD, "Deletions held for review, without rejected ones");
    describe_gauge!(REJECTED, "Quarantined records: rosterd cannot read them, or PostgreSQL refuses them");
    describe_gauge!(LEASE, "1 if this process holds the account's lease, else 0");
    describe_counter!(LOG_DROPPED, "Log lines dropped because writing to stderr failed or was too slow");
    describe_counter!(
        WEBHOOK_DELIVERIES,
        "Attempts of webhooks by outcome: delivered, failed, refused or gone"
    );
    describe_histogram!(
        WEBHOOK_DURATION,
        "Duration of attempts of webhooks in seconds, to the headers of the response"
    );
    describe_counter!(
        WEBHOOK_NOTICES,
        "Attempts of notices to webhooks by outcome: delivered, failed, refused or gone"
    );
    describe_gauge!(WEBHOOK_OLDEST, "Age of the first event that a webhook has not delivered, in seconds");
    describe_gauge!(
        WEBHOOK_SET_ASIDE,
        "Events that a receiver refused for good, and about which no operator has decided"
    );
    describe_gauge!(
        WEBHOOK_STATE,
        "1 for the state of a webhook (on, paused, gone or lost), 0 for the other states"
    );
    describe_gauge!(BUILD, "Always 1; its labels name the build");
}

/// `ended_at` is in seconds since 1970.
pub(crate) fn cycle(account: i64, mode: &'static str, outcome: &'static str, took: Duration, ended_at: i64) {
    let account = account.to_string();
    counter!(CYCLES, "account" => account.clone(), "mode" => mode, "outcome" => outcome).increment(1);
    histogram!(CYCLE_DURATION, "account" => account.clone(), "mode" => mode).record(took);
    if outcome == "ok" || outcome == "held" {
        gauge!(LAST_SUCCESS, "account" => account).set(number(ended_at));
    }
}

pub(crate) fn write(account: i64, kind: &'static str, outcome: &'static str) {
    counter!(WRITES, "account" => account.to_string(), "kind" => kind, "outcome" => outcome).increment(1);
}

pub(crate) fn scim_request(route: &'static str, status: u16) {
    counter!(SCIM_REQUESTS, "route" => route, "status" => status.to_string()).increment(1);
}

/// Writes to Harvest that are not finished. `state` is `waiting`, `held` or `in_doubt`.
pub(crate) fn open_writes(account: i64, state: &'static str, writes: i64) {
    gauge!(OPEN_WRITES, "account" => account.to_string(), "state" => state).set(number(writes));
}

/// `path` is the path of a request below the API's base, such as `users/1001`. `status` is `None` if there was no
/// response.
pub(crate) fn request(account: i64, path: &str, status: Option<u16>) {
    let status = status.map_or_else(|| "error".to_owned(), |status| status.to_string());
    counter!(REQUESTS, "account" => account.to_string(), "endpoint" => endpoint(path), "status" => status)
        .increment(1);
}

/// Replaces ids by `{id}`, because each value of a label is a separate time series.
fn endpoint(path: &str) -> String {
    let part = |part: &str| {
        if part.parse::<i64>().is_ok() { "{id}".to_owned() } else { part.to_owned() }
    };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}

pub(crate) fn throttled() {
    counter!(THROTTLED).increment(1);
}

pub(crate) fn changes(account: i64, resource: &'static str, change: &'static str, events: u64) {
    counter!(CHANGES, "account" => account.to_string(), "resource" => resource, "change" => change)
        .increment(events);
}

pub(crate) fn lease(account: i64, held: bool) {
    gauge!(LEASE, "account" => account.to_string()).set(f64::from(u8::from(held)));
}

pub(crate) fn outbox_head(seq: i64) {
    gauge!(OUTBOX_HEAD).set(number(seq));
}

/// `lag` is the number of events that the consumer has not acknowledged.
pub(crate) fn consumer_lag(consumer: &str, lag: i64) {
    gauge!(CONSUMER_LAG, "consumer" => consumer.to_owned()).set(number(lag));
}

pub(crate) fn rows(account: i64, resource: &str, state: &'static str, rows: i64) {
    gauge!(ROWS, "account" => account.to_string(), "resource" => resource.to_owned(), "state" => state)
        .set(number(rows));
}

pub(crate) fn held_and_rejected(account: i64, held: i64, rejected: i64) {
    gauge!(HELD, "account" => account.to_string()).set(number(held));
    gauge!(REJECTED, "account" => account.to_string()).set(number(rejected));
}

/// `outcome` is `delivered`, `failed`, `refused` or `gone`.
pub(crate) fn webhook_delivery(webhook: &str, outcome: &'static str, took: Duration) {
    counter!(WEBHOOK_DELIVERIES, "webhook" => webhook.to_owned(), "outcome" => outcome).increment(1);
    histogram!(WEBHOOK_DURATION, "webhook" => webhook.to_owned()).record(took);
}

/// Exposes the counters of notices from the start: Prometheus does not see the first increase of one that did not exist.
pub(crate) fn expose_webhook_notices(webhook: &str) {
    for outcome in ["delivered", "failed", "refused", "gone"] {
        counter!(WEBHOOK_NOTICES, "webhook" => webhook.to_owned(), "outcome" => outcome).increment(0);
    }
}

/// `outcome` is `delivered`, `failed`, `refused` or `gone`.
pub(crate) fn webhook_notice(webhook: &str, outcome: &'static str) {
    counter!(WEBHOOK_NOTICES, "webhook" => webhook.to_owned(), "outcome" => outcome).increment(1);
}

/// The state of a webhook, the age of its first event in seconds, and the number of events that were passed over.
pub(crate) fn webhook(webhook: &str, state: &str, oldest: i64, set_aside: usize) {
    for known in ["on", "paused", "gone", "lost"] {
        let is_it = f64::from(u8::from(known == state));
        gauge!(WEBHOOK_STATE, "webhook" => webhook.to_owned(), "state" => known).set(is_it);
    }
    gauge!(WEBHOOK_OLDEST, "webhook" => webhook.to_owned()).set(number(oldest));
    gauge!(WEBHOOK_SET_ASIDE, "webhook" => webhook.to_owned())
        .set(number(i64::try_from(set_aside).unwrap_or(i64::MAX)));
}

#[expect(clippy::cast_precision_loss, reason = "no count exceeds 2^52")]
fn number(number: i64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::endpoint;

    #[test]
    fn endpoint_label_has_no_ids() {
        assert_eq!(endpoint("users"), "users");
        assert_eq!(endpoint("users/1001"), "users/{id}");
        assert_eq!(endpoint("projects/7/user_assignments/5001"), "projects/{id}/user_assignments/{id}");
    }
}
