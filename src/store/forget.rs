//! Erasure of a user, of all pay data, or of an account, in every table.
//!
//! Rows of the mirror stay with their ids, because other rows refer to them, and lose every other value. Events stay, so that
//! `seq` has no gap, and their payloads lose the same values: the outbox still replays to the mirror. No other code changes
//! an event.

use super::{Session, Store, StoreError, Transaction};
use crate::roster::{AccountId, Record, User};
use crate::telemetry::chain;

/// Fields of a user that stay in rows, history and events: they say that a user existed and was active.
const NOT_PERSONAL: [&str; 2] = ["is_active", "created_at"];

/// Pay data in the payloads of events of all types. The dates of a rate say when somebody's pay changed.
const PAY: [&str; 7] =
    ["default_hourly_rate", "cost_rate", "hourly_rate", "budget", "amount", "start_date", "end_date"];

/// Whether values are erased, or only counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Run the same statements and roll them back.
    Preview,
    /// Erase.
    Erase,
}

/// How much was erased, or would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Erased {
    /// Rows of the mirror.
    pub rows: u64,
    /// Versions in the history.
    pub versions: u64,
    /// Rejected records that belong to the user or account.
    pub rejected: u64,
    /// Rejected records whose user cannot be read; any of them may be the user's.
    pub unreadable: u64,
    /// Events whose payloads lose values.
    pub events: u64,
    /// Whether the mirror has the user as present at Harvest: then the next full read stores everything again.
    pub is_at_harvest: bool,
}

impl Erased {
    /// Whether no table had anything that belongs to the user.
    pub fn is_nothing(&self) -> bool {
        self.rows + self.versions + self.rejected + self.events == 0
    }
}

impl Store {
    /// Erases a user from all accounts, or from `only`. A user without a row has values elsewhere: Harvest may show the
    /// assignments of a user that it does not list, and history and events outlive a row that was deleted by hand.
    pub async fn forget_user(
        &self,
        user: i64,
        only: Option<AccountId>,
        mode: Mode,
    ) -> Result<Erased, StoreError> {
        let mut transaction = self.lock(only).await?;
        let account = only.map(|account| account.0);
        let users = sqlx::query!(
            r#"UPDATE roster.users
                SET first_name = NULL, last_name = NULL, email = NULL, telephone = NULL, timezone = NULL,
                    weekly_capacity = NULL, has_access_to_all_future_projects = NULL, is_contractor = NULL, roles = NULL,
                    access_roles = NULL, permissions_claims = NULL, is_admin = NULL, is_project_manager = NULL,
                    can_see_rates = NULL, can_create_projects = NULL, can_create_invoices = NULL,
                    calendar_integration_enabled = NULL, calendar_integration_source = NULL, employee_id = NULL,
                    default_hourly_rate = NULL, cost_rate = NULL, avatar_url = NULL,
                    raw = jsonb_build_object('id', id), content_hash = 0
              WHERE id = $1 AND account_id = coalesce($2, account_id)
             RETURNING deleted_at IS NULL AS "live!""#,
            user,
            account,
        )
        .fetch_all(&mut *transaction)
        .await?;
        let assignments = sqlx::query!(
            r#"UPDATE roster.user_assignments
                SET hourly_rate = NULL, budget = NULL, raw = jsonb_build_object('id', id), content_hash = 0
              WHERE user_id = $1 AND account_id = coalesce($2, account_id)
             RETURNING deleted_at IS NULL AS "live!""#,
            user,
            account,
        )
        .fetch_all(&mut *transaction)
        .await?;
        let (rates, live_rates) = empty_rates(&mut transaction, account, Some(user)).await?;
        let versions = sqlx::query!(
            "UPDATE roster.user_history
                SET first_name = NULL, last_name = NULL, email = NULL, telephone = NULL, timezone = NULL,
                    weekly_capacity = NULL, has_access_to_all_future_projects = NULL, is_contractor = NULL, roles = NULL,
                    access_roles = NULL, permissions_claims = NULL, is_admin = NULL, is_project_manager = NULL,
                    can_see_rates = NULL, can_create_projects = NULL, can_create_invoices = NULL,
                    calendar_integration_enabled = NULL, calendar_integration_source = NULL, employee_id = NULL,
                    default_hourly_rate = NULL, cost_rate = NULL
              WHERE id = $1 AND account_id = coalesce($2, account_id)",
            user,
            account,
        )
        .execute(&mut *transaction)
        .await?;
        let assignment_versions = sqlx::query!(
            "UPDATE roster.user_assignment_history SET hourly_rate = NULL, budget = NULL
              WHERE user_id = $1 AND account_id = coalesce($2, account_id)",
            user,
            account,
        )
        .execute(&mut *transaction)
        .await?;
        // The next read of the record writes a rejection again, so deleting another user's does no harm.
        let rejected = sqlx::query!(
            r#"DELETE FROM roster.rejected_records
              WHERE (user_id = $1 OR user_id IS NULL) AND account_id = coalesce($2, account_id)
             RETURNING user_id IS NULL AS "unreadable!""#,
            user,
            account,
        )
        .fetch_all(&mut *transaction)
        .await?;
        let unreadable = rejected.iter().filter(|row| row.unreadable).count();
        let erased = Erased {
            rows: (users.len() + assignments.len()) as u64 + rates,
            versions: versions.rows_affected() + assignment_versions.rows_affected(),
            rejected: (rejected.len() - unreadable) as u64,
            unreadable: unreadable as u64,
            events: empty_events_of(&mut transaction, account, user).await?,
            is_at_harvest: live_rates > 0
                || users.iter().any(|row| row.live)
                || assignments.iter().any(|row| row.live),
        };
        self.end(transaction, mode).await?;
        Ok(erased)
    }

    /// Erases the pay data of all accounts.
    pub async fn forget_pay(&self, mode: Mode) -> Result<Erased, StoreError> {
        let mut transaction = self.lock(None).await?;
        let users = sqlx::query!(
            "UPDATE roster.users SET default_hourly_rate = NULL, cost_rate = NULL,
                    raw = raw - ARRAY['default_hourly_rate', 'cost_rate'], content_hash = 0
              WHERE default_hourly_rate IS NOT NULL OR cost_rate IS NOT NULL
                 OR raw ?| ARRAY['default_hourly_rate', 'cost_rate']"
        );
        let assignments = sqlx::query!(
            "UPDATE roster.user_assignments SET hourly_rate = NULL, budget = NULL,
                    raw = raw - ARRAY['hourly_rate', 'budget'], content_hash = 0
              WHERE hourly_rate IS NOT NULL OR budget IS NOT NULL OR raw ?| ARRAY['hourly_rate', 'budget']"
        );
        let mut rows = users.execute(&mut *transaction).await?.rows_affected();
        rows += assignments.execute(&mut *transaction).await?.rows_affected();
        rows += empty_rates(&mut transaction, None, None).await?.0;
        sqlx::query!("DELETE FROM roster.rate_reads").execute(&mut *transaction).await?;
        let users = sqlx::query!(
            "UPDATE roster.user_history SET default_hourly_rate = NULL, cost_rate = NULL
              WHERE default_hourly_rate IS NOT NULL OR cost_rate IS NOT NULL"
        );
        let assignments = sqlx::query!(
            "UPDATE roster.user_assignment_history SET hourly_rate = NULL, budget = NULL
              WHERE hourly_rate IS NOT NULL OR budget IS NOT NULL"
        );
        let mut versions = users.execute(&mut *transaction).await?.rows_affected();
        versions += assignments.execute(&mut *transaction).await?.rows_affected();
        // The row stays, because the record counts as present. Its text cannot be searched for pay.
        let rejected = sqlx::query!("UPDATE roster.rejected_records SET raw = '' WHERE raw <> ''")
            .execute(&mut *transaction)
            .await?
            .rows_affected();
        let events = empty_events(&mut transaction, None, None, &[], &PAY).await?;
        self.end(transaction, mode).await?;
        Ok(Erased { rows, versions, rejected, events, ..Erased::default() })
    }

    /// Erases an account; `None` if the database has none with this id.
    ///
    /// # Errors
    /// [`StoreError::Held`] while a living process writes it.
    pub async fn forget_account(&self, account: AccountId, mode: Mode) -> Result<Option<Erased>, StoreError> {
        let mut transaction = self.lock(Some(account)).await?;
        let Some(known) = sqlx::query!(
            r#"SELECT (SELECT name FROM roster.replicas
                        WHERE id = account.holder AND expires_at > clock_timestamp()) AS held_by
                 FROM roster.accounts AS account WHERE account_id = $1"#,
            account.0
        )
        .fetch_optional(&mut *transaction)
        .await?
        else {
            return Ok(None);
        };
        if let Some(by) = known.held_by {
            return Err(StoreError::Held { account, by });
        }
        let deleted = sqlx::query!(
            r#"WITH users AS (DELETE FROM roster.users WHERE account_id = $1 RETURNING 1),
                    assignments AS (DELETE FROM roster.user_assignments WHERE account_id = $1 RETURNING 1),
                    user_versions AS (DELETE FROM roster.user_history WHERE account_id = $1 RETURNING 1),
                    assignment_versions AS (DELETE FROM roster.user_assignment_history WHERE account_id = $1
                                            RETURNING 1),
                    projects AS (DELETE FROM roster.projects WHERE account_id = $1),
                    billable AS (DELETE FROM roster.billable_rates WHERE account_id = $1 RETURNING 1),
                    cost AS (DELETE FROM roster.cost_rates WHERE account_id = $1 RETURNING 1),
                    reads AS (DELETE FROM roster.rate_reads WHERE account_id = $1),
                    versions AS (DELETE FROM roster.rate_versions WHERE account_id = $1),
                    rejected AS (DELETE FROM roster.rejected_records WHERE account_id = $1 RETURNING 1),
                    held AS (DELETE FROM roster.held_deletions WHERE account_id = $1),
                    missed AS (DELETE FROM roster.missed_records WHERE account_id = $1),
                    watermarks AS (DELETE FROM roster.watermarks WHERE account_id = $1),
                    cycles AS (DELETE FROM roster.cycles WHERE account_id = $1),
                    requests AS (DELETE FROM roster.requests WHERE account_id = $1),
                    credentials AS (DELETE FROM roster.credentials WHERE account_id = $1),
                    accounts AS (DELETE FROM roster.accounts WHERE account_id = $1)
               SELECT (SELECT count(*) FROM users) + (SELECT count(*) FROM assignments)
                    + (SELECT count(*) FROM billable) + (SELECT count(*) FROM cost) AS "rows!",
                      (SELECT count(*) FROM user_versions) + (SELECT count(*) FROM assignment_versions) AS "versions!",
                      (SELECT count(*) FROM rejected) AS "rejected!""#,
            account.0
        )
        .fetch_one(&mut *transaction)
        .await?;
        let events = sqlx::query!(
            "UPDATE roster.outbox
                SET payload = payload || '{\"changed\": {}, \"before\": null, \"after\": null}'::jsonb
              WHERE account_id = $1",
            account.0
        )
        .execute(&mut *transaction)
        .await?
        .rows_affected();
        self.end(transaction, mode).await?;
        Ok(Some(Erased {
            rows: deleted.rows.unsigned_abs(),
            versions: deleted.versions.unsigned_abs(),
            rejected: deleted.rejected.unsigned_abs(),
            events,
            ..Erased::default()
        }))
    }

    /// A transaction during which no process writes these accounts.
    async fn lock(&self, only: Option<AccountId>) -> Result<Transaction, StoreError> {
        let mut transaction = self.pool.for_long_statements().begin().await?;
        sqlx::query!(
            "SELECT account_id FROM roster.accounts WHERE account_id = coalesce($1, account_id)
              ORDER BY account_id FOR UPDATE",
            only.map(|account| account.0)
        )
        .fetch_all(&mut *transaction)
        .await?;
        Ok(transaction)
    }

    async fn end(&self, transaction: Transaction, mode: Mode) -> Result<(), StoreError> {
        if mode == Mode::Preview {
            return Ok(transaction.rollback().await?);
        }
        transaction.commit().await?;
        // PostgreSQL keeps samples of column values as statistics (view pg_stats) until the next ANALYZE.
        let analyzed = sqlx::query!(
            "ANALYZE roster.users, roster.user_assignments, roster.billable_rates, roster.cost_rates,
                     roster.user_history, roster.user_assignment_history, roster.rejected_records, roster.outbox"
        )
        .execute(&self.pool.for_long_statements())
        .await;
        if let Err(error) = analyzed {
            let error = StoreError::from(error);
            tracing::warn!(
                error = %chain(&error),
                "values were erased, but PostgreSQL's statistics may still hold samples of them: run ANALYZE as the tables' owner"
            );
        }
        Ok(())
    }
}

/// Empties rates of an account or of all, of a user or of all; returns how many rows, and how many of them are live.
async fn empty_rates(
    connection: &mut Session,
    account: Option<i64>,
    user: Option<i64>,
) -> Result<(u64, i64), StoreError> {
    let emptied = sqlx::query!(
        r#"WITH billable AS (
               UPDATE roster.billable_rates
                  SET amount = NULL, start_date = NULL, end_date = NULL, raw = jsonb_build_object('id', id),
                      content_hash = 0
                WHERE account_id = coalesce($1, account_id) AND ($2::bigint IS NULL OR user_id = $2)
               RETURNING deleted_at
           ), cost AS (
               UPDATE roster.cost_rates
                  SET amount = NULL, start_date = NULL, end_date = NULL, raw = jsonb_build_object('id', id),
                      content_hash = 0
                WHERE account_id = coalesce($1, account_id) AND ($2::bigint IS NULL OR user_id = $2)
               RETURNING deleted_at
           )
           SELECT count(*) AS "rows!", count(*) FILTER (WHERE deleted_at IS NULL) AS "live!"
             FROM (SELECT deleted_at FROM billable UNION ALL SELECT deleted_at FROM cost) AS rates"#,
        account,
        user
    )
    .fetch_one(connection)
    .await?;
    Ok((emptied.rows.unsigned_abs(), emptied.live))
}

/// Empties the events of a user, of the user's assignments and of the user's rates.
async fn empty_events_of(
    connection: &mut Session,
    account: Option<i64>,
    user: i64,
) -> Result<u64, StoreError> {
    let record = User::default();
    let fields = record.fields().into_iter().map(|(name, _)| name);
    let personal: Vec<_> = fields.filter(|name| !NOT_PERSONAL.contains(name)).collect();
    let own = empty_events(connection, account, Some(user), &["user"], &personal).await?;
    let parts = ["user_assignment", "billable_rate", "cost_rate"];
    Ok(own + empty_events(connection, account, Some(user), &parts, &PAY).await?)
}

/// Sets these keys to null in the payloads of events: of an account or of all, of a user or of all, of these aggregates or
/// of all. If an event moved an assignment from or to another user, the other user's state stays.
async fn empty_events(
    connection: &mut Session,
    account: Option<i64>,
    user: Option<i64>,
    aggregates: &[&str],
    keys: &[&str],
) -> Result<u64, StoreError> {
    let strings = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
    let erased = sqlx::query!(
        r#"UPDATE roster.outbox
              SET payload = payload || jsonb_build_object(
                  'changed', (SELECT coalesce(jsonb_object_agg(key, value), '{}')
                                FROM jsonb_each(payload -> 'changed') WHERE key <> ALL ($4)),
                  'before', CASE WHEN jsonb_typeof(payload -> 'before') = 'object'
                                 AND ($2::bigint IS NULL OR aggregatetype = 'user' OR payload -> 'before' ->> 'user_id' = $2::text)
                      THEN (SELECT coalesce(jsonb_object_agg(key, CASE WHEN key = ANY ($4) THEN 'null' ELSE value END), '{}')
                              FROM jsonb_each(payload -> 'before'))
                      ELSE payload -> 'before' END,
                  'after', CASE WHEN jsonb_typeof(payload -> 'after') = 'object'
                                 AND ($2::bigint IS NULL OR aggregatetype = 'user' OR payload -> 'after' ->> 'user_id' = $2::text)
                      THEN (SELECT coalesce(jsonb_object_agg(key, CASE WHEN key = ANY ($4) THEN 'null' ELSE value END), '{}')
                              FROM jsonb_each(payload -> 'after'))
                      ELSE payload -> 'after' END)
            WHERE account_id = coalesce($1, account_id)
              AND ($2::bigint IS NULL
                   OR aggregatetype = 'user' AND aggregateid = account_id || '/' || $2
                   OR aggregatetype <> 'user' AND $2::text IN (payload -> 'before' ->> 'user_id',
                                                               payload -> 'after' ->> 'user_id'))
              AND (cardinality($3::text[]) = 0 OR aggregatetype = ANY ($3))
              AND (payload -> 'before' ?| $4 OR payload -> 'after' ?| $4)"#,
        account,
        user,
        &strings(aggregates),
        &strings(keys),
    )
    .execute(connection)
    .await?;
    Ok(erased.rows_affected())
}
