//! Applies migrations while a daemon and readers are running.
//!
//! Each migration is one transaction: it is applied completely or not at all. A migration waits at most
//! `run::LOCK_WAIT` for a lock, because other sessions queue behind a strong lock that is waited for. If it
//! does not get the lock, it rolls back, lets the others go first and tries again. Indexes of tables that hold rows are
//! built before the migration's transaction, `CONCURRENTLY`, so that no build keeps a strong lock (see `statements`).
//!
//! sqlx's own lock is a *session* lock and its table is in `public`. Neither works through a pooler in transaction mode
//! or on a PostgreSQL 15 that denies CREATE there. So rosterd uses a transaction's lock and a table in its own schema.

mod migrator;
mod run;
mod statements;

use std::time::Duration;

use self::migrator::{migrator, pending};
use self::run::Run;
use super::database::Store;
use super::error::StoreError;
use super::ownership;

/// The longest wait for locks in one run of the migrations.
const LOCK_WAIT_OF_A_RUN: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchemaState {
    pub applied: usize,
    pub pending: usize,
}

impl Store {
    /// Applies the pending migrations and returns how many there were. Only one process at a time applies migrations.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if a lock was not available in time. The migrations before that one stay applied.
    pub async fn migrate(&self) -> Result<usize, StoreError> {
        self.migrate_within(LOCK_WAIT_OF_A_RUN).await
    }

    /// As [`migrate`](Self::migrate), with another limit for the time that is spent waiting for locks.
    pub async fn migrate_within(&self, lock_wait: Duration) -> Result<usize, StoreError> {
        let mut run = Run::begin(self, lock_wait).await?;
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

    /// Compares the database with this rosterd's migrations. Writes nothing.
    ///
    /// # Errors
    /// [`StoreError::Migrate`] if an applied migration had another text.
    pub async fn schema_state(&self) -> Result<SchemaState, StoreError> {
        let mut transaction = self.reserved.begin().await?;
        let migrator = migrator();
        let pending = pending(&migrator, &mut transaction).await?.len();
        Ok(SchemaState { applied: migrator.iter().count() - pending, pending })
    }

    /// Whether the database has all of this rosterd's migrations. Uses the connection for probes.
    pub(crate) async fn has_schema(&self) -> Result<bool, StoreError> {
        let mut transaction = self.probe_snapshot().await?;
        Ok(pending(&migrator(), &mut transaction).await?.is_empty())
    }
}
