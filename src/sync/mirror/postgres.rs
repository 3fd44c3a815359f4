//! Stores pages and results in PostgreSQL, each in one fenced transaction.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use super::writer::PostgresMirror;
use super::{DeletionResults, LastPage, ListContents, Mirror, PageRead, RolesRead};
use crate::harvest::Decode;
use crate::roster::{AbsentRecord, Resource};
use crate::store::rates::AbsentRates;
use crate::store::rejected::RejectedRecord;
use crate::store::roles::KnownRoles;
use crate::store::row_counts::RowCounts;
use crate::store::state::{AccountState, AccountUpdate};
use crate::store::{MirrorTable, StoreError};
use crate::sync::error::CycleError;
use crate::sync::report::{CycleMode, CycleReport};

/// Deletions per transaction.
const MAX_DELETED: usize = 2000;
/// Further unreadable records of a page are logged as one line.
const MAX_LOGGED: usize = 20;

impl Mirror for PostgresMirror<'_> {
    async fn account(&self) -> Result<AccountState, StoreError> {
        self.store.account_state(self.fence.account).await
    }

    async fn unknown_users(&self, mut named: Vec<i64>) -> Result<Vec<i64>, StoreError> {
        self.store.retain_new_users(self.fence.account, &mut named).await?;
        Ok(named)
    }

    async fn apply<R: Decode + MirrorTable>(
        &self,
        page: PageRead<R>,
        last: Option<LastPage>,
        report: &mut CycleReport,
    ) -> Result<bool, StoreError> {
        let page_size = page.records.len() + page.unreadable.len();
        let mut changes = self.changes(page, last, report).await?;
        if changes.is_empty() {
            return Ok(false);
        }
        match self.commit_changes(&changes, report).await {
            // Records that PostgreSQL refuses are rejected, unless the cause is the database.
            Err(error) if error.is_refusal() && !changes.records.is_empty() => {
                let refused = self.quarantine(&mut changes, page_size, error, report).await?;
                self.commit_changes(&changes, report).await?;
                let counts = report.of(R::RESOURCE);
                counts.rejected += refused;
                counts.refused += refused;
            }
            done => done?,
        }
        log_rejected::<R>(&changes.rejected, report);
        Ok(true)
    }

    async fn retry_refused<R: Decode + MirrorTable>(
        &self,
        with_pay: bool,
        report: &mut CycleReport,
    ) -> Result<(), StoreError> {
        self.retry::<R>(with_pay, report).await
    }

    async fn absent_records(
        &self,
        resource: Resource,
        listed: &ListContents,
    ) -> Result<Vec<AbsentRecord>, StoreError> {
        self.store.absent_records(self.fence.account, resource, &listed.ids, self.again_after).await
    }

    async fn pending_deletions(&self) -> Result<HashMap<Resource, Vec<AbsentRecord>>, StoreError> {
        self.store.due_candidates(self.fence.account, self.again_after).await
    }

    async fn absent_rates(
        &self,
        before: Option<DateTime<Utc>>,
    ) -> Result<HashMap<Resource, AbsentRates>, StoreError> {
        self.store.absent_rates(self.fence.account, self.again_after, before).await
    }

    async fn row_counts(&self) -> Result<HashMap<Resource, RowCounts>, StoreError> {
        self.store.row_counts(self.fence.account).await
    }

    async fn live_projects(&self) -> Result<u64, StoreError> {
        self.store.live_projects(self.fence.account).await
    }

    async fn record_results<R: Decode + MirrorTable>(
        &self,
        results: DeletionResults,
        report: &mut CycleReport,
    ) -> Result<(), StoreError> {
        let DeletionResults { gone, held, first_404 } = results;
        for gone in gone.chunks(MAX_DELETED) {
            self.delete::<R>(gone, report).await?;
        }
        if held.is_empty() && first_404.is_empty() {
            return Ok(());
        }
        let mut tx = self.store.begin(&self.fence).await?;
        tx.hold(R::RESOURCE, &held).await?;
        tx.record_first_404(R::RESOURCE, &first_404).await?;
        tx.commit().await?;
        report.of(R::RESOURCE).held += held.len() as u64;
        for group in held.chunk_by(|(_, a), (_, b)| a == b) {
            tracing::warn!(
                event = "deletions.held",
                account_id = report.account.0,
                cycle_id = %report.id,
                resource = R::RESOURCE.name(),
                reason = group[0].1.name(),
                records = group.len(),
                "deletions are held for review: list them with `rosterd deletions list`"
            );
        }
        Ok(())
    }

    async fn forget_absent_rejections(
        &self,
        resource: Resource,
        listed: &ListContents,
    ) -> Result<(), StoreError> {
        let shown = |id: Option<i64>, fingerprint: &str| {
            id.is_some_and(|id| listed.ids.contains(id)) || listed.without_id.contains(fingerprint)
        };
        self.store.clear_unlisted_rejections(&self.fence, resource, shown).await
    }

    async fn set_unexplained(
        &self,
        resource: Resource,
        unexplained: Option<(u64, u64)>,
    ) -> Result<(), StoreError> {
        self.store.set_unexplained(&self.fence, resource, unexplained).await
    }

    async fn known_roles(&self) -> Result<Option<KnownRoles>, StoreError> {
        self.store.known_roles(self.fence.account).await.map(Some)
    }

    async fn store_roles(&self, read: &RolesRead, asked_at: DateTime<Utc>) -> Result<(), StoreError> {
        let mut tx = self.store.begin(&self.fence).await?;
        tx.store_roles(&read.changed, Some(asked_at)).await?;
        tx.delete_roles(&read.gone, Some(asked_at)).await?;
        tx.set_roles_read().await?;
        if read.needs_full_read {
            tx.request_full_read().await?;
        }
        tx.commit().await
    }

    /// Writes nothing if nothing happened or the database is unavailable.
    async fn finish(&self, report: &CycleReport, mut end: AccountUpdate) -> Result<(), StoreError> {
        let is_idle = report.outcome.is_ok() && !report.wrote() && report.mode == CycleMode::Incremental;
        match &report.outcome {
            Err(CycleError::Store(StoreError::Fenced(_))) => return Ok(()),
            // The account is in order, but if the cycle has a row, the row must not look like a running cycle.
            Err(CycleError::Store(_) | CycleError::Stopped) => {
                if report.events() > 0 {
                    let mut tx = self.store.begin(&self.fence).await?;
                    tx.record_cycle(&report.row()).await?;
                    tx.commit().await?;
                }
                return Ok(());
            }
            Err(error) => end.error = Some(crate::telemetry::chain(error)),
            Ok(()) if is_idle => return self.store.clear_error(&self.fence).await,
            Ok(()) => {}
        }
        let mut tx = self.store.begin(&self.fence).await?;
        tx.record_cycle_end(&end).await?;
        if report.wrote() || report.held() > 0 || report.outcome.is_err() {
            tx.record_cycle(&report.row()).await?;
        }
        tx.commit().await
    }
}

fn log_rejected<R: MirrorTable>(rejected: &[RejectedRecord], report: &CycleReport) {
    for rejection in rejected.iter().take(MAX_LOGGED) {
        tracing::warn!(
            event = "record.rejected",
            account_id = report.account.0,
            cycle_id = %report.id,
            resource = R::RESOURCE.name(),
            record_id = rejection.id,
            error = rejection.reason,
            "a record cannot be read: it is kept in roster.rejected_records"
        );
    }
    if let Some(more) = rejected.len().checked_sub(MAX_LOGGED).filter(|more| *more > 0) {
        tracing::warn!(
            event = "record.rejected",
            account_id = report.account.0,
            cycle_id = %report.id,
            resource = R::RESOURCE.name(),
            records = more,
            "{more} more records of this page cannot be read"
        );
    }
}
