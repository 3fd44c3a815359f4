//! `roster.writes`: the journal of writes to Harvest.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::database::Store;
use super::error::StoreError;
use super::tx::AccountTx;
use crate::roster::AccountId;
use crate::roster::write::{Write, WriteFields};

const MAX_OPEN: i64 = 1000;
/// Writes that `rosterd writes list` shows at most.
const MAX_LISTED: i64 = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    Done,
    /// It was so already.
    Unchanged,
    /// `write.mode` is `"dry"`.
    Planned,
    /// The settings or Harvest refused it.
    Refused,
    /// Harvest did not answer and does not have it.
    Lost,
}

impl WriteOutcome {
    /// The name in the journal, logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Unchanged => "unchanged",
            Self::Planned => "planned",
            Self::Refused => "refused",
            Self::Lost => "lost",
        }
    }
}

#[derive(Clone, Debug)]
pub struct OpenWrite {
    pub id: Uuid,
    /// What it does; the error is why its row cannot be read.
    pub write: Result<Write, String>,
    pub actor: String,
    /// Whether a person asked by name, or has accepted it.
    pub is_deliberate: bool,
    /// Whether it was requested more than a day ago, and not accepted since.
    pub is_old: bool,
    /// How long ago it was sent; `None` if it certainly was not.
    pub sent_ago: Option<Duration>,
    pub attempts: i32,
}

impl OpenWrite {
    /// Writes with the same key are sent one after the other.
    pub fn key(&self) -> String {
        match &self.write {
            Ok(write) => {
                // Writes of roles have neither, and are sent one after the other.
                write.email_key().or(write.user.map(|user| user.to_string())).unwrap_or_default()
            }
            Err(_) => self.id.to_string(),
        }
    }
}

#[derive(Clone, Debug)]
pub struct FinishedWrite {
    pub id: Uuid,
    pub outcome: WriteOutcome,
    /// The record, if the write created it.
    pub record: Option<i64>,
    pub status: Option<u16>,
    pub error: Option<String>,
}

impl FinishedWrite {
    /// An end without record, status and error.
    pub fn new(id: Uuid, outcome: WriteOutcome) -> Self {
        Self { id, outcome, record: None, status: None, error: None }
    }
}

/// A row of the journal, without values.
#[derive(Clone, Debug, Serialize)]
// The fields are the columns, which have comments in the migrations.
pub struct JournalEntry {
    pub id: Uuid,
    pub account_id: i64,
    pub kind: String,
    pub user_id: Option<i64>,
    pub project_id: Option<i64>,
    pub assignment_id: Option<i64>,
    pub role_id: Option<i64>,
    pub fields: Vec<String>,
    pub actor: String,
    /// `waiting`, `held`, `in_doubt`, or the outcome.
    pub state: String,
    pub asked_at: DateTime<Utc>,
    pub sent_at: Option<DateTime<Utc>>,
    pub done_at: Option<DateTime<Utc>>,
    pub accepted_by: Option<String>,
    pub status: Option<i16>,
    pub error: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub struct WriteSelection {
    pub account: Option<i64>,
    /// Only these writes; all if empty.
    pub ids: Vec<Uuid>,
    pub open: bool,
    pub held: bool,
}

/// The fields that any login with the right to request writes may have inserted.
fn wanted(text: &str) -> Result<serde_json::Value, &'static str> {
    // serde_json reads an object with such a key as another value than PostgreSQL, which checks the fields and notes their
    // names.
    if text.contains("$serde_json::private::") {
        return Err("the fields hold a key that is reserved");
    }
    serde_json::from_str(text)
        .map_err(|_| "the fields are nested too deep, or hold a number that is too large")
}

impl Store {
    /// Requests a write, or joins the open one that asks for the same.
    pub async fn ask_write(
        &self,
        account: AccountId,
        write: &Write,
        actor: &str,
    ) -> Result<Uuid, StoreError> {
        let row = sqlx::query!(
            r#"SELECT roster.write_insert($1, $2, $3, $4, $5, $6, $7) AS "id!""#,
            account.0,
            write.kind.name(),
            write.user,
            write.project,
            write.assignment,
            write.fields.to_json(),
            actor,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(row.id)
    }

    /// The writes that can be sent or settled: for each user the oldest one.
    pub async fn open_writes(&self, account: AccountId) -> Result<Vec<OpenWrite>, StoreError> {
        let rows = sqlx::query!(
            // As text: one value that serde_json cannot read must not stop all writes. Users who lose access come first.
            r#"SELECT id, kind, user_id, project_id, assignment_id, role_id, wanted::text AS "wanted!", actor,
                      accepted_at IS NOT NULL AS "is_accepted!", attempts,
                      asked_at < clock_timestamp() - interval '1 day' AS "is_old!",
                      extract(epoch FROM clock_timestamp() - sent_at)::float8 AS sent_ago
                 FROM (SELECT DISTINCT ON (coalesce(user_id::text, email_key, '')) *
                         FROM roster.writes
                        WHERE account_id = $1 AND done_at IS NULL AND (held_at IS NULL OR accepted_at IS NOT NULL)
                        ORDER BY coalesce(user_id::text, email_key, ''), asked_at, id) AS first
                ORDER BY kind NOT IN ('user_deactivate', 'user_delete'), asked_at, id LIMIT $2"#,
            account.0,
            MAX_OPEN,
        )
        .fetch_all(&self.pool)
        .await?;
        let read = rows.into_iter().map(|row| OpenWrite {
            id: row.id,
            write: row.kind.parse().and_then(|kind| {
                Ok(Write {
                    kind,
                    user: row.user_id,
                    project: row.project_id,
                    assignment: row.assignment_id,
                    role: row.role_id,
                    fields: WriteFields::parse(kind, wanted(&row.wanted)?)?,
                })
            }),
            is_deliberate: row.is_accepted || row.actor.starts_with("cli:"),
            is_old: row.is_old && !row.is_accepted,
            actor: row.actor,
            sent_ago: row.sent_ago.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default()),
            attempts: row.attempts,
        });
        Ok(read.collect())
    }

    /// Withdraws a write of this actor. Returns false if it was sent, is finished, or was requested by others too.
    pub async fn withdraw_write(&self, id: Uuid, actor: &str) -> Result<bool, StoreError> {
        let withdrawn = sqlx::query!(
            "UPDATE roster.writes SET done_at = clock_timestamp(), outcome = 'withdrawn', wanted = NULL, email_key = NULL
              WHERE id = $1 AND actor = $2 AND askers = 1 AND sent_at IS NULL AND done_at IS NULL",
            id,
            actor,
        )
        .execute(&self.pool)
        .await?;
        Ok(withdrawn.rows_affected() == 1)
    }

    /// The journal, newest first. Without ids, at most 1,000 rows.
    pub async fn list_writes(&self, selection: &WriteSelection) -> Result<Vec<JournalEntry>, StoreError> {
        let rows = sqlx::query_as!(
            JournalEntry,
            r#"SELECT id, account_id, kind, user_id, project_id, assignment_id, role_id, fields, actor,
                      coalesce(outcome, CASE WHEN held_at IS NOT NULL AND accepted_at IS NULL THEN 'held'
                                             WHEN sent_at IS NOT NULL THEN 'in_doubt' ELSE 'waiting' END) AS "state!",
                      asked_at, sent_at, done_at, accepted_by, status, error
                 FROM roster.writes
                WHERE ($1::bigint IS NULL OR account_id = $1) AND ($2::uuid[] = '{}' OR id = ANY ($2))
                  AND (NOT $3 OR done_at IS NULL)
                  AND (NOT $4 OR done_at IS NULL AND held_at IS NOT NULL AND accepted_at IS NULL)
                ORDER BY asked_at DESC, id LIMIT CASE WHEN $2 = '{}' THEN $5::bigint END"#,
            selection.account,
            &selection.ids,
            selection.open,
            selection.held,
            MAX_LISTED,
        );
        Ok(rows.fetch_all(&self.pool).await?)
    }

    /// Accepts or rejects held writes, and returns the ids of those it decided about.
    pub async fn decide_writes(&self, ids: &[Uuid], accept: bool, by: &str) -> Result<Vec<Uuid>, StoreError> {
        let decided = sqlx::query!(
            "UPDATE roster.writes
                SET accepted_at = clock_timestamp(), accepted_by = $3,
                    done_at = CASE WHEN $2 THEN NULL ELSE clock_timestamp() END,
                    outcome = CASE WHEN $2 THEN NULL ELSE 'rejected' END,
                    wanted = CASE WHEN $2 THEN wanted END, email_key = CASE WHEN $2 THEN email_key END
              WHERE id = ANY ($1) AND done_at IS NULL AND held_at IS NOT NULL AND accepted_at IS NULL
             RETURNING id, pg_notify('roster_write', account_id::text) AS notified",
            ids,
            accept,
            by,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(decided.into_iter().map(|row| row.id).collect())
    }

    /// Stores why an open write is not finished yet.
    pub async fn note_write(&self, id: Uuid, error: &str) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE roster.writes SET error = $2 WHERE id = $1 AND done_at IS NULL AND error IS DISTINCT FROM $2",
            id,
            error
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}

impl AccountTx {
    /// Records that a write is about to be sent. Returns false if it was withdrawn.
    pub async fn mark_write_sent(&mut self, id: Uuid) -> Result<bool, StoreError> {
        let updated = sqlx::query!(
            "UPDATE roster.writes SET sent_at = clock_timestamp(), attempts = attempts + 1, error = NULL
              WHERE id = $1 AND done_at IS NULL AND sent_at IS NULL",
            id
        )
        .execute(&mut *self.transaction)
        .await?;
        Ok(updated.rows_affected() == 1)
    }

    /// Records that Harvest certainly has not carried out a write: it may be sent again.
    pub async fn mark_write_unsent(&mut self, id: Uuid, error: Option<&str>) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE roster.writes SET sent_at = NULL, error = $2 WHERE id = $1 AND done_at IS NULL",
            id,
            error
        )
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }

    /// Holds a write until a person accepts or rejects it.
    pub async fn hold_write(&mut self, id: Uuid) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE roster.writes SET held_at = clock_timestamp() WHERE id = $1 AND done_at IS NULL AND held_at IS NULL",
            id
        )
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }

    /// Ends a write, and erases what it wanted.
    pub async fn finish_write(&mut self, finished: &FinishedWrite) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE roster.writes
                SET done_at = clock_timestamp(), outcome = $2, status = $3, error = $4, wanted = NULL, email_key = NULL,
                    user_id = CASE kind WHEN 'user_create' THEN $5 ELSE user_id END,
                    assignment_id = CASE kind WHEN 'assignment_add' THEN $5 ELSE assignment_id END,
                    role_id = CASE kind WHEN 'role_create' THEN $5 ELSE role_id END
              WHERE id = $1 AND done_at IS NULL",
            finished.id,
            finished.outcome.name(),
            finished.status.and_then(|status| i16::try_from(status).ok()),
            finished.error,
            finished.record,
        )
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }

    /// The owner of the account's token, as the last full read found it.
    pub async fn token_owner(&mut self) -> Result<Option<i64>, StoreError> {
        let owner = sqlx::query_scalar!(
            "SELECT token_user_id FROM roster.accounts WHERE account_id = $1",
            self.account.0
        );
        Ok(owner.fetch_optional(&mut *self.transaction).await?.flatten())
    }

    /// How many users are active, and how many lost access by writes that no person asked for by name within this time,
    /// or are about to.
    pub async fn losses(&mut self, within: Duration) -> Result<(u64, u64), StoreError> {
        let row = sqlx::query!(
            r#"SELECT (SELECT count(*) FROM roster.users
                        WHERE account_id = $1 AND is_active AND deleted_at IS NULL) AS "active!",
                      (SELECT count(DISTINCT user_id) FROM roster.writes
                        WHERE account_id = $1 AND kind IN ('user_deactivate', 'user_delete') AND actor NOT LIKE 'cli:%'
                          AND (done_at IS NULL AND sent_at IS NOT NULL
                               OR outcome = 'done' AND done_at > clock_timestamp() - make_interval(secs => $2))
                      ) AS "lost!""#,
            self.account.0,
            within.as_secs_f64(),
        )
        .fetch_one(&mut *self.transaction)
        .await?;
        Ok((row.active.unsigned_abs(), row.lost.unsigned_abs()))
    }
}
