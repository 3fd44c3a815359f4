//! The daemon: a worker for each account, the keeper of the budget, the health listener; and their end.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{App, Exit, Failure, service, wake};
use crate::harvest::Client;
use crate::http;
use crate::settings::Account;
use crate::sync::health::Health;
use crate::sync::polls::Wake;
use crate::sync::retention::{self, Retention};
use crate::sync::schedule;
use crate::sync::worker::{TURNS, Worker};
use crate::telemetry::meters::Metrics;

/// How long registering this process may take.
const REGISTRATION: Duration = Duration::from_mins(1);
/// So many accounts are named in the line that says that the daemon runs.
const MOST_NAMED: usize = 20;

/// How long a database may be away that answered a moment ago.
const PATIENCE: Duration = Duration::from_mins(1);

/// How long another process may listen on our port: the one that this one replaces stops within ten seconds.
const PORT_PATIENCE: Duration = Duration::from_secs(10);

impl App {
    /// [Prepares](Self::prepare); a database that goes away meanwhile is waited for, as one that was not there at first.
    async fn prepare_patiently(&self) -> Result<(), Failure> {
        let give_up = Instant::now() + PATIENCE;
        loop {
            match self.prepare().await {
                Err(failure) if failure.exit == Exit::Unavailable && Instant::now() < give_up => {
                    tracing::warn!(error = %failure, "waiting for the database to answer again");
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                done => return done,
            }
        }
    }

    /// Works until `stop` is cancelled, which it does itself if a task ends on its own. How long the stop may take is for
    /// the caller to say: dropping this is safe.
    ///
    /// # Errors
    /// For settings, a database without its schema, and a task that ended by itself; never for Harvest.
    pub async fn daemon(&self, stop: CancellationToken) -> Result<(), Failure> {
        tokio::select! {
            prepared = self.prepare_patiently() => prepared?,
            () = stop.cancelled() => return Ok(()),
        }
        let accounts = self.settings.require_accounts()?;
        let listener = tokio::select! {
            listener = self.listen() => listener?,
            () = stop.cancelled() => return Ok(()),
        };
        let replica = Self::replica();
        let budgets = tokio::select! {
            budgets = self.budgets(replica.clone(), REGISTRATION) => budgets?,
            () = stop.cancelled() => return Ok(()),
        };
        // All of them before the first works: one that cannot be is no reason to cut the others off.
        let clients: Vec<Client> =
            accounts.iter().map(|account| self.client(account, &budgets)).collect::<Result<_, _>>()?;
        let health = Health::default();
        // Before anything is counted.
        let metrics = Metrics::install(env!("CARGO_PKG_VERSION"), env!("ROSTERD_REVISION"));
        let (mut tasks, mut probes) = (JoinSet::new(), JoinSet::new());
        let mut bells = HashMap::new();
        let turns = Arc::new(Semaphore::new(TURNS));
        let mut sharers: HashMap<String, u32> = HashMap::new();
        for account in accounts {
            *sharers.entry(self.budget_name(account)).or_default() += 1;
        }
        let of = u32::try_from(accounts.len()).unwrap_or(u32::MAX);
        for (nth, (account, client)) in (0..).zip(accounts.iter().zip(clients)) {
            let wake = Arc::<Wake>::default();
            bells.insert(client.account(), wake.clone());
            let worker = Worker {
                store: self.store.clone().reporting_to(client.progress()),
                client,
                replica: replica.id,
                clock: self.clock.clone(),
                rules: self.rules(),
                turns: turns.clone(),
                begins: schedule::begins(nth, of, self.settings.sync.poll_interval.slowest),
                interval: self.interval(sharers[&self.budget_name(account)]),
                lease_ttl: self.settings.lease.ttl,
                stall_limit: self.stall_limit(),
                histories: self.settings.rates.histories,
                health: health.clone(),
                wake,
                standing: budgets.standing(),
            };
            tasks.spawn(worker.run(stop.clone()));
        }
        probes.spawn(service::turning(health.clone()));
        let kept = Retention {
            outbox: self.settings.outbox.retention,
            cycles: self.settings.retention.cycles,
            history: self.settings.retention.history,
        };
        probes.spawn(retention::keep(self.store.clone(), kept));
        let lease_ttl = self.settings.lease.ttl;
        probes.spawn(wake::wake(self.store.clone(), bells, budgets.standing(), lease_ttl)?);
        if let Some(listener) = listener {
            let poll_interval = self.settings.sync.poll_interval.slowest;
            let state = http::State { health, store: self.store.clone(), metrics, poll_interval };
            // Aborted in the end: a probe that is never finished keeps nobody waiting.
            probes.spawn(http::serve(listener, state));
        }
        tracing::info!(
            event = "daemon.started",
            version = env!("CARGO_PKG_VERSION"),
            revision = env!("ROSTERD_REVISION"),
            replica = %replica.id,
            accounts = accounts.len(),
            account_ids = named(accounts),
            poll_interval = %self.settings.sync.poll_interval,
            listen = self.settings.http.listen.map(tracing::field::display),
            database = self.store.target().host(),
            "started"
        );
        service::ready();

        // A task that ends although nobody told it to has crashed: better no daemon than half of one.
        let mut keeper = budgets.standing();
        let crashed = tokio::select! {
            ended = tasks.join_next() => !stop.is_cancelled() || ended.is_some_and(|ended| ended.is_err()),
            Some(_) = probes.join_next() => true,
            // The channel closes when the keeper of the budget ends.
            Err(_) = keeper.wait_for(|_| false) => true,
            () = stop.cancelled() => false,
        };
        service::stopping();
        stop.cancel();
        while tasks.join_next().await.is_some() {}
        budgets.stop().await;
        if crashed { Err(Failure::task_died()) } else { Ok(()) }
    }

    async fn listen(&self) -> Result<Option<TcpListener>, Failure> {
        let Some(address) = self.settings.http.listen else { return Ok(None) };
        let give_up = Instant::now() + PORT_PATIENCE;
        let mut said = false;
        loop {
            let error = match TcpListener::bind(address).await {
                Ok(listener) => return Ok(Some(listener)),
                Err(error) => error,
            };
            let is_taken = error.kind() == ErrorKind::AddrInUse;
            if is_taken && Instant::now() < give_up {
                if !std::mem::replace(&mut said, true) {
                    let seconds = PORT_PATIENCE.as_secs();
                    tracing::warn!(
                        "another process listens on {address} (http.listen); trying again for {seconds} s"
                    );
                }
                tokio::time::sleep(Duration::from_millis(250)).await;
                continue;
            }
            let exit = if is_taken { Exit::Unavailable } else { Exit::Settings };
            let advice = format!(
                "cannot listen on {address} for /livez, /readyz and /metrics ({error}); set http.listen to a free address, or to \"\""
            );
            return Err(Failure::new(exit, advice));
        }
    }
}

/// The accounts' ids for a log line, twenty at most.
fn named(accounts: &[Account]) -> String {
    let ids: Vec<_> = accounts.iter().take(MOST_NAMED).map(|account| account.id.to_string()).collect();
    let more = accounts.len().saturating_sub(ids.len());
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{rest}", ids.join(", "))
}
