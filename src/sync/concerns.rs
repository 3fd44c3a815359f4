//! What is wrong: one rule for `rosterd status`, the status page and the ping.
//!
//! The rule is pure and looks at the database's state only, so every process comes to the same result. Each concern has
//! a sentence and the command to type. `deploy/alerts.yaml` has the same thresholds for Prometheus; a test compares them.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use crate::store::status::{AccountStatus, ConsumerStatus, Status};
use crate::store::webhooks::commands::WebhookStatus;
use crate::telemetry::{count, duration};

/// An account is stale after this time without a successful cycle, or after three poll intervals.
const STALE_AFTER: TimeDelta = TimeDelta::minutes(15);
/// How long the first read of an account may take.
const FIRST_READ: TimeDelta = TimeDelta::minutes(30);
/// How long an account may be without an active instance, unless the poll interval is longer.
const TAKEOVER: TimeDelta = TimeDelta::minutes(2);
/// How long the first event of a webhook may wait.
const DELIVERY: TimeDelta = TimeDelta::minutes(15);
/// How long a write may wait.
const WRITE_WAIT: TimeDelta = TimeDelta::hours(1);

/// The settings that the rule depends on.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The longest interval between two polls.
    pub poll_interval: Duration,
    /// `outbox.retention`.
    pub retention: Duration,
    /// The accounts in the settings. Another account counts only while a process holds its lease, because it may have
    /// been removed from all settings. If there are none, all accounts count.
    pub accounts: Vec<i64>,
}

/// How urgent a concern is: the severities of `deploy/alerts.yaml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The mirror is stale or events are lost: act now.
    Critical,
    /// Look at it in working hours.
    Warning,
}

impl Severity {
    /// As in `deploy/alerts.yaml`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    DatabaseUnreachable,
    MigrationsPending,
    NoAccount,
    Stale,
    NeverRead,
    NoActiveInstance,
    CycleFailed,
    DeletionsHeld,
    RecordsRejected,
    TotalUnexplained,
    WritesHeld,
    WritesInDoubt,
    WritesWaiting,
    ConsumerLostEvents,
    ConsumerBehind,
    WebhookStopped,
    WebhookFailing,
    WebhookPaused,
}

impl Kind {
    fn severity(self) -> Severity {
        match self {
            Self::DatabaseUnreachable
            | Self::Stale
            | Self::NeverRead
            | Self::NoActiveInstance
            | Self::ConsumerLostEvents
            | Self::WebhookStopped
            | Self::WebhookFailing => Severity::Critical,
            _ => Severity::Warning,
        }
    }

    fn command(self) -> &'static str {
        match self {
            Self::DatabaseUnreachable
            | Self::NoAccount
            | Self::Stale
            | Self::NeverRead
            | Self::NoActiveInstance
            | Self::CycleFailed => "rosterd check",
            Self::MigrationsPending => "rosterd migrate",
            Self::DeletionsHeld => "rosterd deletions list",
            Self::RecordsRejected => {
                "rosterd psql -- -c 'SELECT account_id, resource, record_id, error FROM roster.rejected_records'"
            }
            Self::TotalUnexplained => "rosterd verify",
            Self::WritesHeld => "rosterd writes list --held",
            Self::WritesInDoubt | Self::WritesWaiting => "rosterd writes list --open",
            Self::ConsumerLostEvents | Self::ConsumerBehind => {
                "rosterd psql -- -c 'TABLE directory.consumers'"
            }
            Self::WebhookStopped | Self::WebhookFailing | Self::WebhookPaused => "rosterd webhooks list",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
// The names of the fields are those of `rosterd status --json`.
pub struct Concern {
    pub severity: Severity,
    pub kind: Kind,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account_id: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// The consumer or the webhook.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub sentence: String,
    pub command: &'static str,
}

impl Concern {
    fn new(kind: Kind, account_id: Option<i64>, sentence: String) -> Self {
        let (severity, command) = (kind.severity(), kind.command());
        Self { severity, kind, account_id, resource: None, name: None, sentence, command }
    }

    fn of_list(kind: Kind, account: i64, resource: &str, sentence: String) -> Self {
        Self { resource: Some(resource.to_owned()), ..Self::new(kind, Some(account), sentence) }
    }

    fn named(kind: Kind, name: &str, sentence: String) -> Self {
        Self { name: Some(name.to_owned()), ..Self::new(kind, None, sentence) }
    }

    pub(crate) fn database_unreachable() -> Self {
        let sentence = "the database does not answer, so rosterd reads nothing from Harvest".to_owned();
        Self::new(Kind::DatabaseUnreachable, None, sentence)
    }

    pub(crate) fn migrations_pending() -> Self {
        let sentence = "the database schema is not up to date".to_owned();
        Self::new(Kind::MigrationsPending, None, sentence)
    }
}

/// What is wrong, the most urgent first.
pub fn concerns(status: &Status, limits: &Limits) -> Vec<Concern> {
    let mut concerns = Vec::new();
    if status.accounts.is_empty() {
        concerns.push(Concern::new(Kind::NoAccount, None, "no account has been read yet".to_owned()));
    }
    for account in &status.accounts {
        freshness(account, status.now, limits, &mut concerns);
        reviews(account, &mut concerns);
        writes(account, status.now, &mut concerns);
    }
    // The consumer of a webhook is reported as the webhook.
    for consumer in status.consumers.iter().filter(|consumer| !consumer.name.starts_with("webhook:")) {
        concerns.extend(of_consumer(consumer, status.now, limits));
    }
    concerns.extend(status.webhooks.iter().filter_map(of_webhook));
    concerns.sort_by_key(|concern| concern.severity);
    concerns
}

fn freshness(account: &AccountStatus, now: DateTime<Utc>, limits: &Limits, concerns: &mut Vec<Concern>) {
    let id = account.account_id;
    if account.holder.is_none() && !limits.accounts.is_empty() && !limits.accounts.contains(&id) {
        return;
    }
    let interval = TimeDelta::from_std(limits.poll_interval).unwrap_or(TimeDelta::MAX / 3);
    let reads = account.resources.iter().map(|list| list.last_success_at);
    let oldest = reads.clone().collect::<Option<Vec<_>>>().and_then(|reads| reads.into_iter().min());
    let mut add = |kind, sentence| concerns.push(Concern::new(kind, Some(id), sentence));
    match oldest {
        Some(at) if now - at > STALE_AFTER.max(interval * 3) => {
            add(Kind::Stale, format!("account {id} was last read {} ago", age(now, at)));
        }
        Some(_) => {}
        None => {
            if let Some(at) = account.first_lease_at.filter(|at| now - *at > FIRST_READ) {
                add(
                    Kind::NeverRead,
                    format!("account {id} was added {} ago and has never been read completely", age(now, at)),
                );
            }
        }
    }
    let last_active = reads.flatten().chain(account.lease_expires_at).chain(account.first_lease_at).max();
    if account.holder.is_none()
        && let Some(at) = last_active.filter(|at| now - *at > TAKEOVER.max(interval))
    {
        add(Kind::NoActiveInstance, format!("account {id} has had no active instance for {}", age(now, at)));
    }
    if let Some(error) = &account.last_error {
        add(Kind::CycleFailed, format!("the last cycle of account {id} failed: {error}"));
    }
}

fn reviews(account: &AccountStatus, concerns: &mut Vec<Concern>) {
    let id = account.account_id;
    for held in account.held_deletions.iter().filter(|held| held.decision.is_none()) {
        let (deletions, verb) = (count(held.count, "deletion"), is_or_are(held.count));
        let sentence = format!(
            "account {id}: {deletions} of {} {verb} held for review ({})",
            held.resource, held.reason
        );
        concerns.push(Concern::of_list(Kind::DeletionsHeld, id, &held.resource, sentence));
    }
    if account.rejected_records > 0 {
        let sentence = format!("account {id}: {} rejected", are(account.rejected_records, "record"));
        concerns.push(Concern::new(Kind::RecordsRejected, Some(id), sentence));
    }
    for list in &account.resources {
        if let Some(total) = list.unexplained_total {
            let expected = list.unexplained_expected.unwrap_or_default();
            let sentence = format!(
                "account {id}: Harvest's total of {} is {total} instead of {expected}; a full read does not explain it",
                list.resource
            );
            concerns.push(Concern::of_list(Kind::TotalUnexplained, id, &list.resource, sentence));
        }
    }
}

fn writes(account: &AccountStatus, now: DateTime<Utc>, concerns: &mut Vec<Concern>) {
    let (id, open) = (account.account_id, &account.open_writes);
    let mut add = |kind, sentence| concerns.push(Concern::new(kind, Some(id), sentence));
    if open.held > 0 {
        add(Kind::WritesHeld, format!("account {id}: {} held for review", are(open.held, "write")));
    }
    if open.in_doubt > 0 {
        add(Kind::WritesInDoubt, format!("account {id}: {} without an answer", are(open.in_doubt, "write")));
    }
    if let Some(at) = open.waiting_since.filter(|at| now - *at > WRITE_WAIT) {
        let sentence =
            format!("account {id}: {} not sent, the oldest for {}", are(open.waiting, "write"), age(now, at));
        add(Kind::WritesWaiting, sentence);
    }
}

fn of_consumer(consumer: &ConsumerStatus, now: DateTime<Utc>, limits: &Limits) -> Option<Concern> {
    let name = &consumer.name;
    if consumer.has_lost_events {
        let sentence = format!("consumer {name} has lost events and must reload from a snapshot");
        return Some(Concern::named(Kind::ConsumerLostEvents, name, sentence));
    }
    // A fifth of the retention is left, as for `consumer.behind` in the log.
    let warning = TimeDelta::from_std(limits.retention / 5 * 4).unwrap_or(TimeDelta::MAX);
    let at = consumer.oldest_at.filter(|at| now - *at > warning)?;
    let sentence =
        format!("consumer {name} has not acknowledged an event for {} and will lose it", age(now, at));
    Some(Concern::named(Kind::ConsumerBehind, name, sentence))
}

fn of_webhook(webhook: &WebhookStatus) -> Option<Concern> {
    let name = &webhook.name;
    let oldest = webhook.oldest_seconds.unwrap_or_default();
    let (kind, sentence) = match webhook.state.as_str() {
        "gone" => (Kind::WebhookStopped, format!("webhook {name} has stopped: its receiver answered 410")),
        "lost" => (
            Kind::WebhookStopped,
            format!("webhook {name} has stopped: outbox.retention removed events before their delivery"),
        ),
        _ if !webhook.set_aside.is_empty() => {
            let refused = count(webhook.set_aside.len(), "event");
            (Kind::WebhookStopped, format!("webhook {name} passed over {refused} that its receiver refuses"))
        }
        "paused" => (Kind::WebhookPaused, format!("webhook {name} is paused")),
        _ if oldest > DELIVERY.num_seconds() => (
            Kind::WebhookFailing,
            format!("webhook {name}: the first event has been waiting for {}", duration(oldest)),
        ),
        _ => return None,
    };
    Some(Concern::named(kind, name, sentence))
}

fn age(now: DateTime<Utc>, at: DateTime<Utc>) -> String {
    duration((now - at).num_seconds())
}

/// A number with its noun and verb, such as `2 writes are`.
fn are(number: i64, noun: &str) -> String {
    format!("{} {}", count(number, noun), is_or_are(number))
}

fn is_or_are(number: i64) -> &'static str {
    if number == 1 { "is" } else { "are" }
}

#[cfg(test)]
#[path = "concerns_tests.rs"]
mod tests;
