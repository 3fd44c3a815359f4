//! "Is it right?": everything is read and compared with the mirror field by field, and nothing is written. Each row is
//! looked at whole, not by its hash: an auditor wants to know what the tables say.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::TimeDelta;

use super::cycle::{Cycle, CycleError, Memory};
use super::report::Report;
use super::schedule::Mode;
use super::sink::{Batch, LastPage, Seen, Sink, Verdicts};
use crate::harvest::Decode;
use crate::harvest::pace::Lane;
use crate::roster::{
    AccountId, BillableRate, Candidate, CostRate, Ids, Mirrored, Record, Resource, Standing,
};
use crate::store::census::Census;
use crate::store::rates::RateIds;
use crate::store::state::AccountState;
use crate::store::{Store, StoreError, Table};

impl Cycle<'_, Verify<'_>> {
    /// Compares everything; with `rates`, also each person's histories: two requests for each.
    pub async fn verify(self, known: AccountState, rates: bool) -> Report {
        let Cycle { sink, client, clock, rules, memory, progress, cancel } = self;
        let again = Cycle { sink, client, clock, rules, memory: &mut Memory::default(), progress, cancel };
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

    async fn compare_rates(&self, report: &mut Report) -> Result<(), CycleError> {
        let Verify { store, account, .. } = *self.sink;
        let users = store.unseen(account, Resource::Users, &Ids::default()).await?;
        let all = users.len() as u64;
        for (user, done) in users.into_iter().zip(1..) {
            let RateIds { billable, cost } = store.rates_of(account, &[user]).await?;
            self.read_history::<BillableRate>(user, billable, Lane::Poll, report).await?;
            self.read_history::<CostRate>(user, cost, Lane::Poll, report).await?;
            (self.progress)(Resource::BillableRates, done, Some(all));
        }
        Ok(())
    }
}

/// Prints where the mirror of an account is not what Harvest says.
pub struct Verify<'a> {
    /// The mirror.
    pub store: &'a Store,
    /// The account.
    pub account: AccountId,
    /// Lines tell both values.
    pub values: bool,
    /// Where the lines go.
    pub print: &'a (dyn Fn(&str) + Sync),
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
            self.differs(&format!(
                "{aggregate} {id}: in the mirror, not shown by Harvest, which does not say whether it is gone"
            ));
        }
    }

    fn differs(&self, line: &str) {
        (self.print)(line);
        self.differences.fetch_add(1, Ordering::Relaxed);
    }

    /// Says what is different between a record and its row.
    fn compare<R: Record>(&self, record: &R, row: Option<&Mirrored<R>>) {
        let name = format!("{} {}", R::RESOURCE.aggregate(), record.id());
        let Some(row) = row else { return self.differs(&format!("{name}: at Harvest, not in the mirror")) };
        if row.deleted {
            return self.differs(&format!("{name}: at Harvest, deleted in the mirror"));
        }
        let record = record.clone().or_known(&row.record);
        let here = row.record.fields().into_iter().chain(row.record.quiet());
        let there = record.fields().into_iter().chain(record.quiet());
        let fields: Vec<String> = here
            .zip(there)
            .filter(|((_, here), (_, there))| here != there)
            .map(|((field, here), (_, there))| {
                if self.values {
                    format!("{field} is {here} in the mirror, {there} at Harvest")
                } else {
                    field.to_owned()
                }
            })
            .collect();
        if !fields.is_empty() {
            let verb = if self.values { "" } else { " differs" };
            self.differs(&format!("{name}: {}{verb}", fields.join(", ")));
        }
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
            let id = rejected.id.map_or_else(|| "?".to_owned(), |id| id.to_string());
            self.differs(&format!("{} {id}: cannot be read: {}", R::RESOURCE.aggregate(), rejected.reason));
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
                self.differs(&format!("project {}: its name or code differs", project.id));
            }
        }
        Ok(false)
    }

    /// Whatever a person has decided: it is in the mirror, and Harvest does not show it.
    async fn unseen(&self, resource: Resource, seen: &Seen) -> Result<Vec<Candidate>, StoreError> {
        let candidates = self.store.missing(self.account, resource, &seen.ids, TimeDelta::zero()).await?;
        self.unsettled().extend(candidates.iter().map(|it| (resource, it.id)));
        Ok(candidates
            .into_iter()
            .map(|it| Candidate { standing: Standing::Free, missed: Some(true), ..it })
            .collect())
    }

    async fn pending(&self) -> Result<HashMap<Resource, Vec<Candidate>>, StoreError> {
        Ok(HashMap::new())
    }

    async fn census(&self) -> Result<HashMap<Resource, Census>, StoreError> {
        self.store.census(self.account).await
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
            self.differs(&format!("{aggregate} {id}: in the mirror, gone at Harvest"));
        }
        for (id, reason) in held {
            let reason = reason.name();
            self.differs(&format!("{aggregate} {id}: in the mirror, not shown by Harvest ({reason})"));
        }
        Ok(())
    }
}
