//! Users as directories see them by SCIM, and what a SCIM process asks of the database. It uses two views and a few
//! functions, so that it can run with the rights of `roster_scim`.

use futures::TryStreamExt;
use serde_json::Value as Json;
use sqlx::error::DatabaseError;
use uuid::Uuid;

use super::database::Store;
use super::error::StoreError;
use crate::roster::AccountId;
use crate::roster::write::Write;
use crate::scim::{ResourceType, UserRow};

const FUNCTIONS: [&str; 7] = [
    "scim_account",
    "scim_ask",
    "scim_link_set",
    "scim_answered",
    "scim_unanswered",
    "scim_withdraw",
    "write_outcome",
];

/// A query of users with this clause and these parameters.
macro_rules! users {
    ($clause:literal $(, $parameter:expr)*) => {
        sqlx::query_as!(
            UserRow,
            r#"SELECT id AS "id!", coalesce(first_name, '') AS "first_name!", coalesce(last_name, '') AS "last_name!",
                      coalesce(email, '') AS "email!", telephone, is_active AS "is_active!", created_at, updated_at,
                      version AS "version!", external_id, user_name, display_name, link_version AS "link_version!",
                      link_updated_at, is_hidden AS "is_hidden!"
                 FROM roster.scim_users "# + $clause
            $(, $parameter)*
        )
    };
}

/// A key by which few users are found.
#[derive(Clone, Copy)]
pub enum ScimKey<'a> {
    Id(i64),
    /// The directory's id.
    ExternalId(&'a str),
    /// An e-mail address or a `userName`, in any case.
    Name(&'a str),
    Ids(&'a [i64]),
}

/// What decides whether an account can be served.
#[derive(Clone, Copy, Debug)]
pub struct ScimAccount {
    pub is_read: bool,
    /// Whether the list of job roles was read completely.
    pub are_roles_read: bool,
    pub has_holder: bool,
    /// How many seconds Harvest refuses requests.
    pub pause_seconds: i32,
}

/// The state of a write, as its asker sees it.
#[derive(Clone, Debug)]
// The fields are the results of roster.write_outcome.
pub struct ScimOutcome {
    /// `None` until the write is finished.
    pub outcome: Option<String>,
    pub user_id: Option<i64>,
    pub role_id: Option<i64>,
    pub status: Option<i16>,
    pub error: Option<String>,
    pub held: bool,
    pub sent: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("too many writes of the account are open")]
    TooMany,
    /// An open write creates a user with this address and other values.
    #[error("a write that creates a user with this e-mail address is open")]
    Conflict,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// The users with this key, also hidden ones, in the order of their ids.
    pub async fn scim_users(&self, account: AccountId, key: ScimKey<'_>) -> Result<Vec<UserRow>, StoreError> {
        let users = match key {
            ScimKey::Id(id) => {
                users!("WHERE account_id = $1 AND id = $2", account.0, id).fetch_all(&self.pool).await
            }
            ScimKey::Ids(ids) => {
                let users = users!("WHERE account_id = $1 AND id = ANY ($2) ORDER BY id", account.0, ids);
                users.fetch_all(&self.pool).await
            }
            ScimKey::ExternalId(external_id) => {
                let users =
                    users!("WHERE account_id = $1 AND external_id = $2 ORDER BY id", account.0, external_id);
                users.fetch_all(&self.pool).await
            }
            ScimKey::Name(name) => {
                let users = users!(
                    "WHERE account_id = $1 AND id = ANY (ARRAY(
                         SELECT id FROM roster.scim_users WHERE account_id = $1 AND lower(email) = lower($2)
                          UNION ALL
                         SELECT id FROM roster.scim_users WHERE account_id = $1 AND lower(user_name) = lower($2)))
                      ORDER BY id",
                    account.0,
                    name
                );
                users.fetch_all(&self.pool).await
            }
        };
        Ok(users?)
    }

    /// How many users SCIM shows, and those from `offset` on, at most `limit`, in one snapshot.
    pub async fn scim_page(
        &self,
        account: AccountId,
        offset: i64,
        limit: i64,
    ) -> Result<(u64, Vec<UserRow>), StoreError> {
        let mut snapshot = self.pool.snapshot().await?;
        let total = sqlx::query_scalar!(
            r#"SELECT count(*) AS "total!" FROM roster.scim_users WHERE account_id = $1 AND NOT is_hidden"#,
            account.0
        )
        .fetch_one(&mut *snapshot)
        .await?;
        // The ids first, for which PostgreSQL reads only an index.
        let rows = users!(
            "WHERE account_id = $1 AND id = ANY (ARRAY(
                 SELECT id FROM roster.scim_users WHERE account_id = $1 AND NOT is_hidden ORDER BY id OFFSET $2 LIMIT $3))
              ORDER BY id",
            account.0,
            offset,
            limit
        )
        .fetch_all(&mut *snapshot)
        .await?;
        snapshot.commit().await?;
        Ok((total.unsigned_abs(), rows))
    }

    /// The users that SCIM shows and that `keep` accepts: how many, and those from `offset` on, at most `limit`. Reads the
    /// whole list, and keeps no more than the result in memory.
    pub async fn scim_matching(
        &self,
        account: AccountId,
        is_active: Option<bool>,
        keep: impl Fn(&UserRow) -> bool,
        offset: u64,
        limit: u64,
    ) -> Result<(u64, Vec<UserRow>), StoreError> {
        let mut users = users!(
            "WHERE account_id = $1 AND NOT is_hidden AND is_active = coalesce($2, is_active) ORDER BY id",
            account.0,
            is_active
        )
        .fetch(&self.pool);
        let (mut total, mut kept) = (0, Vec::new());
        while let Some(user) = users.try_next().await? {
            if !keep(&user) {
                continue;
            }
            if (offset..offset.saturating_add(limit)).contains(&total) {
                kept.push(user);
            }
            total += 1;
        }
        Ok((total, kept))
    }

    /// What decides whether an account can be served.
    pub async fn scim_account(&self, account: AccountId) -> Result<ScimAccount, StoreError> {
        let account = sqlx::query_as!(
            ScimAccount,
            r#"SELECT is_read AS "is_read!", are_roles_read AS "are_roles_read!", has_holder AS "has_holder!",
                      pause_seconds AS "pause_seconds!"
                 FROM roster.scim_account($1)"#,
            account.0
        );
        Ok(account.fetch_one(&self.pool).await?)
    }

    /// Requests a write in the name of a token, or joins the open one that asks for the same.
    pub async fn scim_ask(&self, account: AccountId, token: &str, write: &Write) -> Result<Uuid, AskError> {
        let asked = sqlx::query_scalar!(
            r#"SELECT roster.scim_ask($1, $2, $3, $4, $5) AS "id!""#,
            account.0,
            token,
            write.kind.name(),
            write.record(),
            write.fields.to_json(),
        );
        let asked = asked.fetch_one(&self.pool).await;
        asked.map_err(|error| match error.as_database_error().and_then(DatabaseError::code).as_deref() {
            Some("53400") => AskError::TooMany,
            Some("23505") => AskError::Conflict,
            _ => AskError::Store(error.into()),
        })
    }

    pub async fn scim_outcome(&self, write: Uuid) -> Result<ScimOutcome, StoreError> {
        let outcome = sqlx::query_as!(
            ScimOutcome,
            r#"SELECT outcome, user_id, role_id, status, error, coalesce(held, false) AS "held!", coalesce(sent, false) AS "sent!"
                 FROM roster.write_outcome($1)"#,
            write
        );
        Ok(outcome.fetch_one(&self.pool).await?)
    }

    /// Withdraws a write of a token. False if it is too late, or for a deactivation.
    pub async fn scim_withdraw(&self, write: Uuid, token: &str) -> Result<bool, StoreError> {
        let withdrawn =
            sqlx::query_scalar!(r#"SELECT roster.scim_withdraw($1, $2) AS "withdrawn!""#, write, token);
        Ok(withdrawn.fetch_one(&self.pool).await?)
    }

    /// Records that the client received the result of a write.
    pub async fn scim_answered(&self, write: Uuid, token: &str) -> Result<(), StoreError> {
        sqlx::query!("SELECT FROM roster.scim_answered($1, $2)", write, token).execute(&self.pool).await?;
        Ok(())
    }

    /// The write of a token that made this user active, and whose client did not receive the result.
    pub async fn scim_unanswered(
        &self,
        account: AccountId,
        token: &str,
        user: i64,
    ) -> Result<Option<Uuid>, StoreError> {
        let write = sqlx::query_scalar!("SELECT roster.scim_unanswered($1, $2, $3)", account.0, token, user);
        Ok(write.fetch_one(&self.pool).await?)
    }

    /// Sets what directories store about a user or a role: `changes` has values by column. Returns false if another one has
    /// one of the names.
    pub async fn scim_link_set(
        &self,
        account: AccountId,
        resource: ResourceType,
        record: i64,
        changes: &Json,
    ) -> Result<bool, StoreError> {
        // Of two equal requests at the same time, the second one may meet the unique names of the first one before its row.
        for _ in 0..2 {
            let set = sqlx::query!(
                "SELECT FROM roster.scim_link_set($1, $2, $3, $4)",
                account.0,
                resource.name(),
                record,
                changes
            );
            match set.execute(&self.pool).await.map_err(StoreError::from) {
                Err(error) if error.is_unique_violation() => {}
                set => return set.map(|_| true),
            }
        }
        Ok(false)
    }

    /// The functions and views of SCIM that this database user may not use, or that do not exist.
    pub async fn scim_missing(&self) -> Result<Vec<String>, StoreError> {
        let names: Vec<String> = FUNCTIONS.map(str::to_owned).into();
        let missing = sqlx::query_scalar!(
            r#"SELECT 'roster.' || name AS "name!" FROM unnest($1::text[]) AS name
                WHERE NOT EXISTS (SELECT FROM pg_proc JOIN pg_namespace AS space ON space.oid = pronamespace
                                   WHERE nspname = 'roster' AND proname = name AND has_schema_privilege(space.oid, 'USAGE')
                                     AND has_function_privilege(pg_proc.oid, 'EXECUTE'))
                UNION ALL
               SELECT 'roster.' || name FROM unnest('{scim_groups,scim_users}'::text[]) AS name
                WHERE NOT EXISTS (SELECT FROM pg_class JOIN pg_namespace AS space ON space.oid = relnamespace
                                   WHERE nspname = 'roster' AND relname = name
                                     AND has_schema_privilege(space.oid, 'USAGE')
                                     AND has_table_privilege(pg_class.oid, 'SELECT'))"#,
            &names
        );
        Ok(missing.fetch_all(&self.pool).await?)
    }
}
