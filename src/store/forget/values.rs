//! Erases values in rows, versions and events.

use crate::roster::{Record, Resource, User};
use crate::store::error::StoreError;
use crate::store::session::Session;

/// Fields of a user that stay in rows, history and events: they show only that a user existed and was active.
const NOT_PERSONAL: [&str; 2] = ["is_active", "created_at"];

/// Pay data in the payloads of events of all types. The dates of a rate show when a user's pay changed.
pub(super) fn pay_fields() -> Vec<&'static str> {
    Resource::ALL.iter().flat_map(|resource| resource.pay_fields()).copied().collect()
}

pub(super) struct ErasedRows {
    pub rows: u64,
    /// Those that are no tombstones.
    pub live: u64,
}

/// Erases the values of a user's row and of the user's assignments.
pub(super) async fn erase_user_rows(
    connection: &mut Session,
    account: Option<i64>,
    user: i64,
) -> Result<ErasedRows, StoreError> {
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
    .fetch_all(&mut *connection)
    .await?;
    let assignments = sqlx::query!(
        r#"UPDATE roster.user_assignments
            SET hourly_rate = NULL, budget = NULL, raw = jsonb_build_object('id', id), content_hash = 0
          WHERE user_id = $1 AND account_id = coalesce($2, account_id)
         RETURNING deleted_at IS NULL AS "live!""#,
        user,
        account,
    )
    .fetch_all(&mut *connection)
    .await?;
    let are_live = users.iter().map(|row| row.live).chain(assignments.iter().map(|row| row.live));
    Ok(ErasedRows {
        rows: (users.len() + assignments.len()) as u64,
        live: are_live.filter(|is_live| *is_live).count() as u64,
    })
}

/// Erases the values in the history of a user and of the user's assignments; returns how many versions.
pub(super) async fn erase_versions(
    connection: &mut Session,
    account: Option<i64>,
    user: i64,
) -> Result<u64, StoreError> {
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
    .execute(&mut *connection)
    .await?;
    let assignment_versions = sqlx::query!(
        "UPDATE roster.user_assignment_history SET hourly_rate = NULL, budget = NULL
          WHERE user_id = $1 AND account_id = coalesce($2, account_id)",
        user,
        account,
    )
    .execute(&mut *connection)
    .await?;
    Ok(versions.rows_affected() + assignment_versions.rows_affected())
}

/// Erases the values of rates of an account or of all accounts, of a user or of all users.
pub(super) async fn erase_rates(
    connection: &mut Session,
    account: Option<i64>,
    user: Option<i64>,
) -> Result<ErasedRows, StoreError> {
    let erased = sqlx::query!(
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
    Ok(ErasedRows { rows: erased.rows.unsigned_abs(), live: erased.live.unsigned_abs() })
}

/// Erases the values in the events of a user, of the user's assignments and of the user's rates.
pub(super) async fn erase_events_of(
    connection: &mut Session,
    account: Option<i64>,
    user: i64,
) -> Result<u64, StoreError> {
    let record = User::default();
    let fields = record.fields().into_iter().map(|(name, _)| name);
    let personal: Vec<_> = fields.filter(|name| !NOT_PERSONAL.contains(name)).collect();
    let own = erase_events(connection, account, Some(user), &["user"], &personal).await?;
    let parts = ["user_assignment", "billable_rate", "cost_rate"];
    Ok(own + erase_events(connection, account, Some(user), &parts, &pay_fields()).await?)
}

/// Sets these keys to null in the payloads of events. `None`, or an empty list of aggregates, selects all. If an event
/// moved an assignment between two users, the other user's state stays.
pub(super) async fn erase_events(
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
                   OR aggregatetype = 'user' AND record_id = $2
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
