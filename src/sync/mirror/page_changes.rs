//! Compares a page with the database without a lock. Most pages end here: nothing differs, so nothing is written.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::writer::{PageChanges, PostgresMirror, owner};
use super::{LastPage, PageRead};
use crate::harvest::Decode;
use crate::roster::{Fetched, Project, unstorable};
use crate::store::rejected::RejectedRecord;
use crate::store::{MirrorTable, RowDigest, StoreError};
use crate::sync::report::CycleReport;

impl PostgresMirror<'_> {
    /// The page's records, projects and rejected records that the database does not have.
    pub(super) async fn changes<R: Decode + MirrorTable>(
        &self,
        mut page: PageRead<R>,
        last: Option<LastPage>,
        report: &mut CycleReport,
    ) -> Result<PageChanges<R>, StoreError> {
        let (store, account) = (self.store, self.fence.account);
        // An answer older than the stored one says nothing about the record, not even that it exists.
        let is_outdated = |id, seq| self.order.is_outdated(R::RESOURCE, id, seq);
        page.records.retain(|it| !is_outdated(it.id(), it.seq()));
        page.unreadable.retain(|it| it.id.is_none_or(|id| !is_outdated(id, it.request.seq())));
        let ids: Vec<i64> = page.records.iter().map(Fetched::id).collect();
        let digests =
            if ids.is_empty() { HashMap::new() } else { store.row_digests::<R>(account, &ids).await? };
        let differing = self.differing(&page.records, &digests).await?;
        let mut projects: BTreeMap<i64, Project> = BTreeMap::new();
        let mut rejected: Vec<RejectedRecord> = page
            .unreadable
            .into_iter()
            .map(|it| RejectedRecord {
                id: it.id,
                user_id: it.user_id,
                raw: it.raw.get().to_owned(),
                reason: it.reason,
                refused_by_database: false,
            })
            .collect();
        let mut records = Vec::new();
        for mut fetched in page.records {
            projects.extend(fetched.project.take().map(|project| (project.id, project)));
            let id = fetched.id();
            match unstorable(&*fetched.record) {
                Some(reason) if digests.get(&id).is_none_or(|row| row.deleted) => {
                    rejected.push(rejection(&fetched, reason.to_owned(), false));
                }
                _ if differing.contains(&id) => records.push(fetched),
                _ => {}
            }
        }
        let projects = match projects.len() {
            0 => Vec::new(),
            _ => store.changed_projects(account, projects.into_values().collect()).await?,
        };
        report.of(R::RESOURCE).rejected += rejected.len() as u64;
        let (readable_again, listed_again) = self.cleared::<R>(ids, &rejected).await?;
        let rejected = match rejected.len() {
            0 => rejected,
            _ => store.new_rejections(account, R::RESOURCE, rejected).await?,
        };
        Ok(PageChanges { records, projects, rejected, readable_again, listed_again, last })
    }

    /// Ids of the records that may differ from their rows. All states of such an id are kept, since the plan decides which
    /// counts. While an older request is in flight, its answer may be stored next, so that an equal record is compared again
    /// under the lock.
    async fn differing<R: MirrorTable>(
        &self,
        records: &[Fetched<R>],
        digests: &HashMap<i64, RowDigest>,
    ) -> Result<HashSet<i64>, StoreError> {
        let is_equal =
            |it: &Fetched<R>| digests.get(&it.id()) == Some(&RowDigest { hash: it.hash, deleted: false });
        let mut differing: HashSet<i64> = records
            .iter()
            .filter(|it| !is_equal(it) || self.order.has_older(it.seq()))
            .map(Fetched::id)
            .collect();
        if self.compare_all_fields && !records.is_empty() {
            let ids: Vec<i64> = records.iter().map(Fetched::id).collect();
            let rows = self.store.rows::<R>(self.fence.account, &ids).await?;
            let is_wrong = |it: &&Fetched<R>| {
                rows.get(&it.id()).is_some_and(|row| {
                    let record = R::clone(&it.record).or_known(&row.record);
                    record.fields() != row.record.fields() || record.quiet() != row.record.quiet()
                })
            };
            differing.extend(records.iter().filter(is_wrong).map(Fetched::id));
        }
        Ok(differing)
    }

    /// Of the page's ids: those on record as rejected that are readable now, and those on record as absent.
    async fn cleared<R: MirrorTable>(
        &self,
        ids: Vec<i64>,
        rejected: &[RejectedRecord],
    ) -> Result<(Vec<i64>, Vec<i64>), StoreError> {
        let rejected: HashSet<i64> = rejected.iter().filter_map(|it| it.id).collect();
        if ids.is_empty() && rejected.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        let all: Vec<i64> = ids.iter().chain(&rejected).copied().collect();
        let known_problems = self.store.known_problems(self.fence.account, R::RESOURCE, &all).await?;
        let (mut readable_again, mut listed_again) = (ids, all);
        readable_again.retain(|id| known_problems.rejected.contains(id) && !rejected.contains(id));
        listed_again.retain(|id| known_problems.missing.contains(id));
        Ok((readable_again, listed_again))
    }
}

/// The record as it is kept in `roster.rejected_records`.
pub(super) fn rejection<R: Decode>(
    fetched: &Fetched<R>,
    reason: String,
    refused_by_database: bool,
) -> RejectedRecord {
    RejectedRecord {
        id: Some(fetched.id()),
        user_id: owner(&*fetched.record),
        raw: fetched.raw.get().to_owned(),
        reason,
        refused_by_database,
    }
}
