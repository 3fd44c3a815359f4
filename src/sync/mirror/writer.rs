//! Commits what differs, in one fenced transaction: rows, events, rejected records, watermark.

use std::collections::HashMap;

use chrono::TimeDelta;

use super::LastPage;
use crate::harvest::Decode;
use crate::roster::event::EventContext;
use crate::roster::{
    DeletionGuard, Event, Fetched, Order, Project, Record, Resource, RowWrite, SourceRequest, plan,
};
use crate::store::rejected::RejectedRecord;
use crate::store::writes::FinishedWrite;
use crate::store::{AccountTx, Fence, MirrorTable, Store, StoreError};
use crate::sync::report::CycleReport;
use crate::telemetry::instruments;

/// Writes an account that this process holds.
pub struct PostgresMirror<'a> {
    pub store: &'a Store,
    /// Proves that this process holds the account.
    pub fence: Fence,
    pub order: &'a Order,
    /// How long after its first 404 a recently created record's second one counts: a poll interval.
    pub again_after: TimeDelta,
    /// If PostgreSQL refuses more records of a page than this allows, the cause is the database.
    pub guard: DeletionGuard,
    /// Whether to compare all fields and not only hashes, which corrects rows that were changed manually.
    pub compare_all_fields: bool,
    /// The write to Harvest whose answer is stored: it is finished in the same transaction.
    pub write: Option<&'a FinishedWrite>,
}

/// What a page has and the database does not.
pub(super) struct PageChanges<R> {
    /// Records that may differ from their rows.
    pub records: Vec<Fetched<R>>,
    pub projects: Vec<Project>,
    pub rejected: Vec<RejectedRecord>,
    /// Ids of rejected records that are readable now.
    pub readable_again: Vec<i64>,
    /// Ids of absent records that were listed.
    pub listed_again: Vec<i64>,
    pub last: Option<LastPage>,
}

impl<R: Record> PageChanges<R> {
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
            && self.projects.is_empty()
            && self.rejected.is_empty()
            && self.readable_again.is_empty()
            && self.listed_again.is_empty()
            && !self.last.as_ref().is_some_and(|last| last.is_due)
    }
}

impl PostgresMirror<'_> {
    /// Commits the changes. If the versions conflict with earlier events, it is repeated with versions above those.
    pub(super) async fn commit_changes<R: MirrorTable>(
        &self,
        changes: &PageChanges<R>,
        report: &mut CycleReport,
    ) -> Result<(), StoreError> {
        match self.commit_once(changes, &HashMap::new(), report).await {
            Err(error) if error.is_version_conflict() => {
                let last = self.last_versions(&changes.records).await?;
                self.commit_once(changes, &last, report).await
            }
            done => done,
        }
    }

    pub(super) async fn last_versions<R: Record>(
        &self,
        records: &[Fetched<R>],
    ) -> Result<HashMap<i64, i64>, StoreError> {
        let ids: Vec<i64> = records.iter().map(Fetched::id).collect();
        self.store.last_versions(self.fence.account, R::RESOURCE, &ids).await
    }

    async fn commit_once<R: MirrorTable>(
        &self,
        changes: &PageChanges<R>,
        last_versions: &HashMap<i64, i64>,
        report: &mut CycleReport,
    ) -> Result<(), StoreError> {
        let mut tx = self.store.begin(&self.fence).await?;
        let (events, refreshed) = self.write(&mut tx, &changes.records, last_versions, report).await?;
        self.order.stored(R::RESOURCE, changes.records.iter().map(|it| (it.id(), it.seq())));
        tx.write_projects(&changes.projects).await?;
        tx.reject(R::RESOURCE, &changes.rejected).await?;
        tx.clear_rejections(R::RESOURCE, &changes.readable_again).await?;
        tx.clear_absences(R::RESOURCE, &changes.listed_again).await?;
        if R::RESOURCE == Resource::Users {
            tx.clear_first_404s_of_assignments(&changes.listed_again).await?;
        }
        if let Some(write) = self.write {
            tx.finish_write(write).await?;
        }
        if let Some(last) = &changes.last {
            tx.set_watermark(R::RESOURCE, &last.update).await?;
        }
        // The cycle's row includes this page. If the commit fails, the counts are restored.
        let counts = report.of(R::RESOURCE);
        let before = *counts;
        counts.changed += events.len() as u64;
        counts.refreshed += refreshed as u64;
        let done = emit_and_commit(tx, &events, report).await;
        if done.is_err() {
            *report.of(R::RESOURCE) = before;
        }
        done
    }

    /// Writes records that differ from the locked rows and are not outdated, with versions above the last ones. Returns the
    /// events to emit, and the number of rows that changed without an event.
    pub(super) async fn write<R: MirrorTable>(
        &self,
        tx: &mut AccountTx,
        records: &[Fetched<R>],
        last_versions: &HashMap<i64, i64>,
        report: &CycleReport,
    ) -> Result<(Vec<Event>, usize), StoreError> {
        let context = self.event_context(tx, report);
        let is_current = |it: &&Fetched<R>| !self.order.is_outdated(R::RESOURCE, it.id(), it.seq());
        let records: Vec<&Fetched<R>> = records.iter().filter(is_current).collect();
        let ids: Vec<i64> = records.iter().map(|it| it.id()).collect();
        let rows = tx.rows::<R>(&ids).await?;
        let mut writes = plan(&rows, records);
        for write in &mut writes {
            last_versions.get(&write.record.id()).into_iter().for_each(|last| write.continue_after(*last));
        }
        let events = async {
            let event = |write: &RowWrite<R>| {
                let request = write.fetched.request.as_ref().map(SourceRequest::name);
                Some(Event::new(write.change.as_ref()?, &EventContext { request, ..context }))
            };
            writes.iter().filter_map(event).collect::<Vec<Event>>()
        };
        // The events are made while PostgreSQL stores the rows.
        let (written, events) = tokio::join!(tx.write(&rows, &writes), events);
        written?;
        let refreshed = writes.len() - events.len();
        Ok((events, refreshed))
    }

    pub(super) fn event_context(&self, tx: &AccountTx, report: &CycleReport) -> EventContext<'static> {
        EventContext {
            account: self.fence.account,
            stream: tx.stream(),
            cycle: report.id,
            mode: report.mode.name(),
            request: None,
            now: tx.now(),
        }
    }
}

/// The user to whom a record belongs.
pub(super) fn owner<R: Decode>(record: &R) -> Option<i64> {
    match R::RESOURCE {
        Resource::Users => Some(record.id()),
        _ => record.user().or_else(|| record.part_of_user()),
    }
}

/// Ends the transaction: writes the cycle's row and its events, and commits.
pub(super) async fn emit_and_commit(
    mut tx: AccountTx,
    events: &[Event],
    report: &CycleReport,
) -> Result<(), StoreError> {
    if !events.is_empty() {
        tx.record_cycle(&report.row()).await?;
    }
    tx.emit(events).await?;
    tx.commit().await?;
    for alike in events.chunk_by(|a, b| (a.resource, a.kind) == (b.resource, b.kind)) {
        let Event { resource, kind, .. } = &alike[0];
        instruments::changes(report.account.0, resource.name(), kind.name(), alike.len() as u64);
    }
    Ok(())
}
