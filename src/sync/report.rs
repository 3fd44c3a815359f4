//! What a cycle did, and its one log line.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::cycle::CycleError;
use super::schedule::Mode;
use crate::roster::{AccountId, Resource};
use crate::store::state::CycleRow;
use crate::telemetry::{count, meters};

/// What was read and changed of one list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Records read.
    pub seen: u64,
    /// Records that made an event.
    pub changed: u64,
    /// Rows refreshed without one.
    pub refreshed: u64,
    /// Records that cannot be read, or that PostgreSQL refused.
    pub rejected: u64,
    /// Those that PostgreSQL refused.
    pub refused: u64,
    /// Deletions among the changes.
    pub deleted: u64,
    /// Deletions that this cycle found and holds for a person.
    pub held: u64,
}

/// What a cycle did.
#[derive(Debug)]
pub struct Report {
    /// Names the cycle in events, tables and logs.
    pub id: Uuid,
    /// The account.
    pub account: AccountId,
    /// How much was read: an incremental cycle may have turned into a full one.
    pub mode: Mode,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// Requests sent.
    pub requests: u64,
    /// Users.
    pub users: Counts,
    /// Assignments.
    pub assignments: Counts,
    /// Billable and cost rates.
    pub rates: Counts,
    /// Whether it was good, once it has ended.
    pub outcome: Result<(), CycleError>,
}

impl Report {
    /// A cycle that begins.
    pub fn new(account: AccountId, mode: Mode, started_at: DateTime<Utc>) -> Self {
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

    /// The counts of a list.
    pub fn of(&mut self, resource: Resource) -> &mut Counts {
        match resource {
            Resource::Users => &mut self.users,
            Resource::Assignments => &mut self.assignments,
            Resource::BillableRates | Resource::CostRates => &mut self.rates,
        }
    }

    /// Events written.
    pub fn events(&self) -> u64 {
        self.users.changed + self.assignments.changed + self.rates.changed
    }

    /// Deletions that this cycle holds for a person.
    pub fn held(&self) -> u64 {
        self.users.held + self.assignments.held + self.rates.held
    }

    /// Whether any row was written.
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

    /// Counts the cycle, for `/metrics`.
    pub fn count(&self) {
        let took = u64::try_from(self.duration_ms()).map(Duration::from_millis).unwrap_or_default();
        let ended_at = self.finished_at.unwrap_or(self.started_at).timestamp();
        meters::cycle(self.account.0, self.mode.name(), self.outcome_name(), took, ended_at);
    }

    /// As `roster.cycles` has it.
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

    /// For whoever asked for it.
    pub fn summary(&self) -> String {
        let what = match self.mode {
            Mode::Full => "everything",
            Mode::Incremental => "what changed",
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

    /// Says it once, with the interval to the next poll, or the wait until the next try: `info` when something changed or
    /// everything was read (or it is time for a heartbeat), `debug` when idle, `warn` when it failed and will be tried
    /// again, `error` when only a person can help. Tells whether it was said louder than `debug`.
    pub fn log(&self, next: Option<Duration>, heartbeat: bool) -> bool {
        let next = next.map(|next| u64::try_from(next.as_millis()).unwrap_or(u64::MAX));
        macro_rules! finished {
            ($level:ident, $($message:tt)+) => {
                tracing::$level!(
                    event = "cycle.finished",
                    account_id = self.account.0,
                    cycle_id = %self.id,
                    mode = self.mode.name(),
                    requests = self.requests,
                    users_seen = self.users.seen,
                    users_changed = self.users.changed,
                    assignments_seen = self.assignments.seen,
                    assignments_changed = self.assignments.changed,
                    events = self.events(),
                    duration_ms = self.duration_ms(),
                    interval_ms = next,
                    $($message)+
                )
            };
        }
        macro_rules! failed {
            ($level:ident, $event:literal, $error:ident, $message:literal) => {
                tracing::$level!(
                    event = $event,
                    account_id = self.account.0,
                    cycle_id = %self.id,
                    mode = self.mode.name(),
                    error = %crate::telemetry::chain($error),
                    retry_in_ms = next,
                    requests = self.requests,
                    duration_ms = self.duration_ms(),
                    $message
                )
            };
        }
        match &self.outcome {
            Ok(()) if self.wrote() || heartbeat || self.mode == Mode::Full => finished!(
                info,
                "cycle finished: {} and {} changed, {} of them deleted",
                count(self.users.changed, "user"),
                count(self.assignments.changed, "assignment"),
                self.users.deleted + self.assignments.deleted
            ),
            Ok(()) => {
                finished!(debug, "cycle finished: nothing changed");
                return false;
            }
            Err(CycleError::Stopped) => tracing::info!(
                account_id = self.account.0,
                cycle_id = %self.id,
                "cycle left off at a page's end: stopping"
            ),
            Err(error) if error.is_credentials() => failed!(
                error,
                "credentials.refused",
                error,
                "cycle failed until an administrator acts: `rosterd check` says how"
            ),
            Err(error) => failed!(warn, "cycle.failed", error, "cycle failed: trying again"),
        }
        true
    }
}
