//! When a record that a full read did not show may be taken for deleted.
//!
//! A list that is short for any other reason (an outage, a token that lost rights, a walk that drifted) must not read
//! as "everybody left". So a missing record is only a *candidate*: it is asked for by id, and too many at once are for
//! a person to judge.

use chrono::{DateTime, TimeDelta, Utc};

/// A record younger than this may be unknown to one of Harvest's replicas: its first 404 is not believed.
const YOUTH: TimeDelta = TimeDelta::minutes(10);

/// How many deletions at once are too many.
#[derive(Clone, Copy, Debug)]
pub struct Guard {
    /// A share of the live rows, 0 to 1.
    pub fraction: f64,
    /// So many are never too many.
    pub at_least: u32,
}

impl Guard {
    /// Whether so many candidates of one list, of so many live rows, are for a person to judge: more than both bounds.
    #[expect(clippy::cast_precision_loss, reason = "no company has 2^52 people")]
    pub fn holds(&self, candidates: usize, live: u64) -> bool {
        candidates > self.at_least as usize && candidates as f64 > self.fraction * live as f64
    }
}

/// Why deletions wait for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Too many at once.
    Guard,
    /// The token's owner is no administrator and may simply not see them.
    NotAdministrator,
    /// The list was empty.
    EmptyList,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Guard, Self::NotAdministrator, Self::EmptyList];

    /// As `roster.held_deletions` and the logs name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Guard => "guard",
            Self::NotAdministrator => "not_administrator",
            Self::EmptyList => "empty_list",
        }
    }
}

/// A live record of the mirror that Harvest did not show.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its id.
    pub id: i64,
    /// When Harvest made it, by Harvest's clock.
    pub created_at: Option<DateTime<Utc>>,
    /// The user, for an assignment or a rate.
    pub user_id: Option<i64>,
    /// The project, for an assignment.
    pub project_id: Option<i64>,
    /// Whether that person is a tombstone already.
    pub user_is_gone: bool,
    /// Whether anybody has a say in it.
    pub standing: Standing,
    /// Harvest answered 404 once to a recently created record, or a rate was absent from its user's list; true when
    /// another 404 counts, a poll interval later.
    pub missed: Option<bool>,
}

/// Who has a say in a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nobody.
    Free,
    /// It waits for a person.
    Held(Reason),
    /// A person said that it may go.
    Accepted,
    /// A person said that it stays.
    Rejected,
}

/// What one more 404 by id makes of a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// It is deleted.
    Gone,
    /// It is too young for a first 404: to be asked for once more, a poll interval later.
    TooYoung,
    /// The same, and that was said before.
    StillTooYoung,
}

impl Candidate {
    /// Harvest answered its own 404; `now` by Harvest's clock. What has no date of birth counts as young; where a person
    /// has said that it may go, its youth is no question.
    pub fn one_more_404(&self, now: DateTime<Utc>) -> Miss {
        let young = self.created_at.is_none_or(|born| now - born < YOUTH);
        match self.missed {
            _ if !young || self.standing == Standing::Accepted => Miss::Gone,
            Some(true) => Miss::Gone,
            Some(false) => Miss::StillTooYoung,
            None => Miss::TooYoung,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_both_bounds_are_too_many() {
        let guard = Guard { fraction: 0.10, at_least: 5 };
        assert!(!guard.holds(5, 12), "five of twelve leave a small company without a question");
        assert!(guard.holds(6, 12));
        assert!(!guard.holds(50, 500));
        assert!(guard.holds(51, 500));
        assert!(!Guard { fraction: 1.0, at_least: 0 }.holds(7, 7), "a fraction of 1 never holds");
        assert!(Guard { fraction: 0.0, at_least: 0 }.holds(1, 7), "zeros hold everything");
    }

    #[test]
    fn the_young_need_a_second_404() {
        let now = DateTime::from_timestamp(1_700_000_000, 0).expect("a time");
        let candidate = |age: Option<i64>, standing, missed| Candidate {
            id: 1,
            created_at: age.map(|minutes| now - TimeDelta::minutes(minutes)),
            user_id: None,
            project_id: None,
            user_is_gone: false,
            standing,
            missed,
        };
        let miss = |age, standing, missed| candidate(age, standing, missed).one_more_404(now);
        assert_eq!(miss(Some(10), Standing::Free, None), Miss::Gone);
        assert_eq!(miss(Some(9), Standing::Free, None), Miss::TooYoung);
        assert_eq!(miss(Some(-50), Standing::Free, None), Miss::TooYoung, "born in the future");
        assert_eq!(miss(None, Standing::Held(Reason::Guard), None), Miss::TooYoung);
        assert_eq!(miss(Some(9), Standing::Free, Some(false)), Miss::StillTooYoung);
        assert_eq!(miss(Some(9), Standing::Free, Some(true)), Miss::Gone);
        assert_eq!(miss(None, Standing::Accepted, None), Miss::Gone, "a person has judged");
    }
}
