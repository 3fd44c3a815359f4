//! `roster.users`.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};

use super::database::Store;
use super::error::StoreError;
use super::error::ensure_rows;
use super::pool::Pool;
use super::session::Session;
use super::table::{MirrorTable, RowDigest, common_statements, to_json};
use crate::roster::{AccountId, Field, MirrorRow, RowWrite, User};

impl MirrorTable for User {
    common_statements!(
        "roster.users",
        ", is_active = false, event_type = 'user.deleted', valid_from = $4, occurred_at = $4"
    );

    async fn rows(
        connection: &mut Session,
        account: AccountId,
        ids: &[i64],
    ) -> Result<HashMap<i64, MirrorRow<Self>>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT id, first_name, last_name, email, telephone, timezone, weekly_capacity,
                      has_access_to_all_future_projects, is_contractor, is_active, roles, access_roles,
                      permissions_claims, is_admin, is_project_manager, can_see_rates, can_create_projects,
                      can_create_invoices, calendar_integration_enabled, calendar_integration_source,
                      employee_id, default_hourly_rate, cost_rate, avatar_url, created_at, updated_at,
                      version, content_hash, deleted_at IS NOT NULL AS "deleted!"
                 FROM roster.users
                WHERE account_id = $1 AND id = ANY($2)"#,
            account.0,
            ids,
        )
        .fetch_all(connection)
        .await?;
        let mirrored = rows.into_iter().map(|r| {
            let record = Self {
                id: r.id,
                first_name: r.first_name.into(),
                last_name: r.last_name.into(),
                email: r.email.into(),
                telephone: r.telephone.into(),
                timezone: r.timezone.into(),
                weekly_capacity: r.weekly_capacity.into(),
                has_access_to_all_future_projects: r.has_access_to_all_future_projects.into(),
                is_contractor: r.is_contractor.into(),
                is_active: Field::Value(r.is_active),
                roles: r.roles.into(),
                access_roles: r.access_roles.into(),
                permissions_claims: r.permissions_claims.into(),
                is_admin: r.is_admin.into(),
                is_project_manager: r.is_project_manager.into(),
                can_see_rates: r.can_see_rates.into(),
                can_create_projects: r.can_create_projects.into(),
                can_create_invoices: r.can_create_invoices.into(),
                calendar_integration_enabled: r.calendar_integration_enabled.into(),
                calendar_integration_source: r.calendar_integration_source.into(),
                employee_id: r.employee_id.into(),
                default_hourly_rate: r.default_hourly_rate.into(),
                cost_rate: r.cost_rate.into(),
                avatar_url: r.avatar_url.into(),
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
            "INSERT INTO roster.user_history
                    (account_id, id, version, event_type, valid_from, valid_to, occurred_at,
                     first_name, last_name, email, telephone, timezone, weekly_capacity,
                     has_access_to_all_future_projects, is_contractor, is_active, roles, access_roles, permissions_claims,
                     is_admin, is_project_manager, can_see_rates, can_create_projects, can_create_invoices,
                     calendar_integration_enabled, calendar_integration_source, employee_id, default_hourly_rate,
                     cost_rate, created_at)
             SELECT account_id, id, version, event_type, valid_from, $3, occurred_at,
                    first_name, last_name, email, telephone, timezone, weekly_capacity,
                    has_access_to_all_future_projects, is_contractor, is_active, roles, access_roles, permissions_claims,
                    is_admin, is_project_manager, can_see_rates, can_create_projects, can_create_invoices,
                    calendar_integration_enabled, calendar_integration_source, employee_id, default_hourly_rate,
                    cost_rate, created_at
               FROM roster.users WHERE account_id = $1 AND id = ANY($2)",
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
            r#"UPDATE roster.users AS row
                  SET (first_name, last_name, email, telephone, timezone, weekly_capacity,
                       has_access_to_all_future_projects, is_contractor, is_active, roles, access_roles,
                       permissions_claims, is_admin, is_project_manager, can_see_rates, can_create_projects,
                       can_create_invoices, calendar_integration_enabled, calendar_integration_source,
                       employee_id, default_hourly_rate, cost_rate, avatar_url, created_at, updated_at, raw,
                       version, content_hash, synced_at, deleted_at, event_type, valid_from, occurred_at) =
                      (it.first_name, it.last_name, it.email, it.telephone, it.timezone, it.weekly_capacity,
                       it.has_access_to_all_future_projects, it.is_contractor, it.is_active, it.roles,
                       it.access_roles, it.permissions_claims, it.is_admin, it.is_project_manager,
                       it.can_see_rates, it.can_create_projects, it.can_create_invoices,
                       it.calendar_integration_enabled, it.calendar_integration_source, it.employee_id,
                       it.default_hourly_rate, it.cost_rate, it.avatar_url, it.created_at, it.updated_at,
                       it.raw, it.version, it.content_hash, now(),
                       NULL,
                       -- A write without an event keeps the version.
                       coalesce(it.event_type, row.event_type),
                       CASE WHEN it.event_type IS NULL THEN row.valid_from ELSE $3 END,
                       coalesce(it.occurred_at, row.occurred_at))
                 FROM json_populate_recordset(NULL::roster.users, $2::text::json) AS it
                WHERE row.account_id = $1 AND row.id = it.id"#,
            account.0,
            to_json(writes, now),
            now,
        )
        .execute(connection)
        .await?;
        ensure_rows("roster.users", writes.len(), written.rows_affected())
    }
}

impl Store {
    /// Retains the ids that occur neither in `roster.users` nor as `user_id` in `roster.user_assignments`.
    pub(crate) async fn retain_new_users(
        &self,
        account: AccountId,
        ids: &mut Vec<i64>,
    ) -> Result<(), StoreError> {
        let known = self.row_digests::<User>(account, ids).await?;
        ids.retain(|id| !known.contains_key(id));
        if ids.is_empty() {
            return Ok(());
        }
        let named = sqlx::query_scalar!(
            r#"SELECT DISTINCT user_id AS "id!" FROM roster.user_assignments
                WHERE account_id = $1 AND user_id = ANY($2)"#,
            account.0,
            &ids[..],
        );
        let named: HashSet<i64> = named.fetch_all(&self.pool).await?.into_iter().collect();
        ids.retain(|id| !named.contains(id));
        Ok(())
    }

    pub async fn live_users(&self, account: AccountId) -> Result<Vec<User>, StoreError> {
        let ids = sqlx::query_scalar!(
            "SELECT id FROM roster.users WHERE account_id = $1 AND deleted_at IS NULL ORDER BY id",
            account.0
        );
        let ids = ids.fetch_all(&self.pool).await?;
        let rows = self.rows::<User>(account, &ids).await?;
        Ok(rows.into_values().filter(|row| !row.deleted).map(|row| row.record).collect())
    }
}
