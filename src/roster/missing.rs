//! What happens to a record of the mirror that a complete list of Harvest's does not show.
//!
//! A list can be short for many reasons: an outage, a token without its old rights, a change during pagination. Absence is
//! therefore never enough. rosterd requests each absent record by id and deletes it only after Harvest's 404. If too many
//! records are absent at once, or the list is not trustworthy, the deletions are held until an administrator decides.
//!
//! [`AbsentRecord::step`] is the whole decision: `sync` makes the requests and carries out the actions, `store::missing` keeps
//! the states.

use chrono::{DateTime, TimeDelta, Utc};

/// One of Harvest's replicas may not know a record that was created this recently, so its first 404 is not enough.
const RECENTLY_CREATED: TimeDelta = TimeDelta::minutes(10);

/// The bounds above which deletions are held for review.
#[derive(Clone, Copy, Debug)]
pub struct DeletionGuard {
    /// A share of the live rows, from 0 to 1.
    pub fraction: f64,
    pub at_least: u32,
}

impl DeletionGuard {
    /// Whether `absent` of `live` rows exceed both bounds.
    #[expect(clippy::cast_precision_loss, reason = "no company has 2^52 users")]
    pub fn holds(&self, absent: usize, live: u64) -> bool {
        absent > self.at_least as usize && absent as f64 > self.fraction * live as f64
    }
}

/// Why a deletion is held for review.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HoldReason {
    /// Too many records are absent at once.
    Guard,
    /// The token's owner is not an administrator and may not see the record.
    NotAdministrator,
    /// The whole list was empty.
    EmptyList,
}

impl HoldReason {
    pub const ALL: [Self; 3] = [Self::Guard, Self::NotAdministrator, Self::EmptyList];

    /// The name in `roster.held_deletions` and in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Guard => "guard",
            Self::NotAdministrator => "not_administrator",
            Self::EmptyList => "empty_list",
        }
    }

    /// The reason with this name; [`HoldReason::Guard`] if no reason has it.
    pub fn of_name(name: &str) -> Self {
        Self::ALL.into_iter().find(|reason| reason.name() == name).unwrap_or(Self::Guard)
    }
}

/// What is on record about the deletion of an absent record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbsentState {
    Undecided,
    Held(HoldReason),
    /// An administrator accepted the deletion.
    Accepted,
    /// An administrator decided to keep the record.
    Kept,
}

/// A live record of the mirror that Harvest did not list.
#[derive(Clone, Debug)]
pub struct AbsentRecord {
    pub id: i64,
    /// When it was created, by Harvest's clock.
    pub created_at: Option<DateTime<Utc>>,
    /// The user of an assignment or a rate.
    pub user_id: Option<i64>,
    pub project_id: Option<i64>,
    /// Whether that user is already deleted in the mirror.
    pub user_is_gone: bool,
    /// What is on record about its deletion.
    pub state: AbsentState,
    /// `Some` if a first 404 is on record, or if a rate was absent from its user's list; true if a poll interval has passed
    /// since, so that another 404 counts.
    pub first_404_is_old: Option<bool>,
}

/// What a cycle learned about an absent record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observation {
    /// Its absence is not trustworthy, for this reason.
    Suspicious(HoldReason),
    /// Harvest answered its own 404 to the record's id, at this time by Harvest's clock.
    NotFound(DateTime<Utc>),
    /// Harvest answered 404 to the record's user or project.
    ParentNotFound,
    /// The record's user is recently created and had its first 404.
    ParentNotFoundOnce,
}

/// What to do with an absent record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Request it by id.
    Ask,
    Tombstone,
    /// Record its first 404, and request it again a poll interval later.
    RecordFirst404,
    /// Hold its deletion for review.
    Hold(HoldReason),
    Wait,
}

impl AbsentRecord {
    /// The action after an observation.
    ///
    /// Only a 404 leads to [`Action::Tombstone`]. A record that an administrator decided to keep is never deleted, and one
    /// whose deletion an administrator accepted is never held again.
    pub fn step(&self, seen: Observation) -> Action {
        match (self.state, seen) {
            (AbsentState::Kept, _) => Action::Wait,
            (AbsentState::Accepted, Observation::Suspicious(_)) => Action::Ask,
            (AbsentState::Held(held), Observation::Suspicious(reason)) if held == reason => Action::Wait,
            (_, Observation::Suspicious(reason)) => Action::Hold(reason),
            (_, Observation::ParentNotFound) | (AbsentState::Accepted, Observation::NotFound(_)) => {
                Action::Tombstone
            }
            (_, Observation::NotFound(now)) if !self.is_recently_created(now) => Action::Tombstone,
            (_, Observation::NotFound(_) | Observation::ParentNotFoundOnce) => match self.first_404_is_old {
                None => Action::RecordFirst404,
                Some(true) if seen != Observation::ParentNotFoundOnce => Action::Tombstone,
                Some(_) => Action::Wait,
            },
        }
    }

    /// Whether its first 404 is not enough. A record without a creation time counts as recently created.
    fn is_recently_created(&self, now: DateTime<Utc>) -> bool {
        self.created_at.is_none_or(|created| now - created < RECENTLY_CREATED)
    }
}

#[cfg(test)]
#[path = "missing_tests.rs"]
mod tests;
