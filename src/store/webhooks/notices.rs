//! `roster.webhook_notices`: the concerns of which the receiver of an endpoint has been notified. No row is written while
//! nothing changes.

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::store::database::Store;
use crate::store::error::StoreError;

/// What is sent about a concern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum NoticeState {
    New,
    /// `rosterd.attention_needed` was sent at least once.
    Needed,
    /// `rosterd.attention_over` is to be sent.
    Over,
}

/// A row of `roster.webhook_notices`.
#[derive(Clone, Debug)]
pub struct KnownNotice {
    /// Kind, and what the concern is about.
    pub concern: String,
    pub state: NoticeState,
    /// The concern as the messages show it.
    pub data: Value,
    pub began_at: DateTime<Utc>,
    pub absent_since: Option<DateTime<Utc>>,
    /// Whether the receiver accepted `rosterd.attention_needed`.
    pub is_accepted: bool,
    /// Attempts of the message that is to be sent.
    pub attempts: i32,
    pub next_attempt_at: Option<DateTime<Utc>>,
}

/// How a look at the concerns changes a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoticeChange {
    /// A concern was found, with the data of its messages.
    Began(Value),
    /// The concern was not found, or was found again (`None`).
    AbsentSince(Option<DateTime<Utc>>),
    /// `rosterd.attention_over` is to be sent.
    Over,
    /// Nothing more is sent.
    Forgotten,
}

impl Store {
    /// The notices of the endpoint; `None` if this process does not deliver for it, or if an operator or the receiver has
    /// stopped the delivery.
    pub(crate) async fn webhook_notices(
        &self,
        name: &str,
        replica: uuid::Uuid,
    ) -> Result<Option<Vec<KnownNotice>>, StoreError> {
        let holds = sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT FROM roster.webhooks
                               WHERE name = $1 AND holder = $2 AND state IN ('on', 'lost')) AS "holds!""#,
            name,
            replica
        );
        if !holds.fetch_one(&self.pool).await? {
            return Ok(None);
        }
        let notices = sqlx::query_as!(
            KnownNotice,
            r#"SELECT concern, state AS "state: NoticeState", data, began_at, absent_since, is_accepted, attempts, next_attempt_at
               FROM roster.webhook_notices WHERE name = $1 ORDER BY began_at, concern"#,
            name
        );
        Ok(Some(notices.fetch_all(&self.pool).await?))
    }

    /// Applies what a look at the concerns found at `now`.
    pub(crate) async fn change_webhook_notices(
        &self,
        name: &str,
        changes: &[(String, NoticeChange)],
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await?;
        for (concern, change) in changes {
            let statement = match change {
                NoticeChange::Began(data) => sqlx::query!(
                    "INSERT INTO roster.webhook_notices (name, concern, data, began_at) VALUES ($1, $2, $3, $4)
                     ON CONFLICT (name, concern) DO NOTHING",
                    name,
                    concern,
                    data,
                    now
                ),
                NoticeChange::AbsentSince(since) => sqlx::query!(
                    "UPDATE roster.webhook_notices SET absent_since = $3 WHERE name = $1 AND concern = $2",
                    name,
                    concern,
                    *since
                ),
                NoticeChange::Over => sqlx::query!(
                    "UPDATE roster.webhook_notices
                        SET state = 'over', attempts = 0, next_attempt_at = NULL, failure = NULL
                      WHERE name = $1 AND concern = $2",
                    name,
                    concern
                ),
                NoticeChange::Forgotten => sqlx::query!(
                    "DELETE FROM roster.webhook_notices WHERE name = $1 AND concern = $2",
                    name,
                    concern
                ),
            };
            statement.execute(&mut *transaction).await?;
        }
        Ok(transaction.commit().await?)
    }

    /// Stores that an attempt begins. False if another process has begun it: then this one does not send.
    pub(crate) async fn begin_webhook_notice(
        &self,
        name: &str,
        notice: &KnownNotice,
        wait_secs: f64,
    ) -> Result<bool, StoreError> {
        let begun = sqlx::query!(
            "UPDATE roster.webhook_notices
                SET state = CASE state WHEN 'new' THEN 'needed' ELSE state END, attempts = attempts + 1,
                    next_attempt_at = clock_timestamp() + make_interval(secs => $5)
              WHERE name = $1 AND concern = $2 AND state = $3 AND attempts = $4 AND began_at = $6",
            name,
            notice.concern,
            notice.state as NoticeState,
            notice.attempts,
            wait_secs,
            notice.began_at
        )
        .execute(&self.pool)
        .await?;
        Ok(begun.rows_affected() > 0)
    }

    /// Stores that the receiver accepted the message. After `rosterd.attention_over`, the concern is forgotten.
    pub(crate) async fn webhook_notice_accepted(
        &self,
        name: &str,
        notice: &KnownNotice,
    ) -> Result<(), StoreError> {
        let statement = if notice.state == NoticeState::Over {
            sqlx::query!(
                "DELETE FROM roster.webhook_notices WHERE name = $1 AND concern = $2 AND began_at = $3",
                name,
                notice.concern,
                notice.began_at
            )
        } else {
            sqlx::query!(
                "UPDATE roster.webhook_notices
                    SET is_accepted = true, attempts = 0, next_attempt_at = NULL, failure = NULL
                  WHERE name = $1 AND concern = $2 AND began_at = $3",
                name,
                notice.concern,
                notice.began_at
            )
        };
        statement.execute(&self.pool).await?;
        Ok(())
    }

    pub(crate) async fn webhook_notice_failed(
        &self,
        name: &str,
        notice: &KnownNotice,
        failure: &str,
        wait_secs: f64,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE roster.webhook_notices
                SET failure = $4, next_attempt_at = clock_timestamp() + make_interval(secs => $5)
              WHERE name = $1 AND concern = $2 AND began_at = $3",
            name,
            notice.concern,
            notice.began_at,
            failure,
            wait_secs
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
