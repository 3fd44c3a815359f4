//! The daemon: wires its parts, spawns its tasks, supervises them until the end, and drains them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::context::App;
use super::failure::{Exit, Failure};
use super::webhooks::WebhookTasks;
use super::{REVISION, VERSION, port, systemd};
use crate::daemon::cycle_runner::{CycleRunner, MAX_FULL_READS};
use crate::daemon::health::Health;
use crate::daemon::limiter::LimiterTask;
use crate::daemon::notifications::Signals;
use crate::daemon::ping::{self, PingClient};
use crate::daemon::retention::{self, RetentionLimits};
use crate::daemon::worker::Worker;
use crate::daemon::{notifications, schedule, timeline};
use crate::harvest::Client;
use crate::http;
use crate::http::scim::ScimServer;
use crate::settings::Account;
use crate::telemetry::instruments::Metrics;

/// Limit of the registration in `roster.replicas`.
const REGISTRATION_TIMEOUT: Duration = Duration::from_mins(1);
/// How many account ids the log line `daemon.started` contains.
const MAX_LOGGED_ACCOUNTS: usize = 20;

/// The parts of the daemon. All are valid before the first task starts, so that a part that fails interrupts no work.
struct Parts<'a> {
    accounts: &'a [Account],
    clients: Vec<Client>,
    webhooks: WebhookTasks,
    limiter: LimiterTask,
    listener: Option<TcpListener>,
    scim: Option<ScimServer>,
    ping: Option<PingClient>,
}

struct Tasks {
    limiter: LimiterTask,
    /// Workers, dispatchers and notifiers.
    workers: JoinSet<()>,
    /// These never end, and are aborted when the daemon stops.
    services: JoinSet<()>,
}

impl App {
    /// Runs the daemon until `stop` is cancelled. If a task ends unexpectedly, cancels `stop` itself. The caller limits
    /// the time to stop: dropping this future is safe.
    ///
    /// # Errors
    /// For invalid settings, a database without its schema, and a task that ended unexpectedly. Never for Harvest.
    pub async fn daemon(&self, stop: CancellationToken) -> Result<(), Failure> {
        let Some(parts) = stop.run_until_cancelled(Box::pin(self.wire())).await else { return Ok(()) };
        let parts = parts?;
        let (accounts, replica) = (parts.accounts, parts.limiter.replica());
        let mut tasks = self.spawn(parts, &stop)?;
        tracing::info!(
            event = "daemon.started",
            version = VERSION,
            revision = REVISION,
            %replica,
            accounts = accounts.len(),
            account_ids = account_ids(accounts),
            poll_interval = %self.settings.sync.poll_interval,
            listen = self.settings.http.listen.map(tracing::field::display),
            database = self.store.target().host(),
            "started"
        );
        systemd::ready();
        let has_failed = tasks.supervise(&stop).await;
        systemd::stopping();
        tasks.drain(&stop).await;
        if has_failed { Err(Failure::task_died()) } else { Ok(()) }
    }

    async fn wire(&self) -> Result<Parts<'_>, Failure> {
        self.prepare_with_retries().await?;
        let accounts = self.settings.require_accounts()?;
        let listener = match self.settings.http.listen {
            Some(address) => Some(port::bind(address, "/livez, /readyz and /metrics", "http.listen").await?),
            None => None,
        };
        let scim = self.scim_in_daemon().await?;
        let limiter = self.budgets(Self::replica(), REGISTRATION_TIMEOUT).await?;
        let clients =
            accounts.iter().map(|account| self.client(account, &limiter)).collect::<Result<_, _>>()?;
        let webhooks = self.webhook_tasks(&limiter).await?;
        let ping = self.settings.monitoring.ping_url.as_ref().map(PingClient::new).transpose();
        let ping = ping.map_err(|error| Failure::new(Exit::Settings, error))?;
        Ok(Parts { accounts, clients, webhooks, limiter, listener, scim, ping })
    }

    fn spawn(&self, parts: Parts<'_>, stop: &CancellationToken) -> Result<Tasks, Failure> {
        let Parts { accounts, clients, webhooks, limiter, listener, scim, ping } = parts;
        // Before the first task records a metric.
        let metrics = Metrics::install(VERSION, REVISION);
        let (health, mut workers, mut wakes) = (Health::default(), JoinSet::new(), HashMap::new());
        for worker in self.workers(accounts, clients, &limiter, &health) {
            let signals = Signals { worker: worker.wake.clone(), writes: worker.write_wake() };
            wakes.insert(worker.runner.account(), signals);
            workers.spawn(worker.run(stop.clone()));
        }
        let readers = webhooks.wakes();
        for dispatcher in webhooks.dispatchers {
            workers.spawn(dispatcher.run(stop.clone()));
        }
        for notifier in webhooks.notifiers {
            workers.spawn(notifier.run(stop.clone()));
        }
        let mut services = JoinSet::new();
        if let Some(metrics) = metrics.clone() {
            services.spawn(metrics.sum_samples());
        }
        services.spawn(systemd::notify_watchdog(health.clone()));
        services.spawn(timeline::watch(self.store.clone(), limiter.replica(), limiter.heartbeats()));
        services.spawn(retention::run(self.store.clone(), self.retention_limits()));
        if let Some(client) = ping {
            let (store, health, limits) = (self.store.clone(), health.clone(), self.concern_limits());
            services.spawn(ping::run(client, store, health, limits, ping::INTERVAL));
        }
        let lease_ttl = self.settings.lease.ttl;
        let notifications =
            notifications::run(self.store.clone(), wakes, readers, limiter.heartbeats(), lease_ttl);
        services.spawn(notifications.map_err(|error| Failure::new(Exit::Internal, error))?);
        if let Some(scim) = scim {
            services.spawn(scim.run().map_err(|error| Failure::new(Exit::Internal, error))?);
        }
        if let Some(listener) = listener {
            let (limits, page) = (self.concern_limits(), self.settings.http.page);
            let state = http::State { health, store: self.store.clone(), metrics, limits, page };
            services.spawn(http::serve(listener, state));
        }
        Ok(Tasks { limiter, workers, services })
    }

    fn workers(
        &self,
        accounts: &[Account],
        clients: Vec<Client>,
        limiter: &LimiterTask,
        health: &Health,
    ) -> Vec<Worker> {
        let slowest = self.settings.sync.poll_interval.slowest;
        let full_reads = Arc::new(Semaphore::new(MAX_FULL_READS));
        let mut sharers: HashMap<String, u32> = HashMap::new();
        for account in accounts {
            *sharers.entry(self.budget_name(account)).or_default() += 1;
        }
        let count = u32::try_from(accounts.len()).unwrap_or(u32::MAX);
        let worker = |(index, (account, client)): (u32, (&Account, Client))| Worker {
            writes: self.write_sender(&client, Arc::default()),
            replica: limiter.replica(),
            interval: self.interval(sharers[&self.budget_name(account)]),
            start_delay: schedule::start_delay(index, count, slowest),
            lease_ttl: self.settings.lease.ttl,
            wake: Arc::default(),
            runner: CycleRunner {
                store: self.store.clone().reporting_to(client.progress()),
                client,
                clock: self.clock.clone(),
                rules: self.rules(),
                poll_interval: slowest,
                full_reads: full_reads.clone(),
                stall_limit: self.stall_limit(),
                with_rates: self.settings.rates.histories,
                health: health.clone(),
                heartbeats: limiter.heartbeats(),
            },
        };
        (0..).zip(accounts.iter().zip(clients)).map(worker).collect()
    }

    fn retention_limits(&self) -> RetentionLimits {
        RetentionLimits {
            outbox: self.settings.outbox.retention,
            cycles: self.settings.retention.cycles,
            history: self.settings.retention.history,
            writes: self.settings.retention.writes,
        }
    }
}

impl Tasks {
    /// Waits until `stop` is cancelled (false), or until a task ends unexpectedly (true).
    async fn supervise(&mut self, stop: &CancellationToken) -> bool {
        let mut heartbeats = self.limiter.heartbeats();
        tokio::select! {
            ended = self.workers.join_next() => !stop.is_cancelled() || ended.is_some_and(|ended| ended.is_err()),
            Some(_) = self.services.join_next() => true,
            // The channel closes when the limiter task ends.
            Err(_) = heartbeats.wait_for(|_| false) => true,
            () = stop.cancelled() => false,
        }
    }

    /// Waits for the workers, dispatchers and notifiers, then returns the permits.
    async fn drain(mut self, stop: &CancellationToken) {
        stop.cancel();
        while self.workers.join_next().await.is_some() {}
        self.limiter.stop().await;
    }
}

/// The ids of the first [`MAX_LOGGED_ACCOUNTS`] accounts.
fn account_ids(accounts: &[Account]) -> String {
    let ids: Vec<_> =
        accounts.iter().take(MAX_LOGGED_ACCOUNTS).map(|account| account.id.to_string()).collect();
    let more = accounts.len().saturating_sub(ids.len());
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{rest}", ids.join(", "))
}
