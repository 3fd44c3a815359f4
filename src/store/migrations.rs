//! Bringing the schema up to date.
//!
//! sqlx's migrator takes a *session* lock and writes its table into `public`: neither works through a
//! transaction-mode pooler or on a PostgreSQL 15 that denies CREATE there. So it runs inside one transaction, behind a
//! transaction lock, with its table in a schema of our own; and all migrations happen or none.

use sqlx::migrate::{MigrateError, Migrator};

use super::{Store, StoreError};

/// Where it is written which migrations have been applied.
const TABLE: &str = "rosterd_internal.migrations";

/// Any number will do, as long as every rosterd takes the same.
const LOCK: i64 = 0x0072_6f73_7465_7264;

fn migrator() -> Migrator {
    let mut migrator = sqlx::migrate!("./migrations");
    migrator.dangerous_set_table_name(TABLE);
    // An older rosterd runs on a newer schema of its major version: changes are additions only.
    migrator.set_ignore_missing(true).set_locking(false);
    migrator
}

/// How far the schema is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchemaState {
    /// Migrations of this rosterd that the database has.
    pub applied: usize,
    /// Those that it lacks.
    pub pending: usize,
}

impl Store {
    /// Applies what is missing and says how much that was. Two processes at once wait for each other.
    pub async fn migrate(&self) -> Result<usize, StoreError> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query!("SELECT pg_advisory_xact_lock($1) AS locked", LOCK).fetch_one(&mut *transaction).await?;
        // CREATE SCHEMA asks for the right to create one even where it exists: look first.
        let known = sqlx::query!(r#"SELECT to_regnamespace('rosterd_internal') IS NOT NULL AS "known!""#)
            .fetch_one(&mut *transaction)
            .await?
            .known;
        if !known {
            sqlx::query!("CREATE SCHEMA rosterd_internal").execute(&mut *transaction).await?;
            sqlx::query!(
                "COMMENT ON SCHEMA rosterd_internal IS 'rosterd: which migrations have been applied'"
            )
            .execute(&mut *transaction)
            .await?;
        }
        let before = applied(&mut transaction).await?.len();
        migrator().run(&mut *transaction).await?;
        let after = applied(&mut transaction).await?.len();
        transaction.commit().await?;
        Ok(after - before)
    }

    /// Compares the database with this rosterd's migrations, writing nothing.
    ///
    /// # Errors
    /// [`StoreError::Migrate`] when a migration was applied in another wording.
    pub async fn schema_state(&self) -> Result<SchemaState, StoreError> {
        let mut transaction = self.reserved.begin().await?;
        let applied = applied(&mut transaction).await?;
        let migrator = migrator();
        let mut state = SchemaState { applied: 0, pending: 0 };
        for migration in migrator.iter() {
            match applied.iter().find(|(version, _)| *version == migration.version) {
                Some((_, checksum)) if *checksum == *migration.checksum => state.applied += 1,
                Some(_) => return Err(MigrateError::VersionMismatch(migration.version).into()),
                None => state.pending += 1,
            }
        }
        Ok(state)
    }
}

/// Versions and checksums, oldest first; none where there is no table yet.
async fn applied(connection: &mut sqlx::PgConnection) -> Result<Vec<(i64, Vec<u8>)>, StoreError> {
    let known = sqlx::query!(r#"SELECT to_regclass($1) IS NOT NULL AS "known!""#, TABLE)
        .fetch_one(&mut *connection)
        .await?
        .known;
    if !known {
        return Ok(Vec::new());
    }
    // Not checked at compile time: the table is the migrator's and is not there before the first run.
    let rows: Vec<(i64, Vec<u8>)> = sqlx::query_as(
        "SELECT version, checksum FROM rosterd_internal.migrations WHERE success ORDER BY version",
    )
    .fetch_all(connection)
    .await?;
    Ok(rows)
}
