//! Erasing: a person, all pay, or an account, wherever they are. Rows stay where something may point at them, with
//! nothing in them; events stay, so that `seq` has no gap, with nothing in their payloads. The one place that changes an
//! event that was told.

use sqlx::{PgConnection, Postgres, Transaction};

use super::{Store, StoreError};
use crate::roster::{AccountId, Record, User};

/// What events may go on saying of a person who was forgotten: that there was an account, active or not.
const NOT_PERSONAL: [&str; 2] = ["is_active", "created_at"];

/// Pay, in the images of all events.
const PAY: [&str; 5] = ["default_hourly_rate", "cost_rate", "hourly_rate", "budget", "amount"];

/// How much was erased.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Erased {
    /// Rows of the mirror.
    pub rows: u64,
    /// Events whose payloads lost something.
    pub events: u64,
    /// Whether Harvest still has some of it, as far as is known: then a full read brings it back.
    pub is_at_harvest: bool,
}

impl Store {
    /// Erases a person from every account, or from `only`; `None` where nothing is known of them. They need not have a row:
    /// Harvest may show the assignments of somebody whom it does not show.
    pub async fn forget_user(&self, id: i64, only: Option<AccountId>) -> Result<Option<Erased>, StoreError> {
        let mut transaction = self.lock(only).await?;
        let account = only.map(|account| account.0);
        let known = sqlx::query!(
            "UPDATE roster.users
                SET first_name = NULL, last_name = NULL, email = NULL, telephone = NULL, timezone = NULL,
                    weekly_capacity = NULL, has_access_to_all_future_projects = NULL, is_contractor = NULL, roles = NULL,
                    access_roles = NULL, permissions_claims = NULL, is_admin = NULL, is_project_manager = NULL,
                    can_see_rates = NULL, can_create_projects = NULL, can_create_invoices = NULL,
                    calendar_integration_enabled = NULL, calendar_integration_source = NULL, employee_id = NULL,
                    default_hourly_rate = NULL, cost_rate = NULL, avatar_url = NULL,
                    raw = jsonb_build_object('id', id), content_hash = 0
              WHERE id = $1 AND account_id = coalesce($2, account_id)
             RETURNING deleted_at",
            id,
            account,
        )
        .fetch_all(&mut *transaction)
        .await?;
        sqlx::query!(
            "UPDATE roster.user_history
                SET first_name = NULL, last_name = NULL, email = NULL, telephone = NULL, timezone = NULL,
                    weekly_capacity = NULL, has_access_to_all_future_projects = NULL, is_contractor = NULL, roles = NULL,
                    access_roles = NULL, permissions_claims = NULL, is_admin = NULL, is_project_manager = NULL,
                    can_see_rates = NULL, can_create_projects = NULL, can_create_invoices = NULL,
                    calendar_integration_enabled = NULL, calendar_integration_source = NULL, employee_id = NULL,
                    default_hourly_rate = NULL, cost_rate = NULL
              WHERE id = $1 AND account_id = coalesce($2, account_id)",
            id,
            account,
        )
        .execute(&mut *transaction)
        .await?;
        // What could not be read is searched by its text: ids may stand in quotes there.
        let rejected = sqlx::query!(
            r#"DELETE FROM roster.rejected_records
                WHERE account_id = coalesce($2, account_id)
                  AND (resource = 'users' AND (record_id = $1
                           OR record_id IS NULL AND encode(raw, 'escape') ~ ('"id"\s*:\s*"?' || $1::text || '\M'))
                       OR encode(raw, 'escape')
                           ~ ('"user(_id)?"\s*:\s*(\{[^}]*"id"\s*:\s*)?"?' || $1::text || '\M'))"#,
            id,
            account,
        )
        .execute(&mut *transaction)
        .await?;
        let rows =
            known.len() as u64 + rejected.rows_affected() + places_of(&mut transaction, account, id).await?;
        let events = told_of(&mut transaction, account, id).await?;
        if rows + events == 0 {
            return Ok(None);
        }
        transaction.commit().await?;
        let is_at_harvest = known.iter().any(|row| row.deleted_at.is_none());
        Ok(Some(Erased { rows, events, is_at_harvest }))
    }

    /// Erases all pay, of all accounts.
    pub async fn forget_pay(&self) -> Result<Erased, StoreError> {
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
        rows += sqlx::query!("DELETE FROM roster.billable_rates")
            .execute(&mut *transaction)
            .await?
            .rows_affected();
        rows +=
            sqlx::query!("DELETE FROM roster.cost_rates").execute(&mut *transaction).await?.rows_affected();
        sqlx::query!("DELETE FROM roster.rate_reads").execute(&mut *transaction).await?;
        sqlx::query!(
            "UPDATE roster.user_history SET default_hourly_rate = NULL, cost_rate = NULL
              WHERE default_hourly_rate IS NOT NULL OR cost_rate IS NOT NULL"
        )
        .execute(&mut *transaction)
        .await?;
        sqlx::query!(
            "UPDATE roster.user_assignment_history SET hourly_rate = NULL, budget = NULL
              WHERE hourly_rate IS NOT NULL OR budget IS NOT NULL"
        )
        .execute(&mut *transaction)
        .await?;
        // The row says that the record counts as seen; its text cannot be searched for pay.
        sqlx::query!("UPDATE roster.rejected_records SET raw = ''").execute(&mut *transaction).await?;
        let events = erase_events(&mut transaction, None, None, &[], &PAY).await?;
        transaction.commit().await?;
        Ok(Erased { rows, events, is_at_harvest: rows > 0 })
    }

    /// Erases an account; `None` where there is none of that number.
    ///
    /// # Errors
    /// [`StoreError::Held`] while a living process writes it.
    pub async fn forget_account(&self, account: AccountId) -> Result<Option<Erased>, StoreError> {
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
        let rows = sqlx::query!(
            r#"WITH users AS (DELETE FROM roster.users WHERE account_id = $1 RETURNING 1),
                    places AS (DELETE FROM roster.user_assignments WHERE account_id = $1 RETURNING 1),
                    people AS (DELETE FROM roster.user_history WHERE account_id = $1),
                    teams AS (DELETE FROM roster.user_assignment_history WHERE account_id = $1),
                    projects AS (DELETE FROM roster.projects WHERE account_id = $1),
                    billable AS (DELETE FROM roster.billable_rates WHERE account_id = $1 RETURNING 1),
                    cost AS (DELETE FROM roster.cost_rates WHERE account_id = $1 RETURNING 1),
                    reads AS (DELETE FROM roster.rate_reads WHERE account_id = $1),
                    rejected AS (DELETE FROM roster.rejected_records WHERE account_id = $1),
                    held AS (DELETE FROM roster.held_deletions WHERE account_id = $1),
                    missed AS (DELETE FROM roster.missed_records WHERE account_id = $1),
                    watermarks AS (DELETE FROM roster.watermarks WHERE account_id = $1),
                    cycles AS (DELETE FROM roster.cycles WHERE account_id = $1),
                    requests AS (DELETE FROM roster.requests WHERE account_id = $1),
                    credentials AS (DELETE FROM roster.credentials WHERE account_id = $1),
                    accounts AS (DELETE FROM roster.accounts WHERE account_id = $1)
               SELECT (SELECT count(*) FROM users) + (SELECT count(*) FROM places) + (SELECT count(*) FROM billable)
                    + (SELECT count(*) FROM cost) AS "rows!""#,
            account.0
        )
        .fetch_one(&mut *transaction)
        .await?
        .rows;
        let events = sqlx::query!(
            "UPDATE roster.outbox
                SET payload = payload || '{\"changed\": {}, \"before\": null, \"after\": null}'::jsonb
              WHERE account_id = $1",
            account.0
        )
        .execute(&mut *transaction)
        .await?
        .rows_affected();
        transaction.commit().await?;
        Ok(Some(Erased { rows: rows.unsigned_abs(), events, is_at_harvest: true }))
    }

    /// A transaction that no page of these accounts gets in the way of.
    async fn lock(&self, only: Option<AccountId>) -> Result<Transaction<'static, Postgres>, StoreError> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query!(
            "SELECT account_id FROM roster.accounts WHERE account_id = coalesce($1, account_id)
              ORDER BY account_id FOR UPDATE",
            only.map(|account| account.0)
        )
        .fetch_all(&mut *transaction)
        .await?;
        Ok(transaction)
    }
}

/// What else is known of a person: names and pay in their assignments, and their rates.
async fn places_of(
    connection: &mut PgConnection,
    account: Option<i64>,
    user: i64,
) -> Result<u64, StoreError> {
    let assignments = sqlx::query!(
        "UPDATE roster.user_assignments
            SET hourly_rate = NULL, budget = NULL, raw = jsonb_build_object('id', id), content_hash = 0
          WHERE account_id = coalesce($1, account_id) AND user_id = $2",
        account,
        user
    );
    sqlx::query!(
        "UPDATE roster.user_assignment_history SET hourly_rate = NULL, budget = NULL
          WHERE account_id = coalesce($1, account_id) AND user_id = $2",
        account,
        user
    )
    .execute(&mut *connection)
    .await?;
    let billable = sqlx::query!(
        "DELETE FROM roster.billable_rates WHERE account_id = coalesce($1, account_id) AND user_id = $2",
        account,
        user
    );
    let cost = sqlx::query!(
        "DELETE FROM roster.cost_rates WHERE account_id = coalesce($1, account_id) AND user_id = $2",
        account,
        user
    );
    Ok(assignments.execute(&mut *connection).await?.rows_affected()
        + billable.execute(&mut *connection).await?.rows_affected()
        + cost.execute(&mut *connection).await?.rows_affected())
}

/// What was told of a person.
async fn told_of(connection: &mut PgConnection, account: Option<i64>, user: i64) -> Result<u64, StoreError> {
    let person = User::default();
    let fields = person.fields().into_iter().map(|(name, _)| name);
    let personal: Vec<_> = fields.filter(|name| !NOT_PERSONAL.contains(name)).collect();
    let themselves = erase_events(connection, account, Some(user), &["user"], &personal).await?;
    let theirs = ["user_assignment", "billable_rate", "cost_rate"];
    Ok(themselves + erase_events(connection, account, Some(user), &theirs, &PAY).await?)
}

/// Takes these keys out of what events say: of an account or all, of a person or all, of these kinds or all.
async fn erase_events(
    connection: &mut PgConnection,
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
                  'before', CASE jsonb_typeof(payload -> 'before') WHEN 'object' THEN
                      (SELECT coalesce(jsonb_object_agg(key, CASE WHEN key = ANY ($4) THEN 'null' ELSE value END), '{}')
                         FROM jsonb_each(payload -> 'before')) END,
                  'after', CASE jsonb_typeof(payload -> 'after') WHEN 'object' THEN
                      (SELECT coalesce(jsonb_object_agg(key, CASE WHEN key = ANY ($4) THEN 'null' ELSE value END), '{}')
                         FROM jsonb_each(payload -> 'after')) END)
            WHERE account_id = coalesce($1, account_id)
              AND ($2::bigint IS NULL
                   OR aggregateid = account_id || '/' || $2
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
