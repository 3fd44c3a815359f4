//! Prints what a cycle would write, without writing anything: no lease, no migration, no watermark.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};
use futures::future::OptionFuture;
use parking_lot::Mutex;

use super::finding::Finding;
use super::{DeletionResults, LastPage, ListContents, Mirror, PageRead};
use crate::harvest::Decode;
use crate::roster::{AbsentRecord, AccountId, ChangeKind, Fetched, Resource, plan, unstorable};
use crate::store::rates::AbsentRates;
use crate::store::row_counts::RowCounts;
use crate::store::state::AccountState;
use crate::store::{MirrorTable, Store, StoreError};
use crate::sync::report::CycleReport;

pub struct DryRun<'a> {
    /// `None` if the database has no schema yet, so that the mirror is empty.
    pub store: Option<&'a Store>,
    pub account: AccountId,
    /// Whether lines show old and new values.
    pub values: bool,
    pub print: &'a (dyn Fn(Finding) + Sync),
    /// See [`super::PostgresMirror`].
    pub again_after: TimeDelta,
    pub planned: Planned,
}

/// What the mirror would have gained by now: users, and rows of each list.
#[derive(Default)]
pub struct Planned(Mutex<(HashSet<i64>, HashMap<Resource, RowCounts>)>);

impl Planned {
    fn with<T>(&self, change: impl FnOnce(&mut HashSet<i64>, &mut HashMap<Resource, RowCounts>) -> T) -> T {
        let (users, counts) = &mut *self.0.lock();
        change(users, counts)
    }
}

/// What the database has; the default if there is none.
async fn or_default<T: Default>(
    read: Option<impl Future<Output = Result<T, StoreError>>>,
) -> Result<T, StoreError> {
    Ok(OptionFuture::from(read).await.transpose()?.unwrap_or_default())
}

impl Mirror for DryRun<'_> {
    async fn account(&self) -> Result<AccountState, StoreError> {
        or_default(self.store.map(|store| store.account_state(self.account))).await
    }

    async fn unknown_users(&self, mut named: Vec<i64>) -> Result<Vec<i64>, StoreError> {
        if let Some(store) = self.store {
            store.retain_new_users(self.account, &mut named).await?;
        }
        // Each user is looked up once, although no assignment is stored.
        self.planned.with(|users, _| named.retain(|id| users.insert(*id)));
        Ok(named)
    }

    async fn apply<R: Decode + MirrorTable>(
        &self,
        page: PageRead<R>,
        _last: Option<LastPage>,
        report: &mut CycleReport,
    ) -> Result<bool, StoreError> {
        let aggregate = R::RESOURCE.aggregate();
        let ids: Vec<i64> = page.records.iter().map(Fetched::id).collect();
        let rows = match self.store {
            Some(store) if !ids.is_empty() => store.rows::<R>(self.account, &ids).await?,
            _ => HashMap::new(),
        };
        let counts = report.of(R::RESOURCE);
        for rejected in &page.unreadable {
            (self.print)(Finding::unreadable(aggregate, rejected));
            counts.rejected += 1;
        }
        for fetched in page.records.iter().filter(|it| rows.get(&it.id()).is_none_or(|row| row.deleted)) {
            if let Some(reason) = unstorable(&*fetched.record) {
                let id = fetched.id();
                let line = format!("{aggregate} {id} cannot be stored: {reason}");
                (self.print)(Finding::new(aggregate, id, "unstorable", line).because(reason));
                counts.rejected += 1;
            }
        }
        let mut created = 0;
        for write in plan(&rows, &page.records) {
            match &write.change {
                Some(change) => (self.print)(Finding::change(change, self.values)),
                None => counts.refreshed += 1,
            }
            created += u64::from(write.change.as_ref().is_some_and(|it| it.kind == ChangeKind::Created));
            counts.changed += u64::from(write.change.is_some());
        }
        self.planned.with(|users, counts| {
            counts.entry(R::RESOURCE).or_default().live += created;
            if R::RESOURCE == Resource::Users {
                users.extend(ids);
            }
        });
        Ok(false)
    }

    async fn absent_records(
        &self,
        resource: Resource,
        listed: &ListContents,
    ) -> Result<Vec<AbsentRecord>, StoreError> {
        or_default(
            self.store
                .map(|store| store.absent_records(self.account, resource, &listed.ids, self.again_after)),
        )
        .await
    }

    async fn pending_deletions(&self) -> Result<HashMap<Resource, Vec<AbsentRecord>>, StoreError> {
        or_default(self.store.map(|store| store.due_candidates(self.account, self.again_after))).await
    }

    async fn absent_rates(
        &self,
        before: Option<DateTime<Utc>>,
    ) -> Result<HashMap<Resource, AbsentRates>, StoreError> {
        or_default(self.store.map(|store| store.absent_rates(self.account, self.again_after, before))).await
    }

    async fn row_counts(&self) -> Result<HashMap<Resource, RowCounts>, StoreError> {
        let mut counts = or_default(self.store.map(|store| store.row_counts(self.account))).await?;
        self.planned.with(|_, planned| {
            for (resource, more) in planned {
                let list = counts.entry(*resource).or_default();
                list.live += more.live;
                list.missing += more.missing;
            }
        });
        Ok(counts)
    }

    async fn live_projects(&self) -> Result<u64, StoreError> {
        or_default(self.store.map(|store| store.live_projects(self.account))).await
    }

    async fn record_results<R: Decode + MirrorTable>(
        &self,
        results: DeletionResults,
        report: &mut CycleReport,
    ) -> Result<(), StoreError> {
        let aggregate = R::RESOURCE.aggregate();
        let DeletionResults { gone, held, first_404 } = results;
        for (id, _) in &gone {
            let line = format!("{aggregate} {id} would delete");
            (self.print)(Finding::new(aggregate, *id, "deleted", line));
        }
        for (id, reason) in &held {
            let line = format!("{aggregate} {id} would hold: {}", reason.name());
            (self.print)(Finding::new(aggregate, *id, "held", line).because(reason.name()));
        }
        for id in &first_404 {
            let line = format!("{aggregate} {id} would wait for a second 404: it was created recently");
            (self.print)(Finding::new(aggregate, *id, "first_404", line));
        }
        let counts = report.of(R::RESOURCE);
        counts.changed += gone.len() as u64;
        counts.deleted += gone.len() as u64;
        counts.held += held.len() as u64;
        let missing = (gone.len() + held.len() + first_404.len()) as u64;
        self.planned.with(|_, counts| counts.entry(R::RESOURCE).or_default().missing += missing);
        Ok(())
    }
}
