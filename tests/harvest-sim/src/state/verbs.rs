//! How a company changes. Each verb takes the moment in which it happens.
//!
//! An id that is not there is a mistake of the test that uses it, so it panics and says which.

use std::fmt;

use serde_json::Map;

use super::company::Company;
use super::moment::Moment;
use super::records::{Assignment, AssignmentId, Project, ProjectId, User, UserId};

impl Company {
    pub(crate) fn hire(&mut self, first: &str, last: &str, moment: Moment) -> UserId {
        let id = self.users.add(moment.shows, |key| User {
            id: UserId(key),
            first_name: first.to_owned(),
            last_name: last.to_owned(),
            email: address(first, last),
            telephone: String::new(),
            timezone: "Eastern Time (US & Canada)".to_owned(),
            weekly_capacity: 126_000,
            has_access_to_all_future_projects: false,
            is_contractor: false,
            is_active: true,
            calendar_integration_source: None,
            default_hourly_rate: None,
            cost_rate: None,
            roles: Vec::new(),
            access_roles: vec!["member".to_owned()],
            avatar_url: format!("https://avatars.example.com/{key}.png"),
            extra: Map::new(),
            created_at: moment.now,
            updated_at: moment.now,
        });
        UserId(id)
    }

    pub(crate) fn edit_user(&mut self, id: UserId, moment: Moment, edit: impl FnOnce(&mut User)) {
        let mut roles = Vec::new();
        let found = self.users.edit(id.0, moment.shows, |user| {
            edit(user);
            moment.touch(&mut user.updated_at);
            roles.clone_from(&user.roles);
        });
        known(found.then_some(()), "person", id);
        self.adopt_roles(&roles, moment);
    }

    /// `administrator`, `manager` and `member` replace what was held; any other access role belongs to a
    /// manager and is added.
    pub(crate) fn promote(&mut self, id: UserId, access_role: &str, moment: Moment) {
        self.edit_user(id, moment, |user| match access_role {
            "administrator" | "manager" | "member" => user.access_roles = vec![access_role.to_owned()],
            _ => {
                if !user.has_access("manager") {
                    user.access_roles = vec!["manager".to_owned()];
                }
                if !user.has_access(access_role) {
                    user.access_roles.push(access_role.to_owned());
                }
            }
        });
    }

    /// Archives a person, and with them their active assignments.
    pub(crate) fn deactivate(&mut self, id: UserId, moment: Moment, assignments: Moment) {
        self.edit_user(id, moment, |user| user.is_active = false);
        for key in self.assignments.keys(|held| held.user == id) {
            if self.assignments.newest(key).is_some_and(|held| held.is_active) {
                self.edit_assignment(AssignmentId(key), assignments, |held| held.is_active = false);
            }
        }
    }

    /// Removes a person, their assignments and their rates, and leaves no trace.
    pub(crate) fn delete_user(&mut self, id: UserId, moment: Moment) {
        known(self.users.newest(id.0), "person", id);
        self.when_due(moment.shows, move |company| {
            company.users.remove(id.0);
            company.assignments.retain(|held| held.user != id);
            company.time.retain(|&(user, _)| user != id);
            company.billable_rates.remove(id);
            company.cost_rates.remove(id);
            company.teammates.remove(&id);
            for teammates in company.teammates.values_mut() {
                teammates.remove(&id);
            }
        });
    }

    pub(crate) fn set_teammates(
        &mut self,
        manager: UserId,
        teammates: impl IntoIterator<Item = UserId>,
        moment: Moment,
    ) {
        let teammates = teammates.into_iter().collect();
        self.when_due(moment.shows, move |company| {
            company.teammates.insert(manager, teammates);
        });
    }

    /// Makes the token's owner a manager who sees every second person: the demotion that does not show.
    pub(crate) fn demote_token(&mut self, moment: Moment) {
        let owner = self.token_owner();
        self.promote(owner, "manager", moment);
        let others: Vec<UserId> =
            self.users.rows().iter().map(User::id).filter(|&id| id != owner).step_by(2).collect();
        self.set_teammates(owner, others, moment);
    }

    pub(crate) fn new_project(&mut self, name: &str, code: Option<&str>, moment: Moment) -> ProjectId {
        let id = self.projects.add(moment.shows, |key| Project {
            id: ProjectId(key),
            name: name.to_owned(),
            code: code.map(str::to_owned),
            is_active: true,
            is_billable: true,
            client_id: 10_748_671,
            client_name: "Example Client".to_owned(),
            created_at: moment.now,
            updated_at: moment.now,
        });
        ProjectId(id)
    }

    pub(crate) fn edit_project(&mut self, id: ProjectId, moment: Moment, edit: impl FnOnce(&mut Project)) {
        let found = self.projects.edit(id.0, moment.shows, |project| {
            edit(project);
            moment.touch(&mut project.updated_at);
        });
        known(found.then_some(()), "project", id);
    }

    /// Removes a project and its assignments, and leaves no trace.
    pub(crate) fn delete_project(&mut self, id: ProjectId, moment: Moment) {
        known(self.projects.newest(id.0), "project", id);
        self.when_due(moment.shows, move |company| {
            company.projects.remove(id.0);
            company.assignments.retain(|held| held.project != id);
            company.time.retain(|&(_, project)| project != id);
        });
    }

    /// Puts a person on a project; managers and administrators lead it by default.
    pub(crate) fn assign(&mut self, user: UserId, project: ProjectId, moment: Moment) -> AssignmentId {
        known(self.projects.newest(project.0), "project", project);
        let leads = !known(self.users.newest(user.0), "person", user).has_access("member");
        let id = self.assignments.add(moment.shows, |key| Assignment {
            id: AssignmentId(key),
            user,
            project,
            is_project_manager: leads,
            is_active: true,
            use_default_rates: true,
            budget: None,
            hourly_rate: None,
            created_at: moment.now,
            updated_at: moment.now,
        });
        AssignmentId(id)
    }

    /// From then on neither the person nor their place on the project can be deleted.
    pub(crate) fn track_time(&mut self, user: UserId, project: ProjectId) {
        known(self.users.newest(user.0), "person", user);
        known(self.projects.newest(project.0), "project", project);
        self.time.insert((user, project));
    }

    pub(crate) fn edit_assignment(
        &mut self,
        id: AssignmentId,
        moment: Moment,
        edit: impl FnOnce(&mut Assignment),
    ) {
        let found = self.assignments.edit(id.0, moment.shows, |held| {
            edit(held);
            moment.touch(&mut held.updated_at);
        });
        known(found.then_some(()), "assignment", id);
    }

    pub(crate) fn delete_assignment(&mut self, id: AssignmentId, moment: Moment) {
        known(self.assignments.newest(id.0), "assignment", id);
        self.when_due(moment.shows, move |company| company.assignments.remove(id.0));
    }
}

/// `First.Last@example.com` in small letters, without what an address cannot hold.
pub(super) fn address(first: &str, last: &str) -> String {
    let plain = |name: &str| -> String {
        name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
    };
    let parts: Vec<String> = [first, last].map(plain).into_iter().filter(|part| !part.is_empty()).collect();
    if parts.is_empty() {
        return "somebody@example.com".to_owned();
    }
    format!("{}@example.com", parts.join("."))
}

#[expect(
    clippy::panic,
    reason = "a test that names a record which is not there is wrong and must hear of it"
)]
pub(super) fn known<T>(found: Option<T>, what: &str, id: impl fmt::Display) -> T {
    found.unwrap_or_else(|| panic!("there is no {what} {id} in this company"))
}
