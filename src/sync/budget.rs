//! The keeper: joins each [`Pace`] of this process to its budget in the database.
//!
//! It takes permits where requests wait for them, prolongs them with its heartbeat, gives back what nobody
//! needs, and passes on what Harvest says about silence. While the database does not answer, the paces go
//! on until their trust runs out, `ttl` after the last heartbeat that succeeded, and stand still then.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};
use uuid::Uuid;

use crate::harvest::pace::{Limits, Needs, Pace};
use crate::store::permits::{self, Ask, Beat, Chunk, News, Replica};
use crate::store::{Connections, StoreError};
use crate::telemetry::chain;

/// How soon a process learns that another one of the budget was asked for silence. The requests that it sends until
/// then are the price of not asking the database before each.
const LOOK: Duration = Duration::from_secs(1);

/// How long the farewell may take; the database may be away.
const FAREWELL: Duration = Duration::from_secs(1);

/// This process's part of the shared budgets. Dropping it is a crash: nothing is given back, and what was
/// held frees itself in time.
pub struct Budgets {
    replica: Uuid,
    paces: HashMap<String, Pace>,
    standing: watch::Receiver<Standing>,
    keeper: Option<(CancellationToken, AbortOnDropHandle<()>)>,
}

/// How this process stands in the eyes of the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// When the last heartbeat that succeeded was sent.
    pub beat_at: Option<Instant>,
    /// How often the process was found unknown or dead and registered anew: once at the start. With each
    /// further time it may have lost its leases.
    pub registrations: u64,
}

impl Budgets {
    /// Registers `replica`, silent for `ttl` counting as dead, and keeps a budget for each of `names`.
    pub fn start(
        pool: Connections,
        replica: Replica,
        ttl: Duration,
        limits: Limits,
        names: impl IntoIterator<Item = String>,
    ) -> Self {
        let bell = Arc::new(Notify::new());
        let jitter = jitter(&replica, limits.window);
        let held: Vec<Held> = names
            .into_iter()
            .map(|name| Held {
                name,
                pace: Pace::new(limits, jitter, bell.clone()),
                chunks: Vec::new(),
                yielding: None,
                share: None,
            })
            .collect();
        let paces = held.iter().map(|held| (held.name.clone(), held.pace.clone())).collect();
        let id = replica.id;
        let (sender, standing) = watch::channel(Standing::default());
        let stop = CancellationToken::new();
        let keeper = Keeper {
            pool,
            replica,
            ttl,
            limits,
            held: Mutex::new(held),
            bell,
            standing: sender,
            database: Database { patience: ttl / 3, failing: Mutex::default(), way: Notify::new() },
        };
        let task = AbortOnDropHandle::new(tokio::spawn(keeper.run(stop.clone())));
        Self { replica: id, paces, standing, keeper: Some((stop, task)) }
    }

    /// Budgets of this process alone, for a database that has no table to share them through.
    pub fn local(limits: Limits, names: impl IntoIterator<Item = String>) -> Self {
        let paces = names.into_iter().map(|name| (name, Pace::local(limits))).collect();
        Self { replica: Uuid::new_v4(), paces, standing: watch::channel(Standing::default()).1, keeper: None }
    }

    /// The process.
    pub fn replica(&self) -> Uuid {
        self.replica
    }

    /// The pace of the budget of that name.
    pub fn pace(&self, name: &str) -> Option<Pace> {
        self.paces.get(name).cloned()
    }

    /// Follows the heartbeat. With [`start`](Self::start), the channel closes when the keeper has ended,
    /// which without [`stop`](Self::stop) it never should.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }

    /// Waits for the first heartbeat: before it, this process counts as dead, and what it leased would be taken.
    pub async fn registered(&self) {
        // Fails when the keeper has ended, which `stop` tells of.
        let _ = self.standing.clone().wait_for(|standing| standing.registrations > 0).await;
    }

    /// Grants nothing more, gives everything back and deregisters the process. Requests that are still under
    /// way are counted as given up now.
    pub async fn stop(self) {
        if let Some((stop, task)) = self.keeper {
            stop.cancel();
            if let Err(error) = task.await {
                warn!(%error, "the keeper of the request budget had died");
            }
        }
    }
}

/// Up to a fifteenth of the window, by the replica's random id.
fn jitter(replica: &Replica, window: Duration) -> Duration {
    let random = u32::from(replica.id.as_bytes()[15]);
    window / 15 * random / 256
}

/// What is held of one budget.
struct Held {
    name: String,
    pace: Pace,
    chunks: Vec<Chunk>,
    /// Not used any more, and given back once every request that was sent with it has left the window.
    yielding: Option<Chunk>,
    /// How many chunks are ours while others wait for some.
    share: Option<usize>,
}

struct Keeper {
    pool: Connections,
    replica: Replica,
    ttl: Duration,
    limits: Limits,
    held: Mutex<Vec<Held>>,
    bell: Arc<Notify>,
    standing: watch::Sender<Standing>,
    database: Database,
}

impl Keeper {
    async fn run(mut self, stop: CancellationToken) {
        // Whatever is under way at the stop is dropped: all of it may be left in doubt.
        let work = async { tokio::join!(self.keep_alive(), self.keep()) };
        let _ = stop.run_until_cancelled(Box::pin(work)).await;
        let rest = self.held().iter().map(|held| held.pace.close()).max().unwrap_or_default();
        self.database.patience = self.database.patience.min(FAREWELL);
        let farewell = permits::leave(&self.pool, self.replica.id, rest);
        let _ = self.database.ask(farewell).await;
    }

    /// Beats, whatever else is under way.
    async fn keep_alive(&self) {
        let mut beats = interval(self.ttl / 3);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beats.tick().await;
            self.beat().await;
        }
    }

    async fn keep(&self) {
        // A process that is not registered takes no permits.
        let _ = self.standing.subscribe().wait_for(|standing| standing.registrations > 0).await;
        let mut looks = interval(LOOK.min(self.ttl / 3));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut reviewed = Instant::now();
        loop {
            tokio::select! {
                _ = looks.tick() => {
                    self.look().await;
                    if reviewed.elapsed() >= self.limits.cooldown() {
                        reviewed = Instant::now();
                        self.review().await;
                    }
                }
                () = self.bell.notified() => {}
            }
            self.serve().await;
        }
    }

    /// Never kept while the database is asked.
    fn held(&self) -> MutexGuard<'_, Vec<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the database that this process lives, and the paces what the database knows.
    async fn beat(&self) {
        let asked: Vec<i64> = self
            .held()
            .iter()
            .flat_map(|held| held.chunks.iter().chain(&held.yielding))
            .map(|chunk| chunk.id)
            .collect();
        // Trust counts from before the statement was sent: the database's count begins later.
        let sent = Instant::now();
        let hold = self.limits.hold(self.ttl);
        let beat = permits::beat(&self.pool, &self.replica, self.ttl, hold, &asked);
        let Some(Beat { was_alive, kept }) = self.database.ask_first(beat).await else { return };
        self.database.recovered();
        // A batch that was taken since is not among those that the database was asked about.
        let is_lost = |chunk: &Chunk| asked.contains(&chunk.id) && !kept.contains(&chunk.id);
        // Registered anew: those who may have lost their account by it look first, and send with the next heartbeat.
        let is_back = !was_alive && self.standing.borrow().registrations > 0;
        for Held { pace, chunks, yielding, .. } in &mut *self.held() {
            yielding.take_if(|chunk| is_lost(chunk));
            chunks.retain(|chunk| {
                let lost = is_lost(chunk);
                if lost {
                    pace.lose(chunk.permits);
                }
                !lost
            });
            if !is_back {
                pace.trust_until(sent + self.ttl);
            }
        }
        self.standing.send_modify(|standing| {
            standing.beat_at = Some(sent);
            standing.registrations += u64::from(!was_alive);
        });
    }

    /// Learns of the silence that other processes were asked for, and of those who wait for permits.
    async fn look(&self) {
        let budgets: Vec<String> = self.held().iter().map(|held| held.name.clone()).collect();
        let budgets: Vec<&str> = budgets.iter().map(String::as_str).collect();
        let news = permits::news(&self.pool, self.replica.id, &budgets);
        let Some(news) = self.database.ask(news).await else { return };
        let news: HashMap<&str, &News> = news.iter().map(|news| (&*news.budget, news)).collect();
        let mut back = Vec::new();
        for held in &mut *self.held() {
            let news = news.get(&*held.name);
            if let Some(pause) = news.map(|news| news.pause).filter(|pause| !pause.is_zero()) {
                held.pace.pause_until(Instant::now() + pause);
            }
            let all = self.limits.permits() / self.limits.chunk();
            held.share = news
                .filter(|news| news.sharers > 0)
                .map(|news| usize::try_from(all / (news.sharers + 1)).unwrap_or(usize::MAX).max(1));
            back.extend(held.yielded());
        }
        if !back.is_empty() {
            let _ = self.database.ask(permits::give_back(&self.pool, &back)).await;
        }
    }

    /// Once a window, gives back what nobody needed in it, save one chunk of each budget.
    async fn review(&self) {
        let mut unneeded = Vec::new();
        for Held { pace, chunks, .. } in &mut *self.held() {
            let mut surplus = pace.surplus();
            while chunks.len() > 1
                && let Some(chunk) =
                    chunks.pop_if(|chunk| chunk.permits <= surplus && pace.withdraw(chunk.permits))
            {
                surplus -= chunk.permits;
                unneeded.push(chunk.id);
            }
        }
        if !unneeded.is_empty() {
            let back = permits::give_back(&self.pool, &unneeded);
            let _ = self.database.ask(back).await;
        }
    }

    /// Does what the paces ask for: passes on their pauses, takes permits.
    async fn serve(&self) {
        let (of, hold) = (self.limits.permits(), self.limits.hold(self.ttl));
        let count = self.held().len();
        for nth in 0..count {
            let Some((budget, pace, needs, is_short)) = self.held().get(nth).map(Held::wants) else { break };
            if let Some(until) = needs.pause {
                let pause = until.saturating_duration_since(Instant::now());
                let told = permits::pause(&self.pool, &budget, of, pause);
                if self.database.ask(told).await.is_some() {
                    pace.pause_recorded(until);
                }
            }
            if is_short {
                let permits = self.limits.chunk();
                let ask = Ask { budget: &budget, replica: self.replica.id, permits, of, hold };
                if let Some(Some(chunk)) = self.database.ask(permits::take(&self.pool, ask)).await
                    && let Some(held) = self.held().get_mut(nth)
                {
                    held.chunks.push(chunk);
                    held.pace.add(chunk.permits);
                }
            }
        }
    }
}

impl Held {
    /// What the pace needs, and whether a batch of permits may be taken for it.
    fn wants(&self) -> (String, Pace, Needs, bool) {
        let needs = self.pace.needs();
        let is_short = needs.permits && self.share.is_none_or(|share| self.chunks.len() < share);
        (self.name.clone(), self.pace.clone(), needs, is_short)
    }

    /// Yields what is beyond our share, a chunk at a time; tells the one that can be given back now.
    fn yielded(&mut self) -> Option<i64> {
        if let Some(chunk) = self.yielding.take_if(|_| self.pace.is_within()) {
            return Some(chunk.id);
        }
        if self.yielding.is_none() && self.share.is_some_and(|share| self.chunks.len() > share) {
            self.yielding = self.chunks.pop();
            self.pace.lose(self.yielding.map_or(0, |chunk| chunk.permits));
        }
        None
    }
}

/// Asks the database, with a limit on the time and one log line when it goes away and when it is back.
struct Database {
    patience: Duration,
    /// What the server answered when that was last said: an SQLSTATE, or nothing.
    failing: Mutex<Option<String>>,
    /// Has other statements make way for the heartbeat.
    way: Notify,
}

impl Database {
    /// Asks, and gives up where the heartbeat needs the connection.
    async fn ask<T>(&self, question: impl Future<Output = sqlx::Result<T>>) -> Option<T> {
        tokio::select! {
            answer = timeout(self.patience, question) => self.heard(answer.unwrap_or_else(|_| Err(late()))),
            () = self.way.notified() => self.heard(Err(late())),
        }
    }

    /// Asks before all others: a statement that keeps the connection for half of the time that there is ends then.
    async fn ask_first<T>(&self, question: impl Future<Output = sqlx::Result<T>>) -> Option<T> {
        let make_way = async {
            sleep(self.patience / 2).await;
            self.way.notify_waiters();
            std::future::pending().await
        };
        let answer = timeout(self.patience, async {
            tokio::select! {
                answer = question => answer,
                never = make_way => never,
            }
        });
        self.heard(answer.await.unwrap_or_else(|_| Err(late())))
    }

    fn heard<T>(&self, answer: sqlx::Result<T>) -> Option<T> {
        let error = match answer {
            Ok(answer) => return Some(answer),
            Err(error) => error,
        };
        let answer = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
        let answer = answer.unwrap_or_default().into_owned();
        // After a restart or a fail-over another thing may be wrong than that it was away: that is news.
        let passing = answer.is_empty() || answer.starts_with("57P");
        let mut failing = self.failing();
        if failing.as_ref().is_none_or(|said| !passing && *said != answer) {
            *failing = Some(answer);
            warn!(
                event = "budget.unreachable",
                error = %chain(&StoreError::from(error)),
                "the database does not answer for the request budget: requests stop soon unless it comes back"
            );
        }
        None
    }

    /// The heartbeat says so: a server that is read-only answers mere questions.
    fn recovered(&self) {
        if self.failing().take().is_some() {
            info!(event = "budget.recovered", "the database answers again: requests go on");
        }
    }

    fn failing(&self) -> MutexGuard<'_, Option<String>> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn late() -> sqlx::Error {
    sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())
}
