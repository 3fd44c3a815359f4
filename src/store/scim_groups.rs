//! Groups as directories see them by SCIM, with the rights of `roster_scim`.

use std::collections::HashMap;

use super::database::Store;
use super::error::StoreError;
use crate::roster::AccountId;
use crate::scim::{GroupRow, UserGroup};

#[derive(Clone, Copy)]
pub enum GroupKey<'a> {
    All,
    /// Harvest's id of the role.
    Id(i64),
    /// The name, in any case.
    Name(&'a str),
    /// The directory's id.
    ExternalId(&'a str),
}

impl Store {
    /// The groups with this key, in the order of their ids.
    pub async fn scim_groups(
        &self,
        account: AccountId,
        key: GroupKey<'_>,
    ) -> Result<Vec<GroupRow>, StoreError> {
        let (mut id, mut name, mut external_id) = (None, None, None);
        match key {
            GroupKey::All => {}
            GroupKey::Id(it) => id = Some(it),
            GroupKey::Name(it) => name = Some(it),
            GroupKey::ExternalId(it) => external_id = Some(it),
        }
        let groups = sqlx::query_as!(
            GroupRow,
            r#"SELECT id AS "id!", name AS "name!", created_at, updated_at, version AS "version!", external_id,
                      link_version AS "link_version!", link_updated_at, user_ids AS "user_ids!",
                      ARRAY(SELECT shown.id FROM roster.scim_users AS shown
                             WHERE shown.account_id = $1 AND shown.id = ANY (user_ids) AND NOT shown.is_hidden
                             ORDER BY shown.id) AS "members!"
                 FROM roster.scim_groups
                WHERE account_id = $1 AND ($2::bigint IS NULL OR id = $2) AND ($3::text IS NULL OR lower(name) = lower($3))
                  AND ($4::text IS NULL OR external_id = $4)
                ORDER BY id"#,
            account.0,
            id,
            name,
            external_id,
        );
        Ok(groups.fetch_all(&self.pool).await?)
    }

    pub async fn scim_groups_of(
        &self,
        account: AccountId,
        users: &[i64],
    ) -> Result<HashMap<i64, Vec<UserGroup>>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT member AS "member!", id AS "id!", name AS "name!"
                 FROM roster.scim_groups, unnest(user_ids) AS member
                WHERE account_id = $1 AND user_ids && $2 AND member = ANY ($2) ORDER BY id"#,
            account.0,
            users,
        )
        .fetch_all(&self.pool)
        .await?;
        let mut groups: HashMap<i64, Vec<UserGroup>> = HashMap::new();
        for row in rows {
            groups.entry(row.member).or_default().push(UserGroup { id: row.id, name: row.name });
        }
        Ok(groups)
    }

    /// Whether SCIM shows all of these users.
    pub async fn scim_shows(&self, account: AccountId, users: &[i64]) -> Result<bool, StoreError> {
        let are_shown = sqlx::query_scalar!(
            r#"SELECT NOT EXISTS (SELECT FROM unnest($2::bigint[]) AS member
                WHERE NOT EXISTS (SELECT FROM roster.scim_users AS shown
                                   WHERE shown.account_id = $1 AND shown.id = member AND NOT shown.is_hidden)) AS "are_shown!""#,
            account.0,
            users,
        );
        Ok(are_shown.fetch_one(&self.pool).await?)
    }
}
