//! Whether this role owns the schemas and tables that the migrations create or change.

use super::database::Store;
use super::error::StoreError;
use super::session::Session;

impl Store {
    /// Returns an error if the pending migrations may not create or change their objects.
    ///
    /// # Errors
    /// [`StoreError::Owner`] and [`StoreError::Taken`].
    pub(crate) async fn require_ownership(&self, has_migrations: bool) -> Result<(), StoreError> {
        let mut transaction = self.reserved.begin().await?;
        require(&mut transaction, has_migrations).await
    }
}

/// Superusers and members of the owning role may change an object too. If no migration was applied, a relation with one
/// of rosterd's names is a conflict, whatever role owns it. Relations with other names are ignored: an administrator
/// may have added them.
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
