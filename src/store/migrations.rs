//! Brings the schema up to date, beside a daemon and readers that go on working.
//!
//! Each migration is one transaction: it is applied as a whole or not at all. A migration waits for a lock for at most
//! `LOCK_WAIT`, because other sessions queue behind a strong lock that is waited for. If it does not get the lock, it
//! rolls back, lets the others through and tries again. Indexes of tables that hold rows are built before the migration's
//! transaction, `CONCURRENTLY`, so that no build keeps a strong lock (see `text`).
//!
//! sqlx's own lock is a *session* lock and its table is in `public`. Neither works through a pooler in transaction mode or
//! on a PostgreSQL 15 that denies CREATE there. So the lock is a transaction's, and the table is in a schema of rosterd's.

mod run;
mod text;

use std::time::Duration;

use sqlx::migrate::{MigrateError, Migration, Migrator};

use self::run::Run;
use super::{Session, Store, StoreError, ownership};

/// Where it is written which migrations have been applied.
const TABLE: &str = "rosterd_internal.migrations";

/// How long a migration may wait for one lock, as a PostgreSQL setting.
const LOCK_WAIT: &str = "500ms";
/// How long all waiting for locks may take together.
const PATIENCE: Duration = Duration::from_secs(30);

fn migrator() -> Migrator {
    prepared(sqlx::migrate!("./migrations"))
}

/// With what is the same of every run.
fn prepared(mut migrator: Migrator) -> Migrator {
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
    /// Applies the pending migrations and returns how many there were. Two processes at once wait for each other.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if a lock could not be had in time. Migrations before that one stay applied.
    pub async fn migrate(&self) -> Result<usize, StoreError> {
        self.migrate_within(PATIENCE).await
    }

    /// As [`migrate`](Self::migrate), with another bound on the time that is spent waiting for locks.
    pub async fn migrate_within(&self, patience: Duration) -> Result<usize, StoreError> {
        let mut run = Run::begin(self, patience).await?;
        let migrator = migrator();
        let pending = pending(&migrator, &mut run.guard).await?;
        if !pending.is_empty() {
            ownership::require(&mut run.guard, pending.len() < migrator.iter().count()).await?;
        }
        for migration in &pending {
            run.apply(migration).await?;
        }
        run.end(!pending.is_empty()).await?;
        Ok(pending.len())
    }

    /// Compares the database with this rosterd's migrations, writing nothing.
    ///
    /// # Errors
    /// [`StoreError::Migrate`] when a migration was applied in another wording.
    pub async fn schema_state(&self) -> Result<SchemaState, StoreError> {
        let mut transaction = self.reserved.begin().await?;
        let migrator = migrator();
        let pending = pending(&migrator, &mut transaction).await?.len();
        Ok(SchemaState { applied: migrator.iter().count() - pending, pending })
    }

    /// Whether the database has all of this rosterd's migrations, asked on the connection for probes.
    pub async fn has_schema(&self) -> Result<bool, StoreError> {
        let mut transaction = self.probe().await?;
        Ok(pending(&migrator(), &mut transaction).await?.is_empty())
    }
}

/// The migrations that the database lacks, oldest first.
async fn pending<'m>(
    migrator: &'m Migrator,
    connection: &mut Session,
) -> Result<Vec<&'m Migration>, StoreError> {
    let applied = applied(connection).await?;
    let mut pending = Vec::new();
    for migration in migrator.iter() {
        match applied.iter().find(|(version, _)| *version == migration.version) {
            Some((_, checksum)) if *checksum == *migration.checksum => {}
            Some(_) => return Err(MigrateError::VersionMismatch(migration.version).into()),
            None => pending.push(migration),
        }
    }
    Ok(pending)
}

/// Versions and checksums, oldest first; none where there is no table yet.
async fn applied(connection: &mut Session) -> Result<Vec<(i64, Vec<u8>)>, StoreError> {
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
