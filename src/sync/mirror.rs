//! Where a cycle's results go: into PostgreSQL, or onto the screen. Reading is the same for all.

pub mod dry_run;
pub mod finding;
mod page_changes;
mod postgres;
mod quarantine;
mod tombstones;
pub mod verify;
mod writer;

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};

use super::report::CycleReport;
use crate::harvest::pages::ListPage;
use crate::harvest::{Decode, UnreadableRecord};
use crate::roster::{
    AbsentRecord, Action, Fetched, HoldReason, IdSet, Observation, Resource, Role, SourceRequest,
};
use crate::store::rates::AbsentRates;
use crate::store::roles::KnownRoles;
use crate::store::row_counts::RowCounts;
use crate::store::state::{AccountState, AccountUpdate, WatermarkUpdate};
use crate::store::{MirrorTable, StoreError};

pub use writer::PostgresMirror;

pub struct PageRead<R> {
    pub records: Vec<Fetched<R>>,
    pub unreadable: Vec<UnreadableRecord>,
}

impl<R> PageRead<R> {
    pub fn unreadable(record: UnreadableRecord) -> Self {
        Self { records: Vec::new(), unreadable: vec![record] }
    }
}

impl<R> Default for PageRead<R> {
    fn default() -> Self {
        Self { records: Vec::new(), unreadable: Vec::new() }
    }
}

impl<R> From<Fetched<R>> for PageRead<R> {
    fn from(record: Fetched<R>) -> Self {
        Self { records: vec![record], unreadable: Vec::new() }
    }
}

impl<R> From<ListPage<R>> for PageRead<R> {
    fn from(page: ListPage<R>) -> Self {
        Self { records: page.records, unreadable: page.rejected }
    }
}

pub struct LastPage {
    pub update: WatermarkUpdate,
    /// Whether it must be written even if the page changes nothing.
    pub is_due: bool,
}

#[derive(Debug, Default)]
pub struct ListContents {
    /// All ids, also those of unreadable records.
    pub ids: IdSet,
    /// Fingerprints of records whose id cannot be read.
    pub without_id: HashSet<String>,
    /// Harvest's number of rows, if all pages agreed on it.
    pub total: Option<u64>,
}

impl ListContents {
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty() && self.without_id.is_empty()
    }
}

/// The results for the absent records of one list.
#[derive(Debug, Default)]
pub struct DeletionResults {
    /// Confirmed deletions, each with the request whose answer confirmed it; `None` if the user was deleted before.
    pub gone: Vec<(i64, Option<SourceRequest>)>,
    pub held: Vec<(i64, HoldReason)>,
    /// Records with a first 404, or rates absent from their user's list that were not requested yet.
    pub first_404: Vec<i64>,
}

impl DeletionResults {
    /// Holds these deletions, except those that an administrator decided on or that are held for this reason already.
    pub fn held<'c>(absent: impl IntoIterator<Item = &'c AbsentRecord>, reason: HoldReason) -> Self {
        let held = absent.into_iter().filter_map(|it| match it.step(Observation::Suspicious(reason)) {
            Action::Hold(reason) => Some((it.id, reason)),
            _ => None,
        });
        Self { held: held.collect(), ..Self::default() }
    }

    pub fn rest_on_404(&self) -> bool {
        !self.gone.is_empty() || !self.first_404.is_empty()
    }
}

/// What a complete list of job roles changes.
#[derive(Debug, Default)]
pub struct RolesRead {
    /// Roles that differ from the mirror.
    pub changed: Vec<Role>,
    /// Roles whose deletion is confirmed.
    pub gone: Vec<i64>,
    /// Whether the users whose roles have changed must be read by a full read.
    pub needs_full_read: bool,
}

/// Stores, prints or compares what a cycle read. Counts go into the report.
pub trait Mirror: Sync {
    fn account(&self) -> impl Future<Output = Result<AccountState, StoreError>> + Send;

    /// Those of the users that neither the mirror nor its assignments know. A user whom a mirrored assignment names was
    /// looked up when that assignment was new.
    fn unknown_users(&self, named: Vec<i64>) -> impl Future<Output = Result<Vec<i64>, StoreError>> + Send;

    /// Applies a page; with the last page of a list, the watermark too. Returns whether anything was written.
    fn apply<R: Decode + MirrorTable>(
        &self,
        page: PageRead<R>,
        last: Option<LastPage>,
        report: &mut CycleReport,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Stores records that the database refused before and accepts now. The default of this and later methods is for mirrors
    /// that write nothing.
    fn retry_refused<R: Decode + MirrorTable>(
        &self,
        _with_pay: bool,
        _report: &mut CycleReport,
    ) -> impl Future<Output = Result<(), StoreError>> + Send {
        async { Ok(()) }
    }

    /// Live rows that a complete list did not show.
    fn absent_records(
        &self,
        resource: Resource,
        listed: &ListContents,
    ) -> impl Future<Output = Result<Vec<AbsentRecord>, StoreError>> + Send;

    /// Absent records to request without another full read: accepted deletions, and those due for a second 404.
    fn pending_deletions(
        &self,
    ) -> impl Future<Output = Result<HashMap<Resource, Vec<AbsentRecord>>, StoreError>> + Send;

    /// Absent rates by kind. Those found absent before this time may be requested.
    fn absent_rates(
        &self,
        _before: Option<DateTime<Utc>>,
    ) -> impl Future<Output = Result<HashMap<Resource, AbsentRates>, StoreError>> + Send {
        async { Ok(HashMap::new()) }
    }

    fn row_counts(&self) -> impl Future<Output = Result<HashMap<Resource, RowCounts>, StoreError>> + Send;

    fn live_projects(&self) -> impl Future<Output = Result<u64, StoreError>> + Send;

    fn record_results<R: Decode + MirrorTable>(
        &self,
        results: DeletionResults,
        report: &mut CycleReport,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// After a full read: rejected records that the list did not show no longer exist.
    fn forget_absent_rejections(
        &self,
        _resource: Resource,
        _listed: &ListContents,
    ) -> impl Future<Output = Result<(), StoreError>> + Send {
        async { Ok(()) }
    }

    /// Stores or clears a total that a full read did not explain: Harvest's total and the expected one.
    fn set_unexplained(
        &self,
        _resource: Resource,
        _unexplained: Option<(u64, u64)>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send {
        async { Ok(()) }
    }

    /// The job roles of the mirror. `None` if the mirror has none.
    fn known_roles(&self) -> impl Future<Output = Result<Option<KnownRoles>, StoreError>> + Send {
        async { Ok(None) }
    }

    /// Stores a complete list of job roles.
    fn store_roles(
        &self,
        _read: &RolesRead,
        _asked_at: DateTime<Utc>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send {
        async { Ok(()) }
    }

    fn finish(
        &self,
        _report: &CycleReport,
        _end: AccountUpdate,
    ) -> impl Future<Output = Result<(), StoreError>> + Send {
        async { Ok(()) }
    }
}
