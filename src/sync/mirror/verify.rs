//! Compares what was read with the mirror, field by field, and writes nothing. It does not trust hashes: an auditor wants to
//! know the values in the tables.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};

use chrono::TimeDelta;
use parking_lot::Mutex;

use super::finding::{Difference, Finding};
use super::{DeletionResults, LastPage, ListContents, Mirror, PageRead};
use crate::harvest::Decode;
use crate::roster::{AbsentRecord, AbsentState, AccountId, Authority, Fetched, MirrorRow, Record, Resource};
use crate::store::row_counts::RowCounts;
use crate::store::state::AccountState;
use crate::store::{MirrorTable, Store, StoreError};
use crate::sync::report::CycleReport;

/// Prints the differences between an account at Harvest and its mirror.
pub struct Verify<'a> {
    pub store: &'a Store,
    pub account: AccountId,
    /// Whether lines show both values.
    pub values: bool,
    pub print: &'a (dyn Fn(Finding) + Sync),
    pub differences: AtomicU64,
    /// Rows that the lists did not show and that have no finding yet.
    pub unconfirmed: Mutex<BTreeSet<(Resource, i64)>>,
}

impl Verify<'_> {
    fn confirm(&self, resource: Resource, ids: impl IntoIterator<Item = i64>) {
        for id in ids {
            self.unconfirmed.lock().remove(&(resource, id));
        }
    }

    /// Reports rows that could not be checked as differences.
    pub(in crate::sync) fn report_unconfirmed(&self) {
        let unconfirmed = std::mem::take(&mut *self.unconfirmed.lock());
        for (resource, id) in unconfirmed {
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

    fn compare<R: Record>(&self, record: &R, row: Option<&MirrorRow<R>>) {
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
        let parts = differing.iter().map(|((field, here), (_, there))| {
            if self.values {
                format!("{field} is {here} in the mirror, {there} at Harvest")
            } else {
                (*field).to_owned()
            }
        });
        let verb = if self.values { "" } else { " differs" };
        let line = format!("{name}: {}{verb}", parts.collect::<Vec<_>>().join(", "));
        let fields = differing
            .iter()
            .map(|((field, here), (_, there))| Difference::new(field, *here, *there, self.values))
            .collect();
        self.differs(Finding { fields, ..Finding::new(aggregate, id, "differs", line) });
    }
}

impl Mirror for Verify<'_> {
    async fn account(&self) -> Result<AccountState, StoreError> {
        self.store.account_state(self.account).await
    }

    /// No user is looked up: all users are compared by their list.
    async fn unknown_users(&self, _named: Vec<i64>) -> Result<Vec<i64>, StoreError> {
        Ok(Vec::new())
    }

    async fn apply<R: Decode + MirrorTable>(
        &self,
        page: PageRead<R>,
        _last: Option<LastPage>,
        report: &mut CycleReport,
    ) -> Result<bool, StoreError> {
        // Records that an earlier page had already were compared there.
        let records: Vec<_> = page.records.into_iter().filter(|it| it.authority == Authority::Full).collect();
        self.confirm(R::RESOURCE, page.unreadable.iter().filter_map(|rejected| rejected.id));
        self.confirm(R::RESOURCE, records.iter().map(Fetched::id));
        for rejected in &page.unreadable {
            self.differs(Finding::unreadable(R::RESOURCE.aggregate(), rejected));
            report.of(R::RESOURCE).rejected += 1;
        }
        let ids: Vec<i64> = records.iter().map(Fetched::id).collect();
        let rows = self.store.rows::<R>(self.account, &ids).await?;
        let mut projects = HashMap::new();
        for fetched in records {
            self.compare(&*fetched.record, rows.get(&fetched.id()));
            projects.extend(fetched.project.map(|project| (project.id, project)));
        }
        if !projects.is_empty() {
            for project in self.store.changed_projects(self.account, projects.into_values().collect()).await?
            {
                let line = format!("project {}: its name or code differs", project.id);
                self.differs(Finding::new("project", project.id, "differs", line));
            }
        }
        Ok(false)
    }

    async fn absent_records(
        &self,
        resource: Resource,
        listed: &ListContents,
    ) -> Result<Vec<AbsentRecord>, StoreError> {
        let candidates =
            self.store.absent_records(self.account, resource, &listed.ids, TimeDelta::zero()).await?;
        self.unconfirmed.lock().extend(candidates.iter().map(|it| (resource, it.id)));
        Ok(undecided(candidates))
    }

    async fn pending_deletions(&self) -> Result<HashMap<Resource, Vec<AbsentRecord>>, StoreError> {
        Ok(HashMap::new())
    }

    async fn row_counts(&self) -> Result<HashMap<Resource, RowCounts>, StoreError> {
        self.store.row_counts(self.account).await
    }

    async fn live_projects(&self) -> Result<u64, StoreError> {
        self.store.live_projects(self.account).await
    }

    async fn record_results<R: Decode + MirrorTable>(
        &self,
        results: DeletionResults,
        _report: &mut CycleReport,
    ) -> Result<(), StoreError> {
        let aggregate = R::RESOURCE.aggregate();
        let DeletionResults { gone, held, first_404 } = results;
        let gone: Vec<i64> = gone.iter().map(|(id, _)| *id).chain(first_404).collect();
        self.confirm(R::RESOURCE, gone.iter().copied().chain(held.iter().map(|(id, _)| *id)));
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

/// The records without the administrator's decisions: they are in the mirror, and Harvest does not show them.
pub(in crate::sync) fn undecided(mut absent: Vec<AbsentRecord>) -> Vec<AbsentRecord> {
    for it in &mut absent {
        (it.state, it.first_404_is_old) = (AbsentState::Undecided, Some(true));
    }
    absent
}
