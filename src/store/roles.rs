//! `roster.roles`: job roles, which SCIM shows as groups.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::database::Store;
use super::error::StoreError;
use super::tx::AccountTx;
use crate::roster::{AccountId, Role};

/// The roles of the mirror before Harvest is asked.
pub struct KnownRoles {
    /// The time of the database. An answer to a later request is newer than what is stored now.
    pub asked_at: DateTime<Utc>,
    pub is_read: bool,
    pub roles: BTreeMap<i64, Role>,
}

impl Store {
    /// The roles of the mirror, and the time.
    pub(crate) async fn known_roles(&self, account: AccountId) -> Result<KnownRoles, StoreError> {
        let row = sqlx::query!(
            r#"SELECT clock_timestamp() AS "asked_at!",
                      EXISTS (SELECT FROM roster.accounts WHERE account_id = $1 AND roles_read_at IS NOT NULL) AS "is_read!""#,
            account.0
        )
        .fetch_one(&self.pool)
        .await?;
        let roles = sqlx::query!(
            "SELECT id, name, user_ids, created_at, updated_at FROM roster.roles
              WHERE account_id = $1 AND deleted_at IS NULL",
            account.0
        )
        .fetch_all(&self.pool)
        .await?;
        let roles = roles.into_iter().map(|row| {
            let (created_at, updated_at) = (row.created_at, row.updated_at);
            let user_ids = row.user_ids.into_iter().collect();
            (row.id, Role { id: row.id, name: row.name, user_ids, created_at, updated_at })
        });
        Ok(KnownRoles { asked_at: row.asked_at, is_read: row.is_read, roles: roles.collect() })
    }
}

impl AccountTx {
    /// Stores roles, unless a newer answer is stored. `asked_at`: when Harvest was asked; `None` for the answer to a write,
    /// which is newer than all other answers.
    pub async fn store_roles(
        &mut self,
        roles: &[Role],
        asked_at: Option<DateTime<Utc>>,
    ) -> Result<(), StoreError> {
        for role in roles {
            let user_ids: Vec<i64> = role.user_ids.iter().copied().collect();
            sqlx::query!(
                "INSERT INTO roster.roles AS role
                        (account_id, id, name, user_ids, created_at, updated_at, changed_at, asked_at)
                 VALUES ($1, $2, $3, $4, $5, $6, coalesce($6, clock_timestamp()), coalesce($7, clock_timestamp()))
                 ON CONFLICT (account_id, id) DO UPDATE
                    SET name = excluded.name, user_ids = excluded.user_ids, created_at = excluded.created_at,
                        updated_at = excluded.updated_at, asked_at = excluded.asked_at, deleted_at = NULL,
                        version = role.version + 1, changed_at = clock_timestamp()
                  WHERE role.asked_at <= excluded.asked_at
                    AND (role.name, role.user_ids, role.created_at, role.updated_at, role.deleted_at)
                        IS DISTINCT FROM
                        (excluded.name, excluded.user_ids, excluded.created_at, excluded.updated_at, NULL)",
                self.account.0,
                role.id,
                role.name,
                &user_ids,
                role.created_at,
                role.updated_at,
                asked_at,
            )
            .execute(&mut *self.transaction)
            .await?;
        }
        Ok(())
    }

    /// Stores that Harvest has deleted these roles, as [`AccountTx::store_roles`] does.
    pub async fn delete_roles(
        &mut self,
        ids: &[i64],
        asked_at: Option<DateTime<Utc>>,
    ) -> Result<(), StoreError> {
        let deleted = sqlx::query_scalar!(
            "UPDATE roster.roles SET deleted_at = clock_timestamp(), asked_at = coalesce($3, clock_timestamp()),
                    version = version + 1
              WHERE account_id = $1 AND id = ANY ($2) AND deleted_at IS NULL
                AND asked_at <= coalesce($3, clock_timestamp())
             RETURNING id",
            self.account.0,
            ids,
            asked_at,
        )
        .fetch_all(&mut *self.transaction)
        .await?;
        sqlx::query!(
            "DELETE FROM roster.scim_links WHERE account_id = $1 AND resource = 'Group' AND record_id = ANY ($2)",
            self.account.0,
            &deleted,
        )
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }

    /// Stores that the list of roles was read completely, and removes rows of roles that were deleted long ago.
    pub async fn set_roles_read(&mut self) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE roster.accounts SET roles_read_at = clock_timestamp() WHERE account_id = $1 AND roles_read_at IS NULL",
            self.account.0
        )
        .execute(&mut *self.transaction)
        .await?;
        sqlx::query!(
            "DELETE FROM roster.roles WHERE account_id = $1 AND deleted_at < clock_timestamp() - interval '1 day'",
            self.account.0
        )
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }

    /// A full read is due from now on.
    pub async fn request_full_read(&mut self) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE roster.watermarks SET next_full_at = clock_timestamp() WHERE account_id = $1",
            self.account.0
        )
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }
}
