//! The result of a cycle, and its log line.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::error::CycleError;
use crate::roster::{AccountId, Resource};
use crate::store::state::CycleRow;
use crate::telemetry::{count, instruments};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CycleMode {
    /// Reads what changed since the watermark.
    Incremental,
    Full,
    /// Stores the answer to a write to Harvest.
    Write,
}

impl CycleMode {
    /// The name in tables, events and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Incremental => "incremental",
            Self::Full => "full",
            Self::Write => "write",
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub seen: u64,
    /// Records with an event.
    pub changed: u64,
    /// Rows updated without an event.
    pub refreshed: u64,
    /// Records that cannot be read, or that PostgreSQL refused.
    pub rejected: u64,
    /// Records that PostgreSQL refused.
    pub refused: u64,
    /// Deletions among the changes.
    pub deleted: u64,
    /// Deletions that this cycle held for review.
    pub held: u64,
}

/// Logs a successful cycle. `tracing` needs the level and the message as literals.
macro_rules! finished {
    ($level:ident, $report:ident, $next:ident, $($message:tt)+) => {
        tracing::$level!(
            event = "cycle.finished",
            account_id = $report.account.0,
            cycle_id = %$report.id,
            mode = $report.mode.name(),
            requests = $report.requests,
            users_seen = $report.users.seen,
            users_changed = $report.users.changed,
            assignments_seen = $report.assignments.seen,
            assignments_changed = $report.assignments.changed,
            events = $report.events(),
            duration_ms = $report.duration_ms(),
            interval_ms = $next,
            $($message)+
        )
    };
}
/// Logs a failed cycle.
macro_rules! failed {
    ($level:ident, $event:literal, $report:ident, $next:ident, $error:ident, $message:literal) => {
        tracing::$level!(
            event = $event,
            account_id = $report.account.0,
            cycle_id = %$report.id,
            mode = $report.mode.name(),
            error = %crate::telemetry::chain($error),
            retry_in_ms = $next,
            requests = $report.requests,
            duration_ms = $report.duration_ms(),
            $message
        )
    };
}

#[derive(Debug)]
pub struct CycleReport {
    /// The cycle's id in events, tables and logs.
    pub id: Uuid,
    pub account: AccountId,
    /// The mode at the end: an incremental cycle can turn into a full one.
    pub mode: CycleMode,
    pub started_at: DateTime<Utc>,
    pub finished_at: Option<DateTime<Utc>>,
    pub requests: u64,
    pub users: Counts,
    pub assignments: Counts,
    /// Billable and cost rates.
    pub rates: Counts,
    /// The outcome, once the cycle has ended.
    pub outcome: Result<(), CycleError>,
}

impl CycleReport {
    pub fn new(account: AccountId, mode: CycleMode, started_at: DateTime<Utc>) -> Self {
        Self {
            id: Uuid::new_v4(),
            account,
            mode,
            started_at,
            finished_at: None,
            requests: 0,
            users: Counts::default(),
            assignments: Counts::default(),
            rates: Counts::default(),
            outcome: Ok(()),
        }
    }

    pub fn of(&mut self, resource: Resource) -> &mut Counts {
        match resource {
            Resource::Users => &mut self.users,
            Resource::Assignments => &mut self.assignments,
            Resource::BillableRates | Resource::CostRates => &mut self.rates,
        }
    }

    pub fn events(&self) -> u64 {
        self.users.changed + self.assignments.changed + self.rates.changed
    }

    /// Deletions that this cycle held for review.
    pub fn held(&self) -> u64 {
        self.users.held + self.assignments.held + self.rates.held
    }

    pub fn wrote(&self) -> bool {
        self.events() + self.users.refreshed + self.assignments.refreshed + self.rates.refreshed > 0
    }

    fn outcome_name(&self) -> &'static str {
        match self.outcome {
            Ok(()) if self.held() > 0 => "held",
            Ok(()) => "ok",
            Err(CycleError::Stopped) => "abandoned",
            Err(_) => "failed",
        }
    }

    /// Records the cycle in `/metrics`.
    pub fn count(&self) {
        let took = u64::try_from(self.duration_ms()).map(Duration::from_millis).unwrap_or_default();
        let ended_at = self.finished_at.unwrap_or(self.started_at).timestamp();
        instruments::cycle(self.account.0, self.mode.name(), self.outcome_name(), took, ended_at);
    }

    pub(super) fn row(&self) -> CycleRow {
        let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let outcome = self.finished_at.map(|_| self.outcome_name());
        CycleRow {
            id: self.id,
            mode: self.mode.name(),
            started_at: self.started_at,
            finished_at: self.finished_at,
            outcome,
            requests: count(self.requests),
            users_seen: count(self.users.seen),
            users_changed: count(self.users.changed),
            assignments_seen: count(self.assignments.seen),
            assignments_changed: count(self.assignments.changed),
            events: count(self.events()),
            error: self.outcome.as_ref().err().map(|error| crate::telemetry::chain(error)),
        }
    }

    /// The cycle as JSON, without its outcome.
    pub fn json(&self) -> Value {
        json!({
            "id": self.id,
            "mode": self.mode.name(),
            "started_at": self.started_at,
            "finished_at": self.finished_at,
            "requests": self.requests,
            "events": self.events(),
            "users": self.users,
            "assignments": self.assignments,
            "rates": self.rates,
        })
    }

    pub fn summary(&self) -> String {
        let what = match self.mode {
            CycleMode::Full => "everything",
            CycleMode::Incremental | CycleMode::Write => "what changed",
        };
        let deleted = match self.users.deleted + self.assignments.deleted {
            0 => String::new(),
            deleted => format!("; {deleted} deleted"),
        };
        let rejected = self.users.rejected + self.assignments.rejected;
        let unreadable = if rejected == 0 {
            String::new()
        } else {
            format!("; {} cannot be read, see roster.rejected_records", count(rejected, "record"))
        };
        format!(
            "account {}: {} read in {:.1} s by {}: {} ({} changed), {} ({} changed), {}{deleted}{unreadable}",
            self.account,
            what,
            self.finished_at.map_or(0.0, |end| (end - self.started_at).as_seconds_f64()),
            count(self.requests, "request"),
            count(self.users.seen, "user"),
            self.users.changed,
            count(self.assignments.seen, "assignment"),
            self.assignments.changed,
            count(self.events(), "event"),
        )
    }

    fn duration_ms(&self) -> i64 {
        self.finished_at.map_or(0, |end| (end - self.started_at).num_milliseconds())
    }

    /// Logs the cycle. `next` is the time to the next poll, or to the next attempt after a failure. The level is `info` if
    /// anything changed, after a full read, or for the hourly heartbeat; `debug` if idle; `warn` if the cycle failed and will be
    /// tried again; `error` if only an administrator can fix the cause. Returns whether the level was above `debug`.
    pub fn log(&self, next: Option<Duration>, heartbeat: bool) -> bool {
        let next = next.map(|next| u64::try_from(next.as_millis()).unwrap_or(u64::MAX));
        match &self.outcome {
            Ok(()) if self.wrote() || heartbeat || self.mode == CycleMode::Full => finished!(
                info,
                self,
                next,
                "cycle finished: {} and {} changed, {} of them deleted",
                count(self.users.changed, "user"),
                count(self.assignments.changed, "assignment"),
                self.users.deleted + self.assignments.deleted
            ),
            Ok(()) => {
                finished!(debug, self, next, "cycle finished: nothing changed");
                return false;
            }
            Err(CycleError::Stopped) => tracing::info!(
                account_id = self.account.0,
                cycle_id = %self.id,
                "cycle stopped after a page: the process is stopping"
            ),
            Err(error) if error.is_credentials() => failed!(
                error,
                "credentials.refused",
                self,
                next,
                error,
                "cycle failed; an administrator must act: run `rosterd check`"
            ),
            Err(error) => failed!(warn, "cycle.failed", self, next, error, "cycle failed; trying again"),
        }
        true
    }
}
