//! Wiring: settings → database, budget, clients → workers. The only room below the commands that sees
//! [`Settings`]; everybody further down is handed values.

mod clients;
mod daemon;
mod failure;
mod service;
mod wake;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use chrono::TimeDelta;
use secrecy::SecretString;
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::clock::{Clock, SystemClock};
use crate::harvest::pace::Limits;
use crate::harvest::transport::Http;
use crate::roster::Guard;
use crate::settings::{PollInterval, Scope, Settings};
use crate::store::local::LocalPostgres;
use crate::store::permits::Replica;
use crate::store::status::Server;
use crate::store::{ConnectOptions, Store, StoreError};
use crate::sync::budget::Budgets;
use crate::sync::cycle::Rules;
use crate::sync::schedule::Interval;
use crate::telemetry::{chain, count};

pub use failure::{Exit, Failure};

/// A database that is there answers within this.
const SOON: Duration = Duration::from_secs(1);
/// How long closing the connections may take.
const CLOSING: Duration = Duration::from_secs(1);
/// How long the answer of a renewal that is under way may take to be stored when the process ends.
const RENEWALS: Duration = Duration::from_secs(8);

/// Settings, a database, a clock: what every command needs.
pub struct App {
    /// The settings.
    pub settings: Settings,
    /// The database.
    pub store: Store,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The private PostgreSQL, where no other is set.
    pub local: Option<LocalPostgres>,
    /// What requests are sent with, once there are any.
    http: OnceLock<Http>,
    /// What the names of the tokens' budgets are salted with, once the database was asked.
    salt: OnceLock<Uuid>,
    /// OAuth2 tokens that are being asked for: their answers must be stored before we go.
    renewals: TaskTracker,
}

impl App {
    /// Starts the private PostgreSQL where none is configured, and waits for the database to answer, but no longer
    /// than `patience`.
    pub async fn open(settings: Settings, patience: Duration) -> Result<Self, Failure> {
        for warning in &settings.warnings {
            tracing::warn!("{warning}");
        }
        let (url, local): (SecretString, _) = if let Some(url) = settings.database.url.clone() {
            (url, None)
        } else {
            let local = LocalPostgres::start(&settings.database.data_dir).await?;
            for note in local.notes() {
                tracing::info!("{note}");
            }
            (local.url().clone(), Some(local))
        };
        let options = ConnectOptions {
            max_connections: settings.database.max_connections,
            prepared_statements: settings.database.prepared_statements,
            statement_timeout: settings.database.statement_timeout,
        };
        let store = Store::new(&url, &options)?;
        let (clock, renewals) = (Arc::new(SystemClock), TaskTracker::new());
        let (http, salt) = (OnceLock::new(), OnceLock::new());
        let app = Self { settings, store, clock, local, http, salt, renewals };
        if let Err(failure) = app.wait_for_database(patience).await {
            app.close().await;
            return Err(failure);
        }
        Ok(app)
    }

    async fn wait_for_database(&self, patience: Duration) -> Result<(), Failure> {
        let give_up = Instant::now() + patience;
        let mut said = false;
        let mut say = |why: Option<&StoreError>| {
            if !std::mem::replace(&mut said, true) {
                let (error, seconds) = (why.map(|why| chain(why)), patience.as_secs());
                tracing::warn!(error, "waiting for the database, for {seconds} s at the most");
            }
        };
        loop {
            // An attempt may take long, and then asks the pool, which tries again for a while: say sooner what is going on.
            let mut knocked = std::pin::pin!(self.store.connect());
            let answered = if let Ok(answered) = timeout(SOON, &mut knocked).await {
                answered
            } else {
                say(None);
                knocked.await
            };
            match answered {
                Ok(()) => return Ok(()),
                Err(error) if error.is_unavailable() && Instant::now() < give_up => {
                    say(Some(&error));
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Makes sure that the database can be written, brings the schema up to date (or insists that it is), looks whether history was rewound, and refuses to go on
    /// where pay is in a mirror that must not hold any.
    pub async fn prepare(&self) -> Result<(), Failure> {
        self.store.require_writable().await?;
        if self.settings.database.migrate {
            let applied = self.store.migrate().await?;
            if applied > 0 {
                tracing::info!(
                    "the database's schema is up to date: {} applied",
                    count(applied, "migration")
                );
            }
        } else {
            let pending = self.store.schema_state().await?.pending;
            if pending > 0 {
                return Err(Failure::new(
                    Exit::Settings,
                    format!(
                        "the database lacks {} and database.migrate is false; run `rosterd migrate` first",
                        count(pending, "migration")
                    ),
                ));
            }
        }
        self.store.follow_history().await?;
        self.refuse_pay().await
    }

    async fn require_write_access(&self) -> Result<(), Failure> {
        self.store.require_writable().await?;
        self.require_privileges(&self.store.server().await?)
    }

    /// Makes sure that the database user may write each table of the mirror that is there.
    ///
    /// # Errors
    /// Names the first table that this user may not write.
    pub fn require_privileges(&self, server: &Server) -> Result<(), Failure> {
        let Some(table) = &server.missing_privilege else { return Ok(()) };
        let target = self.store.target();
        let advice = format!(
            "the database user may not write {table}; connect as the owner of the schemas, or let that owner run GRANT \
             SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA roster TO {}\n  database: {target}",
            target.user()
        );
        Err(Failure::new(Exit::Settings, advice))
    }

    /// Pay that is there against the settings.
    ///
    /// # Errors
    /// Where there is some.
    pub async fn refuse_pay(&self) -> Result<(), Failure> {
        if self.settings.rates.mirror || !self.store.holds_pay().await? {
            return Ok(());
        }
        let advice = "rates.mirror is false but the database holds pay already; erase it with `rosterd forget pay`, or set \
                      it to true";
        Err(Failure::new(Exit::Settings, advice))
    }

    /// This process, as the others see it.
    pub fn replica() -> Replica {
        let host = std::env::var("HOSTNAME").ok().filter(|host| !host.is_empty());
        let host = host
            .or_else(|| std::fs::read_to_string("/etc/hostname").ok())
            .map_or_else(|| "unknown-host".to_owned(), |host| host.trim().to_owned());
        Replica { id: Uuid::new_v4(), name: format!("{host}:{}", std::process::id()) }
    }

    /// This process's part of the budgets that all processes behind the database share. Returns once the process is
    /// registered: before that it counts as dead, and what it leased would be taken.
    ///
    /// # Errors
    /// If the database cannot be written by this user, at once; otherwise if that cannot be done within `patience`.
    pub async fn budgets(&self, replica: Replica, patience: Duration) -> Result<Budgets, Failure> {
        // Registering would try again and again.
        if let Err(failure) = self.require_write_access().await
            && failure.exit == Exit::Settings
        {
            return Err(failure);
        }
        if self.settings.rate_limit.scope == Scope::Token {
            let _ = self.salt.set(self.store.budget_salt().await?);
        }
        let names = self.settings.accounts().iter().map(|account| self.budget_name(account));
        let ttl = self.settings.lease.ttl;
        let budgets = Budgets::start(self.store.reserved().clone(), replica, ttl, self.limits(), names);
        if timeout(patience, budgets.registered()).await.is_ok() {
            return Ok(budgets);
        }
        budgets.stop().await;
        let advice = "cannot register this process in roster.replicas in time, which the shared budget of requests needs; \
                      run `rosterd check`";
        Err(Failure::new(Exit::Unavailable, advice))
    }

    /// The budgets of a process that cannot register in the database: `rate_limit.reserve` and no more, since processes
    /// that are registered may use all the rest. One such process at a time keeps to what Harvest allows; each further one
    /// sends as much again.
    ///
    /// # Errors
    /// If the reserve is 0.
    pub fn reserved_budgets(&self) -> Result<Budgets, Failure> {
        let limits = self.limits();
        if limits.reserve == 0 {
            let advice = "this process cannot register in roster.replicas and may then send rate_limit.reserve requests, \
                          which is 0; set rate_limit.reserve to 1 or more, or let this process register: run `rosterd \
                          migrate` as a database user who may write";
            return Err(Failure::new(Exit::Settings, advice));
        }
        let limits = Limits { requests: limits.reserve, reserve: 0, ..limits };
        Ok(Budgets::local(limits, self.settings.accounts().iter().map(|account| self.budget_name(account))))
    }

    fn limits(&self) -> Limits {
        let settings = &self.settings;
        Limits {
            requests: settings.rate_limit.requests,
            window: settings.rate_limit.window,
            reserve: settings.rate_limit.reserve,
            grace: settings.harvest.request_timeout,
        }
    }

    /// How long after its first 404 a young record's second one counts.
    pub fn again_after(&self) -> TimeDelta {
        delta(self.settings.sync.poll_interval.slowest)
    }

    /// How long a cycle may go without progress. Each statement and each request ends before.
    fn stall_limit(&self) -> Duration {
        (self.settings.database.statement_timeout + self.settings.harvest.request_timeout) * 3
    }

    /// How often an account is polled that is one of so many with the same budget of requests.
    fn interval(&self, sharers: u32) -> Interval {
        let Settings { sync, rate_limit, .. } = &self.settings;
        let PollInterval { quickest, slowest } = sync.poll_interval;
        Interval::within(quickest, slowest, rate_limit.requests, rate_limit.window, sharers)
    }

    /// The rules of reading.
    pub fn rules(&self) -> Rules {
        Rules {
            skew_buffer: delta(self.settings.sync.skew_buffer),
            full_interval: delta(self.settings.sync.full_interval),
            count_probe: self.settings.sync.count_probe,
            guard: Guard {
                fraction: self.settings.sync.deletion_guard.fraction,
                at_least: self.settings.sync.deletion_guard.at_least,
            },
            alone: self.settings.accounts().len() == 1 || self.settings.rate_limit.scope == Scope::Token,
            unshared: false,
        }
    }

    /// Closes the connections and, where nobody else uses it, stops the private PostgreSQL.
    pub async fn close(self) {
        self.renewals.close();
        if timeout(RENEWALS, self.renewals.wait()).await.is_err() {
            tracing::warn!(
                "the OAuth2 tokens that Harvest gave last could not be stored: they may have to be asked for anew"
            );
        }
        // Not for longer than a statement takes that nobody waits for any more: it may be behind somebody's lock.
        let _ = timeout(CLOSING, self.store.close()).await;
        if let Some(local) = self.local
            && let Err(error) = local.stop().await
        {
            tracing::warn!(error = %chain(&error), "could not stop the private PostgreSQL");
        }
    }
}

fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}
