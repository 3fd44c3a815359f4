//! "Is it right?": everything is read and compared with the mirror field by field, and nothing is written. Each row is
//! looked at whole, not by its hash: an auditor wants to know what the tables say.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::TimeDelta;

use super::cycle::{Cycle, CycleError, Memory};
use super::finding::{Difference, Finding};
use super::report::Report;
use super::schedule::Mode;
use super::sink::{Batch, LastPage, Seen, Sink, Verdicts};
use crate::harvest::Decode;
use crate::harvest::pace::Lane;
use crate::roster::{
    AccountId, BillableRate, Candidate, CostRate, Ids, Mirrored, Record, Resource, Standing,
};
use crate::store::census::Census;
use crate::store::rates::{AbsentRates, RateIds};
use crate::store::state::AccountState;
use crate::store::{Store, StoreError, Table};

impl Cycle<'_, Verify<'_>> {
    /// Compares everything; with `rates`, also each person's histories: two requests for each.
    pub async fn verify(self, known: AccountState, rates: bool) -> Report {
        let Cycle { sink, client, clock, rules, memory, progress, cancel } = self;
        let mut again =
            Cycle { sink, client, clock, rules, memory: &mut Memory::default(), progress, cancel };
        let cycle = Cycle { sink, client, clock, rules, memory, progress, cancel };
        let mut report = cycle.run(Mode::Full, known).await;
        if report.outcome.is_ok() {
            sink.tell_of_unsettled();
        }
        if rates && report.outcome.is_ok() {
            report.outcome = again.compare_rates(&mut report).await;
        }
        report
    }

    async fn compare_rates(&mut self, report: &mut Report) -> Result<(), CycleError> {
        let Verify { store, account, .. } = *self.sink;
        let lane = self.rules.background();
        let users = store.unseen(account, Resource::Users, &Ids::default()).await?;
        let all = users.len() as u64;
        let (mut absent_billable, mut absent_cost) = (Vec::new(), Vec::new());
        for (user, done) in users.into_iter().zip(1..) {
            let RateIds { billable, cost } = store.rates_of(account, &[user]).await?;
            absent_billable.extend(self.read_history::<BillableRate>(user, billable, lane, report).await?);
            absent_cost.extend(self.read_history::<CostRate>(user, cost, lane, report).await?);
            (self.progress)(Resource::BillableRates, done, Some(all));
        }
        self.compare_absent::<BillableRate>(&absent_billable, lane, report).await?;
        self.compare_absent::<CostRate>(&absent_cost, lane, report).await?;
        self.sink.tell_of_unsettled();
        Ok(())
    }

    /// Says what has become of rates that no list shows.
    async fn compare_absent<R: Decode + Table>(
        &mut self,
        ids: &[i64],
        lane: Lane,
        report: &mut Report,
    ) -> Result<(), CycleError> {
        let (sink, resource) = (self.sink, R::RESOURCE);
        let candidates = sink.store.candidates(sink.account, resource, ids, TimeDelta::zero()).await?;
        sink.unsettled().extend(candidates.iter().map(|it| (resource, it.id)));
        let candidates = unjudged(candidates);
        let live = sink.store.live_rates(sink.account, resource).await?;
        let absent = AbsentRates { undecided: candidates.len(), candidates, live };
        self.settle_kind::<R>(absent, lane, None, report).await
    }
}

/// Whatever a person has decided: these are in the mirror, and Harvest does not show them.
fn unjudged(mut candidates: Vec<Candidate>) -> Vec<Candidate> {
    for it in &mut candidates {
        (it.standing, it.missed) = (Standing::Free, Some(true));
    }
    candidates
}

/// Prints where the mirror of an account is not what Harvest says.
pub struct Verify<'a> {
    /// The mirror.
    pub store: &'a Store,
    /// The account.
    pub account: AccountId,
    /// Lines tell both values.
    pub values: bool,
    /// Where the findings go.
    pub print: &'a (dyn Fn(Finding) + Sync),
    /// Differences so far.
    pub differences: AtomicU64,
    /// Rows that the lists did not show and of which nothing has been said yet.
    pub unsettled: Mutex<BTreeSet<(Resource, i64)>>,
}

impl Verify<'_> {
    fn unsettled(&self) -> MutexGuard<'_, BTreeSet<(Resource, i64)>> {
        self.unsettled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settled(&self, resource: Resource, ids: impl IntoIterator<Item = i64>) {
        for id in ids {
            self.unsettled().remove(&(resource, id));
        }
    }

    /// What could not be checked is not right.
    fn tell_of_unsettled(&self) {
        let unsettled = std::mem::take(&mut *self.unsettled());
        for (resource, id) in unsettled {
            let aggregate = resource.aggregate();
            let line = format!(
                "{aggregate} {id}: in the mirror, not shown by Harvest, which does not say whether it is gone"
            );
            self.differs(Finding::new(aggregate, id, "not_confirmed", line));
        }
    }

    fn differs(&self, finding: Finding) {
        (self.print)(finding);
        self.differences.fetch_add(1, Ordering::Relaxed);
    }

    /// Says what is different between a record and its row.
    fn compare<R: Record>(&self, record: &R, row: Option<&Mirrored<R>>) {
        let (aggregate, id) = (R::RESOURCE.aggregate(), record.id());
        let name = format!("{aggregate} {id}");
        let Some(row) = row else {
            let line = format!("{name}: at Harvest, not in the mirror");
            return self.differs(Finding::new(aggregate, id, "not_in_mirror", line));
        };
        if row.deleted {
            let line = format!("{name}: at Harvest, deleted in the mirror");
            return self.differs(Finding::new(aggregate, id, "deleted_in_mirror", line));
        }
        let record = record.clone().or_known(&row.record);
        let here = row.record.fields().into_iter().chain(row.record.quiet());
        let there = record.fields().into_iter().chain(record.quiet());
        let differing: Vec<_> = here.zip(there).filter(|((_, here), (_, there))| here != there).collect();
        if differing.is_empty() {
            return;
        }
        let said = differing.iter().map(|((field, here), (_, there))| {
            if self.values {
                format!("{field} is {here} in the mirror, {there} at Harvest")
            } else {
                (*field).to_owned()
            }
        });
        let verb = if self.values { "" } else { " differs" };
        let line = format!("{name}: {}{verb}", said.collect::<Vec<_>>().join(", "));
        let fields = differing
            .iter()
            .map(|((field, here), (_, there))| Difference::new(field, *here, *there, self.values))
            .collect();
        self.differs(Finding { fields, ..Finding::new(aggregate, id, "differs", line) });
    }
}

impl Sink for Verify<'_> {
    async fn account(&self) -> Result<AccountState, StoreError> {
        self.store.account_state(self.account).await
    }

    /// An assignment's person is compared with the list of people.
    async fn unknown_users(&self, _named: Vec<i64>) -> Result<Vec<i64>, StoreError> {
        Ok(Vec::new())
    }

    async fn take<R: Decode + Table>(
        &self,
        batches: Vec<Batch<R>>,
        _last: Option<LastPage>,
        report: &mut Report,
    ) -> Result<bool, StoreError> {
        // A row that came twice is the newer one; the later batch is what an earlier page had already.
        let Some(batch) = batches.into_iter().next() else { return Ok(false) };
        self.settled(R::RESOURCE, batch.rejected.iter().filter_map(|rejected| rejected.id));
        self.settled(R::RESOURCE, batch.images.iter().map(|read| read.fetched.record.id()));
        for rejected in &batch.rejected {
            self.differs(Finding::unreadable(R::RESOURCE.aggregate(), rejected));
            report.of(R::RESOURCE).rejected += 1;
        }
        let ids: Vec<i64> = batch.images.iter().map(|read| read.fetched.record.id()).collect();
        let rows = self.store.rows::<R>(self.account, &ids).await?;
        let mut projects = HashMap::new();
        for read in batch.images {
            self.compare(&read.fetched.record, rows.get(&read.fetched.record.id()));
            projects.extend(read.project.map(|project| (project.id, project)));
        }
        if !projects.is_empty() {
            for project in self.store.project_news(self.account, projects.into_values().collect()).await? {
                let line = format!("project {}: its name or code differs", project.id);
                self.differs(Finding::new("project", project.id, "differs", line));
            }
        }
        Ok(false)
    }

    async fn unseen(&self, resource: Resource, seen: &Seen) -> Result<Vec<Candidate>, StoreError> {
        let candidates = self.store.missing(self.account, resource, &seen.ids, TimeDelta::zero()).await?;
        self.unsettled().extend(candidates.iter().map(|it| (resource, it.id)));
        Ok(unjudged(candidates))
    }

    async fn pending(&self) -> Result<HashMap<Resource, Vec<Candidate>>, StoreError> {
        Ok(HashMap::new())
    }

    async fn census(&self) -> Result<HashMap<Resource, Census>, StoreError> {
        self.store.census(self.account).await
    }

    async fn live_projects(&self) -> Result<u64, StoreError> {
        self.store.live_projects(self.account).await
    }

    async fn conclude<R: Decode + Table>(
        &self,
        verdicts: Verdicts,
        _report: &mut Report,
    ) -> Result<(), StoreError> {
        let aggregate = R::RESOURCE.aggregate();
        let Verdicts { gone, held, missed } = verdicts;
        let gone: Vec<i64> = gone.iter().map(|(id, _)| *id).chain(missed).collect();
        self.settled(R::RESOURCE, gone.iter().copied().chain(held.iter().map(|(id, _)| *id)));
        for id in &gone {
            let line = format!("{aggregate} {id}: in the mirror, gone at Harvest");
            self.differs(Finding::new(aggregate, *id, "gone_at_harvest", line));
        }
        for (id, reason) in held {
            let reason = reason.name();
            let line = format!("{aggregate} {id}: in the mirror, not shown by Harvest ({reason})");
            self.differs(Finding::new(aggregate, id, "not_shown", line).because(reason));
        }
        Ok(())
    }
}
