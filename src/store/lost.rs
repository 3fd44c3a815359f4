//! Records whose rows were deleted by hand, although their last event is no deletion.

use super::{Fence, Session, Store, StoreError};
use crate::roster::{AccountId, Resource};

impl Store {
    /// Restores such rows from the history, as it has them. Called after a full read, which has stored again what Harvest
    /// shows: what is left is absent there too, and can be confirmed as deleted only if it has a row. Returns how many rows
    /// were restored; rates have no history.
    pub async fn restore_lost(&self, fence: &Fence, resource: Resource) -> Result<u64, StoreError> {
        let account = fence.account.0;
        let is_any = match resource {
            Resource::Users => sqlx::query_scalar!(
                r#"SELECT EXISTS (
                       SELECT FROM roster.user_history AS past
                        WHERE account_id = $1 AND valid_to IS NULL AND type <> 'user.deleted'
                          AND NOT EXISTS (SELECT FROM roster.users AS row
                                           WHERE (row.account_id, row.id) = (past.account_id, past.id))) AS "is_any!""#,
                account
            )
            .fetch_one(&self.pool)
            .await?,
            Resource::Assignments => sqlx::query_scalar!(
                r#"SELECT EXISTS (
                       SELECT FROM roster.user_assignment_history AS past
                        WHERE account_id = $1 AND valid_to IS NULL AND type <> 'user_assignment.deleted'
                          AND NOT EXISTS (SELECT FROM roster.user_assignments AS row
                                           WHERE (row.account_id, row.id) = (past.account_id, past.id))) AS "is_any!""#,
                account
            )
            .fetch_one(&self.pool)
            .await?,
            Resource::BillableRates | Resource::CostRates => false,
        };
        if !is_any {
            return Ok(0);
        }
        let mut page = self.begin(fence).await?;
        let restored = page.restore_lost(resource).await?;
        page.commit().await?;
        Ok(restored)
    }
}

pub(super) async fn restore(
    connection: &mut Session,
    account: AccountId,
    resource: Resource,
) -> Result<u64, StoreError> {
    let restored = match resource {
        Resource::Users => {
            let sql = sqlx::query!(
                "INSERT INTO roster.users
                        (account_id, id, first_name, last_name, email, telephone, timezone, weekly_capacity,
                         has_access_to_all_future_projects, is_contractor, is_active, roles, access_roles,
                         permissions_claims, is_admin, is_project_manager, can_see_rates, can_create_projects,
                         can_create_invoices, calendar_integration_enabled, calendar_integration_source, employee_id,
                         default_hourly_rate, cost_rate, created_at, raw, version, content_hash, synced_at)
                 SELECT account_id, id, first_name, last_name, email, telephone, timezone, weekly_capacity,
                        has_access_to_all_future_projects, is_contractor, is_active, roles, access_roles,
                        permissions_claims, is_admin, is_project_manager, can_see_rates, can_create_projects,
                        can_create_invoices, calendar_integration_enabled, calendar_integration_source, employee_id,
                        default_hourly_rate, cost_rate, created_at, jsonb_build_object('id', id), version, 0, now()
                   FROM roster.user_history
                  WHERE account_id = $1 AND valid_to IS NULL AND type <> 'user.deleted'
                 ON CONFLICT DO NOTHING",
                account.0
            );
            sql.execute(connection).await?
        }
        Resource::Assignments => {
            let sql = sqlx::query!(
                "INSERT INTO roster.user_assignments
                        (account_id, id, user_id, project_id, is_active, is_project_manager, use_default_rates,
                         hourly_rate, budget, created_at, raw, version, content_hash, synced_at)
                 SELECT account_id, id, user_id, project_id, is_active, is_project_manager, use_default_rates,
                        hourly_rate, budget, created_at, jsonb_build_object('id', id), version, 0, now()
                   FROM roster.user_assignment_history
                  WHERE account_id = $1 AND valid_to IS NULL AND type <> 'user_assignment.deleted'
                 ON CONFLICT DO NOTHING",
                account.0
            );
            sql.execute(connection).await?
        }
        Resource::BillableRates | Resource::CostRates => return Ok(0),
    };
    Ok(restored.rows_affected())
}
