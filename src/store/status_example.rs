//! A status in which nothing is wrong, for tests of its readers.

use chrono::{DateTime, TimeDelta, Utc};

use super::status::{
    AccountStatus, ConsumerStatus, HeldCount, OpenWrites, OutboxStatus, ResourceStatus, Status,
};
use super::webhooks::commands::WebhookStatus;

impl Status {
    /// Accounts that were read 21 seconds ago, and the consumer `access-review`.
    pub(crate) fn example(accounts: impl IntoIterator<Item = i64>) -> Self {
        let now: DateTime<Utc> = DateTime::UNIX_EPOCH + TimeDelta::days(20_000);
        let list = |account_id, resource: &str| ResourceStatus {
            account_id,
            resource: resource.to_owned(),
            last_success_at: Some(now - TimeDelta::seconds(21)),
            lag_seconds: Some(21),
            watermark: None,
            next_full_at: Some(now + TimeDelta::minutes(41)),
            active: 0,
            inactive: 0,
            deleted: 0,
            unexplained_total: None,
            unexplained_expected: None,
        };
        let account = |account_id| AccountStatus {
            account_id,
            name: Some("Ada & Co".to_owned()),
            holder: Some("web-1:4711".to_owned()),
            lease_expires_at: Some(now + TimeDelta::seconds(10)),
            first_lease_at: Some(now - TimeDelta::days(90)),
            first_read: None,
            last_full_at: Some(now - TimeDelta::minutes(19)),
            last_error: None,
            rejected_records: 0,
            held_deletions: Vec::new(),
            open_writes: OpenWrites::default(),
            resources: vec![list(account_id, "users"), list(account_id, "user_assignments")],
        };
        Self {
            now,
            accounts: accounts.into_iter().map(account).collect(),
            outbox: OutboxStatus { seq: 824, floor_seq: 59, stream_id: uuid::Uuid::nil() },
            consumers: vec![ConsumerStatus {
                name: "access-review".to_owned(),
                acked_seq: 812,
                behind: 12,
                oldest_at: Some(now - TimeDelta::minutes(5)),
                has_lost_events: false,
            }],
            webhooks: Vec::new(),
        }
    }
}

impl WebhookStatus {
    /// The endpoint `hr-bot`, for which no event waits.
    pub(crate) fn example() -> Self {
        Self {
            name: "hr-bot".to_owned(),
            state: "on".to_owned(),
            state_by: None,
            reason: None,
            holder: None,
            acked_seq: 824,
            behind: 0,
            oldest_seconds: None,
            delivered: 765,
            delivered_at: None,
            failing_since: None,
            attempts: 0,
            next_attempt_at: None,
            failed_seq: None,
            failure: None,
            set_aside: Vec::new(),
            seen_at: DateTime::UNIX_EPOCH,
        }
    }
}

impl HeldCount {
    /// Seven deletions of users that the guard holds.
    pub(crate) fn example() -> Self {
        let (resource, reason) = ("users".to_owned(), "guard".to_owned());
        Self { account_id: 123_456, resource, reason, decision: None, count: 7 }
    }
}
