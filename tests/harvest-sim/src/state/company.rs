//! One company: its tables and its token.

use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, Utc};

use super::moment::{Moment, VisibleFrom};
use super::rates::Rates;
use super::records::{Assignment, AssignmentId, Project, ProjectId, User, UserId};
use super::roles::Role;
use super::table::Table;
use crate::clock::Timestamp;

/// The creation time of every company. It is constant, so that a seed always generates the same company.
pub(super) const BEGINNING: Timestamp = Timestamp::from_unix(1_536_850_854);

/// The data of one Harvest account. Pass it to [`Sim::start`](crate::Sim::start); the functions of
/// [`Sim`](crate::Sim) change it.
pub struct Company {
    account_id: i64,
    name: String,
    token: String,
    owner: UserId,
    pub(super) users: Table<User>,
    pub(super) projects: Table<Project>,
    pub(super) assignments: Table<Assignment>,
    pub(super) billable_rates: Rates,
    pub(super) cost_rates: Rates,
    pub(super) roles: Table<Role>,
    pub(super) teammates: HashMap<UserId, BTreeSet<UserId>>,
    /// The pairs of user and project that have time entries. They prevent deletion.
    pub(super) time: BTreeSet<(UserId, ProjectId)>,
    /// The e-mail addresses to which Harvest sent an invitation, in order.
    pub(super) invitations: Vec<String>,
    /// Pending changes that are not versions of a row, such as deletions, in the order in which they were made.
    deferred: Vec<(DateTime<Utc>, Action)>,
}

type Action = Box<dyn FnOnce(&mut Company) + Send + Sync>;

impl Default for Company {
    fn default() -> Self {
        Self::new()
    }
}

impl Company {
    /// A company with one user: the administrator who owns the token.
    pub fn new() -> Self {
        let mut company = Self {
            account_id: 123_456,
            name: "Example Works".to_owned(),
            token: "2348607.pt.not-a-real-token".to_owned(),
            owner: UserId(0),
            users: Table::starting_at(2_348_607),
            projects: Table::starting_at(19_919_747),
            assignments: Table::starting_at(286_326_474),
            billable_rates: Rates::starting_at(1_836_493),
            cost_rates: Rates::starting_at(825_301),
            roles: Table::starting_at(617_630),
            teammates: HashMap::new(),
            time: BTreeSet::new(),
            invitations: Vec::new(),
            deferred: Vec::new(),
        };
        company.owner = company.create_user("Alexandra", "Hamilton", Moment::at(BEGINNING));
        company.promote(company.owner, "administrator", Moment::at(BEGINNING));
        company
    }

    /// The same company under another account id.
    #[must_use]
    pub fn with_account_id(self, account_id: i64) -> Self {
        Self { account_id, ..self }
    }

    /// The same company with another token.
    #[must_use]
    pub fn with_token(self, token: impl Into<String>) -> Self {
        Self { token: token.into(), ..self }
    }

    /// The same company under another name.
    #[must_use]
    pub fn with_name(self, name: impl Into<String>) -> Self {
        Self { name: name.into(), ..self }
    }

    /// The value of `Harvest-Account-Id`.
    pub fn account_id(&self) -> i64 {
        self.account_id
    }

    /// The personal access token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The user who owns the token.
    pub fn token_owner(&self) -> UserId {
        self.owner
    }

    /// The company's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn users(&self) -> &Table<User> {
        &self.users
    }

    pub(crate) fn projects(&self) -> &Table<Project> {
        &self.projects
    }

    pub(crate) fn assignments(&self) -> &Table<Assignment> {
        &self.assignments
    }

    pub(crate) fn user(&self, id: UserId) -> Option<&User> {
        self.users.get(id.0)
    }

    pub(crate) fn project(&self, id: ProjectId) -> Option<&Project> {
        self.projects.get(id.0)
    }

    pub(crate) fn assignment(&self, id: AssignmentId) -> Option<&Assignment> {
        self.assignments.get(id.0)
    }

    /// The visible user, or else the pending one: a visible assignment names its user even if the user is pending.
    pub(crate) fn named_user(&self, id: UserId) -> Option<&User> {
        self.user(id).or_else(|| self.users.newest(id.0))
    }

    /// The visible project, or else the pending one.
    pub(crate) fn named_project(&self, id: ProjectId) -> Option<&Project> {
        self.project(id).or_else(|| self.projects.newest(id.0))
    }

    /// Whether a pair of user and project for which `wanted` is true has time entries.
    pub(crate) fn has_time(&self, wanted: impl Fn(UserId, ProjectId) -> bool) -> bool {
        self.time.iter().any(|&(user, project)| wanted(user, project))
    }

    pub(crate) fn invitations(&self) -> &[String] {
        &self.invitations
    }

    pub(crate) fn teammates_of(&self, manager: UserId) -> Option<&BTreeSet<UserId>> {
        self.teammates.get(&manager)
    }

    /// Applies the changes that are due at `now`.
    pub(crate) fn apply_pending(&mut self, now: DateTime<Utc>) {
        self.users.apply_pending(now);
        self.projects.apply_pending(now);
        self.assignments.apply_pending(now);
        self.billable_rates.apply_pending(now);
        self.cost_rates.apply_pending(now);
        let mut due: Vec<_> = self.deferred.extract_if(.., |(due, _)| *due <= now).collect();
        due.sort_by_key(|&(due, _)| due);
        for (_, action) in due {
            action(self);
        }
    }

    /// Runs `action` when it is due. The record may be deleted before that, so `action` must accept a missing record.
    pub(super) fn when_due(
        &mut self,
        visible_from: VisibleFrom,
        action: impl FnOnce(&mut Self) + Send + Sync + 'static,
    ) {
        match visible_from {
            VisibleFrom::Now => action(self),
            VisibleFrom::Time(due) => self.deferred.push((due, Box::new(action))),
        }
    }
}
