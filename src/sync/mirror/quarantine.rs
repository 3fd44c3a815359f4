//! Records that PostgreSQL refuses: is the cause the record or the database?
//!
//! Nothing is stored before that is known. Each attempt is its own transaction, which is rolled back.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::PageRead;
use super::page_changes::rejection;
use super::writer::{PageChanges, PostgresMirror};
use crate::harvest::{Decode, wire};
use crate::roster::{Authority, Fetched};
use crate::store::{MirrorTable, StoreError};
use crate::sync::report::CycleReport;

/// Each poll tries at most this many refused records again. If there are more, they are chosen at random.
const MAX_RETRIED: i64 = 100;

/// Refused records by id, each with the reason.
type Refused = HashMap<i64, String>;

impl PostgresMirror<'_> {
    /// Moves the records that PostgreSQL refuses to the rejected records, and returns their number. `page_size`: number of
    /// records of the page.
    ///
    /// # Errors
    /// If PostgreSQL refuses too many records of the page, or a row that it accepted before: then the cause is the database.
    pub(super) async fn quarantine<R: Decode + MirrorTable>(
        &self,
        changes: &mut PageChanges<R>,
        page_size: usize,
        error: StoreError,
        report: &CycleReport,
    ) -> Result<u64, StoreError> {
        changes.records.sort_by_key(Fetched::id);
        let records = &changes.records;
        let too_many = |refused| self.guard.holds(refused, page_size as u64);
        let refused = self.refused_alone(records, too_many, report).await?;
        let distinct = records.chunk_by(|a, b| a.id() == b.id()).count();
        let is_database = match refused.len() {
            0 => false,
            many if too_many(many) => true,
            few => !self.accepts_a_known_row(records, report).await?.unwrap_or(few < distinct),
        };
        if is_database {
            return Err(error.into_page_refused(R::RESOURCE.name(), refused.len(), distinct));
        }
        for same in records.chunk_by(|a, b| a.id() == b.id()) {
            // Of two states of a record the later one counts.
            if let (Some(fetched), Some(reason)) = (same.last(), refused.get(&same[0].id())) {
                changes.rejected.push(rejection(fetched, reason.clone(), true));
            }
        }
        leave_out(changes, &refused);
        Ok(refused.len() as u64)
    }

    /// Writes the records with their events, and rolls back.
    async fn attempt<R: MirrorTable>(
        &self,
        records: &[Fetched<R>],
        report: &CycleReport,
    ) -> Result<(), StoreError> {
        match self.attempt_once(records, &HashMap::new(), report).await {
            Err(error) if error.is_version_conflict() => {
                let last = self.last_versions(records).await?;
                self.attempt_once(records, &last, report).await
            }
            done => done,
        }
    }

    async fn attempt_once<R: MirrorTable>(
        &self,
        records: &[Fetched<R>],
        last: &HashMap<i64, i64>,
        report: &CycleReport,
    ) -> Result<(), StoreError> {
        let mut tx = self.store.begin(&self.fence).await?;
        let (events, _) = self.write(&mut tx, records, last, report).await?;
        tx.emit(&events).await?;
        tx.check_deferred().await
    }

    /// Finds by halving which of the records, sorted by id, PostgreSQL refuses even alone. Stops when they are too many.
    async fn refused_alone<R: MirrorTable>(
        &self,
        records: &[Fetched<R>],
        too_many: impl Fn(usize) -> bool,
        report: &CycleReport,
    ) -> Result<Refused, StoreError> {
        let ids: Vec<i64> = records.chunk_by(|a, b| a.id() == b.id()).map(|same| same[0].id()).collect();
        let (mut refused, mut open) = (Refused::new(), vec![&ids[..]]);
        while let Some(some) = open.pop()
            && !too_many(refused.len())
        {
            let (Some(first), Some(last)) = (some.first(), some.last()) else { continue };
            let start = records.partition_point(|fetched| fetched.id() < *first);
            let end = records.partition_point(|fetched| fetched.id() <= *last);
            match self.attempt(&records[start..end], report).await {
                Err(error) if !error.is_refusal() => return Err(error),
                Err(error) if some.len() == 1 => _ = refused.insert(*first, error.refusal_reason()),
                Err(_) => open.extend(<[_; 2]>::from(some.split_at(some.len() / 2))),
                Ok(()) => {}
            }
        }
        Ok(refused)
    }

    /// Whether PostgreSQL accepts a row of this table that it accepted before, both as a change and as a new row. `None` if
    /// the mirror has no row other than those of the records.
    async fn accepts_a_known_row<R: MirrorTable>(
        &self,
        records: &[Fetched<R>],
        report: &CycleReport,
    ) -> Result<Option<bool>, StoreError> {
        let ids: Vec<i64> = records.iter().map(Fetched::id).collect();
        let account = self.fence.account;
        let Some((id, raw)) = self.store.latest_row(account, R::RESOURCE, &ids).await? else {
            return Ok(None);
        };
        let Some(row) = self.store.rows::<R>(account, &[id]).await?.remove(&id) else { return Ok(None) };
        let Ok(raw) = RawValue::from_string(raw) else { return Ok(None) };
        // Harvest's ids are positive.
        let new = row.record.clone().with_id(-id);
        for record in [row.record, new] {
            let is_new = record.id() != id;
            let record = Arc::new(record);
            let (raw, hash, authority) = (raw.clone(), row.hash.wrapping_add(1), Authority::Full);
            let known = Fetched { record, raw, hash, project: None, authority, request: None };
            match self.attempt(&[known], report).await {
                Ok(()) => {}
                // The operator has a unique index, which the copy of the known row violates.
                Err(error) if is_new && error.is_unique_violation() => {}
                Err(error) if error.is_refusal() => return Ok(Some(false)),
                Err(error) => return Err(error),
            }
        }
        Ok(Some(true))
    }

    /// Stores the refused records that PostgreSQL accepts now, from their stored text. That text is the newest state: storing
    /// a newer one would have removed it.
    pub(super) async fn retry<R: Decode + MirrorTable>(
        &self,
        with_pay: bool,
        report: &mut CycleReport,
    ) -> Result<(), StoreError> {
        let kept = self.store.refused_records(self.fence.account, R::RESOURCE, MAX_RETRIED).await?;
        let records = kept.into_iter().filter_map(|raw| {
            let raw = RawValue::from_string(String::from_utf8(raw).ok()?).ok()?;
            let fetched = wire::read::<R>(&raw, with_pay, &"".into()).ok()?;
            Some(Fetched { request: None, ..fetched })
        });
        let page = PageRead { records: records.collect(), ..PageRead::default() };
        let mut changes = self.changes(page, None, report).await?;
        if !changes.records.is_empty() {
            changes.records.sort_by_key(Fetched::id);
            let refused = self.refused_alone(&changes.records, |_| false, report).await?;
            leave_out(&mut changes, &refused);
        }
        if changes.is_empty() {
            return Ok(());
        }
        match self.commit_changes(&changes, report).await {
            Err(error) if error.is_refusal() => Ok(()),
            done => done,
        }
    }
}

/// Removes refused records from the changes. Those that are on record as rejected stay there.
fn leave_out<R: Decode>(changes: &mut PageChanges<R>, refused: &Refused) {
    changes.records.retain(|fetched| !refused.contains_key(&fetched.id()));
    changes.readable_again.retain(|id| !refused.contains_key(id));
}
