//! Settles a write that was sent and whose result is unknown, by looking at Harvest.

use std::time::Duration;

use super::execute::Run;
use super::sender::Next;
use crate::harvest::Decode;
use crate::harvest::client::Lookup;
use crate::harvest::rate_limit::Priority;
use crate::harvest::write::MAX_SEND_DELAY;
use crate::roster::write::WriteKind;
use crate::roster::{Fetched, Field, SourceRequest, User};
use crate::store::writes::{FinishedWrite, WriteOutcome};
use crate::store::{MirrorTable, StoreError};
use crate::sync::error::CycleError;
use crate::sync::mirror::{DeletionResults, Mirror};

/// Bounds of the pause between two looks.
const MIN_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(20);
/// A write that Harvest never shows is sent no more often than this.
pub(super) const MAX_ATTEMPTS: i32 = 3;

enum Shown<R> {
    Record(Box<Fetched<R>>),
    Gone(SourceRequest),
    Unclear,
}

impl Run<'_> {
    /// Looks at Harvest for the result of a write that was sent this long ago.
    pub(super) async fn settle<R: Decode + MirrorTable>(&self, ago: Duration) -> Result<Next, CycleError> {
        let is_certain = self.can_no_longer_arrive(ago);
        if self.write.kind.is_creation() {
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
        match (self.shown::<R>().await?, self.write.kind.is_deletion()) {
            (Shown::Gone(request), true) => {
                let finished = self.ended(WriteOutcome::Done);
                let id = self.write.record().unwrap_or_default();
                let gone = DeletionResults { gone: vec![(id, Some(request))], ..DeletionResults::default() };
                let (mirror, mut report) = (self.mirror(Some(&finished)), self.report());
                mirror.record_results::<R>(gone, &mut report).await?;
                self.log_finished(&finished);
                Ok(Next::Finished)
            }
            (Shown::Gone(_), false) => {
                self.finish(&self.refused(Some(404), "Harvest does not have the record any more")).await
            }
            (Shown::Record(fetched), false)
                if is_settled
                    && self.write.fields.differing(self.write.kind, &*fetched.record).is_empty() =>
            {
                self.store_record(*fetched, &self.ended(WriteOutcome::Done)).await
            }
            // A deactivation is never given up.
            (Shown::Record(_) | Shown::Unclear, _)
                if is_certain
                    && self.write.kind != WriteKind::UserDeactivate
                    && self.open.attempts >= MAX_ATTEMPTS =>
            {
                self.finish(&self.lost("Harvest did not confirm the write, and does not show it")).await
            }
            // Repeating it is harmless, and the first request can no longer arrive after a later one.
            (Shown::Record(_) | Shown::Unclear, _) if is_certain => {
                self.mark_unsent(None).await?;
                Ok(Next::After(Duration::ZERO))
            }
            (Shown::Record(_) | Shown::Unclear, _) => Ok(look_again(ago)),
        }
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

    async fn shown<R: Decode + MirrorTable>(&self) -> Result<Shown<R>, CycleError> {
        let lookup: Lookup<R> = self.sender.client.lookup_written(self.write, Priority::Write).await?;
        Ok(match lookup {
            Lookup::Found(fetched) => Shown::Record(fetched),
            Lookup::Gone(request) => Shown::Gone(request),
            Lookup::Unreadable(_) | Lookup::Unclear(_) => Shown::Unclear,
        })
    }
}

pub(super) fn look_again(ago: Duration) -> Next {
    Next::After(ago.clamp(MIN_PAUSE, MAX_PAUSE))
}
