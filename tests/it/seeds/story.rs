//! A plan carried out, with an oracle after every step: whatever was killed, cut or overtaken where, the outbox replays to
//! the mirror, and nothing is told that did not happen.

use std::collections::HashSet;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use harvest_sim::{Company, Fault, Options, Sim};
use rosterd::clock::Clock;
use rosterd::harvest::Client;
use rosterd::roster::Guard;
use rosterd::store::{Fence, Store, StoreError};
use rosterd::sync::apply::Writer;
use rosterd::sync::cycle::{Cycle, CycleError, Memory, Rules};
use rosterd::sync::report::Report;
use rosterd::sync::schedule::{self, Mode};
use tokio_util::sync::CancellationToken;

use super::plan::{At, Edit, Plan, Step, Trouble};
use crate::database::{TestDatabase, store};
use crate::mirror::Mirror;
use crate::tap::{Catch, Tap};
use crate::world::{client_with, take_over};

/// As much as any record shows late.
const LATEST: TimeDelta = TimeDelta::seconds(48);

/// What a story, or many, came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub cycles: u64,
    pub killed: u64,
    pub cut: u64,
    pub overtaken: u64,
    pub fenced: u64,
    pub events: u64,
    pub requests: u64,
}

impl Tally {
    pub fn add(&mut self, other: Self) {
        self.cycles += other.cycles;
        self.killed += other.killed;
        self.cut += other.cut;
        self.overtaken += other.overtaken;
        self.fenced += other.fenced;
        self.events += other.events;
        self.requests += other.requests;
    }
}

/// A clock that goes when it is told to.
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

pub struct Story {
    mirror: Mirror,
    url: String,
    tap: Tap,
    clock: Arc<ManualClock>,
    /// Of every process: it keeps nothing that matters.
    client: Arc<Client>,
    fence: Fence,
    memory: Memory,
    full_reads: bool,
    /// This one stays, so that a list that is empty is Harvest's trouble and none of ours.
    lasting: i64,
    before: i64,
    pub tally: Tally,
}

impl Deref for Story {
    type Target = Mirror;

    fn deref(&self) -> &Mirror {
        &self.mirror
    }
}

impl Story {
    /// `account` is nobody else's in this database.
    pub async fn begin(plan: &Plan, full_reads: bool, account: i64, database: &TestDatabase) -> Self {
        let company = Company::seeded(1, plan.people, plan.places).with_account_id(account);
        let options = Options { limit: None, paging: plan.paging, max_per_page: 100, ..Options::default() };
        let sim = Sim::start(company, options).await.unwrap();
        sim.freeze_clock();
        let clock = Arc::new(ManualClock(sim.now().datetime().timestamp_millis().into()));
        let project = sim.new_project("Lasting", None);
        let lasting = sim.assign(sim.token_owner(), project).0;
        let tap = Tap::to(database.url()).await;
        let store = store(tap.url());
        let fence = take_over(&store, &sim).await;
        let client = Arc::new(client_with(&sim, plan.per_page, true, clock.clone()));
        let mirror = Mirror { sim, store };
        let before = mirror.events_since(0).await.len().try_into().unwrap();
        let (memory, tally, url) = (Memory::default(), Tally::default(), database.url().to_owned());
        Self { mirror, url, tap, clock, client, fence, memory, full_reads, lasting, before, tally }
    }

    pub async fn tell(&mut self, Plan { first, steps, .. }: &Plan) {
        self.cycle(first).await;
        for step in steps {
            match step {
                Step::Edit(edit) => self.act(edit),
                Step::Pass { seconds } => self.pass(TimeDelta::seconds(*seconds)),
                Step::ClockJumps { ours: true, seconds } => self.clock.shift(TimeDelta::seconds(*seconds)),
                Step::ClockJumps { ours: false, seconds } => {
                    self.sim.shift_clock(TimeDelta::seconds(*seconds));
                }
                Step::Cycle(trouble) => {
                    self.cycle(trouble).await;
                    self.sim.clear_faults();
                    self.expect_no_lie().await;
                }
            }
        }
        self.come_to_rest().await;
    }

    /// After quiet the mirror is the source, and another look writes nothing.
    async fn come_to_rest(&mut self) {
        self.sim.promote(self.sim.token_owner(), "administrator");
        if self.full_reads {
            self.sim.surface_all();
            // Full reads are due then, however far our clock was put back.
            self.pass(TimeDelta::days(2));
            self.cycle(&Trouble::None).await;
        } else {
            self.pass(LATEST);
        }
        self.expect_good_cycle().await;
        self.expect_mirror_equals_source().await;
        self.expect_no_lie().await;
        let before = self.physical().await;
        self.expect_good_cycle().await;
        let after = self.physical().await;
        let gone: Vec<_> = before.iter().filter(|row| after.binary_search(row).is_err()).collect();
        let come: Vec<_> = after.iter().filter(|row| before.binary_search(row).is_err()).collect();
        assert!(after == before, "a look that finds nothing writes nothing: {gone:?} are {come:?}");
        self.tally.events = self.events_since(self.before).await.len().try_into().unwrap();
        self.tally.requests = self.sim.requests().len().try_into().unwrap();
    }

    /// Of ten thousand stories none may keep its ports.
    pub async fn end(self) {
        let Self { mirror, tap, client, .. } = self;
        tap.close();
        drop(client);
        mirror.sim.stop().await;
    }

    async fn expect_good_cycle(&mut self) {
        let report = self.cycle(&Trouble::None).await.unwrap();
        report.outcome.unwrap();
    }

    async fn cycle(&mut self, trouble: &Trouble) -> Option<Report> {
        self.tally.cycles += 1;
        match trouble {
            Trouble::None => {}
            Trouble::Killed(at) => {
                let Err(held) = self.run_until(self.catch(at)).await else { return None };
                self.tally.killed += 1;
                self.tap.cut();
                drop(held);
                return self.start_again().await;
            }
            Trouble::Cut(at) => {
                let catch = self.catch(at);
                let cut =
                    tokio::spawn(async move { catch.caught_if_ever().await.map(crate::tap::Held::cut) });
                let report = self.run().await;
                self.tally.cut += u64::from(cut.is_finished());
                cut.abort();
                self.settle().await;
                return Some(report);
            }
            Trouble::Overtaken { at, edits } => return self.overtaken(at, edits).await,
            Trouble::Stumbles { how, path, skip, times } => {
                self.sim.inject(how.fault(&self.sim).on(*path).skipping(*skip).times(*times));
            }
            Trouble::Meanwhile { skip, edits } => {
                let (sim, edits, lasting) = (self.sim.clone(), edits.clone(), self.lasting);
                let act = move || edits.iter().for_each(|edit| act(&sim, edit, lasting));
                self.sim.inject(Fault::meanwhile(act).skipping(*skip));
            }
            Trouble::Restarted => return self.start_again().await,
        }
        Some(self.run().await)
    }

    /// A process stands still; another one takes its account over and reads. What the first one does when it goes on is
    /// nothing, or refused.
    async fn overtaken(&mut self, at: &At, edits: &[Edit]) -> Option<Report> {
        let catch = self.catch(at);
        let (rival, sim, lasting) = (store(&self.url), self.sim.clone(), self.lasting);
        let (client, clock, rules) = (self.client.clone(), self.clock.clone(), self.rules());
        let edits = edits.to_vec();
        // By itself: the first one waits for it only where it is held.
        let overtaking = tokio::spawn(async move {
            let held = catch.caught_if_ever().await?;
            for edit in edits {
                act(&sim, &edit, lasting);
            }
            let fence = take_over(&rival, &sim).await;
            cycle(&rival, &client, &clock, fence, rules, &mut Memory::default()).await;
            let told = head(&rival).await;
            held.go_on();
            Some(told)
        });
        let report = self.run().await;
        // Where nothing was held it waits for ever.
        if !overtaking.is_finished() {
            overtaking.abort();
        }
        if let Ok(Some(told)) = overtaking.await {
            self.tally.overtaken += 1;
            self.tally.fenced +=
                u64::from(matches!(report.outcome, Err(CycleError::Store(StoreError::Fenced(_)))));
            assert_eq!(head(&self.store).await, told, "one that was overtaken tells nothing");
        }
        self.start_again().await
    }

    /// Runs a cycle to its end, or to where it is held.
    async fn run_until(&mut self, catch: Catch) -> Result<Report, crate::tap::Held> {
        tokio::select! {
            biased;
            Some(held) = catch.caught_if_ever() => Err(held),
            report = self.run() => Ok(report),
        }
    }

    async fn run(&mut self) -> Report {
        let rules = self.rules();
        cycle(&self.mirror.store, &self.client, &self.clock, self.fence, rules, &mut self.memory).await
    }

    fn rules(&self) -> Rules {
        Rules {
            skew_buffer: TimeDelta::seconds(60),
            full_interval: if self.full_reads { TimeDelta::hours(1) } else { TimeDelta::days(1000) },
            count_probe: self.full_reads,
            guard: Guard { fraction: 1.0, at_least: 5 },
            alone: true,
            unshared: false,
        }
    }

    /// Another process, that has nothing of this one's memory.
    async fn start_again(&mut self) -> Option<Report> {
        self.mirror.store = store(self.tap.url());
        self.settle().await;
        self.memory = Memory::default();
        self.fence = take_over(&self.mirror.store, &self.mirror.sim).await;
        None
    }

    fn catch(&self, at: &At) -> Catch {
        self.tap.catch(at.when, at.nth, at.text)
    }

    /// Waits for the server to have done with what was left to it.
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

    /// At any time: what is told adds up to what is mirrored, and who is said to be gone is gone.
    async fn expect_no_lie(&self) {
        self.expect_outbox_replays_to_the_mirror().await;
        let there: HashSet<String> = (self.sim.user_ids().iter().map(|id| format!("user.deleted {}", id.0)))
            .chain(self.sim.assignment_ids().iter().map(|id| format!("user_assignment.deleted {}", id.0)))
            .collect();
        for event in self.events_since(self.before).await {
            let told = format!("{} {}", event.r#type, event.payload["id"]);
            assert!(!there.contains(&told), "{told}, which is there");
        }
    }
}

async fn cycle(
    store: &Store,
    client: &Client,
    clock: &ManualClock,
    fence: Fence,
    rules: Rules,
    memory: &mut Memory,
) -> Report {
    let cancel = CancellationToken::new();
    let writer = Writer {
        store,
        fence,
        order: client.order(),
        again_after: TimeDelta::zero(),
        guard: rules.guard,
        thorough: false,
    };
    let known = match store.account_state(fence.account).await {
        Ok(known) => known,
        Err(error) => {
            let mut report = Report::new(fence.account, Mode::Incremental, clock.now());
            report.outcome = Err(error.into());
            return report;
        }
    };
    let cycle =
        Cycle { sink: &writer, client, clock, rules, memory, progress: &|_, _, _| {}, cancel: &cancel };
    cycle.run(schedule::mode(clock.now(), &known), known).await
}

async fn head(store: &Store) -> i64 {
    sqlx::query_scalar("SELECT seq FROM roster.outbox_head").fetch_one(store.pool()).await.unwrap()
}

fn act(sim: &Sim, edit: &Edit, lasting: i64) {
    let late = |seconds: &u64| sim.later(Duration::from_secs(*seconds));
    let (users, places) = (sim.user_ids(), sim.assignment_ids());
    let owner = sim.token_owner();
    let user = |pick: &usize| users[pick % users.len()];
    let other = |pick: &usize| Some(user(pick)).filter(|user| *user != owner);
    let place = |pick: &usize| Some(places[pick % places.len()]).filter(|place| place.0 != lasting);
    match edit {
        Edit::Rename { pick, late: by } => late(by).edit_user(user(pick), |user| user.last_name.push('e')),
        Edit::Budget { pick, late: by } => {
            let more = |place: &mut harvest_sim::Assignment| {
                place.budget = Some(place.budget.unwrap_or_default() + 1.5);
            };
            late(by).edit_assignment(places[pick % places.len()], more);
        }
        Edit::Hire { late: by } => _ = late(by).hire("Lena", "Late"),
        Edit::Assign { pick, late: by } => _ = late(by).assign(user(pick), sim.project_ids()[0]),
        Edit::Archive { pick, late: by } => {
            if let Some(user) = other(pick) {
                late(by).deactivate(user);
            }
        }
        Edit::Reactivate { pick } => sim.reactivate(user(pick)),
        Edit::Unassign { pick } => {
            if let Some(place) = place(pick) {
                sim.unassign(place);
            }
        }
        Edit::Silent { pick } => sim.edit_user_silently(user(pick), |user| user.weekly_capacity += 1800),
        Edit::Delete { pick } => {
            if let Some(user) = other(pick) {
                sim.delete_user(user);
            }
        }
        Edit::DeletePlace { pick } => {
            if let Some(place) = place(pick) {
                sim.delete_assignment(place);
            }
        }
        Edit::Demote => sim.demote_token(),
        Edit::Promote => sim.promote(owner, "administrator"),
    }
}
