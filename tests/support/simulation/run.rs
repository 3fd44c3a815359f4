//! Runs a plan and checks the reference model after each step: the outbox replays to the mirror, and no event reports what
//! did not happen, regardless of where rosterd was killed, disconnected or superseded.

use std::collections::HashSet;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use harvest_sim::{Company, Fault, Options, Sim};
use rosterd::clock::Clock;
use rosterd::daemon::schedule;
use rosterd::harvest::Client;
use rosterd::roster::DeletionGuard;
use rosterd::store::{Fence, Store, StoreError};
use rosterd::sync::cycle::{Cycle, CycleMemory, SyncRules};
use rosterd::sync::error::CycleError;
use rosterd::sync::mirror::PostgresMirror;
use rosterd::sync::report::{CycleMode, CycleReport};
use tokio_util::sync::CancellationToken;

use super::plan::{At, Edit, Failure, Plan, Step};
use crate::database::{TestDatabase, store};
use crate::mirror::Mirror;
use crate::statement_proxy::{Catch, StatementProxy};
use crate::world::{client_with, take_over};

/// The longest time until a change appears in Harvest's lists.
const LATEST: TimeDelta = TimeDelta::seconds(48);

/// Counts of one run or several.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub cycles: u64,
    pub killed: u64,
    pub cut: u64,
    pub superseded: u64,
    pub fenced: u64,
    pub events: u64,
    pub requests: u64,
}

impl Tally {
    pub fn add(&mut self, other: Self) {
        self.cycles += other.cycles;
        self.killed += other.killed;
        self.cut += other.cut;
        self.superseded += other.superseded;
        self.fenced += other.fenced;
        self.events += other.events;
        self.requests += other.requests;
    }
}

/// A clock that only [`Self::shift`] advances.
struct ManualClock(AtomicI64);

impl ManualClock {
    fn shift(&self, by: TimeDelta) {
        self.0.fetch_add(by.num_milliseconds(), Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.0.load(Ordering::Relaxed)).unwrap()
    }
}

pub struct Run {
    mirror: Mirror,
    url: String,
    proxy: StatementProxy,
    clock: Arc<ManualClock>,
    /// Shared by all simulated processes, since it has no state that affects them.
    client: Arc<Client>,
    fence: Fence,
    memory: CycleMemory,
    full_reads: bool,
    /// The id of an assignment that is never deleted: only a fault makes the list empty.
    lasting: i64,
    /// The last event before this run.
    before: i64,
    pub tally: Tally,
}

impl Deref for Run {
    type Target = Mirror;

    fn deref(&self) -> &Mirror {
        &self.mirror
    }
}

impl Run {
    /// No other run uses `account` in this database.
    pub async fn begin(plan: &Plan, full_reads: bool, account: i64, database: &TestDatabase) -> Self {
        let company = Company::seeded(1, plan.users, plan.assignments).with_account_id(account);
        let options = Options { limit: None, paging: plan.paging, max_per_page: 100, ..Options::default() };
        let sim = Sim::start(company, options).await.unwrap();
        sim.freeze_clock();
        let clock = Arc::new(ManualClock(sim.now().datetime().timestamp_millis().into()));
        let project = sim.new_project("Lasting", None);
        let lasting = sim.assign(sim.token_owner(), project).0;
        let proxy = StatementProxy::to(database.url()).await;
        let store = store(proxy.url());
        let fence = take_over(&store, &sim).await;
        let client = Arc::new(client_with(&sim, plan.per_page, true, clock.clone()));
        let mirror = Mirror { sim, store };
        let before = mirror.events_since(0).await.len().try_into().unwrap();
        let (memory, tally, url) = (CycleMemory::default(), Tally::default(), database.url().to_owned());
        Self { mirror, url, proxy, clock, client, fence, memory, full_reads, lasting, before, tally }
    }

    pub async fn execute(&mut self, Plan { first, steps, .. }: &Plan) {
        self.cycle(first).await;
        for step in steps {
            match step {
                Step::Edit(edit) => self.act(edit),
                Step::Pass { seconds } => self.pass(TimeDelta::seconds(*seconds)),
                Step::ClockJumps { ours: true, seconds } => self.clock.shift(TimeDelta::seconds(*seconds)),
                Step::ClockJumps { ours: false, seconds } => {
                    self.sim.shift_clock(TimeDelta::seconds(*seconds));
                }
                Step::Cycle(failure) => {
                    self.cycle(failure).await;
                    self.sim.clear_faults();
                    self.expect_consistent().await;
                }
            }
        }
        self.expect_convergence().await;
    }

    /// After two cycles without a failure the mirror equals Harvest, and one more cycle writes nothing.
    async fn expect_convergence(&mut self) {
        self.sim.promote(self.sim.token_owner(), "administrator");
        if self.full_reads {
            self.sim.show_pending_changes();
            // Makes a full read due even if the clock of rosterd had been set back.
            self.pass(TimeDelta::days(2));
            self.cycle(&Failure::None).await;
        } else {
            self.pass(LATEST);
        }
        self.expect_successful_cycle().await;
        self.expect_mirror_equals_source().await;
        self.expect_consistent().await;
        let before = self.physical().await;
        self.expect_successful_cycle().await;
        let after = self.physical().await;
        let removed: Vec<_> = before.iter().filter(|row| after.binary_search(row).is_err()).collect();
        let added: Vec<_> = after.iter().filter(|row| before.binary_search(row).is_err()).collect();
        assert!(
            after == before,
            "a cycle without a change should write nothing: {removed:?} became {added:?}"
        );
        self.tally.events = self.events_since(self.before).await.len().try_into().unwrap();
        self.tally.requests = self.sim.requests().len().try_into().unwrap();
    }

    /// Closes the ports, which ten thousand runs would use up.
    pub async fn end(self) {
        let Self { mirror, proxy, client, .. } = self;
        proxy.close();
        drop(client);
        mirror.sim.stop().await;
    }

    async fn expect_successful_cycle(&mut self) {
        let report = self.cycle(&Failure::None).await.unwrap();
        report.outcome.unwrap();
    }

    async fn cycle(&mut self, failure: &Failure) -> Option<CycleReport> {
        self.tally.cycles += 1;
        match failure {
            Failure::None => {}
            Failure::Killed(at) => {
                let Err(held) = self.run_until(self.catch(at)).await else { return None };
                self.tally.killed += 1;
                self.proxy.cut();
                drop(held);
                return self.restart().await;
            }
            Failure::Cut(at) => {
                let catch = self.catch(at);
                let cut = tokio::spawn(async move {
                    catch.caught_if_ever().await.map(crate::statement_proxy::Held::cut)
                });
                let report = self.run().await;
                self.tally.cut += u64::from(cut.is_finished());
                cut.abort();
                self.settle().await;
                return Some(report);
            }
            Failure::Superseded { at, edits } => return self.superseded(at, edits).await,
            Failure::HarvestFails { how, path, skip, times } => {
                self.sim.inject(how.fault(&self.sim).on(*path).skip_first(*skip).times(*times));
            }
            Failure::EditsBetweenRequests { skip, edits } => {
                let (sim, edits, lasting) = (self.sim.clone(), edits.clone(), self.lasting);
                let act = move || edits.iter().for_each(|edit| act(&sim, edit, lasting));
                self.sim.inject(Fault::run_before_response(act).skip_first(*skip));
            }
            Failure::Restarted => return self.restart().await,
        }
        Some(self.run().await)
    }

    /// Suspends a process while another takes its account over and reads. When the first process continues, it writes
    /// nothing or the fence refuses its transaction.
    async fn superseded(&mut self, at: &At, edits: &[Edit]) -> Option<CycleReport> {
        let catch = self.catch(at);
        let (rival, sim, lasting) = (store(&self.url), self.sim.clone(), self.lasting);
        let (client, clock, rules) = (self.client.clone(), self.clock.clone(), self.rules());
        let edits = edits.to_vec();
        // On another task: the first process waits for it only while its statement is held.
        let takeover = tokio::spawn(async move {
            let held = catch.caught_if_ever().await?;
            for edit in edits {
                act(&sim, &edit, lasting);
            }
            let fence = take_over(&rival, &sim).await;
            cycle(&rival, &client, &clock, fence, rules, &mut CycleMemory::default()).await;
            let last = head(&rival).await;
            held.go_on();
            Some(last)
        });
        let report = self.run().await;
        // If no statement was held, the task would wait for ever.
        if !takeover.is_finished() {
            takeover.abort();
        }
        if let Ok(Some(last)) = takeover.await {
            self.tally.superseded += 1;
            self.tally.fenced +=
                u64::from(matches!(report.outcome, Err(CycleError::Store(StoreError::Fenced(_)))));
            assert_eq!(head(&self.store).await, last, "a superseded process should emit no event");
        }
        self.restart().await
    }

    /// Runs a cycle to its end or to the held statement.
    async fn run_until(&mut self, catch: Catch) -> Result<CycleReport, crate::statement_proxy::Held> {
        tokio::select! {
            biased;
            Some(held) = catch.caught_if_ever() => Err(held),
            report = self.run() => Ok(report),
        }
    }

    async fn run(&mut self) -> CycleReport {
        let rules = self.rules();
        cycle(&self.mirror.store, &self.client, &self.clock, self.fence, rules, &mut self.memory).await
    }

    fn rules(&self) -> SyncRules {
        SyncRules {
            with_roles: false,
            skew_buffer: TimeDelta::seconds(60),
            full_interval: if self.full_reads { TimeDelta::hours(1) } else { TimeDelta::days(1000) },
            count_probe: self.full_reads,
            guard: DeletionGuard { fraction: 1.0, at_least: 5 },
            alone: true,
        }
    }

    /// Continues as another process, without this one's memory.
    async fn restart(&mut self) -> Option<CycleReport> {
        self.mirror.store = store(self.proxy.url());
        self.settle().await;
        self.memory = CycleMemory::default();
        self.fence = take_over(&self.mirror.store, &self.mirror.sim).await;
        None
    }

    fn catch(&self, at: &At) -> Catch {
        self.proxy.catch(at.when, at.nth, at.text)
    }

    /// Waits until the server has finished all statements.
    async fn settle(&self) {
        self.until(
            "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()
                                   AND state <> 'idle' AND pid <> pg_backend_pid())",
        )
        .await;
    }

    fn act(&self, edit: &Edit) {
        act(&self.sim, edit, self.lasting);
    }

    fn pass(&self, time: TimeDelta) {
        self.sim.shift_clock(time);
        self.clock.shift(time);
    }

    /// The outbox replays to the mirror, and each record with a `deleted` event is deleted at Harvest.
    async fn expect_consistent(&self) {
        self.expect_outbox_replays_to_the_mirror().await;
        let existing: HashSet<String> =
            (self.sim.user_ids().iter().map(|id| format!("user.deleted {}", id.0)))
                .chain(self.sim.assignment_ids().iter().map(|id| format!("user_assignment.deleted {}", id.0)))
                .collect();
        for event in self.events_since(self.before).await {
            let deleted = format!("{} {}", event.r#type, event.payload["id"]);
            assert!(!existing.contains(&deleted), "{deleted}, which exists");
        }
    }
}

async fn cycle(
    store: &Store,
    client: &Client,
    clock: &ManualClock,
    fence: Fence,
    rules: SyncRules,
    memory: &mut CycleMemory,
) -> CycleReport {
    let cancel = CancellationToken::new();
    let writer = PostgresMirror {
        store,
        fence,
        order: client.order(),
        again_after: TimeDelta::zero(),
        guard: rules.guard,
        compare_all_fields: false,
        write: None,
    };
    let known = match store.account_state(fence.account).await {
        Ok(known) => known,
        Err(error) => {
            let mut report = CycleReport::new(fence.account, CycleMode::Incremental, clock.now());
            report.outcome = Err(error.into());
            return report;
        }
    };
    let mut cycle =
        Cycle { mirror: &writer, client, clock, rules, memory, progress: &|_, _, _| {}, cancel: &cancel };
    cycle.run(schedule::mode(clock.now(), &known), known).await
}

async fn head(store: &Store) -> i64 {
    sqlx::query_scalar("SELECT seq FROM roster.outbox_head").fetch_one(store.pool()).await.unwrap()
}

fn act(sim: &Sim, edit: &Edit, lasting: i64) {
    let late = |seconds: &u64| sim.with_visibility_delay(Duration::from_secs(*seconds));
    let (users, assignments) = (sim.user_ids(), sim.assignment_ids());
    let owner = sim.token_owner();
    let user = |pick: &usize| users[pick % users.len()];
    let other = |pick: &usize| Some(user(pick)).filter(|user| *user != owner);
    let assignment = |pick: &usize| {
        Some(assignments[pick % assignments.len()]).filter(|assignment| assignment.0 != lasting)
    };
    match edit {
        Edit::Rename { pick, late: by } => late(by).edit_user(user(pick), |user| user.last_name.push('e')),
        Edit::Budget { pick, late: by } => {
            let more = |assignment: &mut harvest_sim::Assignment| {
                assignment.budget = Some(assignment.budget.unwrap_or_default() + 1.5);
            };
            late(by).edit_assignment(assignments[pick % assignments.len()], more);
        }
        Edit::Hire { late: by } => _ = late(by).create_user("Lena", "Late"),
        Edit::Assign { pick, late: by } => _ = late(by).assign(user(pick), sim.project_ids()[0]),
        Edit::Archive { pick, late: by } => {
            if let Some(user) = other(pick) {
                late(by).archive_user(user);
            }
        }
        Edit::Reactivate { pick } => sim.restore_user(user(pick)),
        Edit::Unassign { pick } => {
            if let Some(assignment) = assignment(pick) {
                sim.archive_assignment(assignment);
            }
        }
        Edit::Silent { pick } => {
            sim.edit_user_keeping_updated_at(user(pick), |user| user.weekly_capacity += 1800);
        }
        Edit::Delete { pick } => {
            if let Some(user) = other(pick) {
                sim.delete_user(user);
            }
        }
        Edit::DeleteAssignment { pick } => {
            if let Some(assignment) = assignment(pick) {
                sim.delete_assignment(assignment);
            }
        }
        Edit::Demote => sim.demote_token(),
        Edit::Promote => sim.promote(owner, "administrator"),
    }
}
