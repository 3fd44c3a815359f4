//! Whether the schemas and tables that the migrations make or change are this role's.

use super::{Session, Store, StoreError};

impl Store {
    /// Makes sure that the migrations that are pending can create and change what they must.
    ///
    /// # Errors
    /// [`StoreError::Owner`] and [`StoreError::Taken`].
    pub async fn require_ownership(&self, has_migrations: bool) -> Result<(), StoreError> {
        let mut transaction = self.reserved.begin().await?;
        require(&mut transaction, has_migrations).await
    }
}

/// A superuser, and a member of the owner, may change what another role owns. Where no migration was applied, a relation
/// with one of rosterd's names is in the way, whatever role owns it. Relations of other names are not looked at: an
/// administrator may have added them.
pub(super) async fn require(connection: &mut Session, has_migrations: bool) -> Result<(), StoreError> {
    let found = sqlx::query!(
        r#"WITH ours AS (
               SELECT oid, nspname, nspowner FROM pg_namespace
                WHERE nspname IN ('roster', 'directory', 'rosterd_internal')
           ), objects (is_relation, object, owner) AS (
               SELECT false, format('SCHEMA %I', nspname), nspowner FROM ours
               UNION ALL
               SELECT true, format('%s %I.%I', CASE relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END, nspname, relname), relowner
                 FROM pg_class JOIN ours ON ours.oid = relnamespace
                WHERE (nspname, relname) IN (
                          ('roster', 'users'), ('roster', 'user_assignments'), ('roster', 'projects'), ('roster', 'accounts'),
                          ('roster', 'cycles'), ('roster', 'outbox'), ('directory', 'users'),
                          ('rosterd_internal', 'migrations'))
           )
           SELECT object AS "object!", pg_get_userbyid(owner)::text AS "owner!", current_user::text AS "user!",
                  pg_has_role(owner, 'USAGE') AS "is_ours!"
             FROM objects
            WHERE NOT pg_has_role(owner, 'USAGE') OR (is_relation AND NOT $1)
            ORDER BY is_relation, object LIMIT 1"#,
        has_migrations
    )
    .fetch_optional(connection)
    .await?;
    match found {
        None => Ok(()),
        Some(found) if found.is_ours || (!has_migrations && found.object.starts_with("TABLE")) => {
            Err(StoreError::Taken { object: found.object, owner: found.owner })
        }
        Some(found) => Err(StoreError::Owner { object: found.object, owner: found.owner, user: found.user }),
    }
}
