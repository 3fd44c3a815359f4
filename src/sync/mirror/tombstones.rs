//! Deletes records in the mirror, with their events.

use std::collections::HashMap;

use super::writer::{PostgresMirror, emit_and_commit};
use crate::roster::event::EventContext;
use crate::roster::{
    BillableRate, Change, CostRate, Event, Record, Resource, Seq, SourceRequest, tombstones,
};
use crate::store::rates::RateIds;
use crate::store::{AccountTx, MirrorTable, StoreError};
use crate::sync::report::CycleReport;

/// The last versions of records by their events and history, as far as they were read.
type LastVersions = HashMap<Resource, HashMap<i64, i64>>;

impl PostgresMirror<'_> {
    /// Deletes records. If PostgreSQL refuses one, the others are deleted without it.
    ///
    /// # Errors
    /// The refusal; the row stays live, so that the next full read finds the record absent again.
    pub(super) async fn delete<R: MirrorTable>(
        &self,
        gone: &[(i64, Option<SourceRequest>)],
        report: &mut CycleReport,
    ) -> Result<(), StoreError> {
        let done = self.delete_together::<R>(gone, report).await;
        if gone.len() < 2 || !done.as_ref().is_err_and(StoreError::is_refusal) {
            return done;
        }
        let (some, rest) = gone.split_at(gone.len() / 2);
        let done = Box::pin(self.delete::<R>(some, report)).await;
        Box::pin(self.delete::<R>(rest, report)).await.and(done)
    }

    /// In one transaction, with the rates of deleted users.
    async fn delete_together<R: MirrorTable>(
        &self,
        gone: &[(i64, Option<SourceRequest>)],
        report: &mut CycleReport,
    ) -> Result<(), StoreError> {
        match self.try_delete::<R>(gone, &LastVersions::new(), report).await {
            Err(error) if error.is_version_conflict() => {
                let (store, account) = (self.store, self.fence.account);
                let ids: Vec<i64> = gone.iter().map(|(id, _)| *id).collect();
                let rates = match R::RESOURCE {
                    Resource::Users => store.rates_of(account, &ids).await?,
                    _ => RateIds::default(),
                };
                let mut last = LastVersions::new();
                for (resource, ids) in [
                    (Resource::BillableRates, &rates.billable),
                    (Resource::CostRates, &rates.cost),
                    (R::RESOURCE, &ids),
                ] {
                    last.insert(resource, store.last_versions(account, resource, ids).await?);
                }
                self.try_delete::<R>(gone, &last, report).await
            }
            done => done,
        }
    }

    async fn try_delete<R: MirrorTable>(
        &self,
        gone: &[(i64, Option<SourceRequest>)],
        last: &LastVersions,
        report: &mut CycleReport,
    ) -> Result<(), StoreError> {
        let mut tx = self.store.begin(&self.fence).await?;
        // A 404 that is older than the stored state says nothing.
        let mut gone: Vec<(i64, Option<&SourceRequest>)> =
            gone.iter().map(|(id, request)| (*id, request.as_ref())).collect();
        gone.retain(|(id, request)| !self.order.is_outdated(R::RESOURCE, *id, Seq::of(*request)));
        self.order.stored(R::RESOURCE, gone.iter().map(|(id, request)| (*id, Seq::of(*request))));
        let ids: Vec<i64> = gone.iter().map(|(id, _)| *id).collect();
        let requests: HashMap<i64, &str> =
            gone.into_iter().filter_map(|(id, request)| Some((id, request?.name()))).collect();
        let rates = match R::RESOURCE {
            Resource::Users => tx.rates_of(&ids).await?,
            _ => RateIds::default(),
        };
        let source = (self.event_context(&tx, report), &requests);
        let mut events = delete_in::<R>(&mut tx, &ids, last, source, Change::id).await?;
        let deleted = events.len() as u64;
        events.extend(delete_in::<BillableRate>(&mut tx, &rates.billable, last, source, user_of).await?);
        events.extend(delete_in::<CostRate>(&mut tx, &rates.cost, last, source, user_of).await?);
        tx.clear_rejections(R::RESOURCE, &ids).await?;
        tx.clear_absences(R::RESOURCE, &ids).await?;
        tx.clear_absences(Resource::BillableRates, &rates.billable).await?;
        tx.clear_absences(Resource::CostRates, &rates.cost).await?;
        if let Some(write) = self.write {
            tx.finish_write(write).await?;
        }
        // The cycle's row includes them. If the commit fails, the counts are restored.
        let before = (*report.of(R::RESOURCE), report.rates);
        let counts = report.of(R::RESOURCE);
        counts.changed += deleted;
        counts.deleted += deleted;
        report.rates.changed += events.len() as u64 - deleted;
        let done = emit_and_commit(tx, &events, report).await;
        if done.is_err() {
            (*report.of(R::RESOURCE), report.rates) = before;
        }
        done
    }
}

fn user_of<R: Record>(deletion: &Change<R>) -> i64 {
    deletion.before.as_deref().and_then(Record::part_of_user).unwrap_or_default()
}

/// Deletes records within a transaction and returns their events. `confirmed_by`: the id of the record whose request confirmed
/// the deletion.
async fn delete_in<R: MirrorTable>(
    tx: &mut AccountTx,
    ids: &[i64],
    last: &LastVersions,
    (context, requests): (EventContext<'_>, &HashMap<i64, &str>),
    confirmed_by: fn(&Change<R>) -> i64,
) -> Result<Vec<Event>, StoreError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let mut deletions = tombstones(tx.rows::<R>(ids).await?);
    if let Some(last) = last.get(&R::RESOURCE) {
        for deletion in &mut deletions {
            last.get(&deletion.id()).into_iter().for_each(|last| deletion.continue_after(*last));
        }
    }
    tx.tombstone(&deletions).await?;
    let events = deletions.iter().map(|deletion| {
        let request = requests.get(&confirmed_by(deletion)).copied();
        Event::new(deletion, &EventContext { request, ..context })
    });
    Ok(events.collect())
}
