//! The versions of a record: what changed with each version, in which cycle and by which request, and its event.
//!
//! The fields have the names of `rosterd explain --json`.

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::database::Store;
use super::error::StoreError;
use crate::roster::{AccountId, Resource};

#[derive(Clone, Debug, Serialize)]
pub struct RecordVersion {
    pub account_id: i64,
    pub version: i64,
    pub r#type: String,
    /// When the mirror stored the version.
    pub valid_from: DateTime<Utc>,
    /// When the next version replaced it.
    pub valid_to: Option<DateTime<Utc>>,
    /// Harvest's time of the change.
    pub occurred_at: Option<DateTime<Utc>>,
    /// Names of the changed fields; `None` if the event is no longer kept.
    pub changed: Option<Vec<String>>,
    pub event_seq: Option<i64>,
    pub event_id: Option<Uuid>,
    pub cycle_id: Option<Uuid>,
    pub mode: Option<String>,
    /// The request to Harvest; `None` if the event is no longer kept.
    pub request: Option<String>,
    pub cycle_started_at: Option<DateTime<Utc>>,
    pub cycle_requests: Option<i64>,
}

/// A held deletion or a rejection of a record.
#[derive(Clone, Debug, Serialize)]
pub struct RecordProblem {
    pub account_id: i64,
    /// `held` or `rejected`.
    pub what: String,
    pub since: DateTime<Utc>,
    /// The reason or the error, without personal data.
    pub why: String,
}

impl Store {
    /// Account and id of the users with this e-mail address in the mirror, including deleted users. Ignores case.
    pub(crate) async fn users_by_email(
        &self,
        email: &str,
        only: Option<AccountId>,
    ) -> Result<Vec<(AccountId, i64)>, StoreError> {
        let users = sqlx::query!(
            "SELECT account_id, id FROM roster.users
              WHERE lower(email) = lower($1) AND account_id = coalesce($2, account_id)
              ORDER BY account_id, id",
            email,
            only.map(|account| account.0),
        );
        let users = users.fetch_all(&self.pool).await?;
        Ok(users.into_iter().map(|user| (AccountId(user.account_id), user.id)).collect())
    }

    /// The versions of a record, oldest first, in all accounts or in `only`.
    pub async fn versions(
        &self,
        resource: Resource,
        id: i64,
        only: Option<AccountId>,
    ) -> Result<Vec<RecordVersion>, StoreError> {
        let versions = sqlx::query_as!(
            RecordVersion,
            r#"SELECT past.account_id AS "account_id!", past.version AS "version!", past.type AS "type!",
                      past.valid_from AS "valid_from!", past.valid_to, past.occurred_at,
                      CASE WHEN event.seq IS NOT NULL THEN
                          ARRAY (SELECT jsonb_object_keys(event.payload -> 'changed') ORDER BY 1) END AS changed,
                      event.seq AS "event_seq?", event.id AS "event_id?",
                      (event.payload ->> 'cycle_id')::uuid AS cycle_id, event.payload ->> 'mode' AS mode,
                      event.payload ->> 'request' AS request,
                      cycle.started_at AS "cycle_started_at?", cycle.requests AS "cycle_requests?"
                 FROM (SELECT 'user' AS aggregate, account_id, id, version, type, valid_from, valid_to, occurred_at
                         FROM directory.user_history
                       UNION ALL
                       SELECT 'user_assignment', account_id, id, version, type, valid_from, valid_to, occurred_at
                         FROM directory.assignment_history) AS past
                 LEFT JOIN roster.outbox AS event
                        ON (event.account_id, event.aggregatetype, event.record_id, event.version)
                         = (past.account_id, past.aggregate, past.id, past.version)
                 LEFT JOIN roster.cycles AS cycle ON cycle.id = (event.payload ->> 'cycle_id')::uuid
                WHERE past.aggregate = $1 AND past.id = $2
                  AND past.account_id = ANY (ARRAY (SELECT account_id FROM roster.accounts
                                                     WHERE account_id = coalesce($3, account_id)))
                ORDER BY past.account_id, past.version"#,
            resource.aggregate(),
            id,
            only.map(|account| account.0),
        );
        Ok(versions.fetch_all(&self.pool).await?)
    }

    pub(crate) async fn record_problems(
        &self,
        resource: Resource,
        id: i64,
        only: Option<AccountId>,
    ) -> Result<Vec<RecordProblem>, StoreError> {
        let problems = sqlx::query_as!(
            RecordProblem,
            r#"SELECT account_id AS "account_id!", 'held' AS "what!", found_at AS "since!",
                      concat_ws(', ', reason, decision) AS "why!"
                 FROM roster.held_deletions
                WHERE resource = $1 AND record_id = $2 AND account_id = coalesce($3, account_id)
               UNION ALL
               SELECT account_id, 'rejected', first_seen_at, error
                 FROM roster.rejected_records
                WHERE resource = $1 AND record_id = $2 AND account_id = coalesce($3, account_id)
                ORDER BY 1, 3"#,
            resource.name(),
            id,
            only.map(|account| account.0),
        );
        Ok(problems.fetch_all(&self.pool).await?)
    }
}
