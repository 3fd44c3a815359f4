//! One company: its tables, its token, and the few questions that are asked of it.

use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, Utc};

use super::moment::{Moment, Shows};
use super::rates::Rates;
use super::records::{Assignment, AssignmentId, Project, ProjectId, User, UserId};
use super::roles::Role;
use super::table::Table;
use crate::clock::Stamp;

/// The second in which every company begins: a fixed one, so that a seed always makes the same company.
pub(super) const BEGINNING: Stamp = Stamp::from_unix(1_536_850_854);

/// Everything one Harvest account holds. Made by [`Company::new`] or [`Company::seeded`], then given to
/// [`Sim::start`](crate::Sim::start), whose verbs change it.
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
    /// Who has tracked time on what.
    pub(super) time: BTreeSet<(UserId, ProjectId)>,
    /// What is to happen without leaving a version of a row behind, in the order of its ordering.
    deferred: Vec<(DateTime<Utc>, Act)>,
}

type Act = Box<dyn FnOnce(&mut Company) + Send + Sync>;

impl Default for Company {
    fn default() -> Self {
        Self::new()
    }
}

impl Company {
    /// A company of one: the administrator who owns the token.
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
            deferred: Vec::new(),
        };
        company.owner = company.hire("Alexandra", "Hamilton", Moment::at(BEGINNING));
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

    /// What `Harvest-Account-Id` must say.
    pub fn account_id(&self) -> i64 {
        self.account_id
    }

    /// The token that is let in.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Whose token it is.
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

    /// Also somebody who does not show yet: the assignments that do show name them.
    pub(crate) fn named_user(&self, id: UserId) -> Option<&User> {
        self.user(id).or_else(|| self.users.newest(id.0))
    }

    /// Also a project that does not show yet.
    pub(crate) fn named_project(&self, id: ProjectId) -> Option<&Project> {
        self.project(id).or_else(|| self.projects.newest(id.0))
    }

    /// Whether somebody has tracked time on something, of those pairs that are `wanted`.
    pub(crate) fn has_time(&self, wanted: impl Fn(UserId, ProjectId) -> bool) -> bool {
        self.time.iter().any(|&(user, project)| wanted(user, project))
    }

    pub(crate) fn teammates_of(&self, manager: UserId) -> Option<&BTreeSet<UserId>> {
        self.teammates.get(&manager)
    }

    /// Shows everything that was to show by `now`.
    pub(crate) fn surface(&mut self, now: DateTime<Utc>) {
        self.users.surface(now);
        self.projects.surface(now);
        self.assignments.surface(now);
        self.billable_rates.surface(now);
        self.cost_rates.surface(now);
        let mut due: Vec<_> = self.deferred.extract_if(.., |(from, _)| *from <= now).collect();
        due.sort_by_key(|&(from, _)| from);
        for (_, act) in due {
            act(self);
        }
    }

    /// Lets something happen when it shows. Until then what it is about may go, and `act` must bear that.
    pub(super) fn when_due(&mut self, shows: Shows, act: impl FnOnce(&mut Self) + Send + Sync + 'static) {
        match shows {
            Shows::AtOnce => act(self),
            Shows::From(from) => self.deferred.push((from, Box::new(act))),
        }
    }
}
