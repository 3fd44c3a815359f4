//! The mirrored tables, and the statements that each of them needs.

use std::collections::HashMap;
use std::future::Future;

use chrono::{DateTime, Utc};
use sqlx::AssertSqlSafe;
use sqlx::error::BoxDynError;

use super::copy::{self, Row};
use super::error::{StoreError, ensure_rows};
use super::session::Session;
use crate::roster::{
    AccountId, Assignment, BillableRate, Change, CostRate, MirrorRow, Record, RowWrite, User, Value,
};

/// Enough of a row to decide whether its record has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowDigest {
    /// [`crate::roster::Fetched::hash`] of the last write.
    pub hash: i64,
    pub deleted: bool,
}

/// Rows per statement. A page of 2,000 rows in one statement takes a dozen megabytes of text and is not faster.
pub(super) const ROWS_PER_STATEMENT: usize = 500;

/// A record's table. The columns of the statements come from the record's fields, except in [`MirrorTable::rows`].
pub trait MirrorTable: Record + Default {
    /// Name with schema.
    const TABLE: &'static str;
    /// The table of ended versions. Rates have none.
    const HISTORY: Option<&'static str>;

    /// Reads whole rows. In an [`AccountTx`](crate::store::AccountTx) no other process writes them: the account is
    /// locked.
    fn rows(
        connection: &mut Session,
        account: AccountId,
        ids: &[i64],
    ) -> impl Future<Output = Result<HashMap<i64, MirrorRow<Self>>, StoreError>> + Send;
}

/// Implements [`MirrorTable`]. The columns are named twice, because `query!` needs a literal. If a field is absent from one of
/// the lists, rosterd does not compile.
macro_rules! mirror_table {
    ($record:ident, $table:literal, $history:expr, $columns:literal, $($field:ident)*) => {
        impl MirrorTable for $record {
            const TABLE: &'static str = $table;
            const HISTORY: Option<&'static str> = $history;

            async fn rows(
                connection: &mut Session,
                account: AccountId,
                ids: &[i64],
            ) -> Result<HashMap<i64, MirrorRow<Self>>, StoreError> {
                let rows = sqlx::query!(
                    r#"SELECT version, content_hash, deleted_at IS NOT NULL AS "deleted!", id, "#
                        + $columns
                        + " FROM "
                        + $table
                        + " WHERE account_id = $1 AND id = ANY ($2)",
                    account.0,
                    ids,
                );
                let rows = rows.fetch_all(connection).await?.into_iter().map(|row| {
                    let record = Self { id: row.id, $($field: row.$field.into(),)* };
                    (row.id, MirrorRow { record, version: row.version, hash: row.content_hash, deleted: row.deleted })
                });
                Ok(rows.collect())
            }
        }
    };
}

mirror_table!(
    User,
    "roster.users",
    Some("roster.user_history"),
    r#"first_name, last_name, email, telephone, timezone, weekly_capacity, has_access_to_all_future_projects, is_contractor,
       is_active AS "is_active?", roles, access_roles, permissions_claims, is_admin, is_project_manager, can_see_rates,
       can_create_projects, can_create_invoices, calendar_integration_enabled, calendar_integration_source, employee_id,
       default_hourly_rate, cost_rate, avatar_url, created_at, updated_at"#,
    first_name last_name email telephone timezone weekly_capacity has_access_to_all_future_projects is_contractor
    is_active roles access_roles permissions_claims is_admin is_project_manager can_see_rates
    can_create_projects can_create_invoices calendar_integration_enabled calendar_integration_source employee_id
    default_hourly_rate cost_rate avatar_url created_at updated_at
);
mirror_table!(
    Assignment,
    "roster.user_assignments",
    Some("roster.user_assignment_history"),
    r#"user_id, project_id, is_active AS "is_active?", is_project_manager, use_default_rates, hourly_rate, budget, created_at,
       updated_at"#,
    user_id project_id is_active is_project_manager use_default_rates hourly_rate budget created_at updated_at
);
mirror_table!(
    BillableRate,
    "roster.billable_rates",
    None,
    "user_id, amount, start_date, end_date, created_at, updated_at",
    user_id amount start_date end_date created_at updated_at
);
mirror_table!(
    CostRate,
    "roster.cost_rates",
    None,
    "user_id, amount, start_date, end_date, created_at, updated_at",
    user_id amount start_date end_date created_at updated_at
);

fn names<'a>(fields: impl IntoIterator<Item = (&'static str, Value<'a>)>) -> Vec<&'static str> {
    fields.into_iter().map(|(name, _)| name).collect()
}

/// The columns whose values [`encode`] appends.
fn row_columns<R: MirrorTable>() -> Vec<&'static str> {
    let record = R::default();
    let mut columns = vec!["account_id", "id", "raw", "version", "content_hash", "synced_at"];
    if R::HISTORY.is_some() {
        columns.extend(["event_type", "valid_from", "occurred_at"]);
    }
    columns.extend(names(record.fields().into_iter().chain(record.quiet())));
    columns
}

fn encode<R: MirrorTable>(
    write: &RowWrite<'_, R>,
    account: AccountId,
    now: DateTime<Utc>,
    row: &mut Row<'_>,
) -> Result<(), BoxDynError> {
    let RowWrite { record, fetched, version, change } = write;
    row.push(account.0)?;
    row.push(record.id())?;
    row.push_json(fetched.raw.get())?;
    row.push(version)?;
    row.push(fetched.hash)?;
    row.push(now)?;
    if R::HISTORY.is_some() {
        row.push(change.as_ref().map(Change::event_type))?;
        row.push(now)?;
        row.push(change.as_ref().map(|change| change.occurred_at(now)))?;
    }
    record.fields().into_iter().chain(record.quiet()).try_for_each(|(_, value)| row.push_field(value))
}

/// Adds rows. The versions of new events are valid from `now`.
pub(super) async fn insert<R: MirrorTable>(
    session: &mut Session,
    account: AccountId,
    now: DateTime<Utc>,
    writes: &[&RowWrite<'_, R>],
) -> Result<(), StoreError> {
    if writes.is_empty() {
        return Ok(());
    }
    copy::load(session, R::TABLE, &row_columns::<R>(), writes, |write, row| encode(write, account, now, row))
        .await
}

/// Copies rows to the history, as versions that end at `now`.
pub(super) async fn end_versions<R: MirrorTable>(
    session: &mut Session,
    account: AccountId,
    now: DateTime<Utc>,
    ids: &[i64],
) -> Result<(), StoreError> {
    let Some(history) = R::HISTORY else { return Ok(()) };
    let (table, columns) = (R::TABLE, names(R::default().fields()).join(", "));
    let sql = format!(
        "INSERT INTO {history} (account_id, id, version, event_type, valid_from, valid_to, occurred_at, {columns})
         SELECT account_id, id, version, event_type, valid_from, $3, occurred_at, {columns}
           FROM {table} WHERE account_id = $1 AND id = ANY ($2)"
    );
    sqlx::query(AssertSqlSafe(sql)).bind(account.0).bind(ids).bind(now).execute(session).await?;
    Ok(())
}

/// Updates rows in one statement. The versions of new events are valid from `now`.
pub(super) async fn update<R: MirrorTable>(
    session: &mut Session,
    account: AccountId,
    now: DateTime<Utc>,
    writes: &[&RowWrite<'_, R>],
) -> Result<(), StoreError> {
    let (table, record) = (R::TABLE, R::default());
    let mut columns = names(record.fields().into_iter().chain(record.quiet()));
    columns.extend(["raw", "version", "content_hash"]);
    // A write without an event keeps the version.
    let version = match R::HISTORY {
        Some(_) => {
            ", event_type = coalesce(it.event_type, row.event_type),
               occurred_at = coalesce(it.occurred_at, row.occurred_at),
               valid_from = CASE WHEN it.event_type IS NULL THEN row.valid_from ELSE $3 END"
        }
        None => "",
    };
    let sql = format!(
        "UPDATE {table} AS row SET ({}) = ROW (it.{}), synced_at = $3, deleted_at = NULL{version}
           FROM json_populate_recordset(NULL::{table}, $2::text::json) AS it
          WHERE row.account_id = $1 AND row.id = it.id",
        columns.join(", "),
        columns.join(", it."),
    );
    let rows = copy::to_json(&row_columns::<R>(), writes, |write, row| encode(write, account, now, row))?;
    let updated = sqlx::query(AssertSqlSafe(sql)).bind(account.0).bind(rows).bind(now);
    ensure_rows(table, writes.len(), updated.execute(session).await?.rows_affected())
}

/// Turns live rows into tombstones, each with its new version. The last values stay.
pub(super) async fn tombstone<R: MirrorTable>(
    session: &mut Session,
    account: AccountId,
    now: DateTime<Utc>,
    ids: &[i64],
    versions: &[i64],
) -> Result<(), StoreError> {
    let (table, aggregate) = (R::TABLE, R::RESOURCE.aggregate());
    let version = match R::HISTORY {
        Some(_) => {
            format!(
                ", is_active = false, event_type = '{aggregate}.deleted', valid_from = $4, occurred_at = $4"
            )
        }
        None => String::new(),
    };
    let sql = format!(
        "UPDATE {table} AS row SET deleted_at = $4, synced_at = $4, version = gone.version{version}
           FROM UNNEST($2::bigint[], $3::bigint[]) AS gone (id, version)
          WHERE row.account_id = $1 AND row.id = gone.id AND row.deleted_at IS NULL"
    );
    let updated = sqlx::query(AssertSqlSafe(sql)).bind(account.0).bind(ids).bind(versions).bind(now);
    ensure_rows(table, ids.len(), updated.execute(session).await?.rows_affected())
}
