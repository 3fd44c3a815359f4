//! `roster.users`.

use std::collections::HashSet;

use super::database::Store;
use super::error::StoreError;
use crate::roster::{AccountId, User};

impl Store {
    /// Retains the ids that occur neither in `roster.users` nor as `user_id` in `roster.user_assignments`.
    pub(crate) async fn retain_new_users(
        &self,
        account: AccountId,
        ids: &mut Vec<i64>,
    ) -> Result<(), StoreError> {
        let new = sqlx::query_scalar!(
            r#"SELECT new.id AS "id!" FROM unnest($2::bigint[]) AS new (id)
                WHERE NOT EXISTS (SELECT FROM roster.users WHERE account_id = $1 AND users.id = new.id)
                  AND NOT EXISTS (SELECT FROM roster.user_assignments WHERE account_id = $1 AND user_id = new.id)"#,
            account.0,
            &ids[..],
        );
        let new: HashSet<i64> = new.fetch_all(&self.pool).await?.into_iter().collect();
        ids.retain(|id| new.contains(id));
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
