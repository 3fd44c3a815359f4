//! What writes concern: users by e-mail address, assignments, and projects by name.

use super::database::Store;
use super::error::StoreError;
use crate::roster::AccountId;

impl Store {
    /// The users with this e-mail address, in any case, without deleted ones.
    pub async fn live_users_by_email(&self, account: AccountId, email: &str) -> Result<Vec<i64>, StoreError> {
        let users = sqlx::query_scalar!(
            "SELECT id FROM roster.users
              WHERE account_id = $1 AND lower(email) = lower($2) AND deleted_at IS NULL ORDER BY id",
            account.0,
            email,
        );
        Ok(users.fetch_all(&self.pool).await?)
    }

    /// Whether a user's record that could not be read or stored has this e-mail address as a text, in any case of ASCII.
    pub async fn rejected_user_has(&self, account: AccountId, email: &str) -> Result<bool, StoreError> {
        let rejected = sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT FROM roster.rejected_records
                               WHERE account_id = $1 AND resource = 'users'
                                 AND position(lower(encode(convert_to($2, 'UTF8'), 'escape'))
                                              IN lower(encode(raw, 'escape'))) > 0) AS "exists!""#,
            account.0,
            format!("\"{email}\""),
        );
        Ok(rejected.fetch_one(&self.pool).await?)
    }

    /// The live assignments of a user to a project, active ones first.
    pub async fn assignments_to(
        &self,
        account: AccountId,
        user: i64,
        project: i64,
    ) -> Result<Vec<(i64, bool)>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT id, is_active AS "is_active!" FROM roster.user_assignments
                WHERE account_id = $1 AND user_id = $2 AND project_id = $3 AND deleted_at IS NULL
                ORDER BY is_active DESC, id DESC"#,
            account.0,
            user,
            project,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|row| (row.id, row.is_active)).collect())
    }

    /// The projects with this code or name: their ids, codes and names.
    pub async fn projects_named(
        &self,
        account: AccountId,
        name: &str,
    ) -> Result<Vec<(i64, Option<String>, Option<String>)>, StoreError> {
        let rows = sqlx::query!(
            "SELECT id, code, name FROM roster.projects
              WHERE account_id = $1 AND (lower(code) = lower($2) OR lower(name) = lower($2)) ORDER BY id LIMIT 20",
            account.0,
            name,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|row| (row.id, row.code, row.name)).collect())
    }
}
