//! Prepares the database: schema, privileges and restored backups.

use std::time::Duration;

use super::context::App;
use super::failure::{Exit, Failure};
use super::wait;
use crate::store::StoreError;
use crate::store::status::ServerFacts;
use crate::telemetry::count;

/// How long the daemon waits for a database that becomes unavailable during the preparation.
const OUTAGE_LIMIT: Duration = Duration::from_mins(1);

impl App {
    /// [Prepares](Self::prepare) the database. If it becomes unavailable, starts again.
    pub(super) async fn prepare_with_retries(&self) -> Result<(), Failure> {
        let is_temporary = |failure: &Failure| failure.exit == Exit::Unavailable;
        // A migration may take long: the log reports failures only.
        wait::for_database(OUTAGE_LIMIT, OUTAGE_LIMIT, is_temporary, async || self.prepare().await).await
    }

    /// Migrates the schema, or fails if migrations are pending and `database.migrate` is false. Begins a new stream if
    /// the database was restored to an earlier state.
    ///
    /// # Errors
    /// Also if the database is read-only, or contains pay data although `rates.mirror` is false.
    pub(crate) async fn prepare(&self) -> Result<(), Failure> {
        self.store.require_suitable().await?;
        if self.settings.database.migrate {
            let applied = self.store.migrate().await?;
            if applied > 0 {
                tracing::info!("the database schema is current: applied {}", count(applied, "migration"));
            }
        } else {
            let pending = self.store.schema_state().await?.pending;
            if pending > 0 {
                return Err(Failure::new(
                    Exit::Settings,
                    format!(
                        "the database needs {} and database.migrate is false; run `rosterd migrate` first",
                        count(pending, "migration")
                    ),
                ));
            }
        }
        match self.store.check_timeline().await {
            // Checked again before a lease is acquired.
            Err(StoreError::Undecided) => {}
            checked => checked?,
        }
        self.refuse_pay().await
    }

    pub(super) async fn require_write_access(&self) -> Result<(), Failure> {
        self.store.require_suitable().await?;
        self.require_privileges(&self.store.server().await?)
    }

    /// # Errors
    /// Names the first table of the mirror that the database user may not write.
    pub(crate) fn require_privileges(&self, server: &ServerFacts) -> Result<(), Failure> {
        let Some(table) = &server.missing_privilege else { return Ok(()) };
        let target = self.store.target();
        let advice = format!(
            "the database user may not write {table}; connect as the owner of the schemas, or let the owner run GRANT \
             SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA roster TO {}\n  database: {target}",
            target.user()
        );
        Err(Failure::new(Exit::Settings, advice))
    }

    /// # Errors
    /// If the database contains pay data although `rates.mirror` is false.
    pub(crate) async fn refuse_pay(&self) -> Result<(), Failure> {
        if self.settings.rates.mirror || !self.store.has_pay_data().await? {
            return Ok(());
        }
        let advice = "rates.mirror is false but the database contains pay data; erase it with `rosterd forget pay`, or set \
                      rates.mirror to true";
        Err(Failure::new(Exit::Settings, advice))
    }
}
