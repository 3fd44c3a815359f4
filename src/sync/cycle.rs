//! The data of one cycle: its parts, its rules and the memory between cycles.

use std::collections::{HashMap, HashSet};

use chrono::TimeDelta;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::CycleError;
use super::mirror::Mirror;
use crate::clock::Clock;
use crate::harvest::{Client, HarvestError};
use crate::roster::{DeletionGuard, Resource};
use crate::store::StoreError;
use crate::store::row_counts::RowCounts;

/// The rules of reading, from the settings.
#[derive(Clone, Copy, Debug)]
pub struct SyncRules {
    /// How far before the watermark an incremental read starts.
    pub skew_buffer: TimeDelta,
    pub full_interval: TimeDelta,
    /// Whether each poll compares Harvest's totals with the mirror's.
    pub count_probe: bool,
    /// How many deletions at once are held for review.
    pub guard: DeletionGuard,
    /// Whether job roles are read, for SCIM groups.
    pub with_roles: bool,
    /// Whether no other account uses the same budget of requests.
    pub alone: bool,
}

/// What a worker remembers between cycles. Losing it costs requests or writes, never a change.
#[derive(Debug, Default)]
pub struct CycleMemory {
    /// Whether there will be another cycle, as in a daemon.
    pub(super) is_lasting: bool,
    /// Absent records that exist, or for which Harvest gave no clear answer. They are not requested again before
    /// [`CycleMemory::ask_again`].
    pub(super) not_gone: HashSet<(Resource, i64)>,
    /// Users whose rates could not be read.
    pub(super) rates_unread: HashSet<i64>,
    /// Whether the token may not read rates.
    pub(super) rates_refused: bool,
    /// When rates are requested again after Harvest failed to answer.
    pub(super) rates_pause: Option<Instant>,
    /// Users that this cycle read by id before a list showed them.
    pub(super) looked_up_users: Vec<i64>,
    pub(super) lookups: Lookups,
    /// Whether this cycle has seen that the account shows the same company as before.
    pub(super) company_is_known: bool,
    /// Consecutive cycles in which Harvest did not answer requests for absent records.
    pub(super) unanswered_cycles: u32,
    /// When pending deletions are requested again after too many of those.
    pub(super) pending_pause: Option<Instant>,
    /// Job roles of the last list that rosterd cannot read.
    pub(super) unreadable_roles: usize,
    /// Idle reads since the watermark was last written.
    pub(super) idle_polls: HashMap<Resource, i64>,
}

/// Lookups of users that assignments name and the mirror does not have.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lookups {
    pub made: u32,
    /// Users who were not found, or not looked up.
    pub not_found: u64,
    /// Whether Harvest failed to answer one; then this cycle makes no more.
    pub failed: bool,
}

impl CycleMemory {
    pub fn lasting() -> Self {
        Self { is_lasting: true, ..Self::default() }
    }

    /// Requests everything again, in a full read that is due by the clock or was asked for. A full read started by a count
    /// does not, or an unanswered request would be repeated with each poll.
    pub(super) fn ask_again(&mut self) {
        let Self { not_gone, rates_refused, rates_unread, unanswered_cycles, .. } = self;
        not_gone.clear();
        rates_unread.clear();
        (*rates_refused, *unanswered_cycles) = (false, 0);
    }
}

/// Called after each stored page: the list, records so far, and the list's total if known.
pub type ProgressFn<'a> = &'a (dyn Fn(Resource, u64, Option<u64>) + Sync);

pub struct Cycle<'a, M> {
    pub mirror: &'a M,
    pub client: &'a Client,
    pub clock: &'a dyn Clock,
    pub rules: SyncRules,
    pub memory: &'a mut CycleMemory,
    pub progress: ProgressFn<'a>,
    /// If cancelled, the cycle ends after the current page.
    pub cancel: &'a CancellationToken,
}

impl<M: Mirror> Cycle<'_, M> {
    /// Waits for Harvest, or for a permit, until the cycle is cancelled.
    pub(crate) async fn unless_stopped<T>(
        &self,
        request: impl Future<Output = Result<T, HarvestError>>,
    ) -> Result<T, CycleError> {
        unless_stopped(self.cancel, request).await
    }

    /// Whether the mirror has live rows of a list, except those that an administrator decided to keep.
    pub(super) async fn has_rows(&self, resource: Resource) -> Result<bool, StoreError> {
        Ok(self.mirror.row_counts().await?.get(&resource).is_some_and(RowCounts::has_some))
    }
}

/// Waits for Harvest, or for a permit, until the cycle is cancelled. Storing is never cancelled.
pub(crate) async fn unless_stopped<T>(
    cancel: &CancellationToken,
    request: impl Future<Output = Result<T, HarvestError>>,
) -> Result<T, CycleError> {
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(CycleError::Stopped),
        answer = request => Ok(answer?),
    }
}
