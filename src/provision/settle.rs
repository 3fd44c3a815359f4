//! Settles a write that was sent and whose result is unknown, by looking at Harvest.

use std::time::Duration;

use super::execute::{RETRY_PAUSE, Run};
use super::sender::Next;
use super::trust::MAY_NOT_SEE;
use crate::harvest::Decode;
use crate::harvest::client::Lookup;
use crate::harvest::rate_limit::Priority;
use crate::harvest::write::MAX_SEND_DELAY;
use crate::roster::write::WriteKind;
use crate::roster::{Field, SourceRequest, User};
use crate::store::writes::{FinishedWrite, WriteOutcome};
use crate::store::{MirrorTable, StoreError};
use crate::sync::cycle::unless_stopped;
use crate::sync::error::CycleError;
use crate::sync::mirror::{DeletionResults, Mirror};

/// Bounds of the pause between two looks.
const MIN_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(20);
/// A write that Harvest never shows is sent no more often than this.
pub(super) const MAX_ATTEMPTS: i32 = 3;

impl Run<'_> {
    /// Looks at Harvest for the result of a write that was sent this long ago. `was_deleted`: whether Harvest answered that
    /// it has deleted the record.
    pub(super) async fn settle<R: Decode + MirrorTable>(
        &self,
        ago: Duration,
        was_deleted: bool,
    ) -> Result<Next, CycleError> {
        let is_certain = self.can_no_longer_arrive(ago);
        if self.write.kind.is_creation() {
            if !self.shows_known_company().await? {
                return Ok(Next::After(RETRY_PAUSE));
            }
            return match self.look().await? {
                // If an administrator created it in these seconds, it is the answer all the same.
                Some(existing) => {
                    let done = self.ended(WriteOutcome::Done);
                    self.finish(&FinishedWrite { record: existing.id, ..done }).await
                }
                None if is_certain => {
                    let error = "Harvest did not answer, and does not have the record; request it again";
                    self.finish(&self.lost(error)).await
                }
                None => Ok(look_again(ago)),
            };
        }
        // What the record shows may have been so before the write was sent, which then can still arrive.
        let is_settled = is_certain || !self.may_have_been_so().await?;
        let lookup = self.sender.client.lookup_written::<R>(self.write, Priority::Write);
        match (unless_stopped(self.stop, lookup).await?, self.write.kind.is_deletion()) {
            // One of Harvest's replicas may not know a new record yet: without Harvest's word, a 404 counts a poll interval
            // later.
            (Lookup::Gone(request), true)
                if was_deleted || ago >= self.sender.again_after.to_std().unwrap_or_default() =>
            {
                self.deleted::<R>(request).await
            }
            (Lookup::Gone(_), true) => Ok(look_again(ago)),
            (Lookup::Gone(_), false) => {
                self.finish(&self.refused(Some(404), "Harvest does not have the record any more")).await
            }
            (Lookup::Found(fetched), false)
                if is_settled
                    && self.write.fields.differing(self.write.kind, &*fetched.record).is_empty() =>
            {
                self.store_record(*fetched, &self.ended(WriteOutcome::Done)).await
            }
            // A deactivation is never given up.
            _ if is_certain
                && self.write.kind != WriteKind::UserDeactivate
                && self.open.attempts >= MAX_ATTEMPTS =>
            {
                self.finish(&self.lost("Harvest did not confirm the write, and does not show it")).await
            }
            // Repeating it is harmless, and the first request can no longer arrive after a later one.
            _ if is_certain => {
                self.mark_unsent(None).await?;
                Ok(Next::After(Duration::ZERO))
            }
            _ => Ok(look_again(ago)),
        }
    }

    /// Stores a deletion after Harvest's 404 to the record's id, unless the token may not be able to see the record.
    async fn deleted<R: Decode + MirrorTable>(&self, request: SourceRequest) -> Result<Next, CycleError> {
        if !self.sees_all().await? {
            return self.finish(&self.lost(MAY_NOT_SEE)).await;
        }
        let finished = self.ended(WriteOutcome::Done);
        let id = self.write.record().unwrap_or_default();
        let gone = DeletionResults { gone: vec![(id, Some(request))], ..DeletionResults::default() };
        let (mirror, mut report) = (self.mirror(Some(&finished)), self.report());
        mirror.record_results::<R>(gone, &mut report).await?;
        self.log_finished(&finished);
        Ok(Next::Finished)
    }

    pub(super) fn lost(&self, error: &str) -> FinishedWrite {
        FinishedWrite { error: Some(error.to_owned()), ..self.ended(WriteOutcome::Lost) }
    }

    /// Whether a request that was sent this long ago has arrived or never will, and Harvest shows its effect: it may be sent
    /// late, arrive as late as the grace, and a list may show its effect as late as the skew buffer.
    pub(super) fn can_no_longer_arrive(&self, ago: Duration) -> bool {
        let skew = self.sender.sync.skew_buffer.to_std().unwrap_or_default();
        ago >= MAX_SEND_DELAY + self.sender.client.grace() + skew
    }

    /// Whether the user may have been archived before. Only deactivations are sent although the mirror says that they
    /// change nothing.
    async fn may_have_been_so(&self) -> Result<bool, StoreError> {
        if self.write.kind != WriteKind::UserDeactivate {
            return Ok(false);
        }
        let mut tx = self.sender.store.begin(&self.fence).await?;
        let ids: Vec<i64> = self.write.user.into_iter().collect();
        let user = tx.rows::<User>(&ids).await?.into_values().next();
        Ok(user.is_none_or(|row| row.record.is_active != Field::Value(true)))
    }
}

pub(super) fn look_again(ago: Duration) -> Next {
    Next::After(ago.clamp(MIN_PAUSE, MAX_PAUSE))
}
