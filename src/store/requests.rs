//! `roster.requests`: what commands request of the process that holds an account's lease, and its answers.

use super::database::Store;
use super::error::StoreError;
use super::notifications::notify_daemon;
use crate::roster::AccountId;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// The cycle that is due.
    Sync,
    Full,
    /// A read of one user and the user's assignments.
    User(i64),
}

#[derive(Clone, Copy, Debug)]
pub struct DaemonRequest {
    pub id: i64,
    pub kind: RequestKind,
}

/// The result of a request. Each variant has its own exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum Outcome {
    Ok,
    /// Neither Harvest nor the mirror knows the user.
    NoSuchRecord,
    /// Harvest refused the token or the account.
    Refused,
    /// Harvest or the database is not available.
    Unavailable,
}

#[derive(Clone, Debug)]
pub enum Progress {
    /// No process has begun.
    Waiting,
    /// A process works on it.
    Taken,
    /// It is done, with this answer.
    Done(Outcome, String),
}

impl Store {
    /// Inserts a request, notifies the daemon, and returns the request's number. Deletes requests that are older than a
    /// day.
    pub(crate) async fn submit_request(
        &self,
        account: AccountId,
        kind: RequestKind,
    ) -> Result<i64, StoreError> {
        let (kind, user) = match kind {
            RequestKind::Sync => ("sync", None),
            RequestKind::Full => ("full", None),
            RequestKind::User(id) => ("user", Some(id)),
        };
        let mut transaction = self.pool.begin().await?;
        sqlx::query!("DELETE FROM roster.requests WHERE asked_at < now() - interval '1 day'")
            .execute(&mut *transaction)
            .await?;
        let request = sqlx::query!(
            "INSERT INTO roster.requests (account_id, kind, user_id) VALUES ($1, $2, $3) RETURNING id",
            account.0,
            kind,
            user,
        )
        .fetch_one(&mut *transaction)
        .await?;
        notify_daemon(&mut transaction, Some(account)).await?;
        transaction.commit().await?;
        Ok(request.id)
    }

    pub async fn progress(&self, request: i64) -> Result<Progress, StoreError> {
        let row = sqlx::query!(
            r#"SELECT taken_at, outcome AS "outcome: Outcome", answer FROM roster.requests WHERE id = $1"#,
            request
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(match (row.outcome, row.taken_at) {
            (Some(outcome), _) => Progress::Done(outcome, row.answer.unwrap_or_default()),
            (None, Some(_)) => Progress::Taken,
            (None, None) => Progress::Waiting,
        })
    }

    /// Deletes a request: the command does the work itself, or has stopped waiting.
    pub(crate) async fn withdraw(&self, request: i64) -> Result<(), StoreError> {
        sqlx::query!("DELETE FROM roster.requests WHERE id = $1", request).execute(&self.pool).await?;
        Ok(())
    }

    /// Takes the account's oldest request that is not done, even if a former lease holder had begun it. Ignores
    /// requests that are older than an hour: no command waits that long.
    pub(crate) async fn next_request(&self, account: AccountId) -> Result<Option<DaemonRequest>, StoreError> {
        let row = sqlx::query!(
            "UPDATE roster.requests SET taken_at = now()
              WHERE id = (SELECT id FROM roster.requests
                           WHERE account_id = $1 AND done_at IS NULL AND asked_at > now() - interval '1 hour'
                           ORDER BY id LIMIT 1)
             RETURNING id, kind, user_id",
            account.0
        );
        let Some(row) = row.fetch_optional(&self.pool).await? else { return Ok(None) };
        let kind = match (row.kind.as_str(), row.user_id) {
            ("user", Some(id)) => RequestKind::User(id),
            ("full", _) => RequestKind::Full,
            _ => RequestKind::Sync,
        };
        Ok(Some(DaemonRequest { id: row.id, kind }))
    }

    /// The accounts that have requests which no process has begun.
    pub(crate) async fn accounts_with_requests(&self) -> Result<Vec<i64>, StoreError> {
        let accounts = sqlx::query_scalar!(
            "SELECT DISTINCT account_id FROM roster.requests
              WHERE done_at IS NULL AND taken_at IS NULL AND asked_at > now() - interval '1 hour'"
        );
        Ok(accounts.fetch_all(&self.reserved).await?)
    }

    pub async fn answer(&self, request: i64, outcome: Outcome, answer: &str) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE roster.requests SET done_at = clock_timestamp(), outcome = $2, answer = $3 WHERE id = $1",
            request,
            outcome as Outcome,
            answer,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
