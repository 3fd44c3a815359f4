//! Erases values in rows, versions and events.

use std::ops::AddAssign;

use sqlx::AssertSqlSafe;

use crate::roster::{Record, Resource, User};
use crate::store::error::StoreError;
use crate::store::session::Session;
use crate::store::table::MirrorTable;

/// Fields of a user that stay in rows, history and events: they show only that a user existed and was active.
const NOT_PERSONAL: [&str; 2] = ["is_active", "created_at"];

/// Pay data in the payloads of events of all types. The dates of a rate show when a user's pay changed.
pub(super) fn pay_fields() -> Vec<&'static str> {
    Resource::ALL.iter().flat_map(|resource| resource.pay_fields()).copied().collect()
}

/// What lost its values.
#[derive(Default)]
pub(super) struct ErasedRows {
    pub rows: u64,
    /// Those that are no tombstones.
    pub live: u64,
    /// Versions in the history.
    pub versions: u64,
}

impl AddAssign for ErasedRows {
    fn add_assign(&mut self, other: Self) {
        self.rows += other.rows;
        self.live += other.live;
        self.versions += other.versions;
    }
}

/// Erases the values of a list's rows and versions: of an account or of all accounts, of a user or of all users.
pub(super) async fn erase_rows<R: MirrorTable>(
    connection: &mut Session,
    account: Option<i64>,
    user: Option<i64>,
) -> Result<ErasedRows, StoreError> {
    let (key, fields, also) = match R::RESOURCE {
        Resource::Users => ("id", personal_fields(), "avatar_url = NULL, "),
        parts => ("user_id", parts.pay_fields().to_vec(), ""),
    };
    let erased = format!("{} = NULL", fields.join(" = NULL, "));
    let condition = format!("account_id = coalesce($1, account_id) AND ($2::bigint IS NULL OR {key} = $2)");
    let sql = format!(
        "UPDATE {} SET {also}{erased}, raw = jsonb_build_object('id', id), content_hash = 0 WHERE {condition}
         RETURNING deleted_at IS NULL",
        R::TABLE
    );
    let rows = sqlx::query_scalar::<_, bool>(AssertSqlSafe(sql)).bind(account).bind(user);
    let rows = rows.fetch_all(&mut *connection).await?;
    let mut versions = 0;
    if let Some(history) = R::HISTORY {
        let sql = format!("UPDATE {history} SET {erased} WHERE {condition}");
        let ended = sqlx::query(AssertSqlSafe(sql)).bind(account).bind(user).execute(connection).await?;
        versions = ended.rows_affected();
    }
    let live = rows.iter().filter(|is_live| **is_live).count() as u64;
    Ok(ErasedRows { rows: rows.len() as u64, live, versions })
}

/// Erases the pay data of a list's rows and versions.
pub(super) async fn erase_pay<R: MirrorTable>(connection: &mut Session) -> Result<ErasedRows, StoreError> {
    let fields = R::RESOURCE.pay_fields();
    let erased = format!("{} = NULL", fields.join(" = NULL, "));
    let is_set = format!("{} IS NOT NULL", fields.join(" IS NOT NULL OR "));
    let sql = format!(
        "UPDATE {} SET {erased}, raw = raw - $1::text[], content_hash = 0 WHERE {is_set} OR raw ?| $1",
        R::TABLE
    );
    let rows = sqlx::query(AssertSqlSafe(sql)).bind(fields).execute(&mut *connection).await?.rows_affected();
    let mut versions = 0;
    if let Some(history) = R::HISTORY {
        let sql = format!("UPDATE {history} SET {erased} WHERE {is_set}");
        versions = sqlx::query(AssertSqlSafe(sql)).execute(connection).await?.rows_affected();
    }
    Ok(ErasedRows { rows, versions, ..ErasedRows::default() })
}

fn personal_fields() -> Vec<&'static str> {
    let names = User::default().fields().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    names.into_iter().filter(|name| !NOT_PERSONAL.contains(name)).collect()
}

/// Erases the values in the events of a user, of the user's assignments and of the user's rates.
pub(super) async fn erase_events_of(
    connection: &mut Session,
    account: Option<i64>,
    user: i64,
) -> Result<u64, StoreError> {
    let own = erase_events(connection, account, Some(user), &["user"], &personal_fields()).await?;
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
