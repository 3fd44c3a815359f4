//! Groups as directories see them by SCIM, with the rights of `roster_scim`: one view and a few functions.

use std::collections::{BTreeSet, HashMap};

use uuid::Uuid;

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
    /// The groups with this key, in the order of their ids. Without `with_members`, members are not read.
    pub async fn scim_groups(
        &self,
        account: AccountId,
        key: GroupKey<'_>,
        with_members: bool,
    ) -> Result<Vec<GroupRow>, StoreError> {
        let (mut id, mut name, mut external_id) = (None, None, None);
        match key {
            GroupKey::All => {}
            GroupKey::Id(it) => id = Some(it),
            GroupKey::Name(it) => name = Some(it),
            GroupKey::ExternalId(it) => external_id = Some(it),
        }
        let rows = sqlx::query!(
            r#"SELECT id AS "id!", name AS "name!", created_at, updated_at, version AS "version!", external_id,
                      link_version AS "link_version!", link_updated_at,
                      CASE WHEN $5 THEN user_ids ELSE '{}' END AS "user_ids!",
                      CASE WHEN $5 THEN ARRAY(
                          SELECT shown.id FROM roster.scim_users AS shown
                           WHERE shown.account_id = $1 AND shown.id = ANY (user_ids) AND NOT shown.is_hidden
                           ORDER BY shown.id) ELSE '{}' END AS "members!"
                 FROM roster.scim_groups
                WHERE account_id = $1 AND ($2::bigint IS NULL OR id = $2) AND ($3::text IS NULL OR lower(name) = lower($3))
                  AND ($4::text IS NULL OR external_id = $4)
                ORDER BY id"#,
            account.0,
            id,
            name,
            external_id,
            with_members,
        )
        .fetch_all(&self.pool)
        .await?;
        let groups = rows.into_iter().map(|row| GroupRow {
            id: row.id,
            name: row.name,
            user_ids: row.user_ids.into_iter().collect(),
            members: row.members,
            created_at: row.created_at,
            updated_at: row.updated_at,
            version: row.version,
            external_id: row.external_id,
            link_version: row.link_version,
            link_updated_at: row.link_updated_at,
        });
        Ok(groups.collect())
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

    /// Those of the users whom SCIM does not show.
    pub async fn scim_unknown_users(
        &self,
        account: AccountId,
        users: &BTreeSet<i64>,
    ) -> Result<Vec<i64>, StoreError> {
        if users.is_empty() {
            return Ok(Vec::new());
        }
        let users: Vec<i64> = users.iter().copied().collect();
        let unknown = sqlx::query_scalar!(
            r#"SELECT member AS "member!" FROM unnest($2::bigint[]) AS member
                WHERE NOT EXISTS (SELECT FROM roster.scim_users AS shown
                                   WHERE shown.account_id = $1 AND shown.id = member AND NOT shown.is_hidden)
                ORDER BY member"#,
            account.0,
            &users,
        );
        Ok(unknown.fetch_all(&self.pool).await?)
    }

    /// Whether the list of job roles was read completely.
    pub async fn scim_roles_are_read(&self, account: AccountId) -> Result<bool, StoreError> {
        let are_read =
            sqlx::query_scalar!(r#"SELECT roster.scim_roles_are_read($1) AS "are_read!""#, account.0);
        Ok(are_read.fetch_one(&self.pool).await?)
    }

    /// The job role that a write has created or changed.
    pub async fn scim_written_role(&self, write: Uuid) -> Result<Option<i64>, StoreError> {
        let role = sqlx::query_scalar!("SELECT roster.scim_written_role($1)", write);
        Ok(role.fetch_one(&self.pool).await?)
    }

    /// Sets or clears the `externalId` of a group. Returns false if another group has it.
    pub async fn scim_group_link_set(
        &self,
        account: AccountId,
        group: i64,
        external_id: Option<&str>,
    ) -> Result<bool, StoreError> {
        let set =
            sqlx::query!("SELECT FROM roster.scim_group_link_set($1, $2, $3)", account.0, group, external_id)
                .execute(&self.pool)
                .await
                .map_err(StoreError::from);
        match set {
            Err(error) if error.is_unique_violation() => Ok(false),
            set => set.map(|_| true),
        }
    }
}
