//! `roster.user_assignments`.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use super::error::StoreError;
use super::error::ensure_rows;
use super::pool::Pool;
use super::session::Session;
use super::table::{MirrorTable, RowDigest, common_statements, to_json};
use crate::roster::{AccountId, Assignment, Field, MirrorRow, RowWrite};

impl MirrorTable for Assignment {
    common_statements!(
        "roster.user_assignments",
        ", is_active = false, event_type = 'user_assignment.deleted', valid_from = $4, occurred_at = $4"
    );

    async fn rows(
        connection: &mut Session,
        account: AccountId,
        ids: &[i64],
    ) -> Result<HashMap<i64, MirrorRow<Self>>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT id, user_id, project_id, is_active, is_project_manager, use_default_rates, hourly_rate,
                      budget, created_at, updated_at, version, content_hash, deleted_at IS NOT NULL AS "deleted!"
                 FROM roster.user_assignments
                WHERE account_id = $1 AND id = ANY($2)"#,
            account.0,
            ids,
        )
        .fetch_all(connection)
        .await?;
        let mirrored = rows.into_iter().map(|r| {
            let record = Self {
                id: r.id,
                user_id: r.user_id.into(),
                project_id: r.project_id.into(),
                is_active: Field::Value(r.is_active),
                is_project_manager: r.is_project_manager.into(),
                use_default_rates: r.use_default_rates.into(),
                hourly_rate: r.hourly_rate.into(),
                budget: r.budget.into(),
                created_at: r.created_at.into(),
                updated_at: r.updated_at.into(),
            };
            (r.id, MirrorRow { record, version: r.version, hash: r.content_hash, deleted: r.deleted })
        });
        Ok(mirrored.collect())
    }

    async fn end_versions(
        connection: &mut Session,
        account: AccountId,
        ids: &[i64],
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "INSERT INTO roster.user_assignment_history
                    (account_id, id, version, event_type, valid_from, valid_to, occurred_at,
                     user_id, project_id, is_active, is_project_manager, use_default_rates, hourly_rate, budget,
                     created_at)
             SELECT account_id, id, version, event_type, valid_from, $3, occurred_at,
                    user_id, project_id, is_active, is_project_manager, use_default_rates, hourly_rate, budget,
                    created_at
               FROM roster.user_assignments WHERE account_id = $1 AND id = ANY($2)",
            account.0,
            ids,
            now,
        )
        .execute(connection)
        .await?;
        Ok(())
    }

    async fn update(
        connection: &mut Session,
        account: AccountId,
        writes: &[&RowWrite<'_, Self>],
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let written = sqlx::query!(
            r#"UPDATE roster.user_assignments AS row
                  SET (user_id, project_id, is_active, is_project_manager, use_default_rates, hourly_rate,
                       budget, created_at, updated_at, raw, version, content_hash, synced_at, deleted_at,
                       event_type, valid_from, occurred_at) =
                      (it.user_id, it.project_id, it.is_active, it.is_project_manager, it.use_default_rates,
                       it.hourly_rate, it.budget, it.created_at, it.updated_at, it.raw, it.version,
                       it.content_hash, now(),
                       NULL,
                       -- A write without an event keeps the version.
                       coalesce(it.event_type, row.event_type),
                       CASE WHEN it.event_type IS NULL THEN row.valid_from ELSE $3 END,
                       coalesce(it.occurred_at, row.occurred_at))
                 FROM json_populate_recordset(NULL::roster.user_assignments, $2::text::json) AS it
                WHERE row.account_id = $1 AND row.id = it.id"#,
            account.0,
            to_json(writes, now),
            now,
        )
        .execute(connection)
        .await?;
        ensure_rows("roster.user_assignments", writes.len(), written.rows_affected())
    }
}
