//! `roster.users`.

use std::collections::{HashMap, HashSet};

use super::error::ensure_rows;
use super::table::{Fingerprint, Table, to_json};
use super::{Connections, Session, Store, StoreError};
use crate::roster::{AccountId, Field, Mirrored, User, Write};

impl Table for User {
    async fn fingerprints(
        pool: &Connections,
        account: AccountId,
        ids: &[i64],
    ) -> Result<HashMap<i64, Fingerprint>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT id, content_hash, deleted_at IS NOT NULL AS "deleted!"
                 FROM roster.users
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
            r#"INSERT INTO roster.users
                      (account_id, id, first_name, last_name, email, telephone, timezone, weekly_capacity,
                       has_access_to_all_future_projects, is_contractor, is_active, roles, access_roles,
                       permissions_claims, is_admin, is_project_manager, can_see_rates, can_create_projects,
                       can_create_invoices, calendar_integration_enabled, calendar_integration_source,
                       employee_id, default_hourly_rate, cost_rate, avatar_url, created_at, updated_at,
                       raw, version, content_hash, synced_at)
               SELECT $1, id, first_name, last_name, email, telephone, timezone, weekly_capacity,
                      has_access_to_all_future_projects, is_contractor, is_active, roles, access_roles,
                      permissions_claims, is_admin, is_project_manager, can_see_rates, can_create_projects,
                      can_create_invoices, calendar_integration_enabled, calendar_integration_source,
                      employee_id, default_hourly_rate, cost_rate, avatar_url, created_at, updated_at,
                      raw, version, content_hash, now()
                 FROM json_populate_recordset(NULL::roster.users, $2::text::json)
               ON CONFLICT (account_id, id) DO UPDATE SET
                      (first_name, last_name, email, telephone, timezone, weekly_capacity,
                       has_access_to_all_future_projects, is_contractor, is_active, roles, access_roles,
                       permissions_claims, is_admin, is_project_manager, can_see_rates, can_create_projects,
                       can_create_invoices, calendar_integration_enabled, calendar_integration_source,
                       employee_id, default_hourly_rate, cost_rate, avatar_url, created_at, updated_at,
                       raw, version, content_hash, synced_at, deleted_at) =
                      (EXCLUDED.first_name, EXCLUDED.last_name, EXCLUDED.email, EXCLUDED.telephone,
                       EXCLUDED.timezone, EXCLUDED.weekly_capacity,
                       EXCLUDED.has_access_to_all_future_projects, EXCLUDED.is_contractor, EXCLUDED.is_active,
                       EXCLUDED.roles, EXCLUDED.access_roles, EXCLUDED.permissions_claims, EXCLUDED.is_admin,
                       EXCLUDED.is_project_manager, EXCLUDED.can_see_rates, EXCLUDED.can_create_projects,
                       EXCLUDED.can_create_invoices, EXCLUDED.calendar_integration_enabled,
                       EXCLUDED.calendar_integration_source, EXCLUDED.employee_id,
                       EXCLUDED.default_hourly_rate, EXCLUDED.cost_rate, EXCLUDED.avatar_url,
                       EXCLUDED.created_at, EXCLUDED.updated_at, EXCLUDED.raw, EXCLUDED.version,
                       EXCLUDED.content_hash, EXCLUDED.synced_at, NULL)"#,
            account.0,
            to_json(writes),
        )
        .execute(connection)
        .await?;
        ensure_rows("roster.users", writes.len(), written.rows_affected())
    }

    async fn bury(
        connection: &mut Session,
        account: AccountId,
        ids: &[i64],
        versions: &[i64],
    ) -> Result<(), StoreError> {
        let buried = sqlx::query!(
            "UPDATE roster.users AS row
                SET deleted_at = now(), is_active = false, version = gone.version, synced_at = now()
               FROM UNNEST($2::bigint[], $3::bigint[]) AS gone (id, version)
              WHERE row.account_id = $1 AND row.id = gone.id AND row.deleted_at IS NULL",
            account.0,
            ids,
            versions,
        )
        .execute(connection)
        .await?;
        ensure_rows("roster.users", ids.len(), buried.rows_affected())
    }
}

impl Store {
    /// Leaves those ids that neither a row of `roster.users` nor one of `roster.user_assignments` has.
    pub async fn retain_new_users(&self, account: AccountId, ids: &mut Vec<i64>) -> Result<(), StoreError> {
        let known = self.fingerprints::<User>(account, ids).await?;
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
}
