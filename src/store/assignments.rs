//! `roster.user_assignments`.

use std::collections::HashMap;

use super::error::ensure_rows;
use super::table::{Fingerprint, Table, to_json};
use super::{Connections, Session, StoreError};
use crate::roster::{AccountId, Assignment, Field, Mirrored, Write};

impl Table for Assignment {
    async fn fingerprints(
        pool: &Connections,
        account: AccountId,
        ids: &[i64],
    ) -> Result<HashMap<i64, Fingerprint>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT id, content_hash, deleted_at IS NOT NULL AS "deleted!"
                 FROM roster.user_assignments
                WHERE account_id = $1 AND id = ANY($2)"#,
            account.0,
            ids,
        )
        .fetch_all(pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|r| (r.id, Fingerprint { hash: r.content_hash, deleted: r.deleted }))
            .collect())
    }

    async fn rows(
        connection: &mut Session,
        account: AccountId,
        ids: &[i64],
    ) -> Result<HashMap<i64, Mirrored<Self>>, StoreError> {
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
            (r.id, Mirrored { record, version: r.version, hash: r.content_hash, deleted: r.deleted })
        });
        Ok(mirrored.collect())
    }

    async fn upsert(
        connection: &mut Session,
        account: AccountId,
        writes: &[Write<Self>],
    ) -> Result<(), StoreError> {
        let written = sqlx::query!(
            r#"INSERT INTO roster.user_assignments
                      (account_id, id, user_id, project_id, is_active, is_project_manager, use_default_rates,
                       hourly_rate, budget, created_at, updated_at, raw, version, content_hash, synced_at)
               SELECT $1, id, user_id, project_id, is_active, is_project_manager, use_default_rates,
                      hourly_rate, budget, created_at, updated_at, raw, version, content_hash, now()
                 FROM json_populate_recordset(NULL::roster.user_assignments, $2::text::json)
               ON CONFLICT (account_id, id) DO UPDATE SET
                      (user_id, project_id, is_active, is_project_manager, use_default_rates, hourly_rate,
                       budget, created_at, updated_at, raw, version, content_hash, synced_at, deleted_at) =
                      (EXCLUDED.user_id, EXCLUDED.project_id, EXCLUDED.is_active, EXCLUDED.is_project_manager,
                       EXCLUDED.use_default_rates, EXCLUDED.hourly_rate, EXCLUDED.budget, EXCLUDED.created_at,
                       EXCLUDED.updated_at, EXCLUDED.raw, EXCLUDED.version, EXCLUDED.content_hash,
                       EXCLUDED.synced_at, NULL)"#,
            account.0,
            to_json(writes),
        )
        .execute(connection)
        .await?;
        ensure_rows("roster.user_assignments", writes.len(), written.rows_affected())
    }

    async fn bury(
        connection: &mut Session,
        account: AccountId,
        ids: &[i64],
        versions: &[i64],
    ) -> Result<(), StoreError> {
        let buried = sqlx::query!(
            "UPDATE roster.user_assignments AS row
                SET deleted_at = now(), is_active = false, version = gone.version, synced_at = now()
               FROM UNNEST($2::bigint[], $3::bigint[]) AS gone (id, version)
              WHERE row.account_id = $1 AND row.id = gone.id AND row.deleted_at IS NULL",
            account.0,
            ids,
            versions,
        )
        .execute(connection)
        .await?;
        ensure_rows("roster.user_assignments", ids.len(), buried.rows_affected())
    }
}
