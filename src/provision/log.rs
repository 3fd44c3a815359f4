//! Log lines and metrics of writes: ids and names of fields, never values.

use super::execute::Run;
use crate::roster::write::WriteKind;
use crate::store::writes::FinishedWrite;
use crate::telemetry::instruments;

impl Run<'_> {
    /// Logs the end of the write, by field names and without values.
    pub(super) fn log_finished(&self, finished: &FinishedWrite) {
        let (kind, outcome) = (self.write.kind.name(), finished.outcome.name());
        instruments::write(self.fence.account.0, kind, outcome);
        tracing::info!(
            event = "write.finished",
            account_id = self.fence.account.0,
            write_id = %self.open.id,
            kind,
            outcome,
            user_id = self.write.user.or(finished.record.filter(|_| self.write.kind == WriteKind::UserCreate)),
            assignment_id = self.write.assignment,
            role_id = self.write.role.or(finished.record.filter(|_| self.write.kind == WriteKind::RoleCreate)),
            fields = self.write.fields.names().join(","),
            actor = self.open.actor,
            status = finished.status,
            "a write to Harvest is finished"
        );
    }

    pub(super) fn log_held(&self) {
        tracing::warn!(
            event = "write.held",
            account_id = self.fence.account.0,
            write_id = %self.open.id,
            kind = self.write.kind.name(),
            user_id = self.write.user,
            "too many users would lose access; list held writes with `rosterd writes list --held`"
        );
    }

    pub(super) fn log_unanswered(&self, error: &str, is_unknown: bool) {
        tracing::warn!(
            event = if is_unknown { "write.in_doubt" } else { "write.delayed" },
            account_id = self.fence.account.0,
            write_id = %self.open.id,
            kind = self.write.kind.name(),
            user_id = self.write.user,
            error,
            "Harvest did not answer a write as expected"
        );
    }
}
