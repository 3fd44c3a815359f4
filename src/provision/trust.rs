//! Whether the account and its token can still be trusted: `sync` finds out in full reads, but writes are also sent in between.

use super::execute::Run;
use crate::harvest::rate_limit::Priority;
use crate::sync::cycle::{CycleMemory, unless_stopped};
use crate::sync::error::CycleError;
use crate::sync::{company, deletions};

/// Why a deletion that Harvest's 404 would confirm is not stored.
pub(super) const MAY_NOT_SEE: &str = "Harvest answers 404, but the token has another owner than at the last full read, or its \
                                      owner is not an administrator; the next full read decides";

impl Run<'_> {
    /// Whether the account shows the company of the last full read. If not, nobody is created or invited there: a full read
    /// accepts a company that was renamed, and refuses another one.
    pub(super) async fn shows_known_company(&self) -> Result<bool, CycleError> {
        let known = self.sender.store.account_state(self.fence.account).await?;
        let (mirror, mut memory) = (self.mirror(None), CycleMemory::default());
        let mut cycle = self.cycle(&mirror, &mut memory, self.stop);
        if !company::is_other(&mut cycle, &known, Priority::Write).await? {
            return Ok(true);
        }
        let mut tx = self.sender.store.begin(&self.fence).await?;
        tx.request_full_read().await?;
        tx.commit().await?;
        let waits =
            "the account shows another company than at the last full read; waiting for another full read";
        self.sender.store.note_write(self.open.id, waits).await?;
        Ok(false)
    }

    /// Whether the token sees all users, as at the last full read. Otherwise a 404 does not mean that a record was deleted.
    pub(super) async fn sees_all(&self) -> Result<bool, CycleError> {
        let known = self.sender.store.account_state(self.fence.account).await?;
        let me = unless_stopped(self.stop, self.sender.client.me(Priority::Write)).await?;
        Ok(deletions::TokenAccess::known(&known).is_some_and(|token| token.sees_all_as(&me)))
    }
}
